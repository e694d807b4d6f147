//! Floods: they cost the router neither memory nor its other neighbours.

use std::fs;
use std::process::Stdio;

use nke_dataplane::lab::{Veth, ip};
use serde_json::Value;

use crate::common::*;
use crate::net::*;

/// Prints how many frames it sent, and how fast, as JSON.
const SCRIPT: &str = include_str!("floods.py");
const FLOODS: [&str; 7] = ["fragments", "fragments6", "arp", "nd_sweep", "icmp", "options", "headers"];
/// Frames of a flood.
const FRAMES: u64 = 100_000;

/// Memory of a process that is in RAM.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn floods_cost_no_memory_and_the_others_are_answered() {
    if !able(&["ping"]) || !able_scapy() {
        return;
    }
    let mut net = Net::new(1500);
    let third = net.lab.netns("third").unwrap();
    net.lab.veth((&net.middle, "n2"), (&third, "t0"), Veth::default()).unwrap();
    without_ipv6(&net.middle, &["n2"]);
    net.lab.address(&third, "t0", "10.0.3.2/24").unwrap();
    ip(&["-n", &third, "route", "add", "default", "via", "10.0.3.1"]).unwrap();
    let nke = net.router(&(port("c", "n2", &net.middle) + &address("c", "10.0.3.1/24")));
    assert!(ping(&net.lab, &net.right, "10.0.3.2", 3, &[]) > 0);
    let pid = nke.process.0.id();
    // Each flood once before memory is measured: pages count from when they are first written.
    for name in FLOODS {
        python(&net.lab, &net.left, SCRIPT, &[name, "20000"]);
    }
    for name in FLOODS {
        let received = || nke.show("interfaces")[0]["rx_packets"].as_u64().unwrap();
        let (before, received_before) = (resident_kib(pid), received());
        let mut flood = net.lab.command(&net.left, PYTHON);
        let flood =
            flood.args(["-c", SCRIPT, name, &FRAMES.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
        let (mut sent, mut answered) = (0, 0);
        let mut flood = Running(flood);
        while flood.0.try_wait().unwrap().is_none() {
            sent += 20;
            answered += ping(&net.lab, &net.right, "10.0.3.2", 20, &["-i", "0.01"]);
        }
        let report: Value = serde_json::from_reader(flood.0.stdout.take().unwrap()).unwrap();
        let (after, arrived) = (resident_kib(pid), received() - received_before);
        println!(
            "{name}: {report}, {arrived} arrived; {answered} of {sent} pings beside it answered; {before} KiB before, {after} after"
        );
        // The rest did not fit into the ring.
        assert!(arrived > FRAMES / 2, "{name}: {arrived} of {FRAMES}");
        assert!(sent > 0 && answered * 10 >= sent * 9, "{name}: {answered} of {sent}");
        // Two huge pages at most.
        assert!(after <= before + 4096, "{name}: {before} KiB before, {after} after");
    }
    println!("{:?}", nke.drops());
    for to in RIGHT {
        until("all is well behind the flood", || (net.ping(to, 5, &[]) == 5).then_some(()));
    }
    nke.stop();
}
