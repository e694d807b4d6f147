//! Packets: known bytes, the rules of RFC 826, RFC 5227 and RFC 4861 one by one, and our own builders read back.

use super::*;
use crate::reass::harness::{bytes, mbuf, pool};
use nke_mbuf::wire::{Icmp, Ipv6, PseudoHeader};
use nke_mbuf::{Cache, Flags, Mbuf};
use std::net::{Ipv4Addr, Ipv6Addr};

const PEER: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 1]);

/// Who has 192.0.2.254? Tell 192.0.2.1. With the padding of a minimal frame.
fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1]);
    frame.extend([0, 0, 0, 0, 0, 0, 192, 0, 2, 254]);
    frame.resize(60, 0x55);
    frame
}

const ARP_REPLY: [u8; 42] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xfe, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 0xfe, 192, 0, 2, 254,
    2, 0, 0, 0, 0, 1, 192, 0, 2, 1,
];

/// Who has fe80::2? Tell fe80::1. The checksum was computed apart from this code.
const SOLICITATION: [u8; 72] = [
    0x60, 0, 0, 0, 0, 32, 58, 255, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 2, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2, 135, 0, 0x7a, 0x97, 0, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 2, 1, 1, 2, 0, 0, 0, 0, 1,
];

/// fe80::2 is at 02:00:00:00:00:02: router, solicited, override. The same.
const ADVERTISEMENT: [u8; 72] = [
    0x60, 0, 0, 0, 0, 32, 58, 255, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0xfe, 0x80, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 136, 0, 0x98, 0x19, 0xe0, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 2, 2, 1, 2, 0, 0, 0, 0, 2,
];

struct Frames(Cache);

impl Frames {
    fn new() -> Frames {
        Frames(Cache::new(&pool(64, 2048)))
    }

    fn of(&mut self, bytes: &[u8]) -> Mbuf {
        mbuf(bytes, 2048, &mut self.0).expect("a frame")
    }

    fn empty(&mut self) -> Mbuf {
        self.0.alloc().expect("a frame")
    }

    fn arp(&mut self, frame: &[u8]) -> Option<Kind> {
        parse_arp(&self.of(frame), 1).map(|event| event.kind)
    }

    fn nd(&mut self, packet: &[u8]) -> Option<Kind> {
        parse_nd(&self.of(packet), 1).map(|event| event.kind)
    }
}

