//! NKE as router and host between network namespaces, on real AF_XDP over veth. Needs root, `ip`, `ping`, `iperf3`; some
//! need `traceroute`, `tcpdump` or scapy.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod changes;
mod cipher;
#[path = "../common/mod.rs"]
mod common;
mod filters;
mod floods;
mod fragments;
mod net;
mod paths;
mod queues;
mod shortcut;
mod tap;
mod tunnels;

use nke_dataplane::lab::ip;

use common::*;
use net::*;

#[test]
fn ping_and_iperf_cross_the_router_in_both_versions_of_ip() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(1500);
    // All by workers; what takes the shortcut is seen elsewhere.
    let nke = net.router_with("shortcut = false", "");
    for to in RIGHT {
        assert_eq!(net.ping(to, 20, &[]), 20, "{}", to);
        assert!(received_bits(&net.iperf(to, &[])) > 1e6, "TCP");
        assert!(received_bits(&net.iperf(to, &["-u", "-b", "20M"])) > 1e6, "UDP");
    }
    let routes = nke.show("routes");
    let row = |destination: &str| {
        routes
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["destination"] == destination)
            .unwrap_or_else(|| panic!("{routes:#}"))
    };
    assert_eq!(row("10.0.1.0/24")["to"], "on a");
    assert_eq!(row("10.0.2.2/32")["to"], "via 10.0.2.2 on b");
    assert_eq!(row("10.0.1.1/32")["to"], "local");
    let neighbors = nke.show("neighbors");
    assert!(
        neighbors.as_array().unwrap().iter().any(|n| n["address"] == RIGHT[1] && n["state"] == "reachable")
    );
    assert_eq!(nke.show("protocols").as_array().unwrap().len(), 4);
    assert!(nke.show("inet")[0]["forwarded"].as_u64().unwrap() > 80);
    let unwanted: Vec<_> = nke.drops().into_iter().filter(|(_, n)| *n > 0).collect();
    // Hosts announce themselves to groups nobody here is in.
    assert!(
        unwanted.iter().all(|(name, _)| ["not_member", "icmp_ignored"].contains(&&**name)),
        "{unwanted:?}"
    );
    nke.stop();
}

#[test]
fn the_router_answers_for_itself_also_in_fragments() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    for own in ["10.0.1.1", "10.0.2.1", "2001:db8:1::1", "2001:db8:2::1"] {
        assert_eq!(net.ping(own, 5, &[]), 5, "{own}");
        assert_eq!(net.ping(own, 5, &["-s", "4000"]), 5, "{own} in fragments");
    }
    for to in RIGHT {
        assert_eq!(net.ping(to, 5, &["-s", "4000"]), 5, "fragments pass");
    }
    nke.stop();
}

#[test]
fn the_path_mtu_is_told() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1400);
    let nke = net.router("");
    for to in RIGHT {
        // The first one that is too big is answered with the MTU; what follows is cut by the sender.
        let got = net.ping(to, 5, &["-s", "1450"]);
        assert!(got >= 4, "{got} of 5 to {}", to);
    }
    // IPv4 without DF is cut by the router.
    assert_eq!(net.ping(RIGHT[0], 5, &["-s", "1450", "-M", "dont"]), 5);
    let told = |to: &str, version: &str| {
        let out = ip(&["-n", &net.left, version, "route", "get", to]).unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains("mtu 1400"), "{text}");
    };
    told(RIGHT[0], "-4");
    told(RIGHT[1], "-6");
    assert!(nke.drops().iter().any(|(name, n)| name == "too_big" && *n > 0));
    nke.stop();
}

#[test]
fn a_neighbor_that_moves_or_is_forgotten_is_found_again() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    for to in RIGHT {
        assert_eq!(net.ping(to, 5, &[]), 5);
    }
    for ns in [&net.left, &net.right] {
        ip(&["-n", ns, "neigh", "flush", "all"]).unwrap();
    }
    for to in RIGHT {
        assert_eq!(net.ping(to, 5, &[]), 5, "after a flush");
    }
    // Another station has the address now, and says so by asking for the router. What was confirmed is kept against other
    // claims for a second.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    ip(&["-n", &net.right, "link", "set", "r0", "address", "02:00:00:00:99:02"]).unwrap();
    ip(&["-n", &net.right, "neigh", "flush", "all"]).unwrap();
    let mut from_right = net.lab.command(&net.right, "ping");
    let out = from_right.args(["-n", "-c", "3", "-i", "0.1", "-W", "2", LEFT[0]]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    assert_eq!(net.ping(RIGHT[0], 5, &[]), 5, "to the new station");
    nke.stop();
}

#[test]
fn filters_of_ip_see_and_change_what_passes() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let rule = "[[filter]]\nkind = \"acl\"\nport = \"ip\"\nargs = { rule = \"deny icmp from 10.0.1.2 to 10.0.2.2\", default = \"permit\" }\n";
    let nke = net.router(rule);
    assert_eq!(net.ping(RIGHT[0], 3, &["-W", "1"]), 0);
    assert_eq!(net.ping(RIGHT[1], 3, &[]), 3, "the rule is for IPv4");
    assert!(nke.drops().contains(&("acl:deny".into(), 3)), "{:?}", nke.drops());
    let rows = nke.show("filters");
    assert_eq!((&rows[0]["kind"], &rows[0]["interface"]), (&"acl".into(), &"ip".into()));
    nke.call("detach", serde_json::json!({ "id": rows[0]["id"] }));
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3);
    nke.stop();
}
