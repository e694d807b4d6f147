//! Translation without a kernel.

use nke_inet::neigh::State;
use nke_mbuf::wire::EtherAddr;
use nke_rtnl::{Address, LOCAL_TABLE, Link, MAIN_TABLE, Neighbor, NextHop as Hop, Route, RouteKind};

use super::*;
use crate::inet::NextHop;

const A: IfIndex = IfIndex(0);
const B: IfIndex = IfIndex(1);
const PUNT: IfIndex = IfIndex(9);
const MAC: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 1]);

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> Net {
    let (address, len) = text.split_once('/').unwrap();
    Net { address: addr(address), len: len.parse().unwrap() }
}

/// eth1 is port A, eth2 port B; devices 1 to 3 are eth1, eth2 and wg0.
struct Bench(Translator);

impl Bench {
    fn new() -> Bench {
        let port = |device: &str, interface| Port { device: device.into(), interface, mac: MAC, mtu: 1500 };
        let mut bench = Bench(Translator::new(vec![port("eth1", A), port("eth2", B)], PUNT));
        for (ifindex, name) in [(1, "eth1"), (2, "eth2"), (3, "wg0")] {
            bench.take(Change::Link(Event::Added, link(ifindex, name)));
        }
        assert!(!bench.0.wants_all_again(), "nothing was told before");
        bench
    }

    fn take(&mut self, change: Change) -> Vec<Step> {
        let mut steps = Vec::new();
        self.0.take(change, &mut |step| steps.push(step));
        steps
    }

