//! What a router's program takes from the kernel: cases by hand, and mutated frames against the same rules in plain Rust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use af_xdp::program::{LOCALS_MAX, ProgramConfig, Redirect, Selection};

use crate::common::root;
use crate::frames::{TAG, ether, numbers, ports};
use crate::refusal;

const LOCAL4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const LOCAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn load(frags: bool) -> Redirect {
    let config = ProgramConfig { selection: Selection::Transit, frags, queues: 4 };
    let program = Redirect::load(&config).unwrap();
    program.insert_local(LOCAL4.into()).unwrap();
    program.insert_local(LOCAL6.into()).unwrap();
    program
}

fn v4(ttl: u8, dst: Ipv4Addr) -> Vec<u8> {
    let header = [&[0x08, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, ttl, 17, 0, 0, 192, 0, 2, 1][..], &dst.octets()];
    ether(&[], &[&header.concat(), &ports(1, 2)])
}

fn v6(next: u8, hops: u8, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let header = [&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, next, hops][..], &src.octets(), &dst.octets()];
    ether(&[], &[&header.concat(), &ports(1, 2)])
}

/// The rules in plain Rust.
fn transit(frame: &[u8]) -> bool {
    if frame.len() < 14 || frame[0] & 1 == 1 {
        return false;
    }
    let ip = &frame[14..];
    match [frame[12], frame[13]] {
        [0x08, 0x00] if ip.len() >= 20 => {
            let dst = Ipv4Addr::from(<[u8; 4]>::try_from(&ip[16..20]).unwrap());
            ip[0] == 0x45 && ip[8] > 1 && ip[16] < 224 && dst != LOCAL4
        }
        [0x86, 0xdd] if ip.len() >= 40 => {
            let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
            let global = |a: Ipv6Addr| !a.is_multicast() && !a.is_unicast_link_local();
            let (src, dst) = (address(8), address(24));
            ip[0] >> 4 == 6 && ip[6] != 0 && ip[7] > 1 && global(src) && global(dst) && dst != LOCAL6
        }
        _ => false,
    }
}

#[test]
fn what_a_router_forwards_is_taken_and_the_rest_is_the_kernels() {
    if !root() {
        return;
    }
    let far4 = Ipv4Addr::new(198, 51, 100, 7);
    let far6 = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7);
    let cases: &[(&str, Vec<u8>, bool)] = &[
        ("forwarded", v4(64, far4), true),
        ("for this host", v4(64, LOCAL4), false),
        ("at the end of its hops", v4(1, far4), false),
        ("a group", v4(64, Ipv4Addr::new(224, 0, 0, 5)), false),
        ("broadcast", v4(64, Ipv4Addr::BROADCAST), false),
        ("forwarded", v6(17, 64, far6, far6), true),
        ("for this host", v6(17, 64, far6, LOCAL6), false),
        ("at the end of its hops", v6(17, 1, far6, far6), false),
        ("hop-by-hop options", v6(0, 64, far6, far6), false),
        ("a group", v6(17, 64, far6, "ff02::1".parse().unwrap()), false),
        ("link-local", v6(17, 64, far6, "febf::1".parse().unwrap()), false),
        ("from link-local", v6(17, 64, "fe80::1".parse().unwrap(), far6), false),
        ("not link-local", v6(17, 64, far6, "fec0::1".parse().unwrap()), true),
        ("ARP", ether(&[], &[&[8, 6], &[0; 46]]), false),
        ("tagged", ether(&[TAG], &[&v4(64, far4)[12..]]), false),
    ];
    for frags in [false, true] {
        let program = load(frags);
        for (what, frame, taken) in cases {
            assert_eq!(
                (transit(frame), program.selects(frame).unwrap()),
                (*taken, *taken),
                "{what}: {frame:x?}"
            );
        }
        let mut group = v4(64, far4);
        group[0] = 1;
        assert!(!program.selects(&group).unwrap());
    }
}

#[test]
fn mutated_frames_are_judged_like_the_rules_say() {
    if !root() {
        return;
    }
    let program = load(false);
    let far6 = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7);
    let bases =
        [v4(64, LOCAL4), v4(64, Ipv4Addr::new(10, 0, 0, 2)), v6(17, 64, far6, LOCAL6), v6(6, 2, far6, far6)];
    let mut next = numbers();
    let mut taken = 0;
    for _ in 0..4000 {
        let mut frame = bases[next(bases.len())].clone();
        for _ in 0..next(3) {
            let at = next(54.min(frame.len()));
            frame[at] = [0, 1, 0x45, 0x60, 0xff, next(256) as u8][next(6)];
        }
        // The kernel's test run takes no less than an Ethernet header.
        frame.truncate(14 + next(frame.len() - 13));
        let expected = transit(&frame);
        assert_eq!(program.selects(&frame).unwrap(), expected, "{frame:x?}");
        taken += u32::from(expected);
    }
    assert!((200..3800).contains(&taken), "{taken} of both kinds");
}

#[test]
fn addresses_come_and_go_and_are_bounded() {
    if !root() {
        return;
    }
    let program = load(false);
    let far = Ipv4Addr::new(198, 51, 100, 7);
    assert!(program.selects(&v4(64, far)).unwrap());
    program.insert_local(far.into()).unwrap();
    program.insert_local(far.into()).unwrap();
    assert!(!program.selects(&v4(64, far)).unwrap());
    program.remove_local(far.into()).unwrap();
    program.remove_local(far.into()).unwrap();
    assert!(program.selects(&v4(64, far)).unwrap());
    let fill = (0..LOCALS_MAX).map(|i| program.insert_local(IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + i))));
    assert_eq!(refusal(fill.collect::<Result<Vec<_>, _>>()).id(), "AFXDP-PROGRAM-LOCALS");
    // Other selections know no such addresses, and do not mind.
    let all = Redirect::load(&ProgramConfig::default()).unwrap();
    all.insert_local(far.into()).unwrap();
    assert!(all.selects(&v4(64, far)).unwrap());
}
