//! What end-to-end tests share: a running `nke run`, and patience.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nke_dataplane::control::Client;
use nke_dataplane::lab::ip;
use serde_json::{Value, json};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the test can run; says so if not.
pub fn able(tools: &[&str]) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap().split_whitespace().nth(1).unwrap();
    if uid != "0" {
        println!("skipped: needs root");
        return false;
    }
    for tool in tools {
        if Command::new(tool).arg("-V").output().is_err()
            && Command::new(tool).arg("--version").output().is_err()
        {
            println!("skipped: needs {tool}");
            return false;
        }
    }
    true
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that does not outlive the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `nke run`.
pub struct Nke {
    pub process: Running,
    pub directory: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Nke {
    pub fn command(ports: &str, directory: &PathBuf) -> Command {
        fs::create_dir_all(directory).unwrap();
        let config = format!("[runtime]\nsocket = \"{}\"\n{ports}", directory.join("s").display());
        fs::write(directory.join("nke.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nke"));
        command.args(["run", "-c"]).arg(directory.join("nke.toml"));
        command
    }

    pub fn directory() -> PathBuf {
        std::env::temp_dir().join(format!(
            "nke-e2e-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ))
    }

    pub fn start(ports: &str) -> Nke {
        let directory = Nke::directory();
        let mut command = Nke::command(ports, &directory);
        let said = fs::File::create(directory.join("stderr")).unwrap();
        let child = command.stderr(said).spawn().unwrap();
        let mut nke = Nke { process: Running(child), directory };
        until("nke answers", || {
            if let Some(status) = nke.process.0.try_wait().unwrap() {
                panic!("nke ended with {status}: {}", nke.said());
            }
            Client::connect(&nke.directory.join("s")).ok().map(drop)
        });
        nke
    }

    pub fn call(&self, verb: &str, args: Value) -> Value {
        let mut client = Client::connect(&self.directory.join("s")).unwrap();
        client.call(verb, args).unwrap_or_else(|e| panic!("{verb}: {e:?}"))
    }

    pub fn show(&self, what: &str) -> Value {
        self.call("show", json!({ "what": what }))
    }

    /// The `nke` command against this dataplane.
    pub fn cli(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_nke"))
            .arg("--socket")
            .arg(self.directory.join("s"))
            .args(words)
            .output()
            .unwrap()
    }

    /// What it wrote to standard error.
    pub fn said(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap()
    }

    pub fn drops(&self) -> Vec<(String, u64)> {
        let rows = self.show("drops");
        let row = |r: &Value| (r["reason"].as_str().unwrap().to_owned(), r["packets"].as_u64().unwrap());
        rows.as_array().unwrap().iter().map(row).collect()
    }

    /// Ends it with SIGTERM; everything must be home.
    pub fn stop(mut self) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.process.0.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!self.directory.join("s").exists(), "the socket is gone");
        let said = self.said();
        let last: Vec<_> = said.lines().last().unwrap_or_default().split_whitespace().collect();
        let ["nke:", "stopped;", free, "of", capacity, "frames", "home,", entries, ..] = last[..] else {
            panic!("no account at the end: {said}");
        };
        assert_eq!((free, entries), (capacity, "0"), "every frame is home, nothing is on the ledger");
    }
}

impl Drop for Nke {
    fn drop(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether an XDP program is on a device.
pub fn has_xdp(ns: &str, device: &str) -> bool {
    let out = ip(&["-n", ns, "link", "show", "dev", device]).unwrap();
    String::from_utf8_lossy(&out.stdout).contains("xdp")
}
