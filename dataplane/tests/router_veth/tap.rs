//! A tap: this host's kernel as a neighbour.

use nke_dataplane::netdev;

use crate::common::*;
use crate::net::*;

/// A host in a namespace of its own, behind a tap or tun of NKE, reaches the right end and is reached.
fn host_behind(mode: &str) {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let mut net = Net::new(1500);
    let host = net.lab.netns("host").unwrap();
    let nke = net.router(&format!(
        "[[interface]]\nname = \"t0\"\nkind = \"tap\"\nargs = {{ mode = \"{mode}\", netns = \"{host}\" }}\n{}{}",
        address("t0", "10.9.0.1/24"),
        address("t0", "2001:db8:9::1/64"),
    ));
    net.lab.address(&host, "t0", "10.9.0.2/24").unwrap();
    net.lab.address(&host, "t0", "2001:db8:9::2/64").unwrap();
    let route = |more: &[&str]| nke_dataplane::lab::ip(&[&["-n", &host], more].concat()).unwrap();
    if mode == "tap" {
        route(&["route", "add", "default", "via", "10.9.0.1"]);
        route(&["-6", "route", "add", "default", "via", "2001:db8:9::1"]);
    } else {
        route(&["route", "add", "default", "dev", "t0"]);
        route(&["-6", "route", "add", "default", "dev", "t0"]);
    }
    for to in ["10.9.0.1", "2001:db8:9::1", RIGHT[0], RIGHT[1]] {
        assert_eq!(ping(&net.lab, &host, to, 5, &[]), 5, "{mode} to {to}");
    }
    assert_eq!(net.ping("10.9.0.2", 5, &["-s", "4000"]), 5, "in pieces, from the left end");
    let server = net.iperf_server();
    let out = net.lab.command(&host, "iperf3").args(["-c", RIGHT[0], "-J", "-t", "1"]).output().unwrap();
    drop(server);
    println!("iperf3 TCP from behind a {mode}: {:.0} Mbit/s", received_bits(&out) / 1e6);
    // It goes with its interface, and comes again.
    let there = || {
        let seen =
            netdev::in_netns(Some(&host), || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        seen.unwrap().contains("t0:")
    };
    assert!(there());
    drop(nke);
    assert!(!there(), "the device went with the process");
}

#[test]
fn the_kernel_is_a_neighbour_by_ethernet() {
    host_behind("tap");
}

#[test]
fn the_kernel_is_a_neighbour_by_packets() {
    host_behind("tun");
}
