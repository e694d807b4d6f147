//! Veth pairs in network namespaces of the test's own, gone afterwards whatever happens.
#![allow(clippy::unwrap_used, dead_code, reason = "shared by tests that use different parts")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether the test can run; says so if not.
pub fn root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let euid =
        status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap().split_whitespace().nth(1).unwrap();
    if euid != "0" {
        println!("skipped: needs root");
    }
    euid == "0"
}

/// Two namespaces, `a` and `b`, joined by `pairs` veth pairs a0-b0, a1-b1, ... with `queues` queues each.
pub struct Lab {
    pub a: String,
    pub b: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn ip(args: &str) {
    let out = Command::new("ip").args(args.split_whitespace()).output().expect("ip");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Lab {
    pub fn new(pairs: u32, queues: u32, mtu: u32) -> Lab {
        let stem = format!("nkx{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { a: format!("{stem}a"), b: format!("{stem}b") };
        for ns in [&lab.a, &lab.b] {
            ip(&format!("netns add {ns}"));
            // No router solicitations between the frames that are counted.
            let off = "net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
            let args = format!("netns exec {ns} sysctl -q -w {off}");
            assert!(Command::new("ip").args(args.split_whitespace()).status().unwrap().success());
        }
        for i in 0..pairs {
            let (a, b) = (&lab.a, &lab.b);
            let shape = format!("numtxqueues {queues} numrxqueues {queues} mtu {mtu}");
            ip(&format!("link add a{i} netns {a} {shape} type veth peer name b{i} netns {b} {shape}"));
            ip(&format!("-n {a} link set a{i} up"));
            ip(&format!("-n {b} link set b{i} up"));
        }
        lab
    }

    /// Runs `body` on a thread inside namespace `ns`.
    pub fn inside<T: Send>(ns: &str, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(ns);
                body()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for ns in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", ns]).output();
        }
    }
}

#[allow(unsafe_code)]
fn enter(ns: &str) {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(format!("/run/netns/{ns}")).unwrap();
    // SAFETY: no memory is passed; only this thread changes namespace.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
}
