//! Packets for others.

use nke_dataplane::inet::RouteTo;
use nke_mbuf::wire::{EtherAddr, Icmp, Ipv4, Ipv6};

use crate::bed::*;

fn to_b() -> Vec<u8> {
    udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, b"payload")
}

#[test]
fn a_packet_is_forwarded_one_hop_shorter_in_a_new_frame() {
    let bed = Bed::new();
    bed.neighbor(1, "198.51.100.9");
    bed.neighbor(1, "2001:db8:b::9");
    let packet = to_b();
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    let out = bed.next(1);
    assert_eq!(out[..14], frame(HOST[1], MAC[1], 0x0800, &[])[..]);
    let ip = Ipv4::new_checked(&out[14..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!((ip.ttl(), ip.payload()), (63, &packet[20..]));
    let packet = udp(v6("2001:db8:a::9").into(), v6("2001:db8:b::9").into(), 9, b"payload");
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &packet));
    let out = bed.next(1);
    assert_eq!(out[..14], frame(HOST[1], MAC[1], 0x86dd, &[])[..]);
    let ip = Ipv6::new_checked(&out[14..]).unwrap();
    assert_eq!((ip.hop_limit(), ip.payload()), (63, &packet[40..]));
    assert_eq!(bed.runtime.shared().workers[0].inet.forwarded.get(), 2);
    bed.finish();
}

#[test]
fn routes_say_where_to_and_what_not() {
    let bed = Bed::new();
    bed.neighbor(1, "198.51.100.254");
    bed.neighbor(0, "192.0.2.9");
    bed.route("203.0.113.0/24", Some("198.51.100.254"), None);
    bed.change("203.0.113.128/25", Some(RouteTo::Blackhole));
    bed.change("203.0.113.64/26", Some(RouteTo::Prohibit));
    let send = |to: &str| {
        bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4(to).into(), 9, b"")))
    };
    send("203.0.113.1");
    assert_eq!(bed.next(1)[..6], HOST[1].0);
    send("203.0.113.129");
    bed.silence();
    for (to, code) in [("203.0.113.65", 13), ("203.0.114.1", 0)] {
        send(to);
        let out = bed.next(0);
        let ip = Ipv4::new_checked(&out[14..]).unwrap();
        let icmp = Icmp::new_checked(ip.payload()).unwrap();
        assert_eq!((ip.src(), icmp.icmp_type(), icmp.code()), (v4("192.0.2.1"), 3, code), "{to}");
    }
    assert_eq!([bed.drops("blackhole"), bed.drops("prohibited"), bed.drops("no_route")], [1, 1, 1]);
    bed.change("203.0.113.0/24", None);
    send("203.0.113.1");
    assert_eq!(bed.next(0)[23], 1, "ICMP");
    bed.finish();
}

#[test]
fn what_is_not_ours_or_does_not_hold_is_dropped_by_its_reason() {
    let bed = Bed::new();
    let good = to_b();
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        frame(MAC[0], HOST[0], 0x0800, &packet)
    };
    bed.send(0, &frame(EtherAddr([2, 9, 9, 9, 9, 9]), HOST[0], 0x0800, &good));
    bed.send(0, &frame(MAC[0], HOST[0], 0x88cc, &good));
    bed.send(0, &broken(&|p| p[8] = 1));
    bed.send(0, &broken(&|p| p[10] ^= 1));
    bed.send(0, &broken(&|p| p.truncate(30)));
    bed.send(0, &broken(&|p| p[0] = 0x55));
    let mut loopback = udp(v4("127.0.0.1").into(), v4("198.51.100.9").into(), 9, b"");
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &loopback));
    loopback[0] = 0x44;
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &loopback[..10]));
    // The one whose hops were used up after a fresh checksum.
    let mut last = good.clone();
    last[8] = 1;
    last[10..12].fill(0);
    let sum = nke_mbuf::wire::checksum::checksum(&last[..20]);
    last[10..12].copy_from_slice(&sum.to_be_bytes());
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &last));
    let reasons = [
        "other_host",
        "no_protocol",
        "ip_bad_checksum",
        "ip_short",
        "ip_bad_header",
        "ip_martian",
        "hops_exhausted",
    ];
    until("all are counted", || (reasons.iter().map(|r| bed.drops(r)).sum::<u64>() == 9).then_some(()));
    assert_eq!(reasons.map(|r| bed.drops(r)), [1, 1, 2, 2, 1, 1, 1]);
    bed.finish();
}
