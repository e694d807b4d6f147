//! Echo, and errors: to whom, about what, from which address, how often (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2, RFC 4443).

use nke_mbuf::wire::{EtherAddr, Icmp, Ipv4, Ipv6, Protocol};

use crate::bed::*;

/// An ICMP packet with an IPv4 header.
fn icmp4(src: &str, dst: &str, kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 28 + payload.len()];
    let mut ip = Ipv4::init(&mut bytes[..]).unwrap();
    ip.set_ttl(64);
    ip.set_protocol(Protocol::ICMP);
    ip.set_src(v4(src));
    ip.set_dst(v4(dst));
    ip.fill_checksum();
    bytes[28..].copy_from_slice(payload);
    let mut icmp = Icmp::init(&mut bytes[20..]).unwrap();
    icmp.set_icmp_type(kind);
    icmp.set_code(code);
    icmp.fill_checksum(None);
    bytes
}

fn icmp6(src: &str, dst: &str, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 48 + payload.len()];
    let mut ip = Ipv6::init(&mut bytes[..]).unwrap();
    ip.set_next_header(Protocol::ICMPV6);
    ip.set_hop_limit(64);
    ip.set_src(v6(src));
    ip.set_dst(v6(dst));
    let pseudo = ip.pseudo_header();
    bytes[48..].copy_from_slice(payload);
    let mut icmp = Icmp::init(&mut bytes[40..]).unwrap();
    icmp.set_icmp_type(kind);
    icmp.fill_checksum(Some(&pseudo));
    bytes
}

fn bed() -> Bed {
    let bed = Bed::new();
    bed.neighbor(0, "192.0.2.9");
    bed.neighbor(0, "2001:db8:a::9");
    bed.neighbor(1, "198.51.100.9");
    bed.neighbor(1, "2001:db8:b::9");
    bed
}

/// Source, destination, type and code of the ICMP packet in a frame.
fn error4(frame: &[u8]) -> (String, String, u8, u8) {
    let ip = Ipv4::new_checked(&frame[14..]).unwrap();
    assert!(ip.verify_checksum());
    let icmp = Icmp::new_checked(ip.payload()).unwrap();
    assert!(icmp.verify_checksum(None));
    (ip.src().to_string(), ip.dst().to_string(), icmp.icmp_type(), icmp.code())
}

fn error6(frame: &[u8]) -> (String, String, u8, u8) {
    let ip = Ipv6::new_checked(&frame[14..]).unwrap();
    let icmp = Icmp::new_checked(ip.payload()).unwrap();
    assert!(icmp.verify_checksum(Some(&ip.pseudo_header())));
    (ip.src().to_string(), ip.dst().to_string(), icmp.icmp_type(), icmp.code())
}

fn is(src: &str, dst: &str, kind: u8, code: u8) -> (String, String, u8, u8) {
    (src.to_owned(), dst.to_owned(), kind, code)
}

#[test]
fn echo_is_answered_from_the_address_it_went_to() {
    let bed = bed();
    // The other interface's address is ours, too.
    for to in ["192.0.2.1", "198.51.100.1"] {
        let request = icmp4("192.0.2.9", to, 8, 0, b"0123456789");
        bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &request));
        let out = bed.next(0);
        assert_eq!(error4(&out), is(to, "192.0.2.9", 0, 0));
        assert_eq!(out[14 + 28..], request[28..]);
    }
    let request = icmp6("2001:db8:a::9", "2001:db8:a::1", 128, b"0123456789");
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &request));
    let out = bed.next(0);
    assert_eq!(error6(&out), is("2001:db8:a::1", "2001:db8:a::9", 129, 0));
    assert_eq!(out[14 + 48..], request[48..]);
    assert_eq!(bed.runtime.shared().workers[0].inet.delivered.get(), 3);
    bed.finish();
}

#[test]
fn groups_and_broadcasts_are_not_answered() {
    let bed = bed();
    let all = EtherAddr([0xff; 6]);
    let group = EtherAddr([1, 0, 0x5e, 0, 0, 1]);
    for (mac, to) in [
        (all, "255.255.255.255"),
        (all, "192.0.2.255"),
        (MAC[0], "192.0.2.255"),
        (group, "224.0.0.1"),
        // A link's broadcast with a packet for one host (RFC 1122 section 3.2.2).
        (all, "192.0.2.1"),
        (all, "198.51.100.9"),
        // Another network's broadcast: not forwarded either (RFC 2644).
        (MAC[0], "198.51.100.255"),
    ] {
        bed.send(0, &frame(mac, HOST[0], 0x0800, &icmp4("192.0.2.9", to, 8, 0, b"smurf")));
        bed.send(0, &frame(mac, HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4(to).into(), 9, b"fraggle")));
    }
    bed.silence();
    assert_eq!(bed.runtime.shared().workers[0].inet.icmp_errors.get(), 0);
    bed.finish();
}