/// With the bytes at `at` replaced.
fn with(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// A packet with this message, checksum and lengths right.
fn nd_packet(src: &str, dst: &str, message: &[u8]) -> Vec<u8> {
    let mut ip = Ipv6::init(vec![0; 40 + message.len()]).unwrap();
    ip.set_hop_limit(255);
    ip.set_next_header(nke_mbuf::wire::Protocol::ICMPV6);
    ip.set_src(src.parse().unwrap());
    ip.set_dst(dst.parse().unwrap());
    ip.payload_mut().copy_from_slice(message);
    let pseudo: PseudoHeader = ip.pseudo_header();
    Icmp::new_checked(ip.payload_mut()).unwrap().fill_checksum(Some(&pseudo));
    ip.into_inner()
}

/// Type, flags, target fe80::2 and options.
fn message(icmp_type: u8, flags: u8, options: &[u8]) -> Vec<u8> {
    let target: Ipv6Addr = "fe80::2".parse().unwrap();
    [&[icmp_type, 0, 0, 0, flags, 0, 0, 0], &target.octets()[..], options].concat()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn an_event_is_small() {
    assert!(size_of::<Event>() <= 48, "{}", size_of::<Event>());
}

#[test]
fn arp_kinds() {
    let mut frames = Frames::new();
    assert_eq!(frames.arp(&arp()), Some(request("192.0.2.1", PEER, OURS_V4)));
    assert_eq!(frames.arp(&arp()[..42]), Some(request("192.0.2.1", PEER, OURS_V4)));
    let probe = with(&arp(), 28, &[0, 0, 0, 0]);
    assert_eq!(frames.arp(&probe), Some(request("0.0.0.0", PEER, OURS_V4)));
    let announcement = with(&arp(), 38, &[192, 0, 2, 1]);
    assert_eq!(frames.arp(&announcement), Some(claim("192.0.2.1", Some(PEER), false, true)));
    let broadcast_reply = with(&arp(), 21, &[2]);
    assert_eq!(frames.arp(&broadcast_reply), Some(claim("192.0.2.1", Some(PEER), false, true)));
    let reply = with(&broadcast_reply, 0, &OUR_MAC.0);
    assert_eq!(frames.arp(&reply), Some(claim("192.0.2.1", Some(PEER), true, true)));
}

#[test]
fn arp_that_does_not_hold_is_nothing() {
    let mut frames = Frames::new();
    let bad = [
        (6, &[4][..], "the frame is of another sender"),
        (22, &[4], "the sender is not that of the frame"),
        (12, &[8, 0], "no ARP"),
        (14, &[0, 6], "other hardware"),
        (16, &[0x86, 0xdd], "another protocol"),
        (18, &[8], "hardware length"),
        (19, &[16], "protocol length"),
        (20, &[0, 0], "operation 0"),
        (20, &[0, 3], "reverse ARP"),
        (20, &[1, 1], "an operation nobody knows"),
        (28, &[224], "a group asks"),
        (28, &[255, 255, 255, 255], "broadcast asks"),
        (28, &[127], "loopback asks"),
        (28, &[0, 0, 0, 1], "this network asks"),
        (38, &[224], "a group is asked for"),
        (38, &[0, 0, 0, 0], "nobody is asked for"),
    ];
    for (at, bytes, what) in bad {
        let frame = with(&arp(), at, bytes);
        assert_eq!(frames.arp(&frame), None, "{what}");
        assert!(!arp_reply(&mut frames.of(&frame), OUR_MAC, |_| true), "{what}");
    }
    let group = with(&with(&arp(), 6, &[3]), 22, &[3]);
    assert_eq!(frames.arp(&group), None, "a group sends");
    let probe_reply = with(&with(&arp(), 28, &[0, 0, 0, 0]), 21, &[2]);
    assert_eq!(frames.arp(&probe_reply), None, "nobody answers");
    for len in 0..42 {
        assert_eq!(frames.arp(&arp()[..len]), None, "{len}");
    }
    let mut stray = frames.of(&arp());
    stray.flags_mut().insert(Flags::PROMISC);
    assert_eq!(parse_arp(&stray, 1), None);
}

#[test]
fn arp_is_answered_in_place() {
    let mut frames = Frames::new();
    let mut frame = frames.of(&arp());
    frame.flags_mut().insert(Flags::BCAST);
    assert!(arp_reply(&mut frame, OUR_MAC, |target| IpAddr::V4(target) == ip(OURS_V4)));
    assert_eq!(bytes(&frame), ARP_REPLY);
    assert!(!frame.flags().contains(Flags::BCAST));
    // A probe too: its sender must learn that the address is taken.
    let mut probe = frames.of(&with(&arp(), 28, &[0, 0, 0, 0]));
    assert!(arp_reply(&mut probe, OUR_MAC, |_| true));
    assert_eq!(bytes(&probe), with(&ARP_REPLY, 38, &[0, 0, 0, 0]));
    for (what, frame) in [
        ("not ours", arp()),
        ("a reply", with(&arp(), 21, &[2])),
        ("an announcement", with(&arp(), 28, &[192, 0, 2, 254])),
    ] {
        let mut mbuf = frames.of(&frame);
        assert!(!arp_reply(&mut mbuf, OUR_MAC, |_| what != "not ours"), "{what}");
        assert_eq!(bytes(&mbuf), frame, "{what}");
    }
}

#[test]
fn arp_requests_are_built() {
    let mut frames = Frames::new();
    let mut mbuf = frames.empty();
    assert!(arp_request(&mut mbuf, PEER, v4("192.0.2.1"), v4(OURS_V4), None));
    assert_eq!(bytes(&mbuf), arp()[..42]);
    assert_eq!(mbuf.ethertype(), 0x0806);
    assert!(!arp_request(&mut mbuf, PEER, v4("192.0.2.1"), v4(OURS_V4), None), "not empty");
    assert_eq!(bytes(&mbuf), arp()[..42]);
    let mut build = |sender: &str, target: &str, to| {
        let mut mbuf = frames.empty();
        assert!(arp_request(&mut mbuf, PEER, v4(sender), v4(target), to));
        mbuf
    };
    let read = |mbuf: &Mbuf| parse_arp(mbuf, 1).map(|event| event.kind);
    assert_eq!(read(&build("0.0.0.0", OURS_V4, None)), Some(request("0.0.0.0", PEER, OURS_V4)));
    assert_eq!(
        read(&build("192.0.2.1", "192.0.2.1", None)),
        Some(claim("192.0.2.1", Some(PEER), false, true))
    );
    assert_eq!(build("192.0.2.1", OURS_V4, Some(mac(9))).data()[..6], mac(9).0);
}

#[test]
fn nd_kinds() {
    let mut frames = Frames::new();
    assert_eq!(frames.nd(&SOLICITATION), Some(request("fe80::1", PEER, "fe80::2")));
    let advertised = Kind::Answer {
        address: ip("fe80::2"),
        mac: Some(mac(2)),
        solicited: true,
        override_flag: true,
        router: true,
    };
    assert_eq!(frames.nd(&ADVERTISEMENT), Some(advertised));
    let padded = [&SOLICITATION[..], &[0xaa; 6]].concat();
    assert_eq!(frames.nd(&padded), Some(request("fe80::1", PEER, "fe80::2")));
    let dad = nd_packet("::", "ff02::1:ff00:2", &message(135, 0, &[]));
    assert_eq!(dad[42..44], [0x7c, 0x23]); // computed apart
    let asks = Kind::Request { sender: ip("::"), mac: None, target: ip("fe80::2") };
    assert_eq!(frames.nd(&dad), Some(asks));
    // An option nobody knows is passed over; flags may be any.
    let options = [14, 1, 1, 2, 3, 4, 5, 6, 2, 1, 2, 0, 0, 0, 0, 7];
    let quiet = nd_packet("fe80::2", "ff02::1", &message(136, 0x1f, &options));
    assert_eq!(frames.nd(&quiet), Some(claim("fe80::2", Some(mac(7)), false, false)));
    let bare = nd_packet("fe80::2", "fe80::1", &message(136, 0x40, &[]));
    assert_eq!(frames.nd(&bare), Some(claim("fe80::2", None, true, false)));
}

/// RFC 4861 section 7.1: each rule by a packet that breaks it alone.
#[test]
fn nd_that_does_not_hold_is_nothing() {
    let mut frames = Frames::new();
    let source = [1, 1, 2, 0, 0, 0, 0, 1];
    let target = [2, 1, 2, 0, 0, 0, 0, 2];
    let good = message(135, 0, &source);
    assert!(frames.nd(&nd_packet("fe80::1", "fe80::2", &good)).is_some());
    let unicast = nd_packet("fe80::1", "fe80::2", &good);
    let bad = [
        ("forwarded", with(&unicast, 7, &[254])),
        ("checksum", with(&unicast, 42, &[unicast[42] ^ 1])),
        ("version", with(&unicast, 0, &[0x40])),
        ("not ICMPv6", with(&unicast, 6, &[17])),
        ("extension header", with(&unicast, 6, &[60])),
        ("code", nd_packet("fe80::1", "fe80::2", &with(&good, 1, &[1]))),
        ("short", nd_packet("fe80::1", "fe80::2", &good[..20])),
        ("group as target", nd_packet("fe80::1", "fe80::2", &with(&good, 8, &[0xff]))),
        ("option of length 0", nd_packet("fe80::1", "fe80::2", &with(&good, 25, &[0]))),
        ("option past the end", nd_packet("fe80::1", "fe80::2", &with(&good, 25, &[2]))),
        ("half an option", nd_packet("fe80::1", "fe80::2", &good[..28])),
        ("a group's link address", nd_packet("fe80::1", "fe80::2", &with(&good, 26, &[3]))),
        ("from nobody, but with option", nd_packet("::", "ff02::1:ff00:2", &good)),
        ("from nobody to one host", nd_packet("::", "fe80::2", &message(135, 0, &[]))),
        ("from nobody to another group", nd_packet("::", "ff02::1:ff00:3", &message(135, 0, &[]))),
        ("from a group", nd_packet("ff02::1", "fe80::2", &good)),
        ("from loopback", nd_packet("::1", "fe80::2", &good)),
        ("answers a group", nd_packet("fe80::2", "ff02::1", &message(136, 0x40, &target))),
        ("answer from nobody", nd_packet("::", "fe80::1", &message(136, 0x40, &target))),
        ("group advertised", nd_packet("fe80::2", "fe80::1", &with(&message(136, 0, &target), 8, &[0xff]))),
        ("echo", nd_packet("fe80::1", "fe80::2", &with(&good, 0, &[128]))),
        ("router from afar", nd_packet("2001:db8::1", "ff02::1", &with(&good, 0, &[134]))),
        ("short redirect", nd_packet("fe80::1", "fe80::2", &with(&good, 0, &[137]))),
    ];
    for (what, packet) in bad {
        assert_eq!(frames.nd(&packet), None, "{what}");
        assert_eq!(na_reply(&mut frames.of(&packet), OUR_MAC, |_| true), None, "{what}");
    }
    for len in 0..72 {
        assert_eq!(frames.nd(&SOLICITATION[..len]), None, "{len}");
    }
    let mut stray = frames.of(&SOLICITATION);
    stray.flags_mut().insert(Flags::PROMISC);
    assert_eq!(parse_nd(&stray, 1), None);
}

#[test]
fn router_discovery_and_redirects_teach_nothing() {
    let mut frames = Frames::new();
    let of = |icmp_type: u8, len: usize| [&[icmp_type][..], &vec![0; len - 1]].concat();
    for (icmp_type, len) in [(133, 8), (134, 16), (137, 40)] {
        assert_eq!(frames.nd(&nd_packet("fe80::1", "ff02::1", &of(icmp_type, len))), Some(Kind::Other));
        assert_eq!(
            frames.nd(&nd_packet("fe80::1", "ff02::1", &of(icmp_type, len + 4))),
            None,
            "half an option"
        );
        assert_eq!(frames.nd(&nd_packet("fe80::1", "ff02::1", &of(icmp_type, len + 8))), None, "length 0");
    }
    assert_eq!(frames.nd(&nd_packet("fe80::1", "ff02::1", &of(134, 15))), None, "short");
}

#[test]
fn a_checksum_left_to_hardware_is_taken_on_trust() {
    let mut frames = Frames::new();
    let mut packet = frames.of(&with(&SOLICITATION, 42, &[0, 0]));
    assert_eq!(parse_nd(&packet, 1), None);
    packet.flags_mut().insert(Flags::CSUM_L4_PARTIAL);
    assert!(parse_nd(&packet, 1).is_some());
    assert_eq!(na_reply(&mut packet, OUR_MAC, |_| true), Some(PEER));
    assert!(!packet.flags().contains(Flags::CSUM_L4_PARTIAL));
    assert!(parse_nd(&packet, 1).is_some());
}

#[test]
fn solicitations_are_answered_in_place() {
    let mut frames = Frames::new();
    let mut packet = frames.of(&SOLICITATION);
    assert_eq!(na_reply(&mut packet, mac(2), |target| target == v6("fe80::2")), Some(PEER));
    assert_eq!(bytes(&packet), ADVERTISEMENT);
    // Somebody wants our address: all are told, and it grows by the option.
    let mut dad = frames.of(&nd_packet("::", "ff02::1:ff00:2", &message(135, 0, &[])));
    let all = EtherAddr([0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(na_reply(&mut dad, mac(2), |_| true), Some(all));
    let kind = Kind::Answer {
        address: ip("fe80::2"),
        mac: Some(mac(2)),
        solicited: false,
        override_flag: true,
        router: true,
    };
    assert_eq!(parse_nd(&dad, 1).map(|event| event.kind), Some(kind));
    assert_eq!((dad.len(), Ipv6::new_checked(dad.data()).unwrap().dst()), (72, v6("ff02::1")));
    // More options and padding make it no longer.
    let options = [1, 1, 2, 0, 0, 0, 0, 1, 14, 1, 0, 0, 0, 0, 0, 0];
    let long = [nd_packet("fe80::1", "fe80::2", &message(135, 0, &options)), vec![0; 9]].concat();
    let mut long = frames.of(&long);
    assert_eq!(na_reply(&mut long, mac(2), |_| true), Some(PEER));
    assert_eq!(bytes(&long), ADVERTISEMENT);
    for (what, packet) in [
        ("not ours", SOLICITATION.to_vec()),
        ("an advertisement", ADVERTISEMENT.to_vec()),
        ("no way back", nd_packet("fe80::1", "fe80::2", &message(135, 0, &[]))),
        ("from itself", nd_packet("fe80::2", "ff02::1:ff00:2", &message(135, 0, &options))),
    ] {
        let mut mbuf = frames.of(&packet);
        assert_eq!(na_reply(&mut mbuf, mac(2), |_| what != "not ours"), None, "{what}");
        assert_eq!(bytes(&mbuf), packet, "{what}");
    }
}

#[test]
fn solicitations_and_announcements_are_built() {
    let mut frames = Frames::new();
    let mut mbuf = frames.empty();
    assert!(neighbor_solicitation(&mut mbuf, PEER, v6("fe80::1"), v6("fe80::2"), None));
    let ether = [0x33, 0x33, 0xff, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    assert_eq!(bytes(&mbuf), [&ether[..], &SOLICITATION[..]].concat());
    assert!(!neighbor_solicitation(&mut mbuf, PEER, v6("fe80::1"), v6("fe80::2"), None), "not empty");

    let mut probe = frames.empty();
    assert!(neighbor_solicitation(&mut probe, PEER, v6("fe80::1"), v6("fe80::2"), Some(mac(2))));
    assert_eq!(probe.data()[..6], mac(2).0);
    probe.adj(14);
    assert_eq!(Ipv6::new_checked(probe.data()).unwrap().dst(), v6("fe80::2"));
    assert_eq!(parse_nd(&probe, 1).map(|event| event.kind), Some(request("fe80::1", PEER, "fe80::2")));

    let mut dad = frames.empty();
    assert!(neighbor_solicitation(&mut dad, PEER, v6("::"), v6("fe80::2"), None));
    dad.adj(14);
    assert_eq!(bytes(&dad), nd_packet("::", "ff02::1:ff00:2", &message(135, 0, &[])));

    let mut told = frames.empty();
    assert!(unsolicited_na(&mut told, mac(2), v6("fe80::2")));
    assert_eq!(told.data()[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(told.data()[56..58], [0xd7, 0x97]); // computed apart
    told.adj(14);
    let expect = nd_packet("fe80::2", "ff02::1", &message(136, 0xa0, &[2, 1, 2, 0, 0, 0, 0, 2]));
    assert_eq!(bytes(&told), expect);

    let mut full = frames.empty();
    let room = full.tailroom() - 85;
    full.append(room).unwrap();
    full.adj(room);
    assert!(full.is_empty() && !neighbor_solicitation(&mut full, PEER, v6("fe80::1"), v6("fe80::2"), None));
    assert!(full.is_empty());
}