    /// What becomes of a route.
    fn way(&mut self, to: &str, kind: RouteKind, hops: &[(u32, Option<&str>)]) -> Option<RouteTo> {
        let steps = self.take(Change::Route(Event::Added, route(MAIN_TABLE, to, kind, hops)));
        match &steps[..] {
            [] => None,
            [Step::Route(change)] => {
                assert_eq!(change.net, net(to));
                change.to.clone()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn link(ifindex: u32, name: &str) -> Link {
    let mac = Some(MAC.0);
    Link { ifindex, name: name.into(), mac, mtu_bytes: 1500, flags: 0, hardware: 1, master: None }
}

fn route(table: u32, to: &str, kind: RouteKind, hops: &[(u32, Option<&str>)]) -> Route {
    let hop = |(ifindex, via): &(u32, Option<&str>)| Hop { ifindex: *ifindex, via: via.map(addr), weight: 2 };
    let Net { address: dst, len: prefix_len } = net(to);
    Route {
        table,
        dst,
        prefix_len,
        kind,
        priority: 0,
        protocol: 3,
        next_hops: hops.iter().map(hop).collect(),
    }
}

fn address(ifindex: u32, text: &str, flags: u32) -> Address {
    let Net { address: addr, len: prefix_len } = net(text);
    Address { ifindex, addr, prefix_len, peer: None, flags }
}

fn neighbor(ifindex: u32, address: &str, mac: Option<[u8; 6]>, state: u16) -> Neighbor {
    Neighbor { ifindex, addr: addr(address), mac, state }
}

fn hop(via: Option<&str>, interface: IfIndex, weight: u32) -> NextHop {
    NextHop { via: via.map(addr), interface: Some(interface), weight }
}

#[test]
fn routes_go_where_the_kernel_says_or_to_the_kernel() {
    let mut bench = Bench::new();
    let via = |hops: Vec<NextHop>| Some(RouteTo::Via(hops));
    let (v4, v6) = (Some("10.0.1.2"), Some("fe80::1"));
    use RouteKind::*;
    assert_eq!(bench.way("192.0.2.0/24", Unicast, &[(1, v4)]), via(vec![hop(v4, A, 2)]));
    assert_eq!(bench.way("0.0.0.0/0", Unicast, &[(2, v6)]), via(vec![hop(v6, B, 2)]), "by IPv6");
    assert_eq!(bench.way("10.0.1.0/24", Unicast, &[(1, None)]), via(vec![hop(None, A, 2)]));
    let both = [(1, v4), (2, v6)];
    assert_eq!(bench.way("192.0.2.0/24", Unicast, &both), via(vec![hop(v4, A, 2), hop(v6, B, 2)]));
    // Other devices, some of the next hops or all; kinds that only the kernel knows.
    let punt = via(vec![hop(None, PUNT, 1)]);
    assert_eq!(bench.way("10.8.0.0/24", Unicast, &[(3, None)]), punt);
    assert_eq!(bench.way("10.8.0.0/24", Unicast, &[(3, v4), (7, None)]), punt);
    assert_eq!(
        bench.way("10.8.0.0/24", Unicast, &[(1, v4), (3, v4)]),
        via(vec![hop(v4, A, 2), hop(None, PUNT, 2)])
    );
    assert_eq!(bench.way("10.8.0.0/24", Unicast, &[(1, None), (2, None)]), punt, "which link, only it knows");
    assert_eq!(bench.way("10.8.0.0/24", Unsupported, &[(1, v4)]), punt);
    for (kind, to) in [
        (Blackhole, RouteTo::Blackhole),
        (Unreachable, RouteTo::Unreachable),
        (Prohibit, RouteTo::Prohibit),
        (Throw, RouteTo::Unreachable),
    ] {
        assert_eq!(bench.way("10.8.0.0/24", kind, &[]), Some(to));
    }
    for stays in ["fe80::/64", "ff00::/8", "224.0.0.0/4"] {
        assert_eq!(bench.way(stays, Unicast, &[(1, None)]), None, "{stays}");
    }
    let gone = Change::Route(Event::Removed, route(MAIN_TABLE, "192.0.2.0/24", Unicast, &both));
    assert_eq!(bench.take(gone), [Step::Route(RouteChange { net: net("192.0.2.0/24"), to: None })]);
    assert_eq!(bench.take(Change::Route(Event::Added, route(99, "192.0.2.0/24", Unicast, &both))), []);
}

#[test]
fn addresses_are_the_kernels_as_long_as_one_device_has_them() {
    let mut bench = Bench::new();
    let (here, own) = (addr("10.0.1.1"), vec![(addr("10.0.1.1"), 24)]);
    let added = |a| Change::Address(Event::Added, a);
    let removed = |a| Change::Address(Event::Removed, a);
    let on = |ifindex| address(ifindex, "10.0.1.1/24", 0);
    assert_eq!(bench.take(added(on(1))), [Step::Local(here, true), Step::Addresses(A, own.clone())]);
    assert_eq!(bench.take(Change::Address(Event::Changed, on(1))), [], "said already");
    assert_eq!(bench.take(added(on(3))), [], "of no port");
    assert_eq!(bench.take(removed(on(1))), [Step::Addresses(A, vec![])]);
    assert_eq!(bench.take(removed(on(3))), [Step::Local(here, false)]);
    // No errors are sent from what is not confirmed, or from link-local addresses.
    let tentative = address(2, "2001:db8::1/64", libc::IFA_F_TENTATIVE);
    assert_eq!(bench.take(added(tentative)), [Step::Local(addr("2001:db8::1"), true)]);
    let confirmed = Change::Address(Event::Changed, address(2, "2001:db8::1/64", 0));
    assert_eq!(bench.take(confirmed), [Step::Addresses(B, vec![(addr("2001:db8::1"), 64)])]);
    assert_eq!(bench.take(added(address(2, "fe80::1/64", 0))), [Step::Local(addr("fe80::1"), true)]);
    // With a peer, the prefix is not ours.
    let peer = Address { peer: Some(addr("10.0.5.2")), ..address(1, "10.0.5.1/30", 0) };
    assert_eq!(
        bench.take(added(peer)),
        [Step::Local(addr("10.0.5.1"), true), Step::Addresses(A, vec![(addr("10.0.5.1"), 32)])]
    );
    // The local table has what addresses do not say: broadcasts, anycast.
    let broadcast = route(LOCAL_TABLE, "10.0.1.255/32", RouteKind::Broadcast, &[(1, None)]);
    let told = Change::Route(Event::Added, broadcast.clone());
    assert_eq!(bench.take(told), [Step::Local(addr("10.0.1.255"), true)]);
    let prefix = route(LOCAL_TABLE, "127.0.0.0/8", RouteKind::Local, &[(1, None)]);
    assert_eq!(bench.take(Change::Route(Event::Added, prefix)), []);
    assert_eq!(
        bench.take(Change::Route(Event::Removed, broadcast)),
        [Step::Local(addr("10.0.1.255"), false)]
    );
}

#[test]
fn neighbors_are_told_with_their_state_and_of_ports_only() {
    let mut bench = Bench::new();
    let host = addr("10.0.1.2");
    let mut tell = |event, ifindex, mac, state| {
        bench.take(Change::Neighbor(event, neighbor(ifindex, "10.0.1.2", mac, state)))
    };
    let mac = Some(MAC.0);
    assert_eq!(tell(Event::Added, 3, mac, libc::NUD_REACHABLE), []);
    assert_eq!(tell(Event::Added, 1, None, libc::NUD_INCOMPLETE), []);
    for (state, known) in [
        (libc::NUD_REACHABLE, State::Reachable),
        (libc::NUD_STALE, State::Stale),
        (libc::NUD_DELAY, State::Probe),
        (libc::NUD_PROBE, State::Probe),
        (libc::NUD_PERMANENT, State::Static),
    ] {
        assert_eq!(
            tell(Event::Changed, 1, mac, state),
            [Step::Neighbor(A, host, InKernel::Known(MAC, known))]
        );
    }
    assert_eq!(tell(Event::Changed, 1, None, libc::NUD_FAILED), [Step::Neighbor(A, host, InKernel::Failed)]);
    assert_eq!(
        tell(Event::Removed, 1, None, libc::NUD_FAILED),
        [Step::Neighbor(A, host, InKernel::Forgotten)]
    );
    assert_eq!(tell(Event::Removed, 1, None, libc::NUD_FAILED), []);
    for group in ["224.0.0.1", "ff02::1", "255.255.255.255"] {
        let group = neighbor(1, group, Some([0xff; 6]), libc::NUD_NOARP);
        assert_eq!(bench.take(Change::Neighbor(Event::Added, group)), []);
    }
}

#[test]
fn a_port_is_on_whatever_device_has_its_name() {
    let mut bench = Bench::new();
    bench.take(Change::Address(Event::Added, address(1, "10.0.1.1/24", 0)));
    bench.take(Change::Neighbor(Event::Added, neighbor(1, "10.0.1.2", Some(MAC.0), libc::NUD_REACHABLE)));
    let known = InKernel::Known(MAC, State::Reachable);
    assert_eq!(bench.0.question(A, addr("10.0.1.2")), Some((1, Some(known))));
    assert_eq!(bench.0.question(A, addr("10.0.1.3")), Some((1, None)));
    // Renamed: what was told means something else.
    assert_eq!(
        bench.take(Change::Link(Event::Changed, link(1, "lan"))),
        [Step::Neighbor(A, addr("10.0.1.2"), InKernel::Forgotten), Step::Addresses(A, vec![])]
    );
    assert!(bench.0.wants_all_again() && !bench.0.wants_all_again());
    assert_eq!(bench.0.question(A, addr("10.0.1.2")), None);
    let lan = bench.way("10.0.1.0/24", RouteKind::Unicast, &[(1, None)]).unwrap();
    assert!(bench.0.is_punted(&lan));
    // A new device of that name, with another address and MTU.
    let new = Link { mac: Some([2, 0, 0, 0, 0, 7]), mtu_bytes: 9000, ..link(8, "eth1") };
    assert_eq!(
        bench.take(Change::Link(Event::Added, new)),
        [Step::Addresses(A, vec![]), Step::Lladdr(A, EtherAddr([2, 0, 0, 0, 0, 7])), Step::Mtu(A, 9000)]
    );
    assert_eq!(bench.0.question(A, addr("10.0.1.2")), Some((8, None)));
    let gone = bench.take(Change::Link(Event::Removed, link(8, "eth1")));
    assert_eq!((gone, bench.0.wants_all_again()), (vec![], false));
    let bridged = Link { master: Some(5), ..link(10, "eth1") };
    let steps = bench.take(Change::Link(Event::Added, bridged));
    assert!(steps.iter().any(|step| matches!(step, Step::Warn(_))), "{steps:?}");
}
