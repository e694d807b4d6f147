//! Settings of the kernel that `host = "kernel"` counts on.

use std::fs;
use std::io;

use crate::netdev;

/// What is set otherwise in network namespace `netns` than a router wants it, each with its cure.
///
/// NKE forwards whatever these say. But the kernel is the other half of the router: it answers packets at the end of their
/// hops, forwards those with options and those given back to it, and takes over when NKE ends. So forwarding is to be on.
pub fn warnings(netns: Option<&str>) -> io::Result<Vec<String>> {
    netdev::in_netns(netns, || {
        let number = |key: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/{}", key.replace('.', "/"))).ok()?;
            text.trim().parse::<u32>().ok()
        };
        let mut found = Vec::new();
        for (version, key) in [("IPv4", "ipv4.ip_forward"), ("IPv6", "ipv6.conf.all.forwarding")] {
            if number(key) == Some(0) {
                found.push(format!(
                    "the kernel does not forward {version}: packets that are its to answer or to forward are lost; \
                     sysctl -w net.{key}=1"
                ));
            }
        }
        if number("ipv4.conf.all.rp_filter") == Some(1) {
            found.push(
                "net.ipv4.conf.all.rp_filter = 1: packets given back to the kernel come in by another device, and are lost; \
                 sysctl -w net.ipv4.conf.all.rp_filter=2"
                    .to_owned(),
            );
        }
        found
    })
}
