//! The layer with tables of the kernel's, without workers.

use std::sync::Arc;

use nke_mbuf::wire::EtherAddr;

use super::*;
use crate::inet::control::{NextHop, Port, Request, RouteChange, RouteTo, Send};
use crate::inet::tables::{Settings, Tables};

const MAC: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 9]);
const A: IfIndex = IfIndex(0);
const B: IfIndex = IfIndex(1);
const HOST: IfIndex = IfIndex(2);

struct Kernel {
    inet: Inet,
    tables: Arc<Tables>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> Net {
    let (address, len) = text.split_once('/').unwrap();
    Net { address: ip(address), len: len.parse().unwrap() }
}

impl Kernel {
    fn new() -> Kernel {
        let settings = Settings { neighbors: 16, groups: 4, kernel: true, ..Settings::default() };
        let (mut inet, tables) = Inet::new(settings, 1, [1, 2]);
        for interface in [A, B] {
            inet.set_port(interface, Port { resolves: true, ..Port::default() });
        }
        inet.request(&Request::HostBehind(HOST), 0).unwrap();
        Kernel { inet, tables }
    }

    fn route(&mut self, to: &str, how: Option<RouteTo>) {
        self.inet.request(&Request::Routes(vec![RouteChange { net: net(to), to: how }]), 0).unwrap();
    }

    fn link(&mut self, to: &str, interface: IfIndex) {
        let hop = NextHop { via: None, interface: Some(interface), weight: 1 };
        self.route(to, Some(RouteTo::Via(vec![hop])));
    }

    fn neighbor(&mut self, interface: IfIndex, address: &str, known: InKernel) {
        self.inet.request(&Request::KernelNeighbor(interface, ip(address), known), 0).unwrap();
    }

    /// The interface by which packets to `address` are sent to a neighbour.
    fn out(&self, address: &str) -> Option<u16> {
        match self.tables.lookup(ip(address)) {
            Way::Via(id) => self.tables.adjacency(id).map(|adjacency| adjacency.out),
            _ => None,
        }
    }

