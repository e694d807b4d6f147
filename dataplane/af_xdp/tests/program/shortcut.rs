//! What takes the shortcut, and how it looks afterwards: mutated frames against the same rules in plain Rust.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;

use af_xdp::program::{Action, Count, ProgramConfig, Redirect, Shortcut, ShortcutPort, ShortcutSizes};

use crate::common::root;
use crate::frames::{TAG, ether, numbers, ports};
use crate::refusal;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const NEXT: [u8; 6] = [0xfe, 9, 8, 7, 6, 0xff];
const MTU: u32 = 100;
/// Of 198.51.100.0/24 the next hop is number 5, but for one address that is in a node, where its number is 6, and one that
/// nobody is the next hop of. 6 is not known.
const NET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);
const NODE: u32 = 2;
const VIA: u32 = 1 << 20;
const SIZES: ShortcutSizes = ShortcutSizes { nodes: 3, nodes6: 16, hops: 8, interfaces: 4 };
/// 2001:db00::/24 by nodes 0 to 12, one for each further byte, for 2001:db01:...:01 alone; everything in 2001:db80::/32 by the first.
const NET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb01, 0x101, 0x101, 0x101, 0x101, 0x101, 0x101);
const WIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb80, 0, 0, 0, 0, 0, 9);
/// Interfaces: packets come in by one, and go out by the other.
const IN: u32 = 1;
const BY: u32 = 3;

fn tables() -> Shortcut {
    let shortcut = Shortcut::new(SIZES).unwrap();
    let far = NET.to_bits() as usize >> 8;
    shortcut.root()[far].store(VIA | 5, Relaxed);
    // The next /24 is by a node, where entries differ; the one behind it by a node there is not.
    shortcut.root()[far + 1].store(1 << 31 | NODE, Relaxed);
    for (last, entry) in [(7, VIA | 5), (8, VIA | 6), (9, 3 << 20), (10, VIA | 8), (11, VIA | 4)] {
        shortcut.nodes()[NODE as usize * 256 + last].store(entry, Relaxed);
    }
    shortcut.root()[far + 2].store(1 << 31 | SIZES.nodes, Relaxed);
    shortcut.root6()[0x2001db].store(1 << 31, Relaxed);
    for node in 0..12 {
        shortcut.nodes6()[node * 256 + 1].store(1 << 31 | (node as u32 + 1), Relaxed);
    }
    shortcut.nodes6()[12 * 256 + 1].store(VIA | 5, Relaxed);
    shortcut.nodes6()[0x80].store(VIA | 5, Relaxed);
    let hop = |mac: [u8; 6], interface: u64| {
        mac.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)) | interface << 48
    };
    shortcut.hops()[5].store(hop(NEXT, BY.into()), Relaxed);
    // By an interface there is not.
    shortcut.hops()[4].store(hop(NEXT, SIZES.interfaces.into()), Relaxed);
    shortcut
}

fn open(shortcut: &Shortcut) {
    shortcut.set_port(IN, ShortcutPort { mac: OURS, mtu: 1500, takes: true, takes6: true, gives: false });
    shortcut.set_port(BY, ShortcutPort { mac: OUT, mtu: MTU, takes: false, takes6: false, gives: true });
    // The loopback device: nothing goes out in a test run.
    shortcut.set_device(BY, 1).unwrap();
}

fn load(shortcut: &Shortcut) -> Redirect {
    Redirect::load_with(&ProgramConfig::default(), Some((shortcut, IN))).unwrap()
}

fn sum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// To us, with a checksum that is right, and some bytes of padding.
fn packet(ttl: u8, to: Ipv4Addr) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 40, 0x12, 0x34, 0, 0, ttl, 17, 0, 0, 192, 0, 2, 1];
    header.extend(to.octets());
    let checksum = !sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ether(&[], &[&[8, 0], &header, &ports(1, 2), &[0xee; 6]]);
    frame[..6].copy_from_slice(&OURS);
    frame
}

/// Of IPv6, with some bytes of padding.
fn packet6(next: u8, hops: u8, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let header = [&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, next, hops][..], &from.octets(), &to.octets()].concat();
    let mut frame = ether(&[], &[&header, &ports(1, 2), &[0xee; 2]]);
    frame[..6].copy_from_slice(&OURS);
    frame
}

/// The frame as it is forwarded, or `None`: the rules in plain Rust.
fn forwarded(frame: &[u8]) -> Option<Vec<u8>> {
    if frame.len() < 34 || frame[..6] != OURS {
        return None;
    }
    match frame[12..14] {
        [0x08, 0x00] => forwarded4(frame),
        [0x86, 0xdd] => forwarded6(frame),
        _ => None,
    }
}

