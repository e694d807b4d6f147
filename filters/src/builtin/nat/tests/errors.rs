//! ICMP errors (RFC 5508 section 4), compared with errors about the packet as the receiver knows it.

use nke_mbuf::wire::TcpFlags;
use proptest::prelude::*;

use super::*;
use crate::flow::testing::chained;

const ALL: usize = usize::MAX;

#[test]
fn an_error_from_outside_is_about_the_inside_packet() {
    let packets = [
        Packet::udp("10.0.0.5:80", "192.0.2.1:53"),
        Packet::tcp("10.0.0.5:80", "192.0.2.1:80", TcpFlags::SYN),
        Packet::echo("10.0.0.5", "192.0.2.1", 80),
    ];
    for packet in packets {
        for len in [28, 36, 38, 39, ALL] {
            let rig = rig(&[]);
            let sent = rig.output(&packet.bytes()).unwrap();
            let at = if packet.icmp_type == 8 && packet.src.1 == 80 && sent[9] == 1 { 24 } else { 20 };
            let port = u16::from_be_bytes([sent[at], sent[at + 1]]);
            assert_ne!(port, 80, "drawn");
            let outside = packet.with_src(&format!("203.0.113.1:{port}"));
            // From a router on the way.
            let error = outside.error("198.51.100.1", "203.0.113.1", len);
            let expect = packet.error("198.51.100.1", "10.0.0.5", len);
            assert_eq!(rig.prerouting(&error).as_ref(), Ok(&expect), "{packet:?} {len}");
            let split = rig.prerouting_mbuf(chained(&rig.pool, &error, 24));
            assert_eq!(split, Ok(expect));
            assert_eq!(rig.tally.icmp_errors.get(), 2);
        }
    }
}

#[test]
fn an_error_from_inside_is_about_the_outside_packet() {
    let rig = rig(&[("forward", "udp 203.0.113.1:53 -> 10.0.0.6:5353")]);
    let query = Packet::udp("192.0.2.1:4000", "203.0.113.1:53");
    let seen = query.with_dst("10.0.0.6:5353");
    // The host itself, a router inside, the translator itself.
    for (from, shown) in
        [("10.0.0.6", "203.0.113.1"), ("10.0.0.1", "203.0.113.1"), ("203.0.113.7", "203.0.113.7")]
    {
        let error = seen.error(from, "192.0.2.1", ALL);
        assert_eq!(rig.output(&error), Ok(query.error(shown, "192.0.2.1", ALL)));
    }
    // About a packet of a session.
    let out = Packet::udp("10.0.0.5:4000", "192.0.2.1:53");
    rig.leaves(&out, "203.0.113.1:4000");
    let error = out.answer().error("10.0.0.5", "192.0.2.1", ALL);
    let expect = out.with_src("203.0.113.1:4000").answer().error("203.0.113.1", "192.0.2.1", ALL);
    assert_eq!(rig.output(&error), Ok(expect));
}

#[test]
fn an_error_about_a_hairpin() {
    let rig = rig(&[("forward", "udp 203.0.113.1:53 -> 10.0.0.6:53")]);
    let query = Packet::udp("10.0.0.5:4000", "203.0.113.1:53");
    let seen = query.with_src("203.0.113.1:4000").with_dst("10.0.0.6:53");
    assert_eq!(rig.prerouting(&query.bytes()), Ok(seen.bytes()));
    let error = seen.error("10.0.0.6", "203.0.113.1", ALL);
    assert_eq!(rig.prerouting(&error), Ok(query.error("203.0.113.1", "10.0.0.5", ALL)));
}

/// A packet that was translated and then found too big for the link: the stack tells its source, which is this host.
#[test]
fn an_error_of_this_host_about_what_it_translated_goes_inside() {
    let rig = rig(&[]);
    let packet = Packet::udp("10.0.0.5:4000", "192.0.2.1:53");
    rig.leaves(&packet, "203.0.113.1:4000");
    let error = packet.with_src("203.0.113.1:4000").error("203.0.113.1", "203.0.113.1", ALL);
    assert_eq!(rig.prerouting(&error), Ok(packet.error("203.0.113.1", "10.0.0.5", ALL)));
}

#[test]
fn errors_about_nothing_are_the_hosts_own() {
    let rig = rig(&[]);
    let packet = Packet::udp("203.0.113.1:4000", "192.0.2.1:53");
    let error = packet.error("198.51.100.1", "203.0.113.1", ALL);
    assert_eq!(rig.prerouting(&error).as_ref(), Ok(&error));
    rig.leaves(&Packet::udp("10.0.0.5:4000", "192.0.2.1:53"), "203.0.113.1:4000");
    // Another remote end than the session's: forged.
    let forged = packet.with_dst("192.0.2.9:53").error("198.51.100.1", "203.0.113.1", ALL);
    assert_eq!(rig.prerouting(&forged).as_ref(), Ok(&forged));
    // A wrong ICMP checksum.
    let mut broken = error.clone();
    broken[22] ^= 1;
    assert_eq!(rig.prerouting(&broken).as_ref(), Ok(&broken));
    assert!(rig.prerouting(&error).unwrap() != error);
    // The session is as old as it was (REQ-6).
    rig.at_s(300);
    assert!(rig.prerouting(&error).unwrap() != error);
    rig.at_s(301);
    assert_eq!(rig.figure("flows"), 0);
}

proptest! {
    #[test]
    fn nonsense_in_errors_does_no_harm(quoted in prop::collection::vec(any::<u8>(), 0..60), head in 0..8usize) {
        let rig = rig(&[]);
        let packet = Packet::udp("10.0.0.5:4000", "192.0.2.1:53");
        rig.leaves(&packet, "203.0.113.1:4000");
        let mut inner = packet.with_src("203.0.113.1:4000").bytes();
        inner.truncate(head * 4);
        inner.extend(quoted);
        let mut error = Packet::new(nke_mbuf::wire::Protocol::ICMP, "198.51.100.1", "203.0.113.1");
        (error.icmp_type, error.payload) = (3, inner);
        let out = rig.prerouting(&error.bytes()).unwrap();
        let ip = nke_mbuf::wire::Ipv4::new_checked(&out[..]).unwrap();
        prop_assert!(ip.verify_checksum());
        prop_assert!(nke_mbuf::wire::Icmp::new_checked(ip.payload()).unwrap().verify_checksum(None));
    }
}
