//! The shortcut: what takes it, and that nothing does from the moment on at which somebody is promised to see it.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nke_dataplane::control::Client;
use nke_dataplane::lab::ip;
use nke_dataplane::netdev::{self, Offload};
use serde_json::{Value, json};

use crate::common::*;
use crate::net::*;

/// Packets that took it.
fn took(nke: &Nke) -> u64 {
    let rows = nke.show("inet");
    let rows = rows.as_array().unwrap();
    rows.iter().find(|row| row["worker"] == "shortcut").map_or(0, |row| row["forwarded"].as_u64().unwrap())
}

/// The same, once nothing is under way any more.
fn took_at_rest(nke: &Nke) -> u64 {
    until("nothing is under way", || {
        let before = took(nke);
        std::thread::sleep(Duration::from_millis(300));
        (took(nke) == before).then_some(before)
    })
}

fn interface(nke: &Nke, name: &str) -> Value {
    let rows = nke.show("interfaces");
    rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
}

fn until_doors(nke: &Nke, name: &str, are: &str) {
    until(&format!("the doors of {name} are: {are}"), || {
        (interface(nke, name)["shortcut"] == are).then_some(())
    });
}

#[test]
fn plain_packets_take_it_and_are_counted_where_they_pass() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3, "neighbours are known by now");
    until_doors(&nke, "a", "open");
    assert_eq!(net.ping(RIGHT[1], 3, &[]), 3);
    for (to, header) in RIGHT.into_iter().zip([20, 40]) {
        let before = took_at_rest(&nke);
        let rows = ["a", "b"].map(|name| interface(&nke, name));
        assert_eq!(net.ping(to, 20, &["-s", "1000"]), 20);
        assert_eq!(took(&nke) - before, 40, "both ways");
        for (name, row) in ["a", "b"].into_iter().zip(&rows) {
            let now = interface(&nke, name);
            let more = |figure: &str| now[figure].as_u64().unwrap() - row[figure].as_u64().unwrap();
            assert!(more("rx_packets") >= 20 && more("tx_packets") >= 20, "{row} {now}");
            let bytes = 20 * (14 + header + 8 + 1000);
            assert!(more("rx_bytes") >= bytes && more("tx_bytes") >= bytes, "{row} {now}");
        }
        assert!(received_bits(&net.iperf(to, &[])) > 1e6);
        assert!(took(&nke) > before + 1000, "TCP");
        // What is not plain goes to the workers as ever: what is for this host, and what is at the end of its hops.
        let before = took_at_rest(&nke);
        assert_eq!(net.ping(if header == 20 { "10.0.2.1" } else { "2001:db8:2::1" }, 5, &[]), 5);
        assert_eq!(net.ping(to, 2, &["-t", "1", "-W", "1"]), 0);
        assert_eq!(took(&nke), before);
    }
    assert!(nke.drops().contains(&("hops_exhausted".into(), 4)), "{:?}", nke.drops());
    nke.stop();
}

#[test]
fn it_follows_routes_and_neighbors_at_once() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    net.lab.address(&net.right, "lo", "10.9.0.1/32").unwrap();
    until_doors(&nke, "a", "open");
    until_doors(&nke, "b", "open");
    let cli = |words: &[&str]| {
        let out = nke.cli(words);
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    for _ in 0..5 {
        cli(&["route", "add", "10.9.0.0/16", "--via", "10.0.2.2"]);
        until("it answers", || (net.ping("10.9.0.1", 1, &[]) == 1).then_some(()));
        let before = took(&nke);
        assert_eq!(net.ping("10.9.0.1", 3, &[]), 3);
        assert_eq!(took(&nke) - before, 6);
        cli(&["route", "add", "10.9.0.1/32", "--kind", "blackhole"]);
        assert_eq!(net.ping("10.9.0.1", 2, &["-W", "1"]), 0, "by a longer prefix, and a node");
        assert_eq!(took(&nke) - before, 6);
        cli(&["route", "del", "10.9.0.1/32"]);
        assert_eq!(net.ping("10.9.0.1", 3, &[]), 3);
        assert_eq!(took(&nke) - before, 12);
        cli(&["route", "del", "10.9.0.0/16"]);
        assert_eq!(net.ping("10.9.0.1", 1, &["-W", "1"]), 0);
    }
    // Another link address, given by hand: nobody is there.
    cli(&["neighbor", "replace", "b", "10.0.2.2", "02:00:00:00:99:99"]);
    let before = took(&nke);
    assert_eq!(net.ping(RIGHT[0], 3, &["-W", "1"]), 0);
    assert_eq!(took(&nke) - before, 3);
    nke.stop();
}

