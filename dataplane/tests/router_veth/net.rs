//! Two networks and a router between them.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nke_dataplane::lab::{Lab, Veth, ip};
use nke_dataplane::netdev;
use serde_json::Value;

use crate::common::*;

/// left -- n0 [nke] n1 -- right. NKE is .1 and ::1 on 10.0.1.0/24 and 10.0.2.0/24, 2001:db8:1::/64 and 2001:db8:2::/64; the
/// ends are .2 and ::2, and route everything to it.
pub struct Net {
    pub lab: Lab,
    pub left: String,
    pub middle: String,
    pub right: String,
    queues: u32,
    _alone: MutexGuard<'static, ()>,
}

pub const LEFT: [&str; 2] = ["10.0.1.2", "2001:db8:1::2"];
pub const RIGHT: [&str; 2] = ["10.0.2.2", "2001:db8:2::2"];

impl Net {
    pub fn new(right_mtu: u32) -> Net {
        Net::with(Veth { mtu: right_mtu, ..Veth::default() })
    }

    /// Both pairs have so many queues; the MTU is the right one's.
    pub fn with(right: Veth) -> Net {
        // Two cores are too few for several routers and their hosts at the same time.
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lab = Lab::new().unwrap().with_ipv6();
        let [left, middle, right_ns] = ["left", "nke", "right"].map(|role| lab.netns(role).unwrap());
        let queues = right.queues;
        lab.veth((&left, "l0"), (&middle, "n0"), Veth { queues, ..Veth::default() }).unwrap();
        lab.veth((&middle, "n1"), (&right_ns, "r0"), right).unwrap();
        // The kernel there is no host of these networks.
        without_ipv6(&middle, &["n0", "n1"]);
        for (ns, device, side) in [(&left, "l0", 1), (&right_ns, "r0", 2)] {
            lab.address(ns, device, &format!("10.0.{side}.2/24")).unwrap();
            lab.address(ns, device, &format!("2001:db8:{side}::2/64")).unwrap();
            ip(&["-n", ns, "route", "add", "default", "via", &format!("10.0.{side}.1")]).unwrap();
            ip(&["-n", ns, "-6", "route", "add", "default", "via", &format!("2001:db8:{side}::1")]).unwrap();
        }
        Net { lab, left, middle, right: right_ns, queues, _alone: alone }
    }

    /// As many workers as the devices have queues, a core each.
    pub fn router(&self, more: &str) -> Nke {
        self.router_with("", more)
    }

    /// With these keys in `[router]`.
    pub fn router_with(&self, keys: &str, more: &str) -> Nke {
        let port = |name: &str, device: &str| {
            format!("{}queues = {}\n", port(name, device, &self.middle), self.queues)
        };
        let cores = if self.queues > 1 { (0..self.queues).collect() } else { Vec::new() };
        let nke = Nke::start(&format!(
            "mode = \"adaptive\"\ncores = {cores:?}\n[router]\n{keys}\n{}{}{}{}{}{}{more}",
            port("a", "n0"),
            port("b", "n1"),
            address("a", "10.0.1.1/24"),
            address("a", "2001:db8:1::1/64"),
            address("b", "10.0.2.1/24"),
            address("b", "2001:db8:2::1/64"),
        ));
        for own in ["10.0.1.1", "2001:db8:1::1"] {
            until("the router answers", || (self.ping(own, 1, &[]) == 1).then_some(()));
        }
        nke
    }

    /// `ping` from left; how many of `count` were answered.
    pub fn ping(&self, to: &str, count: u32, more: &[&str]) -> u32 {
        ping(&self.lab, &self.left, to, count, more)
    }

    /// An `iperf3` server at the right end, for one test.
    pub fn iperf_server(&self) -> Running {
        let mut command = self.lab.command(&self.right, "iperf3");
        let child = command.args(["-s", "-1"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Running(child);
        until("iperf3 listens", || {
            let listens = netdev::in_netns(Some(&self.right), || {
                fs::read_to_string("/proc/thread-self/net/tcp6").unwrap()
            });
            listens.unwrap().lines().any(|l| l.contains(":1451 ") && l.contains(" 0A ")).then_some(())
        });
        server
    }

    /// Its client at the left end.
    pub fn iperf_client(&self, to: &str, more: &[&str]) -> Command {
        let mut command = self.lab.command(&self.left, "iperf3");
        command.args(["-c", to, "-J"]).args(more);
        command
    }

    /// A second of `iperf3` from left to right.
    pub fn iperf(&self, to: &str, more: &[&str]) -> Output {
        let _server = self.iperf_server();
        self.iperf_client(to, &["-t", "1"]).args(more).output().unwrap()
    }
}

/// Takes IPv6 from devices that are NKE's.
pub fn without_ipv6(ns: &str, devices: &[&str]) {
    netdev::in_netns(Some(ns), || {
        for device in devices {
            fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
        }
    })
    .unwrap();
}

/// `ping` from namespace `ns`; how many of `count` were answered.
pub fn ping(lab: &Lab, ns: &str, to: &str, count: u32, more: &[&str]) -> u32 {
    let mut command = lab.command(ns, "ping");
    let count = count.to_string();
    let out =
        command.args(["-n", "-i", "0.05", "-W", "2", "-c", &count]).args(more).arg(to).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let words: Vec<_> = text.split_whitespace().collect();
    let at = words.iter().position(|w| w.starts_with("received")).unwrap_or_else(|| panic!("{text}"));
    words[at - 1].parse().unwrap()
}

/// A port of the configuration.
pub fn port(name: &str, device: &str, netns: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nkind = \"af_xdp\"\ndevice = \"{device}\"\nnetns = \"{netns}\"\n")
}

/// An address of the configuration.
pub fn address(port: &str, address: &str) -> String {
    format!("[[address]]\nport = \"{port}\"\naddress = \"{address}\"\n")
}

/// Bits per second that the receiver of an `iperf3` got.
pub fn received_bits(out: &Output) -> f64 {
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(report["error"].is_null(), "{}", report["error"]);
    let end = &report["end"];
    let sum = if end["sum_received"].is_null() { &end["sum"] } else { &end["sum_received"] };
    sum["bits_per_second"].as_f64().unwrap()
}

/// Debian's, which has Debian's scapy.
pub const PYTHON: &str = "/usr/bin/python3";

/// Whether there is scapy; says so if not.
pub fn able_scapy() -> bool {
    let there = Command::new(PYTHON)
        .args(["-c", "import scapy.all"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !there {
        println!("skipped: needs scapy");
    }
    there
}

/// Runs a script in namespace `ns`; what it printed.
pub fn python(lab: &Lab, ns: &str, script: &str, args: &[&str]) -> Vec<u8> {
    let out = lab.command(ns, PYTHON).args(["-c", script]).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}
