//! Tunnels against the kernel's own.

use nke_dataplane::lab::ip;

use crate::common::*;
use crate::net::*;

/// A VXLAN between the left end's kernel and NKE, over this version of IP: ping and iperf3 through it, and beyond.
fn vxlan_with_the_kernel(local: &str, remote: &str) {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(1500);
    let left = &net.left;
    let made = ip(&[
        "-n",
        left,
        "link",
        "add",
        "vx0",
        "type",
        "vxlan",
        "id",
        "7",
        "local",
        remote,
        "remote",
        local,
        "dstport",
        "4789",
        "udp6zerocsumrx",
    ]);
    if made.is_err() {
        println!("skipped: the kernel has no VXLAN");
        return;
    }
    ip(&["-n", left, "link", "set", "vx0", "up", "mtu", if local.contains(':') { "1430" } else { "1450" }])
        .unwrap();
    net.lab.address(left, "vx0", "10.9.0.2/24").unwrap();
    net.lab.address(left, "vx0", "2001:db8:9::2/64").unwrap();
    ip(&["-n", left, "route", "add", "10.0.2.0/24", "via", "10.9.0.1"]).unwrap();
    let nke = net.router(&format!(
        "[[interface]]\nname = \"vx\"\nkind = \"vxlan\"\nargs = {{ vni = 7, local = \"{local}\", remote = \"{remote}\" }}\n{}{}",
        address("vx", "10.9.0.1/24"),
        address("vx", "2001:db8:9::1/64"),
    ));
    assert_eq!(net.ping("10.9.0.1", 5, &[]), 5);
    assert_eq!(net.ping("2001:db8:9::1", 5, &[]), 5);
    // As large as the tunnel takes, not to be cut.
    let largest = if local.contains(':') { "1402" } else { "1422" };
    assert_eq!(net.ping("10.0.2.2", 5, &["-M", "do", "-s", largest, "-I", "10.9.0.2"]), 5);
    let bits = received_bits(&net.iperf("10.0.2.2", &["-B", "10.9.0.2"]));
    println!("iperf3 through VXLAN over {local}: {:.0} Mbit/s", bits / 1e6);
    assert!(bits > 1e6);
    for drop in nke.show("drops").as_array().unwrap() {
        let (reason, count) = (drop["reason"].as_str().unwrap(), drop["packets"].as_u64().unwrap());
        assert!(!reason.starts_with("vxlan:") || count == 0, "{drop}");
    }
}

#[test]
fn vxlan_with_the_kernel_over_ipv4() {
    vxlan_with_the_kernel("10.0.1.1", "10.0.1.2");
}

#[test]
fn vxlan_with_the_kernel_over_ipv6() {
    vxlan_with_the_kernel("2001:db8:1::1", "2001:db8:1::2");
}
