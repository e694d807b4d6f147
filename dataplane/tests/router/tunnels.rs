//! Tunnels in a running router: its interface `b` is the underlay.

use nke_dataplane::inet::{NextHop, Request, RouteChange, RouteTo};
use nke_filters::{ArgValue, Args, IfIndex, vif};
use nke_mbuf::wire::{EtherAddr, Ipv4, Ipv6, Protocol, Udp};

use crate::bed::*;

/// A station in the network at the other end.
const FAR: EtherAddr = EtherAddr([2, 0, 0, 0, 2, 0xc]);
const MAC_VX: EtherAddr = EtherAddr([2, 0, 0, 0, 2, 1]);

fn bed() -> Bed {
    let bed = Bed::new();
    for kind in vif::all() {
        bed.control().register_ifnet(kind).unwrap().wait(WAIT).unwrap();
    }
    bed.neighbor(0, "192.0.2.9");
    bed.neighbor(1, "198.51.100.9");
    bed.neighbor(1, "2001:db8:b::9");
    bed
}

fn make(bed: &Bed, kind: &str, name: &str, args: &[(&str, &str)]) -> Result<IfIndex, String> {
    let args = Args(args.iter().map(|(k, v)| ((*k).to_owned(), ArgValue::Text((*v).into()))).collect());
    bed.control().create_interface(kind, name, args).unwrap().wait(WAIT).map_err(|fault| fault.to_string())
}

/// A tunnel over IPv4 or IPv6 with 203.0.113.1/24 at this end.
fn tunnel(bed: &Bed, kind: &str, v6: bool, more: &[(&str, &str)]) -> IfIndex {
    let ends = if v6 { ["2001:db8:b::1", "2001:db8:b::9"] } else { ["198.51.100.1", "198.51.100.9"] };
    let mut args = vec![("local", ends[0]), ("remote", ends[1])];
    args.extend(more);
    let index = make(bed, kind, "t", &args).unwrap();
    bed.control().add_address("t", "203.0.113.1".parse().unwrap(), 24).unwrap().wait(WAIT).unwrap();
    index
}

fn vxlan(bed: &Bed, v6: bool) -> IfIndex {
    let index = tunnel(bed, "vxlan", v6, &[("vni", "66051"), ("mac", "02:00:00:00:02:01")]);
    let request = Request::Neighbor(index, "203.0.113.9".parse().unwrap(), Some(FAR));
    bed.control().inet(request).unwrap().wait(WAIT).unwrap();
    index
}

/// A packet from beyond `a` into the tunnel.
fn into_tunnel() -> Vec<u8> {
    frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4("203.0.113.9").into(), 9, b"payload"))
}

/// The underlay's packet in a frame that left by `b`: what is behind its IP header.
fn payload(out: &[u8], v6: bool, protocol: Protocol) -> &[u8] {
    assert_eq!(out[..12], [HOST[1].0, MAC[1].0].concat()[..]);
    let packet = &out[14..];
    if v6 {
        let ip = Ipv6::new_checked(packet).unwrap();
        assert_eq!((ip.next_header(), packet.len()), (protocol, ip.total_len()));
        &packet[40..]
    } else {
        let ip = Ipv4::new_checked(packet).unwrap();
        assert!(ip.verify_checksum() && ip.dont_fragment() && ip.ttl() == 64);
        assert_eq!((ip.protocol(), ip.dst(), packet.len()), (protocol, v4("198.51.100.9"), ip.total_len()));
        &packet[20..]
    }
}

/// A frame from the other end of the tunnel, with `payload` behind its IP header.
fn from_tunnel(v6: bool, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    if v6 {
        let mut ip = Ipv6::init(vec![0; 40 + payload.len()]).unwrap();
        ip.set_src(crate::bed::v6("2001:db8:b::9"));
        ip.set_dst(crate::bed::v6("2001:db8:b::1"));
        ip.set_hop_limit(64);
        ip.set_next_header(protocol);
        ip.payload_mut().copy_from_slice(payload);
        return frame(MAC[1], HOST[1], 0x86dd, &ip.into_inner());
    }
    let mut ip = Ipv4::init(vec![0; 20 + payload.len()]).unwrap();
    ip.set_src(v4("198.51.100.9"));
    ip.set_dst(v4("198.51.100.1"));
    ip.set_ttl(64);
    ip.set_protocol(protocol);
    let mut packet = ip.into_inner();
    packet[20..].copy_from_slice(payload);
    fix_ipv4(&mut packet);
    frame(MAC[1], HOST[1], 0x0800, &packet)
}

/// A packet for the station beyond `a`, as it is inside.
fn inner() -> Vec<u8> {
    udp(v4("203.0.113.9").into(), v4("192.0.2.9").into(), 9, b"payload")
}

fn arrives_beyond_a(bed: &Bed) {
    let out = bed.next(0);
    assert_eq!(out[..14], frame(HOST[0], MAC[0], 0x0800, &[])[..]);
    let ip = Ipv4::new_checked(&out[14..]).unwrap();
    assert_eq!((ip.src(), ip.ttl()), (v4("203.0.113.9"), 63));
}

