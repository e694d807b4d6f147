//! `nke capture`: attaches the extension, waits, detaches it, and says what became of it.

use std::path::absolute;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::args::{CaptureArgs, Cli};
use super::output::{print, print_json};
use crate::control::Client;
use crate::error::Error;
use crate::signals::Signals;

/// Between looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Carries the command out.
pub(super) fn capture(cli: &Cli, args: &CaptureArgs) -> Result<(), Error> {
    let system = |e: std::io::Error| Error::new("NKE-RT-005", e.to_string());
    // The dataplane is somewhere else.
    let file = absolute(&args.write).map_err(system)?;
    let mut given = Map::new();
    given.insert("file".into(), json!(file));
    given.insert("packets".into(), json!(args.count));
    given.insert("bytes".into(), json!(args.bytes));
    given.insert("snaplen".into(), json!(args.snaplen));
    given.insert("overwrite".into(), json!(args.overwrite));
    if let Some(expression) = &args.expression {
        given.insert("match".into(), json!(expression));
    }
    if let Some(hook) = &args.hook {
        given.insert("hook".into(), json!(hook));
    }
    if let Some(time) = args.seconds {
        // Should we be killed: it ends all the same.
        given.insert("seconds".into(), json!(time.as_secs() + 2));
    }
    let port = if args.place == "drops" { "path" } else { &args.place };
    let request = json!({
        "kind": "capture", "port": port, "direction": args.direction.name(), "cookie": 0, "args": given,
    });
    let watched = watch(cli, request, args.seconds)?;
    if args.json {
        print_json(&json!({ "file": file, "figures": watched }));
    } else {
        let figure = |name: &str| watched[name].as_u64().unwrap_or(0);
        let (captured, matched, missed) = (figure("captured"), figure("matched"), figure("missed"));
        print(&format!(
            "{captured} packets in {}, of {matched} that matched; {missed} missed\n",
            file.display()
        ));
    }
    Ok(())
}

/// Attaches, waits until it is complete, for `seconds`, or for a signal, and detaches; its figures at the end.
fn watch(cli: &Cli, request: Value, time: Option<Duration>) -> Result<Value, Error> {
    // Before it is attached: a signal from now on ends the wait, and the rest is done all the same.
    let signals = Signals::block().map_err(|e| Error::new("NKE-RT-005", e.to_string()))?;
    let mut client = Client::connect(cli.socket())?;
    let begin = Instant::now();
    let id = client.call("attach", request)?["id"].clone();
    loop {
        let left = time.map_or(LOOK, |time| time.saturating_sub(begin.elapsed()).min(LOOK));
        if left.is_zero() || signals.wait_for(left).is_some() {
            break;
        }
        if client.call("figures", json!({ "id": id }))?["complete"] == json!(1) {
            break;
        }
    }
    let mut report = client.call("detach", json!({ "id": id }))?;
    Ok(report["figures"].take())
}
