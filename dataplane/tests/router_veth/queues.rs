//! A router with two queues per device, and a worker for each.

use nke_dataplane::lab::Veth;

use crate::common::*;
use crate::net::*;

/// Sends the fragments of echo requests from one core and the other; prints how many requests were answered.
const SCRIPT: &str = include_str!("queues.py");

/// Packets each worker has received.
fn received(nke: &Nke) -> Vec<u64> {
    let rows = nke.show("workers");
    rows.as_array().unwrap().iter().map(|w| w["rx_packets"].as_u64().unwrap()).collect()
}

#[test]
fn two_workers_share_the_traffic_and_put_fragments_together() {
    if !able(&["ping", "iperf3"]) || !able_scapy() {
        return;
    }
    let net = Net::with(Veth { queues: 2, ..Veth::default() });
    // What core N sends takes queue N.
    for (ns, device) in [(&net.left, "l0"), (&net.right, "r0")] {
        let set =
            format!("for n in 0 1; do echo $((n + 1)) > /sys/class/net/{device}/queues/tx-$n/xps_cpus; done");
        assert!(net.lab.command(ns, "sh").args(["-ec", &set]).status().unwrap().success());
    }
    // Filters of whole datagrams, for which the router itself puts together what it forwards.
    let filter = |port: &str| {
        format!(
            "[[filter]]\nkind = \"conntrack\"\nport = \"{port}\"\nargs = {{ policy = \"stateful\", inside = \"a\" }}\n"
        )
    };
    let nke = net.router(&(filter("ip") + &filter("ip6")));
    for to in RIGHT {
        assert_eq!(net.ping(to, 10, &[]), 10, "{to}");
        assert!(received_bits(&net.iperf(to, &["-P", "4"])) > 1e6, "TCP to {to}");
        assert!(received_bits(&net.iperf(to, &["-P", "4", "-u", "-b", "5M"])) > 1e6, "UDP to {to}");
    }
    let shares = received(&nke);
    println!("received by each worker: {shares:?}");
    assert!(shares.len() == 2 && shares.iter().all(|n| *n > 100), "{shares:?}");
    // To the router itself, and through its filter.
    for to in ["10.0.1.1", "2001:db8:1::1"].into_iter().chain(RIGHT) {
        let before = received(&nke);
        let answered = String::from_utf8(python(&net.lab, &net.left, SCRIPT, &[to])).unwrap();
        assert_eq!(answered.trim(), "20 of 20", "{to}: {:?}", nke.drops());
        let meanwhile: Vec<_> = received(&nke).iter().zip(before).map(|(now, n)| now - n).collect();
        println!("{to}: fragments met that {meanwhile:?} packets came to each worker with");
        assert!(meanwhile.iter().all(|n| *n >= 20), "{to}: {meanwhile:?}");
    }
    nke.stop();
}
