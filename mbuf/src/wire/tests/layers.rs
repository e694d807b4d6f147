//! Single frames through [`Layers::parse`]: the cases that attackers and odd networks send.

use super::build::Recipe;
use crate::wire::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn recipe(v6: bool, protocol: Protocol) -> Recipe {
    let addr = |last: u8| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)).into()
        } else {
            Ipv4Addr::new(192, 0, 2, last).into()
        }
    };
    Recipe {
        ether: [EtherAddr([2, 0, 0, 0, 0, 2]), EtherAddr([2, 0, 0, 0, 0, 1])],
        tags: vec![],
        addrs: (addr(1), addr(2)),
        extras: 0,
        fragment: Fragment::Whole,
        protocol,
        ports: (4_000, 53),
        payload: b"payload".to_vec(),
        padding: 0,
    }
}

fn finding(frame: &[u8]) -> Option<(Layer, WireError)> {
    Layers::parse(frame).malformed.map(|found| (found.layer, found.error))
}

#[test]
fn tagged_frames() {
    let mut recipe = recipe(true, Protocol::TCP);
    recipe.tags = vec![0x2064, 0x00c8];
    let layers = Layers::parse(&recipe.frame());
    assert_eq!(layers.vlans()[0], VlanTag { tpid: EtherType::QINQ, tci: 0x2064 });
    assert_eq!((layers.vlans()[1].vid(), layers.vlans()[1].tpid), (200, EtherType::VLAN));
    assert_eq!((layers.l3_offset, layers.l4_offset), (22, 62));
    assert_eq!((layers.ethertype, layers.ip_version()), (EtherType::IPV6, Some(6)));
}

#[test]
fn a_packet_alone_reads_as_in_its_frame() {
    for (v6, protocol) in
        [(false, Protocol::TCP), (true, Protocol::UDP), (false, Protocol::ICMP), (true, Protocol::TCP)]
    {
        let frame = recipe(v6, protocol).frame();
        let in_frame = Layers::parse(&frame);
        let alone = Layers::parse_ip(&frame[14..]);
        assert_eq!((alone.l3_offset, alone.l4_offset + 14), (0, in_frame.l4_offset));
        assert_eq!(alone.l3_end + 14, in_frame.l3_end);
        let back = Layers {
            ether: in_frame.ether,
            l3_offset: 14,
            l4_offset: in_frame.l4_offset,
            l3_end: in_frame.l3_end,
            ..alone
        };
        assert_eq!(back, in_frame);
        assert!(Layers::parse_ip(&frame[14..30]).malformed.is_some());
    }
    assert!(Layers::parse_ip(&[]).malformed.is_some() && Layers::parse_ip(&[0x50; 60]).malformed.is_some());
}

#[test]
fn a_third_tag_is_not_a_hiding_place() {
    let frame = recipe(false, Protocol::UDP).frame();
    let mut tagged = frame[..12].to_vec();
    for _ in 0..3 {
        tagged.extend([0x81, 0, 0, 1]);
    }
    tagged.extend(&frame[12..]);
    assert_eq!(finding(&tagged), Some((Layer::Vlan, WireError::TooMany)));
    assert_eq!(finding(&tagged[..15]), Some((Layer::Vlan, WireError::Truncated)));
}

#[test]
fn arp_has_addresses_but_is_not_ip() {
    let mut arp = Arp::init([0; 28]).unwrap();
    arp.set_sender(EtherAddr::default(), Ipv4Addr::new(10, 0, 0, 1));
    arp.set_target(EtherAddr::default(), Ipv4Addr::new(10, 0, 0, 2));
    let mut frame = [&[0xff; 12][..], &[8, 6]].concat();
    frame.extend(arp.into_inner());
    let layers = Layers::parse(&frame);
    assert_eq!(layers.src(), Some(Ipv4Addr::new(10, 0, 0, 1).into()));
    assert_eq!((layers.ip_version(), layers.protocol, layers.malformed), (None, None, None));
    assert!(layers.ether_dst().is_broadcast());
    assert_eq!(finding(&frame[..41]), Some((Layer::Arp, WireError::Truncated)));
    frame[15] = 6; // IEEE 802 hardware
    assert_eq!((finding(&frame), Layers::parse(&frame).addrs), (None, Addrs::None));
}

#[test]
fn fragments() {
    for v6 in [false, true] {
        let mut recipe = recipe(v6, Protocol::UDP);
        recipe.fragment = Fragment::Later;
        let layers = Layers::parse(&recipe.frame());
        assert_eq!((layers.fragment, layers.ports, layers.l4_offset), (Fragment::Later, None, 0));
        assert_eq!((layers.protocol, layers.malformed), (Some(Protocol::UDP), None));

        // The first piece is shorter than the datagram it starts: no error, and the ports count.
        recipe.fragment = Fragment::First;
        let mut frame = recipe.frame();
        let l4 = usize::from(Layers::parse(&frame).l4_offset);
        frame[l4 + 4] = 0x20; // UDP length 8 KiB
        let layers = Layers::parse(&frame);
        assert_eq!((layers.ports.map(|ports| ports.dst), layers.malformed), (Some(53), None));

        // RFC 1858, RFC 7112: a first piece too small for the upper header.
        recipe.protocol = Protocol::TCP;
        let mut frame = recipe.frame();
        frame.truncate(frame.len() - 8);
        let lengths = if v6 { (18, 8 + 19) } else { (16, 20 + 19) };
        frame[lengths.0..lengths.0 + 2].copy_from_slice(&u16::to_be_bytes(lengths.1));
        assert_eq!(finding(&frame), Some((Layer::Tcp, WireError::Truncated)));
    }
}

#[test]
fn each_layer_is_named() {
    assert_eq!(finding(&[0; 13]), Some((Layer::Ethernet, WireError::Truncated)));
    let damaged = |v6: bool, protocol: Protocol, at: usize, byte: u8| {
        let mut frame = recipe(v6, protocol).frame();
        frame[at] = byte;
        finding(&frame)
    };
    assert_eq!(damaged(false, Protocol::UDP, 14, 0x55), Some((Layer::Ipv4, WireError::Version)));
    assert_eq!(damaged(true, Protocol::UDP, 14, 0x45), Some((Layer::Ipv6, WireError::Version)));
    assert_eq!(damaged(true, Protocol::UDP, 20, 0x00), Some((Layer::Ipv6Ext, WireError::Truncated)));
    assert_eq!(damaged(false, Protocol::UDP, 39, 7), Some((Layer::Udp, WireError::Length)));
    assert_eq!(damaged(false, Protocol::TCP, 46, 0x40), Some((Layer::Tcp, WireError::Length)));
    let mut short = recipe(false, Protocol::ICMP);
    short.payload.clear();
    let mut frame = short.frame();
    frame[17] -= 1;
    assert_eq!(finding(&frame), Some((Layer::Icmp, WireError::Truncated)));
    // The ICMP of the other version is just an unknown protocol.
    frame[23] = Protocol::ICMPV6.0;
    assert_eq!(finding(&frame), None);
}

#[test]
fn padding_is_not_payload() {
    let mut recipe = recipe(false, Protocol::UDP);
    recipe.payload = vec![1];
    recipe.padding = 17;
    let frame = recipe.frame();
    let layers = Layers::parse(&frame);
    assert_eq!(layers.l4(&frame).map(<[u8]>::len), Some(9));
    assert_eq!(layers.l3(&frame).map(<[u8]>::len), Some(29));
    assert_eq!(layers.l4(&frame[..30]), None); // not the frame that was parsed
}