#[test]
fn vxlan_carries_frames_both_ways() {
    for v6 in [false, true] {
        let bed = bed();
        vxlan(&bed, v6);
        bed.send(0, &into_tunnel());
        let out = bed.next(1);
        let udp_packet = payload(&out, v6, Protocol::UDP);
        let outer = Udp::new_checked(udp_packet).unwrap();
        assert_eq!((outer.dst_port(), outer.src_port() >> 14), (4789, 3));
        if v6 {
            let pseudo = Ipv6::new_checked(&out[14..]).unwrap().pseudo_header();
            assert!(outer.verify_checksum(&pseudo) && outer.checksum() != 0);
        } else {
            assert_eq!(outer.checksum(), 0);
        }
        assert_eq!(udp_packet[8..16], [8, 0, 0, 0, 1, 2, 3, 0]);
        let framed = frame(FAR, MAC_VX, 0x0800, &[]);
        assert_eq!(udp_packet[16..30], framed[..]);
        assert_eq!(Ipv4::new_checked(&udp_packet[30..]).unwrap().ttl(), 63);
        // The same flow has the same source port, another one most likely not.
        bed.send(0, &into_tunnel());
        let again = bed.next(1);
        assert_eq!(payload(&again, v6, Protocol::UDP)[..2], udp_packet[..2]);

        let packet = |vni: u8, inside: &[u8]| {
            let mut bytes = vec![0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 1, 2, vni, 0];
            bytes.extend(inside);
            let len = bytes.len() as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            from_tunnel(v6, Protocol::UDP, &bytes)
        };
        let inside = frame(MAC_VX, FAR, 0x0800, &inner());
        bed.send(1, &packet(3, &inside));
        arrives_beyond_a(&bed);
        bed.send(1, &packet(4, &inside));
        until("another number is dropped", || (bed.drops("vxlan:unknown_tunnel") == 1).then_some(()));
        bed.send(1, &packet(3, &inside[..13]));
        until("half a header is dropped", || (bed.drops("vxlan:malformed") == 1).then_some(()));
        bed.silence();
        bed.control().unregister("vxlan", WAIT).unwrap().wait(WAIT).unwrap();
        bed.finish();
    }
}

#[test]
fn gre_carries_packets_both_ways() {
    for (v6, key) in [(false, None), (false, Some("258")), (true, None), (true, Some("258"))] {
        let bed = bed();
        let more: Vec<_> = key.map(|key| ("key", key)).into_iter().collect();
        tunnel(&bed, "gre", v6, &more);
        bed.send(0, &into_tunnel());
        let out = bed.next(1);
        let gre = payload(&out, v6, Protocol(47));
        let header: &[u8] = if key.is_some() { &[0x20, 0, 8, 0, 0, 0, 1, 2] } else { &[0, 0, 8, 0] };
        assert_eq!(gre[..header.len()], *header);
        assert_eq!(Ipv4::new_checked(&gre[header.len()..]).unwrap().dst(), v4("203.0.113.9"));
        bed.send(1, &from_tunnel(v6, Protocol(47), &[header, &inner()].concat()));
        arrives_beyond_a(&bed);
        // Without its key, or with one it has not, it is another tunnel's.
        let other: &[u8] = if key.is_some() { &[0, 0, 8, 0] } else { &[0x20, 0, 8, 0, 0, 0, 1, 2] };
        bed.send(1, &from_tunnel(v6, Protocol(47), &[other, &inner()].concat()));
        until("it is dropped", || (bed.drops("gre:unknown_tunnel") == 1).then_some(()));
        bed.send(1, &from_tunnel(v6, Protocol(47), &[0, 7, 8, 0, 0x45]));
        until("another version is dropped", || (bed.drops("gre:malformed") == 1).then_some(()));
        bed.silence();
        bed.finish();
    }
}

#[test]
fn a_tunnel_that_leads_into_itself_ends() {
    for kind in ["vxlan", "gre"] {
        let bed = bed();
        let more: &[_] = if kind == "vxlan" { &[("vni", "66051")] } else { &[] };
        let index = tunnel(&bed, kind, false, more);
        if kind == "vxlan" {
            let request = Request::Neighbor(index, "203.0.113.9".parse().unwrap(), Some(FAR));
            bed.control().inet(request).unwrap().wait(WAIT).unwrap();
        }
        let via = (kind == "vxlan").then(|| "203.0.113.9".parse().unwrap());
        let hop = NextHop { via, interface: Some(index), weight: 1 };
        let change = RouteChange { net: net("198.51.100.9/32"), to: Some(RouteTo::Via(vec![hop])) };
        bed.control()
            .inet(Request::Neighbor(IfIndex(1), "198.51.100.9".parse().unwrap(), None))
            .unwrap()
            .wait(WAIT)
            .unwrap();
        bed.control().inet(Request::Routes(vec![change])).unwrap().wait(WAIT).unwrap();
        for _ in 0..10 {
            bed.send(0, &into_tunnel());
        }
        // Where headroom or the number of rounds ends, whichever is first.
        let dropped = || bed.runtime.shared().drops().into_iter().map(|(.., n)| n).sum::<u64>();
        until("every packet is dropped", || (dropped() == 10).then_some(()));
        bed.silence();
        bed.finish();
    }
}

#[test]
fn tunnels_go_under_traffic_and_come_again() {
    let bed = bed();
    for _ in 0..20 {
        vxlan(&bed, false);
        let mut ticket = None;
        for i in 0..60 {
            bed.send(0, &into_tunnel());
            if i == 30 {
                ticket = Some(bed.control().detach_interface("t").unwrap());
            }
        }
        ticket.unwrap().wait(WAIT).unwrap();
        while bed.ends[1].recv().is_some() {}
    }
    // With the last of them the filter went: the port is nobody's again.
    bed.send(1, &from_tunnel(false, Protocol::UDP, &[0xc0, 0, 0x12, 0xb5, 0, 8, 0, 0]));
    until("the host says so", || bed.ends[1].recv());
    assert!(
        make(&bed, "vxlan", "t", &[("local", "198.51.100.1"), ("remote", "198.51.100.9")])
            .unwrap_err()
            .contains("number")
    );
    vxlan(&bed, false);
    let args = [("local", "198.51.100.1"), ("remote", "198.51.100.9"), ("vni", "66051")];
    assert!(make(&bed, "vxlan", "u", &args).unwrap_err().contains("already"));
    bed.finish();
}
