//! A network namespace for a test, removed at its end however it ends.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nke_rtnl::{Config, Follower};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Netns {
    pub name: String,
}

impl Netns {
    /// An empty namespace with `lo` up; `None`, and a word about it, without root.
    pub fn new() -> Option<Netns> {
        // SAFETY: nothing is passed.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: needs root");
            return None;
        }
        let name = format!("nke-rtnl-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&["netns", "add", &name]);
        let netns = Netns { name };
        netns.ip("link set lo up");
        Some(netns)
    }

    /// A namespace with the veth pair `a0`, `a1`, both up, without link-local addresses, which come in their own time.
    pub fn with_pair() -> Option<Netns> {
        let netns = Netns::new()?;
        netns.ip("link add a0 type veth peer name a1");
        for device in ["a0", "a1"] {
            netns.ip(&format!("link set {device} addrgenmode none"));
            netns.ip(&format!("link set {device} up"));
        }
        Some(netns)
    }

    /// Runs `ip` with these words, which must succeed.
    pub fn ip(&self, words: &str) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(words.split_whitespace());
        run(&all)
    }

    /// Runs lines of `ip -batch`, going on when one fails.
    pub fn batch(&self, lines: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("ip runs");
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip reads");
        child.wait().expect("ip ends");
    }

    /// Runs `body` on a thread in the namespace.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
                // SAFETY: no memory is passed; only this thread changes namespace.
                assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub fn follower(&self, config: Config) -> Follower {
        self.inside(|| Follower::new(config).expect("a follower"))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(words: &[&str]) -> String {
    let output = Command::new("ip").args(words).output().expect("ip of iproute2 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {said}", words.join(" "));
    String::from_utf8(output.stdout).expect("text")
}
