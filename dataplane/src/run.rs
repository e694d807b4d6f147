//! `nke run`: a configuration, carried out until a signal comes; and the verbs of the control socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nke_filters::AttachId;
use serde_json::{Value, json};
use toml::Spanned;

use crate::affinity;
use crate::assemble::{Assembly, assemble};
use crate::config::{self, Arg, Config, Filter};
use crate::control::{Failure, Handler, Limits, Peer, Server};
use crate::control_handle::Control;
use crate::error::Error;
use crate::running::{Edit, Running, all_of};
use crate::signals::Signals;
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
    let control = assembly.runtime.control();
    let filters = std::mem::take(&mut assembly.filters);
    let running = Mutex::new(Running::new(control.clone(), config.clone(), filters));
    let handler = Verbs { control, running };
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
    running: Mutex<Running>,
}

impl Handler for Verbs {
    fn is_read(&self, verb: &str) -> bool {
        matches!(verb, "show" | "figures" | "paths")
    }

    fn call(&self, verb: &str, args: &Value, _: &Peer) -> Result<Value, Failure> {
        match verb {
            "show" => self.show(args),
            "figures" => self.figures(args),
            "paths" => self.paths(args),
            "attach" => self.attach(args),
            "detach" => self.detach(args),
            "add" | "replace" | "del" => self.change(|running| running.edit(&Edit::of(verb, args)?)),
            "set" => self.set(args),
            "apply" => self.apply(args),
            "config" => self.running().config().map(|config| json!({ "config": config.to_toml() })),
            _ => Err(bad_request(format!("verb {verb:?} is not known"))),
        }
        .map_err(Failure::from)
    }
}

fn bad_request(detail: impl Into<String>) -> Error {
    Error::new("NKE-CTL-BAD-REQUEST", detail)
}

fn id(args: &Value) -> Result<AttachId, Error> {
    let id = args["id"].as_u64().and_then(|n| u32::try_from(n).ok());
    Ok(AttachId(id.ok_or_else(|| bad_request("`id` is not a number"))?))
}

impl Verbs {
    /// Changes are carried out one after the other.
    fn running(&self) -> MutexGuard<'_, Running> {
        // A panic between two steps leaves what was done noted.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Running) -> Result<Vec<String>, Error>,
    ) -> Result<Value, Error> {
        change(&mut self.running()).map(|lines| json!({ "changes": lines }))
    }

    fn show(&self, args: &Value) -> Result<Value, Error> {
        let name = args["what"].as_str().unwrap_or_default();
        let mut view =
            View::named(name).ok_or_else(|| bad_request(format!("nothing to show is called {name:?}")))?;
        if let Some(to) = args["to"].as_str() {
            let address = to.parse().ok().filter(|_| view == View::Routes);
            view = View::RouteTo(address.ok_or_else(|| bad_request("`to` is an address, of `routes`"))?);
        }
        Ok(self.control.view(view)?.wait(PATIENCE)?)
    }

    fn attach(&self, args: &Value) -> Result<Value, Error> {
        let text = |key: &str| args[key].as_str().ok_or_else(|| bad_request(format!("`{key}` is not text")));
        let spanned = |text: &str| Spanned::new(0..0, text.to_owned());
        let direction = match args["direction"].as_str().unwrap_or("both") {
            "input" => config::Direction::Input,
            "output" => config::Direction::Output,
            "both" => config::Direction::Both,
            other => return Err(bad_request(format!("direction {other:?}: input, output or both"))),
        };
        let protocol = args["protocol"].as_str();
        if let Some(name) = protocol.filter(|name| config::ethertype(name).is_none()) {
            return Err(bad_request(format!("protocol {name:?} is not known")));
        }
        let mut filter = Filter {
            kind: text("kind")?.to_owned(),
            port: spanned(text("port")?),
            direction,
            protocol: protocol.map(spanned),
            cookie: args["cookie"].as_u64().unwrap_or(0),
            args: BTreeMap::new(),
        };
        for (name, value) in args["args"].as_object().into_iter().flatten() {
            let value = match value {
                Value::String(text) => Some(Arg::Text(text.clone())),
                Value::Bool(on) => Some(Arg::Switch(*on)),
                Value::Number(n) => n.as_i64().map(Arg::Number),
                _ => None,
            };
            let value = value.ok_or_else(|| bad_request(format!("argument `{name}`")))?;
            filter.args.insert(name.clone(), value);
        }
        let id = self.running().attach(&filter)?;
        Ok(json!({ "id": id.0 }))
    }

    fn paths(&self, args: &Value) -> Result<Value, Error> {
        Ok(self.control.paths(id(args)?)?.wait(PATIENCE)?)
    }

    fn figures(&self, args: &Value) -> Result<Value, Error> {
        Ok(json!(self.control.figures(id(args)?)?.wait(PATIENCE)?))
    }

    fn detach(&self, args: &Value) -> Result<Value, Error> {
        let report = self.running().detach(id(args)?)?;
        serde_json::to_value(report).map_err(|e| bad_request(e.to_string()))
    }

    /// MTU and state of an interface. Of a virtual one the configuration keeps them.
    fn set(&self, args: &Value) -> Result<Value, Error> {
        let name = args["interface"].as_str().ok_or_else(|| bad_request("`interface` is not text"))?;
        let mtu = match &args["mtu"] {
            Value::Null => None,
            mtu => {
                let mtu = mtu.as_u64().and_then(|n| u32::try_from(n).ok());
                Some(mtu.ok_or_else(|| bad_request("`mtu` is not a number"))?)
            }
        };
        self.change(|running| running.set(name, mtu, args["up"].as_bool()))
    }

    /// A whole configuration; with `dry` only what would change is told.
    fn apply(&self, args: &Value) -> Result<Value, Error> {
        let text = args["config"].as_str().ok_or_else(|| bad_request("`config` is not text"))?;
        let new = Config::parse(text, "the configuration").map_err(|complaints| all_of(&complaints))?;
        let dry = args["dry"].as_bool().unwrap_or(false);
        self.change(|running| if dry { running.difference(&new) } else { running.apply(&new) })
    }
}
