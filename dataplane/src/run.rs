//! `nke run`: a configuration, carried out until a signal comes; and the verbs of the control socket.

use std::path::Path;
use std::time::Duration;

use nke_filters::{ArgValue, Args, AttachId, Cookie};
use serde_json::{Value, json};

use crate::affinity;
use crate::assemble::{Assembly, assemble};
use crate::config::{Config, ethertype};
use crate::control::{Failure, Handler, Limits, Peer, Server};
use crate::control_handle::{AttachSpec, Control};
use crate::error::Error;
use crate::signals::Signals;
use crate::snapshot::Directions;
use crate::views::View;

/// How long a request may take before its answer is "not finished yet".
const PATIENCE: Duration = Duration::from_secs(10);

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure {
            id: e.id().to_owned(),
            message: e.detail().to_owned(),
            cause: e.cause().to_owned(),
            cure: e.cure().to_owned(),
        }
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Error {
        Error::new(&f.id, f.message).because(f.cause, f.cure)
    }
}

/// Runs until SIGINT or SIGTERM. Everything is given back before it returns.
pub fn run(config: &Config) -> Result<(), Error> {
    let signals = Signals::block().map_err(|e| Error::new("NKE-RT-005", e.to_string()))?;
    // Before any thread is made: they inherit it. Workers pin themselves.
    if let Err(e) = affinity::avoid(config.runtime.cores.as_ref()) {
        eprintln!("nke: other threads may share a core with a worker: {e}");
    }
    let mut assembly = assemble(config)?;
    let socket = Path::new(&config.runtime.socket);
    let handler = Verbs { control: assembly.runtime.control() };
    let server = Server::start(socket, Box::new(handler), Limits::default()).map_err(Error::from)?;
    assembly.go()?;
    announce(&assembly, socket);
    signals.wait();
    server.stop();
    let account = assembly.stop();
    eprintln!(
        "nke: stopped; {} of {} frames home, {} entries on the ledger",
        account.free, account.capacity, account.outstanding
    );
    Ok(())
}

fn announce(assembly: &Assembly, socket: &Path) {
    let shared = assembly.runtime.shared();
    for ifnet in shared.interfaces.iter() {
        let identity = ifnet.identity();
        let facts: Vec<_> = identity.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
        eprintln!("nke: interface {}: {} {}", ifnet.name(), identity.params.kind, facts.join(", "));
    }
    eprintln!("nke: running, {} worker(s); control socket {}", shared.workers.len(), socket.display());
}

/// What the control socket answers.
struct Verbs {
    control: Control,
}

impl Handler for Verbs {
    fn is_read(&self, verb: &str) -> bool {
        verb == "show"
    }

    fn call(&self, verb: &str, args: &Value, _: &Peer) -> Result<Value, Failure> {
        match verb {
            "show" => self.show(args),
            "attach" => self.attach(args),
            "detach" => self.detach(args),
            _ => Err(bad_request(format!("verb {verb:?} is not known"))),
        }
        .map_err(Failure::from)
    }
}

fn bad_request(detail: impl Into<String>) -> Error {
    Error::new("NKE-CTL-BAD-REQUEST", detail)
}

impl Verbs {
    fn show(&self, args: &Value) -> Result<Value, Error> {
        let name = args["what"].as_str().unwrap_or_default();
        let view =
            View::named(name).ok_or_else(|| bad_request(format!("nothing to show is called {name:?}")))?;
        Ok(self.control.view(view)?.wait(PATIENCE)?)
    }

    fn attach(&self, args: &Value) -> Result<Value, Error> {
        let text = |key: &str| args[key].as_str().ok_or_else(|| bad_request(format!("`{key}` is not text")));
        let mut spec = AttachSpec::kind(text("kind")?, text("port")?);
        spec.directions = match args["direction"].as_str().unwrap_or("both") {
            "input" => Directions::INPUT,
            "output" => Directions::OUTPUT,
            "both" => Directions::BOTH,
            other => return Err(bad_request(format!("direction {other:?}: input, output or both"))),
        };
        if let Some(name) = args["protocol"].as_str() {
            let known =
                ethertype(name).ok_or_else(|| bad_request(format!("protocol {name:?} is not known")))?;
            spec.protocol = Some(known);
        }
        spec.cookie = Cookie(args["cookie"].as_u64().unwrap_or(0));
        if let Some(given) = args["args"].as_object() {
            let value = |v: &Value| match v {
                Value::String(text) => Some(ArgValue::Text(text.clone())),
                Value::Bool(on) => Some(ArgValue::Switch(*on)),
                Value::Number(n) => n.as_i64().map(ArgValue::Number),
                _ => None,
            };
            let pair = |(name, v): (&String, &Value)| {
                value(v).map(|v| (name.clone(), v)).ok_or_else(|| bad_request(format!("argument `{name}`")))
            };
            spec.args = Args(given.iter().map(pair).collect::<Result<_, _>>()?);
        }
        let id = self.control.attach(spec)?.wait(PATIENCE)?;
        Ok(json!({ "id": id.0 }))
    }

    fn detach(&self, args: &Value) -> Result<Value, Error> {
        let id = args["id"].as_u64().and_then(|n| u32::try_from(n).ok());
        let id = id.ok_or_else(|| bad_request("`id` is not a number"))?;
        let report = self.control.detach(AttachId(id))?.wait(PATIENCE)?;
        serde_json::to_value(report).map_err(|e| bad_request(e.to_string()))
    }
}
