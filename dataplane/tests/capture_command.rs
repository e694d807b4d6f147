//! `nke capture` and `nke trace` against a running dataplane with ports in memory. No privilege needed.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
#![allow(dead_code, reason = "the common part is for tests with devices, too")]

mod common;

use std::process::{Command, Stdio};

use common::*;
use nke_dataplane::pcapfile::Reader;
use serde_json::{Value, json};

/// A source and a sink, on a wire.
const PORTS: &str = r#"
[[port]]
name = "a"
kind = "memory"
role = "source"
[[port]]
name = "b"
kind = "memory"
role = "sink"
[[wire]]
a = "a"
b = "b"
"#;

fn records(file: &std::path::Path) -> usize {
    let mut reader = Reader::open(file).unwrap();
    std::iter::from_fn(|| reader.next_record().unwrap()).count()
}

#[test]
fn it_ends_by_count_by_time_and_by_signal() {
    let nke = Nke::start(PORTS);
    let file = |name: &str| nke.directory.join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    // By count.
    let out = nke.cli(&["capture", "a", "-w", &path("count"), "-c", "500", "--json"]);
    assert!(out.status.success(), "{out:?}");
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&said["figures"]["captured"], &said["file"]), (&json!(500), &json!(path("count"))));
    assert_eq!(records(&file("count")), 500);
    // By time: nothing matches.
    let out = nke.cli(&["capture", "b", "-w", &path("time"), "--match", "arp", "--seconds", "0.3"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.starts_with("0 packets in") && said.ends_with("0 missed\n"), "{said}");
    // The file is there now.
    let again = nke.cli(&["capture", "b", "-w", &path("time"), "--seconds", "0.3"]);
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("exists"),
        "{again:?}"
    );
    assert!(nke.cli(&["capture", "b", "-w", &path("time"), "-c", "1", "--overwrite"]).status.success());
    // By a signal: it is detached all the same.
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_nke"));
    waiting.arg("--socket").arg(file("s")).args(["capture", "drops", "-w", &path("drops"), "--json"]);
    let child = waiting.stdout(Stdio::piped()).spawn().unwrap();
    until("it is attached", || (!nke.show("filters").as_array().unwrap().is_empty()).then_some(()));
    assert_eq!(nke.show("filters")[0]["interface"], "path");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said["figures"]["captured"], records(&file("drops")) as u64);
    assert_eq!(nke.show("filters"), json!([]));
    nke.stop();
}

#[test]
fn a_trace_shows_the_way_over_the_wire() {
    let nke = Nke::start(PORTS);
    let out = nke.cli(&["trace", "-c", "200", "--json"]);
    assert!(out.status.success(), "{out:?}");
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&said["figures"]["packets"], &said["figures"]["missed"]), (&json!(200), &json!(0)));
    let stages: Vec<_> = said["paths"][0]["stages"].as_array().unwrap().iter().map(|s| &s["stage"]).collect();
    assert_eq!(stages, ["input a", "output b", "transmit b"]);
    assert_eq!((&said["paths"][0]["packets"], &said["paths"][1]), (&json!(200), &Value::Null));
    // As text, with nothing to show.
    let out = nke.cli(&["trace", "--match", "arp", "--seconds", "0.3"]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "0 packets followed, 0 of their stages missed\n");
    assert_eq!(nke.show("filters"), json!([]));
    nke.stop();
}