    fn asked(&mut self, now_ms: u64) -> Vec<(u16, IpAddr)> {
        let mut asked = Vec::new();
        self.inet.run(now_ms, |send| match send {
            Send::AskKernel(interface, address) => asked.push((interface, address)),
            Send::Solicit { .. } => panic!("the kernel solicits"),
        });
        asked
    }
}

const KNOWN: InKernel = InKernel::Known(MAC, State::Reachable);

#[test]
fn routes_decide_which_neighbors_are_on_the_link() {
    let mut kernel = Kernel::new();
    kernel.neighbor(A, "10.0.1.200", KNOWN);
    kernel.neighbor(B, "10.0.1.200", KNOWN);
    assert_eq!(kernel.tables.lookup(ip("10.0.1.200")), Way::None, "no route covers it");
    kernel.link("10.0.1.0/24", A);
    assert_eq!(kernel.out("10.0.1.200"), Some(0));
    // A longer route leads elsewhere: over the other link, to nowhere, and back.
    kernel.link("10.0.1.128/25", B);
    assert_eq!(kernel.out("10.0.1.200"), Some(1));
    kernel.route("10.0.1.192/26", Some(RouteTo::Blackhole));
    assert_eq!(kernel.tables.lookup(ip("10.0.1.200")), Way::Blackhole);
    kernel.route("10.0.1.192/26", None);
    kernel.route("10.0.1.128/25", None);
    assert_eq!(kernel.out("10.0.1.200"), Some(0));
    kernel.neighbor(A, "10.0.1.200", InKernel::Forgotten);
    assert_eq!(kernel.tables.lookup(ip("10.0.1.200")), Way::Link(0));
    // The default route of IPv6 covers no neighbour of IPv4.
    kernel.link("::/0", B);
    assert_eq!(kernel.tables.lookup(ip("10.0.1.200")), Way::Link(0));
    kernel.neighbor(B, "2001:db8::9", KNOWN);
    assert_eq!(kernel.out("2001:db8::9"), Some(1));
    kernel.route("::/0", Some(RouteTo::Unreachable));
    assert_eq!(kernel.out("2001:db8::9"), None);
}

#[test]
fn a_route_to_one_address_on_a_link_reaches_its_neighbor() {
    let mut kernel = Kernel::new();
    kernel.link("192.0.2.9/32", A);
    assert_eq!(kernel.tables.lookup(ip("192.0.2.9")), Way::Link(0));
    kernel.neighbor(A, "192.0.2.9", KNOWN);
    assert_eq!(kernel.out("192.0.2.9"), Some(0));
    kernel.neighbor(A, "192.0.2.9", InKernel::Failed);
    assert_eq!(kernel.tables.lookup(ip("192.0.2.9")), Way::Link(0));
}

#[test]
fn a_router_of_either_version_is_asked_for_and_used_when_it_is_known() {
    for (to, via) in [("203.0.113.0/24", "10.0.1.1"), ("198.51.100.0/24", "fe80::1")] {
        let mut kernel = Kernel::new();
        let hop = NextHop { via: Some(ip(via)), interface: Some(A), weight: 1 };
        kernel.route(to, Some(RouteTo::Via(vec![hop])));
        assert_eq!(kernel.asked(0), [(0, ip(via))]);
        let host = to.replace("0/24", "7");
        assert_eq!(kernel.out(&host), None);
        kernel.neighbor(A, via, KNOWN);
        assert_eq!(kernel.out(&host), Some(0), "{to}");
        // Forgotten, as by `ip neigh flush`: it is asked for again, a second after the last time.
        kernel.neighbor(A, via, InKernel::Forgotten);
        assert_eq!(kernel.out(&host), None);
        assert_eq!(kernel.asked(2000), [(0, ip(via))]);
        kernel.neighbor(A, via, KNOWN);
        assert_eq!(kernel.out(&host), Some(0));
    }
}

#[test]
fn many_routes_by_the_same_routers_take_one_group() {
    let mut kernel = Kernel::new();
    let hop = |via| NextHop { via: Some(ip(via)), interface: Some(A), weight: 1 };
    let both = || Some(RouteTo::Via(vec![hop("10.0.1.1"), hop("10.0.1.2")]));
    for i in 0..100 {
        kernel.route(&format!("20.0.{i}.0/24"), both());
    }
    let way = kernel.tables.lookup(ip("20.0.0.1"));
    assert!(matches!(way, Way::Several(_)));
    assert_eq!(kernel.tables.lookup(ip("20.0.99.1")), way);
    (0..100).for_each(|i| kernel.route(&format!("20.0.{i}.0/24"), None));
    let garbage = kernel.inet.take_garbage().unwrap();
    kernel.inet.reclaim(garbage);
    assert_eq!(kernel.inet.routes(), 0);
    kernel.route("20.0.0.0/24", both());
}

#[test]
fn packets_for_addresses_of_the_kernel_go_to_it() {
    let mut kernel = Kernel::new();
    let both = Port { resolves: true, addresses: vec![(ip("10.0.1.1"), 24)], ..Port::default() };
    kernel.link("10.0.1.0/24", A);
    kernel.inet.set_port(A, both.clone());
    kernel.inet.set_port(B, both);
    for own in ["10.0.1.1", "10.0.1.255"] {
        assert_eq!(kernel.tables.lookup(ip(own)), Way::Link(HOST.0));
    }
    kernel.inet.set_port(A, Port { resolves: true, ..Port::default() });
    assert_eq!(kernel.tables.lookup(ip("10.0.1.1")), Way::Link(HOST.0), "the other interface has it, too");
    kernel.inet.set_port(B, Port { resolves: true, ..Port::default() });
    assert_eq!(
        kernel.tables.lookup(ip("10.0.1.1")),
        Way::Link(0),
        "the route of the network is the kernel's"
    );
}
