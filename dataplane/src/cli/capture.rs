//! `nke capture` and `nke trace`: attach the extension, wait, detach it, and say what became of it.

use std::path::absolute;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::args::{CaptureArgs, Cli};
use super::output::{print, print_json};
use super::render;
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
    let mut given = what_and_when(args.expression.as_deref(), args.seconds);
    given.insert("file".into(), json!(file));
    given.insert("packets".into(), json!(args.count));
    given.insert("bytes".into(), json!(args.bytes));
    given.insert("snaplen".into(), json!(args.snaplen));
    given.insert("overwrite".into(), json!(args.overwrite));
    if let Some(hook) = &args.hook {
        given.insert("hook".into(), json!(hook));
    }
    let port = if args.place == "drops" { "path" } else { &args.place };
    let request = json!({
        "kind": "capture", "port": port, "direction": args.direction.name(), "cookie": 0, "args": given,
    });
    let (watched, _) = watch(cli, request, args.seconds, false)?;
    if args.json {
        print_json(&json!({ "file": file, "figures": watched }));
    } else {
        let figure = |name: &str| watched[name].as_u64().unwrap_or(0);
        let (captured, missed) = (figure("captured"), figure("missed"));
        print(&format!("{captured} packets in {}; {missed} missed\n", file.display()));
    }
    Ok(())
}

/// Carries the command out.
pub(super) fn trace(
    cli: &Cli,
    expression: Option<&str>,
    count: u32,
    time: Option<Duration>,
) -> Result<(), Error> {
    let mut given = what_and_when(expression, time);
    given.insert("packets".into(), json!(count));
    let request = json!({ "kind": "trace", "port": "path", "cookie": 0, "args": given });
    let (figures, paths) = watch(cli, request, time, true)?;
    if cli.json() {
        print_json(&json!({ "paths": paths, "figures": figures }));
    } else {
        print(&render::paths(&paths));
        print(&format!(
            "{} packets followed, {} of their stages missed\n",
            figures["packets"], figures["missed"]
        ));
    }
    Ok(())
}

fn what_and_when(expression: Option<&str>, time: Option<Duration>) -> Map<String, Value> {
    let mut given = Map::new();
    if let Some(expression) = expression {
        given.insert("match".into(), json!(expression));
    }
    if let Some(time) = time {
        // Should we be killed: it ends all the same.
        given.insert("seconds".into(), json!(time.as_secs() + 2));
    }
    given
}

/// Attaches, waits until it is complete, for `time`, or for a signal, and detaches. Its figures at the end, and the ways of
/// packets before, if asked for.
fn watch(cli: &Cli, request: Value, time: Option<Duration>, paths: bool) -> Result<(Value, Value), Error> {
    // Before it is attached: a signal from now on ends the wait, and the rest is done all the same.
    let signals = Signals::block().map_err(|e| Error::new("NKE-RT-005", e.to_string()))?;
    let mut client = Client::connect(cli.socket())?;
    let begin = Instant::now();
    let id = client.call("attach", request)?["id"].clone();
    let id = json!({ "id": id });
    loop {
        let left = time.map_or(LOOK, |time| time.saturating_sub(begin.elapsed()).min(LOOK));
        if left.is_zero() || signals.wait_for(left).is_some() {
            break;
        }
        if client.call("figures", id.clone())?["complete"] == json!(1) {
            break;
        }
    }
    let mut ways = Value::Null;
    if paths {
        // The last ones are under way yet.
        std::thread::sleep(LOOK);
        ways = client.call("paths", id.clone())?;
    }
    let mut report = client.call("detach", id)?;
    Ok((report["figures"].take(), ways))
}
