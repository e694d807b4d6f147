//! Filters that come and go under load; a router that is killed.

use std::io::Read;
use std::process::{Output, Stdio};
use std::time::Instant;

use nke_dataplane::control::Client;
use nke_dataplane::lab::{Veth, ip};
use nke_dataplane::netdev;
use serde_json::json;

use crate::common::*;
use crate::net::*;

#[test]
fn a_thousand_interface_and_ip_filters_come_and_go_under_iperf() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    let _server = net.iperf_server();
    let client = net
        .iperf_client(RIGHT[0], &["-t", "15", "-P", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = Running(client);
    let mut control = Client::connect(&nke.directory.join("s")).unwrap();
    let (begin, mut lost_meanwhile, mut under_load) = (Instant::now(), 0, 0);
    for cycle in 0..1000 {
        let port = if cycle % 2 == 0 { "a" } else { "b" };
        let of_interface = json!({ "kind": "drop", "port": port, "args": { "match": "udp port 9" } });
        let of_ip = json!({ "kind": "acl", "port": "ip", "args": { "rule": "deny udp from any to any port 9", "default": "permit" } });
        for args in [of_interface, of_ip] {
            let id = control.call("attach", args).unwrap()["id"].clone();
            let report = control.call("detach", json!({ "id": id })).unwrap();
            assert_eq!(report["dropped"], 0, "{report}");
            lost_meanwhile += report["lost_meanwhile"].as_u64().unwrap();
        }
        under_load += usize::from(client.0.try_wait().unwrap().is_none());
    }
    println!("1000 cycles of two filters took {:?}", begin.elapsed());
    assert!(under_load > 500, "{under_load} of 1000 cycles happened under load");
    let out = wait_with_output(client);
    let sums = received_bits(&out);
    println!("{:.0} Mbit/s meanwhile", sums / 1e6);
    assert!(sums > 1e6, "the connections lived");
    // Reports count every drop that is no filter's decision: here, only what hosts send to groups nobody is in.
    let drops: Vec<_> = nke.drops().into_iter().filter(|(_, n)| *n > 0).collect();
    println!("{lost_meanwhile} dropped while filters were detached; in all {drops:?}");
    assert!(drops.iter().all(|(name, _)| ["not_member", "icmp_ignored"].contains(&&**name)), "{drops:?}");
    assert!(lost_meanwhile <= drops.iter().map(|(_, n)| n).sum(), "{lost_meanwhile}: {drops:?}");
    assert!(nke.show("filters").as_array().unwrap().is_empty());
    let ledger = nke.show("ledger");
    assert_eq!(ledger.as_array().unwrap().iter().filter(|r| r["kind"] == "attachment").count(), 0);
    nke.stop();
}

#[test]
fn a_device_made_again_with_another_link_address_routes_again() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3);
    // What was confirmed is kept against other claims for a second.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    ip(&["-n", &net.middle, "link", "del", "n1"]).unwrap();
    until("NKE sees it", || nke.said().contains("device_gone").then_some(()));
    net.lab.veth((&net.middle, "n1"), (&net.right, "r0"), Veth::default()).unwrap();
    net.lab.address(&net.right, "r0", "10.0.2.2/24").unwrap();
    ip(&["-n", &net.right, "route", "add", "default", "via", "10.0.2.1"]).unwrap();
    until("it is back", || nke.said().contains("device_back").then_some(()));
    // The new station makes itself known by asking for the router: it has another address, too.
    let ask = || ping(&net.lab, &net.right, "10.0.2.1", 1, &[]) == 1;
    until("the router answers on the new device", || ask().then_some(()));
    until("it routes", || (net.ping(RIGHT[0], 1, &[]) == 1).then_some(()));
    let mac = netdev::in_netns(Some(&net.middle), || netdev::mac("n1").unwrap()).unwrap();
    assert_eq!(nke.show("interfaces")[1]["mac"], nke_mbuf::wire::EtherAddr(mac).to_string());
    nke.stop();
}

#[test]
fn after_sigkill_nothing_of_the_router_is_left() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let mut nke = net.router("");
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3);
    nke.process.0.kill().unwrap();
    nke.process.0.wait().unwrap();
    until("no program is left", || {
        (!has_xdp(&net.middle, "n0") && !has_xdp(&net.middle, "n1")).then_some(())
    });
    assert_eq!(net.ping(RIGHT[0], 1, &["-W", "0.2"]), 0, "nobody routes");
    drop(nke);
    let nke = net.router("");
    for to in RIGHT {
        until("the next one routes", || (net.ping(to, 1, &[]) == 1).then_some(()));
    }
    nke.stop();
}

fn wait_with_output(mut process: Running) -> Output {
    let mut stdout = Vec::new();
    process.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    Output { status: process.0.wait().unwrap(), stdout, stderr: Vec::new() }
}
