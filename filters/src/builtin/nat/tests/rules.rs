//! The rules of RFC 4787, RFC 5382 and RFC 5508, one by one. Packets are compared with ones whose checksums were computed
//! from scratch.

use nke_mbuf::Flags;
use nke_mbuf::wire::{Ipv4, Protocol, Tcp, TcpFlags, icmp};
use proptest::prelude::*;

use super::*;
use crate::flow::testing::{chained, mbuf};

const SYN: TcpFlags = TcpFlags::SYN;

#[test]
fn a_mapping_does_not_depend_on_the_remote_end() {
    let rig = rig(&[]);
    for remote in ["192.0.2.1:53", "192.0.2.1:54", "198.51.100.9:9999"] {
        rig.leaves(&Packet::udp("10.0.0.5:4000", remote), "203.0.113.1:4000");
    }
    assert_eq!((rig.nat.mappings.len(), rig.figure("flows")), (1, 3));
    // The same port of another host, or of another protocol, is another mapping.
    let other = rig.output(&Packet::udp("10.0.0.6:4000", "192.0.2.1:53").bytes()).unwrap();
    assert!(src_of(&other).starts_with("203.0.113.1:") && src_of(&other) != "203.0.113.1:4000");
    rig.leaves(&Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", SYN), "203.0.113.1:4000");
    rig.check();
}

#[test]
fn ports_outside_the_range_are_drawn_from_it() {
    let rig = rig(&[("ports", "5000-5009")]);
    rig.leaves(&Packet::udp("10.0.0.6:5003", "192.0.2.1:53"), "203.0.113.1:5003");
    for port in [80, 4999, 5010] {
        let packet = Packet::udp(&format!("10.0.0.5:{port}"), "192.0.2.1:53");
        let src = src_of(&rig.output(&packet.bytes()).unwrap());
        assert!(src.starts_with("203.0.113.1:500"), "{src}");
    }
}

#[test]
fn filtering_by_address() {
    let rig = rig(&[]);
    rig.leaves(&Packet::udp("10.0.0.5:4000", "192.0.2.1:53"), "203.0.113.1:4000");
    rig.arrives(&Packet::udp("192.0.2.1:53", "203.0.113.1:4000"), "10.0.0.5:4000");
    rig.arrives(&Packet::udp("192.0.2.1:7777", "203.0.113.1:4000"), "10.0.0.5:4000");
    let stranger = Packet::udp("192.0.2.2:53", "203.0.113.1:4000");
    assert_eq!(rig.prerouting(&stranger.bytes()), Err(Why::Filtered));
    assert_eq!((rig.tally.filtered.get(), rig.tally.inbound.get(), rig.figure("flows")), (1, 2, 1));
    // Nobody uses this port: the host's own business.
    rig.untouched(&Packet::udp("192.0.2.2:53", "203.0.113.1:4001"));
    rig.untouched(&Packet::udp("192.0.2.2:53", "198.51.100.1:4000"));
}

#[test]
fn filtering_by_endpoint_lets_everybody_in_and_keeps_nothing_alive() {
    let rig = rig(&[("filtering", "endpoint")]);
    rig.leaves(&Packet::udp("10.0.0.5:4000", "192.0.2.1:53"), "203.0.113.1:4000");
    let stranger = Packet::udp("192.0.2.2:1", "203.0.113.1:4000");
    for now_s in [1, 200, 300] {
        rig.at_s(now_s);
        rig.arrives(&stranger, "10.0.0.5:4000");
    }
    assert_eq!(rig.figure("flows"), 1, "strangers make no session");
    rig.at_s(301);
    rig.untouched(&stranger);
    assert_eq!(rig.nat.mappings.len(), 0);
    rig.check();
}

#[test]
fn mappings_live_as_long_as_their_sessions() {
    let rig = rig(&[]);
    let (first, second) =
        (Packet::udp("10.0.0.5:4000", "192.0.2.1:53"), Packet::udp("10.0.0.5:4000", "192.0.2.2:53"));
    rig.leaves(&first, "203.0.113.1:4000");
    rig.at_s(200);
    rig.leaves(&second, "203.0.113.1:4000");
    rig.at_s(301);
    assert_eq!((rig.figure("flows"), rig.nat.mappings.len(), rig.nat.mappings.permits_len()), (1, 1, 1));
    assert_eq!(
        rig.prerouting(&Packet::udp("192.0.2.1:53", "203.0.113.1:4000").bytes()),
        Err(Why::Filtered),
        "the permit went with the session"
    );
    // What comes in refreshes a session, too.
    rig.at_s(500);
    rig.arrives(&second.with_src("203.0.113.1:4000").answer(), "10.0.0.5:4000");
    rig.at_s(800);
    assert_eq!(rig.nat.mappings.len(), 1);
    rig.at_s(801);
    assert_eq!((rig.figure("flows"), rig.nat.mappings.len(), rig.nat.mappings.permits_len()), (0, 0, 0));
    rig.check();
}

#[test]
fn tcp_sessions_outlast_two_hours_of_silence() {
    let rig = rig(&[]);
    let send = |flags| rig.leaves(&Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", flags), "203.0.113.1:4000");
    let answer =
        |flags| rig.arrives(&Packet::tcp("192.0.2.1:80", "203.0.113.1:4000", flags), "10.0.0.5:4000");
    send(SYN);
    answer(SYN | TcpFlags::ACK);
    send(TcpFlags::ACK);
    assert_eq!(rig.figure("established"), 1);
    rig.at_s(7440);
    answer(TcpFlags::ACK);
    send(TcpFlags::FIN | TcpFlags::ACK);
    answer(TcpFlags::FIN | TcpFlags::ACK);
    send(TcpFlags::ACK);
    assert_eq!((rig.figure("established"), rig.figure("flows")), (0, 1));
    rig.at_s(7440 + 241);
    assert_eq!(rig.figure("flows"), 0);
    // An RST opens nothing.
    let reset = Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", TcpFlags::RST);
    assert_eq!(rig.output(&reset.bytes()), Err(Why::Invalid));
}

#[test]
fn echo_identifiers_are_translated() {
    let rig = rig(&[]);
    let echo = Packet::echo("10.0.0.5", "192.0.2.1", 4000);
    rig.leaves(&echo, "203.0.113.1:4000");
    let other = Packet::echo("10.0.0.6", "192.0.2.1", 4000);
    let sent = rig.output(&other.bytes()).unwrap();
    let ident = u16::from_be_bytes([sent[24], sent[25]]);
    assert_ne!(ident, 4000);
    assert_eq!(sent, other.with_src(&format!("203.0.113.1:{ident}")).bytes());
    let answer = other.with_src(&format!("203.0.113.1:{ident}")).answer();
    rig.arrives(&answer, "10.0.0.6:4000");
    // A query from outside is for the host itself, whoever uses the identifier.
    rig.untouched(&Packet::echo("192.0.2.1", "203.0.113.1", 4000));
    // An answer to nothing shows no inside address to the world.
    let mut stray = Packet::new(Protocol::ICMP, "10.0.0.5", "192.0.2.1:77");
    stray.icmp_type = icmp::v4::ECHO_REPLY;
    assert_eq!(rig.output(&stray.bytes()), Err(Why::Invalid));
    rig.at_s(61);
    assert_eq!(rig.figure("flows"), 0);
}

#[test]
fn protocols_without_ports_are_translated_by_address() {
    let rig = rig(&[("to", "203.0.113.1-203.0.113.2")]);
    let gre = Packet::new(Protocol::GRE, "10.0.0.5", "192.0.2.1");
    let sent = rig.output(&gre.bytes()).unwrap();
    let src = Ipv4::new_checked(&sent).unwrap().src().to_string();
    assert_eq!(sent, gre.with_src(&src).bytes());
    rig.arrives(&gre.with_src(&src).answer(), "10.0.0.5");
    // Each outside address can be one host's.
    assert!(rig.output(&gre.with_src("10.0.0.6").bytes()).is_ok());
    assert_eq!(rig.output(&gre.with_src("10.0.0.7").bytes()), Err(Why::NoPort));
}

#[test]
fn a_forward_needs_no_session() {
    let rig = rig(&[("forward", "tcp 203.0.113.1:80 -> 10.0.0.5:8080, udp 203.0.113.9:53 -> 10.0.0.6:53")]);
    let open = Packet::tcp("192.0.2.1:4000", "203.0.113.1:80", SYN);
    rig.arrives(&open, "10.0.0.5:8080");
    rig.leaves(&open.with_dst("10.0.0.5:8080").answer(), "203.0.113.1:80");
    let reset = Packet::tcp("10.0.0.5:8080", "192.0.2.1:4000", TcpFlags::RST);
    rig.leaves(&reset, "203.0.113.1:80");
    let query = Packet::udp("192.0.2.1:4000", "203.0.113.9:53");
    rig.arrives(&query, "10.0.0.6:53");
    rig.leaves(&query.with_dst("10.0.0.6:53").answer(), "203.0.113.9:53");
    assert_eq!((rig.figure("flows"), rig.nat.mappings.len()), (0, 2));
    rig.at_s(100_000);
    rig.arrives(&open, "10.0.0.5:8080");
    // Nobody else gets the port of a forward.
    let other = rig.output(&Packet::tcp("10.0.0.7:80", "192.0.2.1:1", SYN).bytes()).unwrap();
    assert_ne!(src_of(&other), "203.0.113.1:80");
}

#[test]
fn hairpins() {
    let rig = rig(&[("forward", "udp 203.0.113.1:53 -> 10.0.0.6:53"), ("filtering", "endpoint")]);
    // To a forward, and back.
    let query = Packet::udp("10.0.0.5:4000", "203.0.113.1:53");
    let arrived = query.with_src("203.0.113.1:4000").with_dst("10.0.0.6:53");
    assert_eq!(rig.prerouting(&query.bytes()), Ok(arrived.bytes()));
    let answer = arrived.answer();
    let back = answer.with_src("203.0.113.1:53").with_dst("10.0.0.5:4000");
    assert_eq!(rig.prerouting(&answer.bytes()), Ok(back.bytes()));
    assert_eq!(rig.tally.hairpin.get(), 2);
    // What was translated before routing is let out as it is.
    assert_eq!(rig.output(&arrived.bytes()), Ok(arrived.bytes()));
    // To the mapping of another inside host.
    rig.leaves(&Packet::udp("10.0.0.7:5000", "192.0.2.1:53"), "203.0.113.1:5000");
    let peer = Packet::udp("10.0.0.5:4000", "203.0.113.1:5000");
    let arrived = peer.with_src("203.0.113.1:4000").with_dst("10.0.0.7:5000");
    assert_eq!(rig.prerouting(&peer.bytes()), Ok(arrived.bytes()));
    // To the host itself.
    rig.untouched(&Packet::udp("10.0.0.5:4000", "203.0.113.1:6000").with_dst("203.0.113.1:6000"));
}

#[test]
fn hairpins_are_filtered_too() {
    let rig = rig(&[]);
    rig.leaves(&Packet::udp("10.0.0.7:5000", "192.0.2.1:53"), "203.0.113.1:5000");
    let peer = Packet::udp("10.0.0.5:4000", "203.0.113.1:5000");
    assert_eq!(rig.prerouting(&peer.bytes()), Err(Why::Filtered));
    // After both have sent to the other's outside address, they talk.
    let back = Packet::udp("10.0.0.7:5000", "203.0.113.1:4000");
    let arrived = back.with_src("203.0.113.1:5000").with_dst("10.0.0.5:4000");
    assert_eq!(rig.prerouting(&back.bytes()), Ok(arrived.bytes()));
    assert!(rig.prerouting(&peer.bytes()).is_ok());
}

#[test]
fn what_does_not_leave_is_left_alone() {
    let rig = rig(&[]);
    for dst in ["10.9.9.9:1", "224.0.0.251:5353", "255.255.255.255:67"] {
        rig.untouched(&Packet::udp("10.0.0.5:4000", dst));
    }
    rig.untouched(&Packet::udp("203.0.113.1:4000", "192.0.2.1:53"));
    rig.untouched(&Packet::udp("172.16.0.1:4000", "192.0.2.1:53"));
    assert_eq!(rig.figure("flows"), 0);
}

#[test]
fn what_cannot_be_translated_is_dropped() {
    let rig = rig(&[]);
    let mut fragment = Packet::udp("10.0.0.5:4000", "192.0.2.1:53").bytes();
    let mut ip = Ipv4::new_checked(&mut fragment).unwrap();
    ip.set_fragment(false, true, 0);
    ip.fill_checksum();
    assert_eq!(rig.output(&fragment), Err(Why::Invalid));
    let mut short = Packet::new(Protocol::GRE, "10.0.0.5", "192.0.2.1");
    short.payload = vec![0; 7];
    let mut short = short.bytes();
    Ipv4::new_checked(&mut short).unwrap().set_protocol(Protocol::UDP);
    assert_eq!(rig.output(&short), Err(Why::Invalid));
    assert_eq!(rig.tally.invalid.get(), 2);
}

#[test]
fn headers_may_lie_in_two_frames() {
    let rig = rig(&[]);
    let packet = Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", SYN);
    for first in [20, 22, 39] {
        let sent = rig.output_mbuf(chained(&rig.pool, &packet.bytes(), first));
        assert_eq!(sent, Ok(packet.with_src("203.0.113.1:4000").bytes()));
        let answer = packet.with_src("203.0.113.1:4000").answer();
        let got = rig.prerouting_mbuf(chained(&rig.pool, &answer.bytes(), first));
        assert_eq!(got, Ok(answer.with_dst("10.0.0.5:4000").bytes()));
    }
}

#[test]
fn a_pending_checksum_stays_the_sum_of_the_pseudo_header() {
    for packet in
        [Packet::udp("10.0.0.5:80", "192.0.2.1:53"), Packet::tcp("10.0.0.5:80", "192.0.2.1:80", SYN)]
    {
        for flag in [Flags::CSUM_L4_PARTIAL, Flags::CSUM_REQ_TCP, Flags::CSUM_REQ_UDP] {
            let rig = rig(&[]);
            let at = 20 + if packet.protocol == Protocol::TCP { 16 } else { 6 };
            let with_partial = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                let ip = Ipv4::new_checked(&bytes[..]).unwrap();
                let sum = ip.pseudo_header().sum(packet.protocol, ip.payload().len()).fold();
                bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
                bytes
            };
            let mut m = mbuf(&rig.pool, &with_partial(&packet.bytes()));
            m.flags_mut().insert(flag);
            let sent = rig.output_mbuf(m).unwrap();
            assert_ne!(src_of(&sent), "203.0.113.1:80");
            assert_eq!(sent, with_partial(&packet.with_src(&src_of(&sent)).bytes()));
        }
    }
}

#[test]
fn segments_are_kept_below_the_mss() {
    let rig = rig(&[("mss_max", "1400")]);
    for (options, clamped) in [
        (vec![2, 4, 0x05, 0xb4], vec![2, 4, 0x05, 0x78]),
        (vec![1, 2, 4, 0x05, 0xb4, 1, 1, 0], vec![1, 2, 4, 0x05, 0x78, 1, 1, 0]),
        (vec![2, 4, 0x02, 0x18], vec![2, 4, 0x02, 0x18]),
        (vec![1, 1, 1, 2], vec![1, 1, 1, 2]),
        (vec![], vec![]),
    ] {
        let mut packet = Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", SYN);
        packet.options = options;
        let mut expect = packet.with_src("203.0.113.1:4000");
        expect.options = clamped;
        assert_eq!(rig.output(&packet.bytes()), Ok(expect.bytes()));
        packet.flags = TcpFlags::ACK;
        rig.leaves(&packet, "203.0.113.1:4000");
    }
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let protocol = prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP), Just(Protocol::ICMP)];
    let payload = prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xff)], 0..40);
    (protocol, any::<(u32, u16, u32, u16)>(), payload, any::<bool>()).prop_map(
        |(protocol, (src, src_port, dst, dst_port), payload, unsummed)| {
            let mut packet = Packet::new(protocol, "10.0.0.0", "192.0.2.0");
            packet.src = ((0x0a00_0000 | src >> 8).into(), src_port);
            packet.dst = ((0xc000_0000 | dst >> 8).into(), dst_port);
            if protocol == Protocol::ICMP {
                packet.dst.1 = 0;
            }
            (packet.payload, packet.unsummed) = (payload, unsummed);
            packet
        },
    )
}

