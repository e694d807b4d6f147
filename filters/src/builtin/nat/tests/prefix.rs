//! IPv6 prefix translation (RFC 6296).

use super::super::prefix::Nat66;
use super::*;
use crate::flow::testing::{error6, udp6};

struct Rig66 {
    nat: Nat66,
    tally: Tally,
    pool: Pool,
}

fn rig66(inside: &str, outside: &str) -> Rig66 {
    let given = args(&[("inside_prefix", inside), ("outside_prefix", outside)]);
    Rig66 { nat: Nat66::from_args(&given).unwrap(), tally: Tally::default(), pool: pool() }
}

impl Rig66 {
    fn output(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let out = show(mbuf(&self.pool, bytes), |batch| self.nat.output(batch, &self.tally, &REASONS));
        out.ok().map(|m| bytes_of(&m))
    }

    fn prerouting(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let out = show(mbuf(&self.pool, bytes), |batch| self.nat.prerouting(batch, &self.tally, &REASONS));
        out.ok().map(|m| bytes_of(&m))
    }
}

const HOST: &str = "2001:db8:ffff::1";

fn from(src: &str) -> Vec<u8> {
    udp6((src, 4000), (HOST, 53), b"hello")
}

fn to(dst: &str) -> Vec<u8> {
    udp6((HOST, 53), (dst, 4000), b"hello")
}

#[test]
fn the_example_of_rfc_6296_section_3_6() {
    let rig = rig66("fd01:203:405::/48", "2001:db8:1::/48");
    let sent = rig.output(&from("fd01:203:405:1::1234")).unwrap();
    // Built with the address of the example and its checksum from scratch: nothing else has changed.
    assert_eq!(sent, from("2001:db8:1:d550::1234"));
    assert_eq!(rig.prerouting(&to("2001:db8:1:d550::1234")), Some(to("fd01:203:405:1::1234")));
    assert_eq!((rig.tally.outbound.get(), rig.tally.inbound.get()), (1, 1));
}

#[test]
fn long_prefixes_change_the_first_word_that_can_be() {
    let rig = rig66("fd00:0:0:1::/64", "2001:db8:1:2::/64");
    for host in ["1:2:3:4", "ffff:2:3:4", "ffff:ffff:3:4", "ffff:ffff:ffff:4", "0:0:0:0"] {
        let packet = from(&format!("fd00:0:0:1:{host}"));
        let sent = rig.output(&packet).unwrap();
        let src = nke_mbuf::wire::Ipv6::new_checked(&sent[..]).unwrap().src().to_string();
        assert!(src.starts_with("2001:db8:1:2"), "{src}");
        assert_eq!(sent, from(&src), "the checksum holds");
        assert_eq!(rig.prerouting(&to(&src)), Some(to(&format!("fd00:0:0:1:{host}"))));
    }
    assert_eq!(rig.output(&from("fd00:0:0:1:ffff:ffff:ffff:ffff")), None);
    assert_eq!(rig.tally.invalid.get(), 1);
}

#[test]
fn every_subnet_comes_back() {
    let rig = rig66("fd01:203:405::/48", "2001:db8:1::/48");
    let mut seen = std::collections::HashSet::new();
    for subnet in 0..0xffffu32 {
        let mut packet = from("fd01:203:405::1");
        packet[14..16].copy_from_slice(&(subnet as u16).to_be_bytes());
        let sent = rig.output(&packet).unwrap();
        assert!(seen.insert([sent[14], sent[15]]));
        let mut answer = to("2001:db8:1::1");
        answer[30..32].copy_from_slice(&sent[14..16]);
        let back = rig.prerouting(&answer).unwrap();
        assert_eq!(back[24..40], packet[8..24], "subnet {subnet:#x}");
    }
    assert_eq!(rig.output(&from("fd01:203:405:ffff::1")), None, "section 3.4");
}

#[test]
fn hairpins_and_what_stays_inside() {
    let rig = rig66("fd01:203:405::/48", "2001:db8:1::/48");
    let packet = udp6(("fd01:203:405:1::1", 1), ("2001:db8:1:d551::2", 2), b"x");
    let expect = udp6(("2001:db8:1:d550::1", 1), ("fd01:203:405:2::2", 2), b"x");
    assert_eq!(rig.prerouting(&packet), Some(expect));
    for dst in ["fd01:203:405:2::2", "ff02::1"] {
        let packet = udp6(("fd01:203:405:1::1", 1), (dst, 2), b"x");
        assert_eq!(rig.output(&packet), Some(packet));
    }
    let foreign = udp6(("2001:db8:9::1", 1), (HOST, 2), b"x");
    assert_eq!(rig.output(&foreign), Some(foreign));
}

#[test]
fn errors_quote_the_packet_the_receiver_knows() {
    let rig = rig66("fd01:203:405::/48", "2001:db8:1::/48");
    let (inner, outer) = (from("fd01:203:405:1::1234"), from("2001:db8:1:d550::1234"));
    let error = error6("2001:db8:eeee::1", "2001:db8:1:d550::1234", &outer);
    let expect = error6("2001:db8:eeee::1", "fd01:203:405:1::1234", &inner);
    assert_eq!(rig.prerouting(&error), Some(expect));
    let (inner, outer) = (to("fd01:203:405:1::1234"), to("2001:db8:1:d550::1234"));
    let error = error6("fd01:203:405:1::1234", HOST, &inner);
    assert_eq!(rig.output(&error), Some(error6("2001:db8:1:d550::1234", HOST, &outer)));
    let from_router = error6("2001:db8:7::1", HOST, &inner);
    assert_eq!(rig.output(&from_router), Some(error6("2001:db8:7::1", HOST, &outer)));
}
