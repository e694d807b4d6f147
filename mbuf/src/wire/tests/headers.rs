//! IPv4, IPv6 and TCP by hand-made bytes.

use crate::wire::*;
use core::net::Ipv4Addr;

/// RFC 791 appendix A, example 1: a minimal datagram of 21 bytes with one byte of data; addresses are ours.
const RFC_791_EXAMPLE: [u8; 21] =
    [0x45, 0, 0, 21, 0, 111, 0, 0, 123, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 0xaa];

#[test]
fn ipv4_example_of_rfc_791() {
    let ip = Ipv4::new_checked(&RFC_791_EXAMPLE[..]).unwrap();
    assert_eq!((ip.header_len(), ip.total_len(), ip.ident(), ip.ttl()), (20, 21, 111, 123));
    assert_eq!((ip.protocol(), ip.payload()), (Protocol::ICMP, &[0xaa][..]));
    assert!(!ip.verify_checksum() && !ip.is_fragment());
    let mut ip = Ipv4::new_checked(RFC_791_EXAMPLE).unwrap();
    ip.fill_checksum();
    assert!(ip.verify_checksum());
}

#[test]
fn ipv4_length_fields() {
    let damaged = |at: usize, byte: u8| {
        let mut bytes = RFC_791_EXAMPLE;
        bytes[at] = byte;
        Ipv4::new_checked(bytes).err()
    };
    assert_eq!(damaged(0, 0x65), Some(WireError::Version));
    assert_eq!(damaged(0, 0x44), Some(WireError::Length));
    assert_eq!(damaged(0, 0x46), Some(WireError::Length)); // 24 bytes of header in 21 of packet
    assert_eq!(damaged(3, 19), Some(WireError::Length));
    assert_eq!(damaged(3, 22), Some(WireError::Truncated));
    assert_eq!(damaged(3, 20), None);
    let mut quote = RFC_791_EXAMPLE;
    quote[2] = 0x40; // the original had 16 KiB, the ICMP error quotes the front of it
    assert_eq!(Ipv4::new_quoted(quote).unwrap().payload(), [0xaa]);
}

#[test]
fn ipv4_ttl_runs_out() {
    let mut ip = Ipv4::init([0; 20]).unwrap();
    ip.set_ttl(2);
    ip.set_src(Ipv4Addr::LOCALHOST);
    ip.fill_checksum();
    assert!(ip.decrement_ttl() && ip.verify_checksum());
    assert_eq!(ip.ttl(), 1);
    assert!(!ip.decrement_ttl() && ip.verify_checksum());
    ip.set_ttl(0);
    assert!(!ip.decrement_ttl());
}

#[test]
fn ipv4_options_are_bounded_by_the_header() {
    let mut ip = Ipv4::init([0; 32]).unwrap();
    assert_eq!(ip.set_header_len(22), Err(WireError::Length));
    assert_eq!(ip.set_header_len(36), Err(WireError::Length));
    ip.set_header_len(28).unwrap();
    ip.options_mut().copy_from_slice(&[0x94, 4, 0, 0, 0x44, 5, 0, 0]); // router alert, then one byte too many
    let options: Vec<_> = ip.options().collect();
    assert_eq!(options, [Ok(Opt { kind: 0x94, offset: 0, data: &[0, 0] }), Err(WireError::Option)]);
}

#[test]
fn ipv6_fields_and_lengths() {
    let mut ip = Ipv6::init(vec![0; 44]).unwrap();
    ip.set_traffic_class(0xb8);
    ip.set_flow_label(0xfff1_2345); // more than 20 bits
    ip.set_next_header(Protocol::UDP);
    ip.set_hop_limit(2);
    assert_eq!((ip.traffic_class(), ip.flow_label(), ip.payload_len()), (0xb8, 0x1_2345, 4));
    assert!(ip.decrement_hop_limit());
    assert!(!ip.decrement_hop_limit());
    let bytes = ip.into_inner();
    assert_eq!(bytes[..8], [0x6b, 0x81, 0x23, 0x45, 0, 4, 17, 1]);
    assert_eq!(Ipv6::new_checked(&bytes[..43]).err(), Some(WireError::Truncated));
    assert_eq!(Ipv6::new_quoted(&bytes[..43]).unwrap().payload().len(), 3);
    assert_eq!(Ipv6::init(vec![0; 65_576]).err(), Some(WireError::Length));
}

#[test]
fn tcp_syn_with_options() {
    let mut tcp = Tcp::init(vec![0; 30]).unwrap();
    tcp.set_src_port(40_000);
    tcp.set_dst_port(80);
    tcp.set_seq(0xffff_fff0);
    tcp.set_ack(1);
    tcp.set_window(64_240);
    tcp.set_urgent(3);
    tcp.set_flags(TcpFlags::SYN | TcpFlags::ECE);
    tcp.set_header_len(28).unwrap();
    tcp.options_mut().copy_from_slice(&[2, 4, 5, 0xb4, 1, 3, 3, 7]);
    let tcp = Tcp::new_checked(tcp.into_inner()).unwrap();
    assert!(tcp.flags().contains(TcpFlags::SYN) && !tcp.flags().contains(TcpFlags::SYN | TcpFlags::ACK));
    assert_eq!((tcp.seq(), tcp.ack(), tcp.window(), tcp.urgent()), (0xffff_fff0, 1, 64_240, 3));
    assert_eq!((tcp.mss(), tcp.payload().len()), (Ok(Some(1460)), 2));
}

#[test]
fn tcp_data_offset() {
    let with_offset = |offset: u8| {
        let mut bytes = [0; 24];
        bytes[12] = offset << 4;
        Tcp::new_checked(bytes).map(|tcp| tcp.payload().len())
    };
    assert_eq!(with_offset(4), Err(WireError::Length));
    assert_eq!(with_offset(5), Ok(4));
    assert_eq!(with_offset(6), Ok(0));
    assert_eq!(with_offset(7), Err(WireError::Truncated));
    assert_eq!(Tcp::new_checked([0x50; 19]).err(), Some(WireError::Truncated));
}
