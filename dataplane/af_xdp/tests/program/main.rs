//! The XDP programs: the verifier takes them, they select what they should, they attach and let go, they count. Needs
//! root; see `common`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod attach;
#[path = "../common/mod.rs"]
mod common;
mod frames;
mod generate;
mod select;
mod shortcut;
mod traffic;
mod transit;

use std::process::Command;
use std::time::{Duration, Instant};

use af_xdp::Error;
use af_xdp::program::{LiveSource, Match, ProgramConfig, Rate, Redirect, Selection};

const PATIENCE: Duration = Duration::from_secs(20);

fn load(matches: &[Match], frags: bool) -> Redirect {
    let selection = Selection::Any(matches.to_vec());
    Redirect::load(&ProgramConfig { selection, frags, queues: 4 })
        .unwrap_or_else(|e| panic!("{matches:?}: {e}"))
}

fn refusal<T>(result: Result<T, Error>) -> Error {
    let error = result.err().expect("a refusal");
    assert!(!error.cause().is_empty() && !error.cure().is_empty(), "{error}");
    error
}

fn shown(ns: &str, device: &str) -> String {
    let out = Command::new("ip").args(["-n", ns, "-d", "link", "show", "dev", device]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn shows_program(ns: &str, device: &str) -> bool {
    shown(ns, device).contains("prog/xdp")
}

/// Waits for what the kernel does a moment later.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never holds: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends in small runs and waits for each: a veth queue holds 256 frames.
fn send_all(source: &LiveSource, frames: u64, mut arrived: impl FnMut() -> u64) {
    let before = arrived();
    let mut sent = 0;
    while sent < frames {
        sent += source.run((frames - sent).min(128) as u32, 64, Rate::Flood).unwrap().sent;
        eventually("all arrive", || arrived() >= before + sent);
    }
    assert_eq!((arrived(), sent), (before + frames, frames));
}
