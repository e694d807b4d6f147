//! Any bytes as packets, and any bytes as a script for a small table; asserts what must hold for all of them. Run by the
//! property tests and the fuzz target. Not part of the API; compiled for tests and fuzzing only.

mod script;

use nke_mbuf::wire::{Arp, EtherAddr, EtherType, Ethernet, Icmp, Ipv6, Protocol};
use nke_mbuf::{Cache, Flags, Mbuf};

use super::*;
use crate::reass::harness::{bytes, mbuf, pool};

pub use script::script;

/// Our link address.
pub const OURS: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 0xfe]);

/// The bytes as they are, as the ARP packet and as the neighbour discovery packet that they nearly are; and as a script.
pub fn harness(data: &[u8]) {
    packets(data);
    script(data);
}

/// Readers and answers, on whole frames and in chains.
pub fn packets(data: &[u8]) {
    let pool = pool(64, 4096);
    let mut cache = Cache::new(&pool);
    let segment = data.first().map_or(4096, |byte| if *byte < 64 { 8 + usize::from(*byte) } else { 4096 });
    for shape in [data.to_vec(), nearly_arp(data), nearly_nd(data)] {
        for check in [check_arp, check_nd] {
            if let Some(mbuf) = mbuf(&shape, segment, &mut cache) {
                cache.free(check(mbuf));
            }
        }
    }
}

/// With the fields that a reader looks at first set right.
fn nearly_arp(data: &[u8]) -> Vec<u8> {
    let mut shape = data.to_vec();
    if shape.len() >= Ethernet::HEADER_LEN + Arp::HEADER_LEN {
        let op = 1 + (data[21] & 1);
        shape[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, op]);
        shape.copy_within(6..12, 22);
    }
    shape
}

/// The same, with a checksum that holds.
fn nearly_nd(data: &[u8]) -> Vec<u8> {
    let mut shape = data.to_vec();
    if shape.len() >= 80 && data[1] & 1 == 0 {
        shape.truncate(if data[1] & 2 == 0 { 64 } else { 72 + usize::from(data[1] & 8) });
        if let Some(option) = shape.get_mut(64..66) {
            option.copy_from_slice(&[1 + (data[1] >> 2 & 1), 1]);
        }
    }
    let len = shape.len().saturating_sub(Ipv6::HEADER_LEN) as u16;
    if len < 8 {
        return shape;
    }
    shape[0] = 0x60;
    let mut ip = Ipv6::new_quoted(&mut shape[..]).expect("long enough");
    ip.set_hop_limit(255);
    ip.set_next_header(Protocol::ICMPV6);
    ip.set_payload_len(len);
    let target = ip.payload().get(8..24).and_then(|target| <[u8; 16]>::try_from(target).ok());
    if let Some(target) = target.filter(|_| ip.dst().octets()[0] & 1 != 0) {
        ip.set_dst(solicited_node(target.into()));
    }
    if ip.src().octets()[0] & 3 == 0 {
        ip.set_src(std::net::Ipv6Addr::UNSPECIFIED);
    }
    let pseudo = ip.pseudo_header();
    let mut message = Icmp::new_checked(ip.payload_mut()).expect("long enough");
    message.set_icmp_type(133 + message.icmp_type() % 6);
    message.set_code(0);
    message.fill_checksum(Some(&pseudo));
    shape
}

/// An answer is one that our own reader understands; without one, nothing changed.
fn check_arp(mut frame: Mbuf) -> Mbuf {
    let (before, event) = (bytes(&frame), parse_arp(&frame, 7));
    let was_ours = |target: std::net::Ipv4Addr| target.octets()[3] & 1 == 0;
    if !arp_reply(&mut frame, OURS, was_ours) {
        assert_eq!(bytes(&frame), before);
        return frame;
    }
    let Some(Event { interface: 7, kind: Kind::Request { sender, mac, target } }) = event else {
        panic!("answered {event:?}")
    };
    let ether = Ethernet::new_checked(frame.data()).expect("a frame");
    assert_eq!((frame.len(), ether.src(), Some(ether.dst())), (42, OURS, mac));
    assert_eq!(ether.ethertype(), EtherType::ARP);
    assert_eq!(Arp::new_checked(ether.payload()).expect("ARP").target_ip(), sender);
    let kind = Kind::Answer {
        address: target,
        mac: Some(OURS),
        solicited: true,
        override_flag: true,
        router: false,
    };
    assert_eq!(parse_arp(&frame, 7), Some(Event { interface: 7, kind }));
    frame
}

/// The same for neighbour discovery.
fn check_nd(mut packet: Mbuf) -> Mbuf {
    packet.flags_mut().insert(Flags::MCAST);
    let (before, event) = (bytes(&packet), parse_nd(&packet, 7));
    let was_ours = |target: std::net::Ipv6Addr| target.octets()[15] & 1 == 0;
    let Some(to) = na_reply(&mut packet, OURS, was_ours) else {
        assert!(before.starts_with(&bytes(&packet)));
        assert_eq!(parse_nd(&packet, 7), event);
        return packet;
    };
    let Some(Event { interface: 7, kind: Kind::Request { sender, mac, target } }) = event else {
        panic!("answered {event:?}")
    };
    assert!(packet.len() == 72 && !packet.flags().contains(Flags::MCAST));
    let dst = Ipv6::new_checked(packet.data()).expect("IPv6").dst();
    let solicited = !sender.is_unspecified();
    if solicited {
        assert_eq!((Some(to), dst), (mac, dst));
        assert_eq!(sender, dst);
    } else {
        assert_eq!(to, group_mac(dst));
    }
    let kind =
        Kind::Answer { address: target, mac: Some(OURS), solicited, override_flag: true, router: true };
    assert_eq!(parse_nd(&packet, 7), Some(Event { interface: 7, kind }));
    packet
}
