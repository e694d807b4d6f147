//! Keeps an administrator from cutting off the machine: the device of the default route and of this SSH session is not
//! taken without being asked for twice.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use crate::error::Error;
use crate::netdev;
use crate::port::xdp_open::XdpOptions;

/// A line of the kernel's IPv4 routing table.
struct Route {
    device: String,
    destination: u32,
    mask: u32,
}

/// Refuses a device that the default route or the route back to this SSH session goes through.
pub fn check(options: &XdpOptions) -> Result<(), Error> {
    let routes = netdev::in_netns(options.netns.as_deref(), routes).unwrap_or_default();
    let device = &options.device;
    if routes.iter().any(|r| r.mask == 0 && r.device == *device) {
        return Err(Error::new("NKE-DEV-002", format!("the default route goes through {device}")));
    }
    // A session comes in through the namespace we were started in.
    if let Some(client) = ssh_client().filter(|_| options.netns.is_none())
        && route_to(&routes, client).is_some_and(|r| r.device == *device)
    {
        return Err(Error::new(
            "NKE-DEV-002",
            format!("this SSH session (from {client}) goes through {device}"),
        ));
    }
    Ok(())
}

fn ssh_client() -> Option<Ipv4Addr> {
    let connection = std::env::var("SSH_CONNECTION").ok()?;
    match connection.split_whitespace().next()?.parse().ok()? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn route_to(routes: &[Route], address: Ipv4Addr) -> Option<&Route> {
    // The table is in network order as the machine stores it.
    let address = u32::from_ne_bytes(address.octets());
    routes.iter().filter(|r| address & r.mask == r.destination).max_by_key(|r| r.mask.count_ones())
}

fn routes() -> Vec<Route> {
    parse(&fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default())
}

fn parse(table: &str) -> Vec<Route> {
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let hex = |i: usize| u32::from_str_radix(words.get(i)?, 16).ok();
        Some(Route { device: (*words.first()?).to_owned(), destination: hex(1)?, mask: hex(7)? })
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Whether `device` carries the default route of this thread's namespace; for `nke doctor`.
pub fn has_default_route(device: &str) -> bool {
    routes().iter().any(|r| r.mask == 0 && r.device == device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_the_longest_fits() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let routes = parse(table);
        let to = |a: [u8; 4]| route_to(&routes, Ipv4Addr::from(a)).map(|r| r.device.as_str());
        assert_eq!((to([192, 168, 7, 7]), to([10, 9, 9, 9])), (Some("eth1"), Some("eth0")));
    }
}
