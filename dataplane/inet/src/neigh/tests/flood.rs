//! What strangers do: floods of claims and questions, sweeps of a network.

use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A small generator of numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn address(&mut self) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 | self.next() as u32 & 0x00ff_ffff).into()
    }

    fn mac(&mut self) -> EtherAddr {
        let [.., a, b, c, d] = self.next().to_be_bytes();
        EtherAddr([2, 0, a, b, c, d])
    }
}

const PROVEN: u32 = 100;

/// A table in which a hundred neighbours answered, one is given and one of a route.
fn settled(config: Config) -> (Rig, Vec<EntryInfo>) {
    let mut rig = Rig::new(config);
    for number in 0..PROVEN {
        rig.prove(&format!("192.0.2.{}", 10 + number), mac(number as u8));
        rig.pass(20);
    }
    let mut out = Vec::new();
    rig.neighbors.insert_static(1, ip("192.0.2.2"), mac(200), rig.now_ms, &mut out).unwrap();
    rig.neighbors.gateway(1, ip("192.0.2.3"), rig.now_ms, &mut out).unwrap();
    let kept = kept(&rig);
    assert_eq!(kept.len(), PROVEN as usize + 2);
    (rig, kept)
}

fn kept(rig: &Rig) -> Vec<EntryInfo> {
    let mut all: Vec<EntryInfo> = rig
        .neighbors
        .entries(rig.now_ms)
        .filter(|entry| matches!(entry.address, IpAddr::V4(addr) if addr.octets()[0] == 192))
        .collect();
    all.sort_by_key(|entry| entry.id);
    all
}

/// The same entries with the same link addresses.
fn assert_kept(rig: &Rig, before: &[EntryInfo]) {
    let after = kept(rig);
    assert_eq!(after.len(), before.len());
    for (after, before) in after.iter().zip(before) {
        assert_eq!((after.id, after.address, after.mac), (before.id, before.address, before.mac));
    }
}

/// Releases what is gone, as the control thread does, and counts what is told.
fn drain(rig: &mut Rig, out: &mut Vec<Action>) -> usize {
    let told = out.len();
    for action in out.drain(..) {
        if let Action::Gone { id, .. } = action {
            rig.neighbors.release(id);
        }
    }
    told
}

#[test]
fn a_million_spoofed_packets_leave_the_table_as_it_was() {
    let (mut rig, before) = settled(Config::default());
    let mut numbers = Numbers(1);
    let (mut out, mut told) = (Vec::new(), 0);
    let capacity = rig.neighbors.config().capacity as usize;
    for number in 0..1_000_000u32 {
        let (address, mac) = (numbers.address(), Some(numbers.mac()));
        let kind = match number % 4 {
            0 => Kind::Answer { address, mac, solicited: true, override_flag: true, router: false },
            1 => Kind::Answer { address, mac, solicited: false, override_flag: true, router: false },
            2 => Kind::Request { sender: address, mac, target: numbers.address() },
            _ => Kind::Request { sender: address, mac, target: ip(OURS_V4) },
        };
        rig.neighbors.event(&Event { interface: 1, kind }, rig.now_ms, ours, &mut out);
        if number % 1000 == 0 {
            rig.now_ms += 1; // a million a second
            rig.neighbors.tick(rig.now_ms, &mut out);
            told += drain(&mut rig, &mut out);
        }
    }
    told += drain(&mut rig, &mut out);
    assert!(out.capacity() <= 2 * capacity && told <= capacity, "{told}");
    assert!(rig.neighbors.entries(rig.now_ms).count() <= capacity / 2);
    assert_kept(&rig, &before);
    // Whom we look for is found nevertheless, and the strangers age.
    rig.prove("192.0.2.250", mac(250));
    rig.pass(1000);
    for entry in &before {
        rig.neighbors.used(entry.id, rig.now_ms, &mut out);
    }
    assert_eq!(rig.state("192.0.2.250"), Some(State::Reachable));
}

#[test]
fn spoofed_claims_change_a_neighbour_once_a_second() {
    let (mut rig, _) = settled(Config::default());
    rig.pass(2000);
    let mut numbers = Numbers(2);
    let (mut out, mut changes) = (Vec::new(), 0);
    for number in 0..100_000u32 {
        let mac = Some(numbers.mac());
        let kind = claim("192.0.2.10", mac, false, true);
        rig.neighbors.event(&Event { interface: 1, kind }, rig.now_ms, ours, &mut out);
        changes += out.drain(..).filter(|action| matches!(action, Action::Reachable { .. })).count();
        rig.now_ms += u64::from(number % 10 == 0);
    }
    assert!(changes <= 11, "{changes}");
}

