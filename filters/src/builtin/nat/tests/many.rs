//! Many flows, few ports, floods, and several workers at once.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use super::*;
use crate::flow::packet::{Upper, V4};

fn packet(src: u32, src_port: u16, dst: u32) -> V4 {
    let upper = Upper { protocol: 17, src_port, dst_port: 53, ..Upper::default() };
    V4 { src, dst, upper }
}

impl Rig {
    fn open(&self, packet: &V4) -> Result<(u32, u16), Why> {
        self.nat.outbound(packet, self.nat.sessions.table().bucket(&packet.key()))
    }
}

#[test]
fn ten_thousand_flows_have_mappings_of_their_own() {
    let rig = rig(&[]);
    let all: HashSet<_> = (0..10_000u32)
        .map(|host| rig.open(&packet(0x0a00_0000 + host, 4000, 0xc000_0201)).unwrap())
        .collect();
    assert_eq!((all.len(), rig.nat.mappings.len()), (10_000, 10_000));
    assert!(all.iter().all(|(addr, port)| *addr == 0xcb00_7101 && *port >= 1024));
    rig.check();
}

#[test]
fn an_inside_address_is_paired_with_an_outside_address() {
    let rig = rig(&[("to", "203.0.113.0/28")]);
    let mut seen = HashSet::new();
    for host in 0..64u32 {
        let of_host: HashSet<_> = (0..20u16)
            .map(|port| rig.open(&packet(0x0a00_0000 + host, 4000 + port, 0xc000_0201)).unwrap().0)
            .collect();
        assert_eq!(of_host.len(), 1);
        seen.extend(of_host);
    }
    assert!(seen.len() > 8, "the pool is used: {}", seen.len());
}

#[test]
fn ports_run_out_and_come_back() {
    let rig = rig(&[("ports", "5000-5039")]);
    let sent = |host: u32| rig.output(&udp(host));
    for host in 0..40 {
        assert!(sent(host).is_ok(), "every port is found");
    }
    assert_eq!(sent(40), Err(Why::NoPort));
    assert_eq!(rig.tally.no_port.get(), 1);
    assert!(sent(7).is_ok(), "who has a port keeps it");
    rig.at_s(301);
    assert_eq!(rig.nat.mappings.len(), 0);
    assert!(sent(40).is_ok());
    rig.check();
}

fn udp(host: u32) -> Vec<u8> {
    let src = Ipv4Addr::from_bits(0x0a00_0000 + host);
    Packet::udp(&format!("{src}:4000"), "192.0.2.1:53").bytes()
}

#[test]
fn a_flood_leaves_established_flows_alone() {
    let rig = rig(&[("flows", "1000")]);
    let remote = 0xc000_0201;
    for host in 0..500 {
        let (addr, port) = rig.open(&packet(0x0a00_0000 + host, 4000, remote)).unwrap();
        let mut answer = packet(remote, 53, addr);
        answer.upper.dst_port = port;
        let bucket = rig.nat.sessions.table().bucket(&answer.key());
        assert_eq!(
            rig.nat.inbound(&answer, bucket),
            super::super::nat44::Inbound::To((0x0a00_0000 + host, 4000))
        );
    }
    let mut random = 1u64;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (src, dst) = (0x0a80_0000 | (random >> 44) as u32, 0xc633_0000 | (random >> 20) as u16 as u32);
        assert!(rig.open(&packet(src, random as u16 | 1, dst)).is_ok(), "the flood makes room for itself");
    }
    assert_eq!((rig.figure("established"), rig.figure("flows")), (500, 1000));
    assert!(rig.figure("evicted") > 19_000);
    assert!(rig.nat.mappings.len() <= 1000, "mappings go with their sessions");
    let created = rig.figure("created");
    for host in 0..500 {
        rig.open(&packet(0x0a00_0000 + host, 4000, remote)).unwrap();
    }
    assert_eq!(rig.figure("created"), created, "none of them was opened again");
    rig.check();
}

#[test]
fn a_table_full_of_established_flows_refuses() {
    let rig = rig(&[("flows", "4")]);
    for host in 0..4 {
        let sent = rig.output(&udp(host)).unwrap();
        let answer = Packet::udp("192.0.2.1:53", &src_of(&sent));
        assert!(rig.prerouting(&answer.bytes()).is_ok());
    }
    assert_eq!(rig.output(&udp(4)), Err(Why::TableFull));
    assert_eq!((rig.figure("table_full"), rig.nat.mappings.len()), (1, 4), "the mapping is given back");
    rig.check();
}

/// Workers open the same and different flows at once, while time ends them: an outside endpoint never stands for two
/// inside ones, all workers see the same one, and nothing is lost in the end.
#[test]
fn workers_share_the_mappings() {
    let rig = rig(&[("ports", "5000-5299"), ("flows", "4096")]);
    for round in 0..20u32 {
        let nat = &rig.nat;
        let results: Vec<HashMap<(u32, u16), (u32, u16)>> = std::thread::scope(|scope| {
            let open = |worker: u32| {
                let mut seen = HashMap::new();
                for i in 0..250u32 {
                    // Each in another order, so that they meet.
                    let host = (i * (2 * worker + 1) * 7) % 250;
                    let packet = packet(0x0a00_0000 + host, 4000 + round as u16, 0xc000_0201 + worker % 2);
                    let bucket = nat.sessions.table().bucket(&packet.key());
                    match nat.outbound(&packet, bucket) {
                        Ok(outside) => assert!(
                            seen.insert((packet.src, packet.upper.src_port), outside)
                                .is_none_or(|was| was == outside)
                        ),
                        Err(why) => assert!(matches!(why, Why::Busy | Why::NoPort), "{why:?}"),
                    }
                }
                seen
            };
            let workers: Vec<_> = (0..3).map(|worker| scope.spawn(move || open(worker))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let (mut by_inside, mut by_outside) = (HashMap::new(), HashMap::new());
        for (inside, outside) in results.into_iter().flatten() {
            assert_eq!(*by_inside.entry(inside).or_insert(outside), outside, "one mapping");
            assert_eq!(*by_outside.entry(outside).or_insert(inside), inside, "one holder");
        }
        assert!(by_inside.len() > 200);
        rig.check();
        rig.at_s((round + 1) * 400);
        assert_eq!((rig.figure("flows"), rig.nat.mappings.len(), rig.nat.mappings.permits_len()), (0, 0, 0));
        rig.check();
    }
}

/// While workers use a handful of flows, time ends them over and over.
#[test]
fn flows_end_under_their_users() {
    let rig = rig(&[("udp_s", "1"), ("flows", "64")]);
    std::thread::scope(|scope| {
        let nat = &rig.nat;
        for worker in 0..2u32 {
            scope.spawn(move || {
                for i in 0..20_000u32 {
                    let packet = packet(0x0a00_0000 + i % 8, 4000, 0xc000_0201 + (i + worker) % 3);
                    let bucket = nat.sessions.table().bucket(&packet.key());
                    if let Err(why) = nat.outbound(&packet, bucket) {
                        assert!(matches!(why, Why::Busy | Why::TableFull), "{why:?}");
                    }
                }
            });
        }
        scope.spawn(move || (0..3000).for_each(|i| nat.age(i * 2)));
    });
    rig.at_s(10_000);
    assert_eq!((rig.figure("flows"), rig.figure("established")), (0, 0));
    assert_eq!((rig.nat.mappings.len(), rig.nat.mappings.permits_len()), (0, 0));
    rig.check();
}