fn forwarded6(frame: &[u8]) -> Option<Vec<u8>> {
    let ip = frame.get(14..).filter(|ip| ip.len() >= 40)?;
    let address = |at: usize| Ipv6Addr::from(*ip[at..].first_chunk::<16>().unwrap());
    let usual = |a: Ipv6Addr| !a.is_multicast() && !a.is_unicast_link_local() && a.to_bits() >> 64 != 0;
    let (src, dst) = (address(8), address(24));
    let known = dst == NET6 || dst.to_bits() >> 96 == WIDE6.to_bits() >> 96;
    let total = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let takes = ip[0] >> 4 == 6
        && ip[6] != 0
        && ip[7] > 1
        && usual(src)
        && usual(dst)
        && total <= ip.len()
        && ip.len() <= MTU as usize
        && known;
    takes.then(|| {
        let mut out = [&NEXT, &OUT, &frame[12..]].concat();
        out[21] -= 1;
        out
    })
}

fn forwarded4(frame: &[u8]) -> Option<Vec<u8>> {
    let ip = frame.get(14..).filter(|ip| ip.len() >= 20)?;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let usual = |first: u8| !matches!(first, 0 | 127 | 224..);
    let dst = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
    let known = match dst.octets() {
        [198, 51, 100, _] => true,
        [198, 51, 101, last] => last == 7,
        _ => false,
    };
    let takes = ip[0] == 0x45
        && ip[8] > 1
        && sum(&ip[..20]) == 0xffff
        && usual(ip[12])
        && usual(ip[16])
        && (20..=ip.len()).contains(&total)
        && ip.len() <= MTU as usize
        && known;
    takes.then(|| {
        let mut out = [&NEXT, &OUT, &frame[12..]].concat();
        out[22] -= 1;
        out[24..26].fill(0);
        // Of the two that stand for the same sum, RFC 1624 gives the one that a sum over the header gives.
        let checksum = !sum(&out[14..34]);
        out[24..26].copy_from_slice(&checksum.to_be_bytes());
        out
    })
}

fn judge(program: &Redirect, frame: &[u8]) -> bool {
    let (action, after) = program.run_on(frame).unwrap();
    match forwarded(frame) {
        Some(out) => {
            assert_eq!((action, &after), (Action::Redirect, &out), "{frame:x?}");
            true
        }
        None => {
            // No socket is there.
            assert_eq!((action, &after[..]), (Action::Pass, frame), "nothing done to {frame:x?}");
            false
        }
    }
}

#[test]
fn what_is_plain_takes_it_and_the_rest_goes_to_the_sockets() {
    if !root() {
        return;
    }
    let shortcut = tables();
    open(&shortcut);
    let program = load(&shortcut);
    let by = |last: [u8; 2]| packet(64, Ipv4Addr::new(198, 51, last[0], last[1]));
    let cases = [
        ("plain", by([100, 1]), true),
        ("by a node", by([101, 7]), true),
        ("to a hop not known", by([101, 8]), false),
        ("for this host", by([101, 9]), false),
        ("to a hop there is no room for", by([101, 10]), false),
        ("by an interface there is not", by([101, 11]), false),
        ("without a route", by([101, 12]), false),
        ("by a node there is not", by([102, 7]), false),
        ("on its last hop", packet(1, NET), false),
        ("on the hop before", packet(2, NET), true),
        ("as large as can be", [&by([100, 1])[..], &[0; 54]].concat(), true),
        ("larger", [&by([100, 1])[..], &[0; 55]].concat(), false),
        ("IPv6", packet6(17, 64, WIDE6, WIDE6), true),
        ("by thirteen nodes", packet6(6, 2, WIDE6, NET6), true),
        ("a neighbour of it", packet6(6, 2, WIDE6, (NET6.to_bits() + 1).into()), false),
        ("another one", packet6(6, 2, WIDE6, (NET6.to_bits() + (1 << 64)).into()), false),
        ("on its last hop", packet6(17, 1, WIDE6, WIDE6), false),
        ("with hop-by-hop options", packet6(0, 64, WIDE6, WIDE6), false),
        ("from link-local", packet6(17, 64, "fe80::1".parse().unwrap(), WIDE6), false),
        ("from nobody", packet6(17, 64, Ipv6Addr::UNSPECIFIED, WIDE6), false),
        ("from what stands for IPv4", packet6(17, 64, "::ffff:192.0.2.1".parse().unwrap(), WIDE6), false),
        ("from a group", packet6(17, 64, "ff02::1".parse().unwrap(), WIDE6), false),
        ("tagged", [&OURS[..], &[0; 6], &TAG, &by([100, 1])[12..]].concat(), false),
    ];
    for (what, frame, takes) in &cases {
        assert_eq!(judge(&program, frame), *takes, "{what}");
    }
    let took = cases.iter().filter(|(.., takes)| *takes).map(|(_, frame, _)| frame.len() as u64);
    let all = Count { packets: took.clone().count() as u64, bytes: took.sum() };
    assert_eq!(shortcut.counts(IN).unwrap().0, all);
    assert_eq!(shortcut.counts(BY).unwrap().1, all);
    assert_eq!(program.counters().unwrap().forwarded, all.packets);
    assert_eq!(program.counters().unwrap().no_socket, cases.len() as u64 - all.packets);
}