#[test]
fn errors_name_what_went_wrong_from_the_address_of_the_way_in() {
    let bed = bed();
    let mut spent = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, b"");
    spent[8] = 1;
    fix_ipv4(&mut spent);
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &spent));
    assert_eq!(error4(&bed.next(0)), is("192.0.2.1", "192.0.2.9", 11, 0));
    bed.send(
        0,
        &frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4("192.0.2.1").into(), 9, b"")),
    );
    let out = bed.next(0);
    assert_eq!(error4(&out), is("192.0.2.1", "192.0.2.9", 3, 3));
    // It quotes the packet: header and the first eight bytes at least.
    assert_eq!(out[14 + 28..][12..20], [192, 0, 2, 9, 192, 0, 2, 1]);
    let mut odd = udp(v4("192.0.2.9").into(), v4("192.0.2.1").into(), 9, b"");
    odd[9] = 253;
    fix_ipv4(&mut odd);
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &odd));
    assert_eq!(error4(&bed.next(0)), is("192.0.2.1", "192.0.2.9", 3, 2));

    let v6_to = |to| udp(v6("2001:db8:a::9").into(), v6(to).into(), 9, b"");
    let mut spent = v6_to("2001:db8:b::9");
    spent[7] = 1;
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &spent));
    assert_eq!(error6(&bed.next(0)), is("2001:db8:a::1", "2001:db8:a::9", 3, 0));
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &v6_to("2001:db8:a::1")));
    assert_eq!(error6(&bed.next(0)), is("2001:db8:a::1", "2001:db8:a::9", 1, 4));
    let mut odd = v6_to("2001:db8:a::1");
    odd[6] = 253;
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &odd));
    let out = bed.next(0);
    assert_eq!(error6(&out), is("2001:db8:a::1", "2001:db8:a::9", 4, 1));
    assert_eq!(Icmp::new_checked(&out[54..]).unwrap().mtu(), 6, "points to the next header field");
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &v6_to("2001:db8:c::1")));
    assert_eq!(error6(&bed.next(0)), is("2001:db8:a::1", "2001:db8:a::9", 1, 0));
    bed.finish();
}

#[test]
fn errors_about_errors_later_fragments_and_nobody_are_held_back() {
    let bed = bed();
    let quoted = udp(v4("203.0.113.1").into(), v4("192.0.2.9").into(), 9, b"");
    // No route to 203.0.113.1.
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &icmp4("192.0.2.9", "203.0.113.1", 3, 3, &quoted)));
    let mut later = udp(v4("192.0.2.9").into(), v4("203.0.113.1").into(), 9, b"");
    later[7] = 1;
    fix_ipv4(&mut later);
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &later));
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &icmp6("2001:db8:a::9", "2001:db8:c::1", 1, &[0; 48])));
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &udp(v6("::").into(), v6("2001:db8:a::1").into(), 9, b"")));
    until("four are counted", || {
        (bed.runtime.shared().workers[0].inet.icmp_suppressed.get() == 4).then_some(())
    });
    bed.silence();
    // Queries are no errors: these are answered.
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &icmp4("192.0.2.9", "203.0.113.1", 8, 0, b"")));
    assert_eq!(error4(&bed.next(0)), is("192.0.2.1", "192.0.2.9", 3, 0));
    bed.finish();
}

#[test]
fn a_flood_that_asks_for_errors_gets_few() {
    let bed = bed();
    let packet =
        frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4("203.0.113.1").into(), 9, b""));
    let mut answers = 0;
    for _ in 0..10_000 {
        bed.send(0, &packet);
        answers += u64::from(bed.ends[0].recv().is_some());
    }
    until("all are dropped", || (bed.drops("no_route") == 10_000).then_some(()));
    while bed.ends[0].recv().is_some() {
        answers += 1;
    }
    let inet = &bed.runtime.shared().workers[0].inet;
    println!("10000 packets without a route: {answers} errors, {} held back", inet.icmp_suppressed.get());
    assert_eq!(inet.icmp_errors.get() + inet.icmp_suppressed.get(), 10_000);
    assert!(answers >= 1 && inet.icmp_suppressed.get() > 5_000, "{answers}");
    bed.finish();
}
