//! Routes: several next hops, changes under load, what is on the link, and addresses that move.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use nke_dataplane::inet::{Net, NextHop, Request, RouteChange, RouteTo};
use nke_filters::IfIndex;

use crate::bed::*;

fn via(router: &str) -> NextHop {
    NextHop { via: Some(router.parse().unwrap()), interface: None, weight: 1 }
}

fn to(dst: &str, port: u16) -> Vec<u8> {
    frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4(dst).into(), port, b""))
}

#[test]
fn equal_costs_spread_flows_and_keep_each_to_its_way() {
    let bed = Bed::new();
    bed.neighbor(0, "192.0.2.254");
    bed.neighbor(1, "198.51.100.254");
    bed.change("203.0.113.0/24", Some(RouteTo::Via(vec![via("192.0.2.254"), via("198.51.100.254")])));
    let mut ways: HashMap<u16, usize> = HashMap::new();
    for round in 0..4 {
        for port in 0..200 {
            bed.send(0, &to("203.0.113.9", port));
            let way = until("it leaves", || (0..2).find(|i| bed.ends[*i].recv().is_some()));
            assert_eq!(*ways.entry(port).or_insert(way), way, "flow {port}, round {round}");
        }
    }
    let first = ways.values().filter(|w| **w == 0).count();
    println!("200 flows: {first} and {}", 200 - first);
    assert!((50..=150).contains(&first), "{first}");
    bed.finish();
}

#[test]
fn a_hundred_thousand_routes_come_and_go_while_packets_flow() {
    let bed = Bed::new();
    bed.neighbor(1, "198.51.100.9");
    bed.neighbor(1, "198.51.100.254");
    let nets: Vec<Net> = (0..100_000u32)
        .map(|i| Net { address: Ipv4Addr::from(0x0b00_0000 + i * 256).into(), len: 24 })
        .collect();
    let hop = RouteTo::Via(vec![via("198.51.100.254")]);
    let packet = to("198.51.100.9", 9);
    let mut passed = 0u64;
    for how in [Some(hop), None] {
        let changes = nets.iter().map(|net| RouteChange { net: *net, to: how.clone() }).collect();
        let control = bed.control();
        let applied = std::thread::spawn(move || {
            control.inet(Request::Routes(changes)).unwrap().wait(WAIT * 6).unwrap();
        });
        while !applied.is_finished() {
            bed.send(0, &packet);
            bed.next(1);
            passed += 1;
        }
        applied.join().unwrap();
        bed.send(0, &to("12.134.159.1", 9));
        if how.is_some() {
            assert_eq!(bed.next(1)[..6], HOST[1].0, "the last one is there");
        }
    }
    until("it is gone", || (bed.drops("no_route") == 1).then_some(()));
    println!("100000 routes added and taken away: {passed} packets, 0 lost");
    assert!(passed > 0);
    bed.finish();
}

#[test]
fn a_router_has_to_be_on_a_network_of_ours() {
    let bed = Bed::new();
    let change = RouteChange { net: net("203.0.113.0/24"), to: Some(RouteTo::Via(vec![via("10.9.9.9")])) };
    assert!(bed.control().inet(Request::Routes(vec![change])).unwrap().wait(WAIT).is_err());
    let none = RouteChange { net: net("203.0.113.0/24"), to: Some(RouteTo::Via(Vec::new())) };
    assert!(bed.control().inet(Request::Routes(vec![none])).unwrap().wait(WAIT).is_err());
    // An IPv6 router is named by its link-local address and the interface.
    let router: IpAddr = "fe80::9".parse().unwrap();
    bed.neighbor(1, "fe80::9");
    let hop = NextHop { via: Some(router), interface: Some(IfIndex(1)), weight: 1 };
    bed.change("2001:db8:f::/48", Some(RouteTo::Via(vec![hop])));
    let packet = udp(v6("2001:db8:a::9").into(), v6("2001:db8:f::1").into(), 9, b"");
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &packet));
    assert_eq!(bed.next(1)[..6], HOST[1].0);
    bed.finish();
}

#[test]
fn an_address_that_moves_takes_its_network_along() {
    let bed = Bed::new();
    let control = bed.control();
    let address: IpAddr = "203.0.113.1".parse().unwrap();
    bed.neighbor(0, "192.0.2.9");
    for i in [0, 1] {
        let name = ["a", "b"][i];
        control.add_address(name, address, 24).unwrap().wait(WAIT).unwrap();
        assert!(control.add_address("b", address, 24).unwrap().wait(WAIT).is_err(), "one place at a time");
        bed.neighbor(i, "203.0.113.9");
        bed.send(0, &to("203.0.113.9", 9));
        assert_eq!(bed.next(i)[..6], HOST[i].0);
        bed.send(0, &to("203.0.113.1", 9));
        assert_eq!(bed.next(0)[34..36], [3, 3], "is ours");
        control.remove_address(name, address).unwrap().wait(WAIT).unwrap();
        bed.send(0, &to("203.0.113.1", 9));
        until("it is nobody's", || (bed.drops("no_route") == 1 + i as u64).then_some(()));
        while bed.ends[0].recv().is_some() {}
    }
    bed.finish();
}