proptest! {
    /// There and back gives the packet of before, and every checksum is the one computed from scratch.
    #[test]
    fn forward_then_reverse_is_the_original(packet in any_packet()) {
        let rig = rig(&[("to", "203.0.113.0-203.0.113.3")]);
        let sent = rig.output(&packet.bytes()).unwrap();
        let ip = Ipv4::new_checked(&sent[..]).unwrap();
        prop_assert!(rig.nat.outside.contains(ip.src().to_bits()));
        let port_at = if packet.protocol == Protocol::ICMP { 24 } else { 20 };
        let port = u16::from_be_bytes([sent[port_at], sent[port_at + 1]]);
        let mut expect = packet.clone();
        expect.src = (ip.src(), port);
        prop_assert_eq!(&sent, &expect.bytes());
        let mut back = packet.answer();
        let answer = expect.answer();
        back.payload.clone_from(&packet.payload);
        prop_assert_eq!(rig.prerouting(&answer.bytes()), Ok(back.bytes()));
        prop_assert_eq!(rig.output(&packet.bytes()), Ok(sent), "the same again");
    }

    /// Whatever bytes stand behind a valid IP header: no panic, and what is let through has the length it had.
    #[test]
    fn nonsense_does_no_harm(
        protocol in prop_oneof![Just(1u8), Just(6), Just(17), any::<u8>()],
        upper in prop::collection::vec(any::<u8>(), 0..80),
        inward in any::<bool>(),
    ) {
        let rig = rig(&[("mss_max", "1400")]);
        let mut packet = Packet::new(Protocol::GRE, "10.0.0.5", "192.0.2.1");
        if inward {
            packet = packet.with_src("192.0.2.1").with_dst("203.0.113.1");
        }
        packet.payload = upper;
        let mut bytes = packet.bytes();
        let mut ip = Ipv4::new_checked(&mut bytes).unwrap();
        ip.set_protocol(Protocol(protocol));
        ip.fill_checksum();
        for out in [rig.output(&bytes), rig.prerouting(&bytes)].into_iter().flatten() {
            let ip = Ipv4::new_checked(&out[..]).unwrap();
            prop_assert!(ip.verify_checksum());
            prop_assert_eq!(out.len(), bytes.len());
        }
    }
}

#[test]
fn the_oracle_is_right() {
    let bytes = Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", SYN).bytes();
    let ip = Ipv4::new_checked(&bytes[..]).unwrap();
    assert!(ip.verify_checksum());
    assert!(Tcp::new_checked(ip.payload()).unwrap().verify_checksum(&ip.pseudo_header()));
}

#[test]
fn sessions_are_shown_with_both_their_faces() {
    let rig = rig(&[]);
    let packet = Packet::udp("10.0.0.5:4000", "192.0.2.1:53");
    let out = rig.output(&packet.bytes()).unwrap();
    let [entry] = &rig.nat.entries(10)[..] else { panic!() };
    let end = |address: &str, port: u16| (address.parse().unwrap(), port);
    assert_eq!((entry.src, entry.dst, entry.protocol), (end("10.0.0.5", 4000), end("192.0.2.1", 53), 17));
    let port = u16::from_be_bytes([out[20], out[21]]);
    assert_eq!(entry.translated, Some(end("203.0.113.1", port)));
}