#[test]
fn mutated_frames_are_judged_like_the_rules_say() {
    if !root() {
        return;
    }
    let shortcut = tables();
    open(&shortcut);
    let program = load(&shortcut);
    let mut next = numbers();
    let (mut took, mut took6) = (0, 0);
    for _ in 0..20_000 {
        let from = [WIDE6, WIDE6, WIDE6, "fe80::1".parse().unwrap(), Ipv6Addr::LOCALHOST][next(5)];
        let to = [NET6, WIDE6, (NET6.to_bits() ^ 1 << next(104)).into()][next(3)];
        let mut frame = packet6([17, 6, 44, 0][next(4)], [1, 2, 64, 255][next(4)], from, to);
        for _ in 0..next(3) {
            let at = next(54);
            frame[at] = [0, 1, 0x60, 0x86, 0xfe, 0xff, next(256) as u8][next(7)];
        }
        if next(4) == 0 {
            frame.truncate(14 + next(frame.len() - 13));
        }
        took6 += u32::from(judge(&program, &frame));
        let to = Ipv4Addr::new(198, 51, 100 + next(3) as u8, 5 + next(8) as u8);
        let mut frame = packet([1, 2, 64, 255][next(4)], to);
        for _ in 0..next(3) {
            let at = next(34);
            frame[at] = [0, 1, 0x45, 127, 224, 0xff, next(256) as u8][next(7)];
        }
        if next(4) > 0 {
            // So that other fields are what decides.
            frame[24..26].fill(0);
            let checksum = !sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        if next(4) == 0 {
            frame.truncate(14 + next(frame.len() - 13));
        }
        took += u32::from(judge(&program, &frame));
    }
    for took in [took, took6] {
        assert!((2000..18_000).contains(&took), "{took} of both kinds");
    }
}

#[test]
fn it_is_closed_by_a_word() {
    if !root() {
        return;
    }
    let shortcut = tables();
    let program = load(&shortcut);
    let frame = packet(64, NET);
    let takes = || program.run_on(&frame).unwrap().0 == Action::Redirect;
    assert!(!takes(), "closed at first");
    open(&shortcut);
    assert!(takes());
    shortcut.set_port(IN, ShortcutPort { mac: OURS, mtu: 1500, takes: false, takes6: false, gives: true });
    assert!(!takes(), "not by where it comes from");
    open(&shortcut);
    shortcut.set_port(BY, ShortcutPort { mac: OUT, mtu: MTU, takes: true, takes6: true, gives: false });
    shortcut.wait_for_programs().unwrap();
    assert!(!takes(), "not by where it goes");
    open(&shortcut);
    assert!(takes());
    // Of one version only.
    let plain = packet6(17, 64, WIDE6, WIDE6);
    let takes6 = || program.run_on(&plain).unwrap().0 == Action::Redirect;
    assert!(takes6());
    shortcut.set_port(IN, ShortcutPort { mac: OURS, mtu: 1500, takes: true, takes6: false, gives: false });
    assert!(takes() && !takes6());
    shortcut.set_port(IN, ShortcutPort { mac: OURS, mtu: 1500, takes: false, takes6: true, gives: false });
    assert!(!takes() && takes6());
    open(&shortcut);
    let without = Shortcut::new(ShortcutSizes { nodes6: 0, ..SIZES }).unwrap();
    assert!(without.root6().is_empty() && without.nodes6().is_empty());
    open(&without);
    assert_eq!(load(&without).run_on(&plain).unwrap(), (Action::Pass, plain.clone()));
    let other = load(&tables());
    assert_eq!(other.run_on(&frame).unwrap().0, Action::Pass, "by other tables");
    // Without a device there is no way out.
    let fresh = tables();
    fresh.set_port(IN, ShortcutPort { mac: OURS, mtu: 1500, takes: true, takes6: true, gives: false });
    fresh.set_port(BY, ShortcutPort { mac: OUT, mtu: MTU, takes: false, takes6: false, gives: true });
    assert_eq!(load(&fresh).run_on(&frame).unwrap(), (Action::Pass, frame.clone()));
    for sizes in [
        ShortcutSizes { nodes: 0, ..SIZES },
        ShortcutSizes { nodes6: 1 << 19, ..SIZES },
        ShortcutSizes { hops: (1 << 20) + 1, ..SIZES },
        ShortcutSizes { interfaces: 1025, ..SIZES },
    ] {
        assert_eq!(refusal(Shortcut::new(sizes)).id(), "AFXDP-SHORTCUT-SIZES");
    }
}