/// RFC 6583: somebody sends to every address of a network, so that we look for all of them.
#[test]
fn a_sweep_is_bounded_and_hurts_nobody_else() {
    let config = Config::default();
    let (mut rig, before) = settled(config.clone());
    let start_ms = rig.now_ms;
    let (mut out, mut asked) = (Vec::new(), 0u64);
    for number in 0..1_000_000u64 {
        let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number) << 7);
        rig.neighbors.resolve(1, address.into(), rig.now_ms, &mut out);
        if number % 100 == 0 {
            rig.now_ms += 1;
            rig.neighbors.tick(rig.now_ms, &mut out);
        }
        if number % 50_000 == 25_050 {
            // Hosts of another version and of another interface are found at once: they answer within 10 ms.
            for interface in [1, 2] {
                let address = Ipv4Addr::from_bits(0xc633_6400 | (number / 50_000) as u32).into();
                assert_eq!(rig.neighbors.resolve(interface, address, rig.now_ms, &mut out), Lookup::Waiting);
                rig.now_ms += 10;
                let mac = Some(mac(77));
                let kind = Kind::Answer { address, mac, solicited: true, override_flag: true, router: false };
                rig.neighbors.event(&Event { interface, kind }, rig.now_ms, ours, &mut out);
                let lookup = rig.neighbors.resolve(interface, address, rig.now_ms, &mut out);
                assert!(matches!(lookup, Lookup::Known { .. }), "{lookup:?}");
            }
        }
        asked += out.iter().filter(|action| matches!(action, Action::Solicit { .. })).count() as u64;
        drain(&mut rig, &mut out);
        let entries = || rig.neighbors.entries(rig.now_ms);
        if number % 1000 == 0 {
            let waiting = entries().filter(|entry| entry.state == State::Incomplete).count() as u32;
            assert!(waiting <= config.incomplete_per_interface + 2, "{waiting}");
        }
    }
    let rate = u64::from(config.solicit_per_interface) * (rig.now_ms - start_ms) / 1000;
    let others = 40 + u64::from(PROVEN);
    assert!(asked <= rate + u64::from(config.solicit_burst) + others, "{asked} > {rate}");
    assert_kept(&rig, &before);
}

/// What is known is asked for before what is not: a sweep does not let a proven neighbour fail for want of a question.
#[test]
fn a_sweep_does_not_use_up_the_questions_of_the_proven() {
    let mut rig = Rig::new(Config { solicit_per_second: 10, solicit_burst: 8, ..Config::default() });
    let id = rig.prove("192.0.2.10", mac(10));
    let (mut out, mut number) = (Vec::new(), 0);
    let mut asked_at = None;
    for _ in 0..1600 {
        rig.now_ms += 20;
        rig.neighbors.used(id, rig.now_ms, &mut out);
        for _ in 0..10 {
            number += 1;
            let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | number);
            rig.neighbors.resolve(1, address.into(), rig.now_ms, &mut out);
        }
        rig.neighbors.tick(rig.now_ms, &mut out);
        if asked_at.is_none() && out.contains(&solicit("192.0.2.10", Some(mac(10)))) {
            asked_at = Some(rig.now_ms - 1_000_000);
            rig.answer("192.0.2.10", mac(10));
        }
        drain(&mut rig, &mut out);
    }
    assert!(asked_at.is_some_and(|at| at < 30_200), "{asked_at:?}");
    assert_eq!(rig.state("192.0.2.10"), Some(State::Reachable));
    assert!(rig.neighbors.stats().refused_rate > 10_000);
}

/// One tick looks at a bounded number of entries, whatever came due in a pause.
#[test]
fn a_tick_after_a_pause_is_bounded() {
    let mut rig = Rig::new(Config { capacity: 8192, ..Config::default() });
    let mut out = Vec::new();
    for number in 0..4000 {
        let sender: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 + number + 1).into();
        let kind = Kind::Request { sender, mac: Some(mac(1)), target: ip(OURS_V4) };
        rig.neighbors.event(&Event { interface: 1, kind }, rig.now_ms, ours, &mut out);
    }
    rig.now_ms += 3_600_000;
    out.clear();
    let mut most = 0;
    for _ in 0..10 {
        rig.neighbors.tick(rig.now_ms, &mut out);
        most = most.max(out.len());
        drain(&mut rig, &mut out);
    }
    assert_eq!((most, rig.neighbors.entries(0).count()), (1024, 0));
}
