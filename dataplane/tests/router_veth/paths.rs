//! What the ends learn about the path.

use nke_dataplane::lab::ip;

use crate::common::*;
use crate::net::*;

#[test]
fn traceroute_shows_the_router() {
    if !able(&["ping", "traceroute"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    for (to, router) in RIGHT.into_iter().zip(["10.0.1.1", "2001:db8:1::1"]) {
        // The first packet waits for the neighbour on the right.
        assert_eq!(net.ping(to, 1, &[]), 1);
        for probes in [&[][..], &["-I"]] {
            let out = net
                .lab
                .command(&net.left, "traceroute")
                .args(["-n", "-m", "4"])
                .args(probes)
                .arg(to)
                .output();
            let out = String::from_utf8(out.unwrap().stdout).unwrap();
            let hops: Vec<_> = out.lines().skip(1).map(|l| l.split_whitespace().nth(1).unwrap()).collect();
            assert_eq!(hops, [router, to], "{out}");
        }
    }
    assert!(nke.drops().iter().any(|(name, n)| name == "hops_exhausted" && *n >= 12), "{:?}", nke.drops());
    nke.stop();
}

#[test]
fn tcp_goes_on_over_a_narrower_link() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(1280);
    // The end on the right does not know, so its MSS promises more than the link takes.
    ip(&["-n", &net.right, "link", "set", "r0", "mtu", "1500"]).unwrap();
    let nke = net.router("");
    for (to, version) in RIGHT.into_iter().zip(["-4", "-6"]) {
        assert!(received_bits(&net.iperf(to, &[])) > 1e6, "TCP to {to}");
        let out = ip(&["-n", &net.left, version, "route", "get", to]).unwrap();
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(told.contains("mtu 1280"), "{told}");
    }
    assert!(nke.drops().iter().any(|(name, n)| name == "too_big" && *n > 0));
    nke.stop();
}