/// Ends the threads that look at it, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_filter_sees_every_packet_sent_after_its_attach_was_answered() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3);
    let receiver = netdev::in_netns(Some(&net.right), || UdpSocket::bind("10.0.2.2:7777").unwrap()).unwrap();
    let sender = netdev::in_netns(Some(&net.left), || UdpSocket::bind("10.0.1.2:0").unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    sender.connect("10.0.2.2:7777").unwrap();
    let filters = [
        json!({ "kind": "acl", "port": "ip", "args": { "rule": "deny udp from any to any port 7777", "default": "permit" } }),
        json!({ "kind": "drop", "port": "a", "direction": "input", "args": { "match": "udp port 7777" } }),
        json!({ "kind": "drop", "port": "b", "direction": "output", "args": { "match": "udp port 7777" } }),
    ];
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut denied = Vec::new();
    let got: Vec<u64> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // The number is taken before the packet is sent: what is sent from now on has a higher one.
                let number = next.fetch_add(1, Ordering::SeqCst);
                sender.send(&number.to_be_bytes()).unwrap();
                if number % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        });
        let got = scope.spawn(|| {
            let (mut got, mut datagram) = (Vec::new(), [0; 8]);
            loop {
                match receiver.recv(&mut datagram) {
                    Ok(8) => got.push(u64::from_be_bytes(datagram)),
                    Err(_) if over.load(Ordering::Relaxed) => return got,
                    _ => (),
                }
            }
        });
        let over = Over(&over);
        let mut control = Client::connect(&nke.directory.join("s")).unwrap();
        for filter in filters.iter().cycle().take(6) {
            let before = took(&nke);
            until("the shortcut is taken", || (took(&nke) > before + 100).then_some(()));
            let begin = Instant::now();
            let id = control.call("attach", filter.clone()).unwrap()["id"].clone();
            let from = next.load(Ordering::SeqCst);
            println!("attached in {:?}", begin.elapsed());
            std::thread::sleep(Duration::from_millis(100));
            let to = next.load(Ordering::SeqCst);
            denied.push(from..to);
            control.call("detach", json!({ "id": id })).unwrap();
        }
        drop(over);
        got.join().unwrap()
    });
    for range in &denied {
        // One that was numbered before the answer may have been sent after it, and the last one be under way at the end.
        let passed: Vec<_> = got.iter().filter(|n| (range.start + 1..range.end).contains(n)).collect();
        assert!(
            range.end > range.start + 100 && passed.is_empty(),
            "{passed:?} of {range:?} were let through"
        );
    }
    assert!(got.len() > 1000);
    println!("{} of {} datagrams received; {:?}", got.len(), next.into_inner(), nke.drops());
    nke.stop();
}

#[test]
fn doors_are_shut_by_whoever_looks_and_by_what_devices_cannot() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    let mut control = Client::connect(&nke.directory.join("s")).unwrap();
    let mut attached = |kind: &str, port: &str, direction: Option<&str>| {
        let mut args = json!({ "kind": kind, "port": port });
        if let Some(direction) = direction {
            args["direction"] = json!(direction);
        }
        control.call("attach", args).unwrap()["id"].clone()
    };
    for (kind, port, direction, a, b) in [
        ("count", "a", Some("input"), "input shut: a filter of the interface", "open"),
        ("count", "b", Some("output"), "open", "output shut: a filter of the interface"),
        ("conntrack", "ip", None, "IPv4 shut: a filter of ip", "IPv4 shut: a filter of ip"),
        ("conntrack", "ip6", None, "IPv6 shut: a filter of ip6", "IPv6 shut: a filter of ip6"),
    ] {
        until_doors(&nke, "a", "open");
        until_doors(&nke, "b", "open");
        let id = attached(kind, port, direction);
        assert_eq!(interface(&nke, "a")["shortcut"], a, "{kind} on {port}");
        assert_eq!(interface(&nke, "b")["shortcut"], b, "{kind} on {port}");
        for to in RIGHT {
            assert_eq!(net.ping(to, 3, &[]), 3);
        }
        nke.call("detach", json!({ "id": id }));
    }
    // A veth sends what is redirected to it only while its other end receives by NAPI.
    let gro = |on: bool| {
        netdev::in_netns(Some(&net.right), || netdev::set_offload("r0", Offload::Gro, on)).unwrap().unwrap();
    };
    gro(false);
    until_doors(&nke, "b", "output shut: the device sends nothing that is redirected");
    let before = took(&nke);
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3, "by workers");
    assert_eq!(took(&nke) - before, 3, "and back");
    gro(true);
    until_doors(&nke, "b", "open");
    // A link that is down.
    ip(&["-n", &net.right, "link", "set", "r0", "down"]).unwrap();
    until_doors(&nke, "b", "shut: down");
    ip(&["-n", &net.right, "link", "set", "r0", "up"]).unwrap();
    ip(&["-n", &net.right, "route", "add", "default", "via", "10.0.2.1"]).unwrap();
    until_doors(&nke, "b", "open");
    until("it goes on", || (net.ping(RIGHT[0], 1, &["-W", "1"]) == 1).then_some(()));
    nke.stop();
}
