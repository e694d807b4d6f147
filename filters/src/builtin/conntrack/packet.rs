//! The two kinds of packet that are tracked. A key is the same for both directions: the ends in the order of their
//! addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nke_mbuf::wire::{Addrs, EtherType, Ethernet, Layers, Ports, Protocol};

use crate::flow::packet::{Bad, Upper, V4, V6, key_v4};

/// A packet whose flow has a key of `W` words.
pub(super) trait Tracked<const W: usize>: Copy {
    /// Bytes of the longest headers.
    const HEADERS_MAX: usize;
    fn read(data: &[u8]) -> Result<Self, Bad>;
    fn read_quoted(data: &[u8]) -> Result<Self, Bad>;
    fn upper(&self) -> &Upper;
    /// The key, and whether the packet is from the upper one of the two ends.
    fn key(&self) -> ([u64; W], bool);
    /// What an expression may ask for.
    fn layers(&self) -> Layers;
    /// The lower and the upper end of a key.
    fn ends(key: &[u64; W]) -> [(IpAddr, u16); 2];
}

/// The ports of a key's last word, of the lower end and the upper.
fn ports(word: u64) -> [u16; 2] {
    [(word >> 32) as u16, (word >> 16) as u16]
}

impl Tracked<2> for V4 {
    const HEADERS_MAX: usize = V4::HEADERS_MAX;

    #[inline(always)]
    fn read(data: &[u8]) -> Result<V4, Bad> {
        V4::read(data)
    }

    fn read_quoted(data: &[u8]) -> Result<V4, Bad> {
        V4::read_quoted(data)
    }

    #[inline(always)]
    fn upper(&self) -> &Upper {
        &self.upper
    }

    #[inline(always)]
    fn key(&self) -> ([u64; 2], bool) {
        let (src, dst) = ((self.src, self.upper.src_port), (self.dst, self.upper.dst_port));
        let from_upper = src > dst;
        let (low, high) = if from_upper { (dst, src) } else { (src, dst) };
        (key_v4(self.upper.protocol, low, high), from_upper)
    }

    fn layers(&self) -> Layers {
        let (src, dst) = (Ipv4Addr::from_bits(self.src), Ipv4Addr::from_bits(self.dst));
        layers(EtherType::IPV4, Addrs::V4 { src, dst }, &self.upper)
    }

    fn ends([addresses, last]: &[u64; 2]) -> [(IpAddr, u16); 2] {
        let [low, high] = ports(*last);
        let address = |bits: u64| Ipv4Addr::from_bits(bits as u32).into();
        [(address(addresses >> 32), low), (address(*addresses), high)]
    }
}

impl Tracked<5> for V6 {
    const HEADERS_MAX: usize = V6::HEADERS_MAX;

    fn read(data: &[u8]) -> Result<V6, Bad> {
        V6::read(data)
    }

    fn read_quoted(data: &[u8]) -> Result<V6, Bad> {
        V6::read_quoted(data)
    }

    fn upper(&self) -> &Upper {
        &self.upper
    }

    fn key(&self) -> ([u64; 5], bool) {
        let (src, dst) = ((self.src, self.upper.src_port), (self.dst, self.upper.dst_port));
        let from_upper = src > dst;
        let (low, high) = if from_upper { (dst, src) } else { (src, dst) };
        let ports = u64::from(low.1) << 32 | u64::from(high.1) << 16 | u64::from(self.upper.protocol);
        ([(low.0 >> 64) as u64, low.0 as u64, (high.0 >> 64) as u64, high.0 as u64, ports], from_upper)
    }

    fn layers(&self) -> Layers {
        let (src, dst) = (Ipv6Addr::from_bits(self.src), Ipv6Addr::from_bits(self.dst));
        layers(EtherType::IPV6, Addrs::V6 { src, dst }, &self.upper)
    }

    fn ends([a, b, c, d, last]: &[u64; 5]) -> [(IpAddr, u16); 2] {
        let [low, high] = ports(*last);
        let address = |a: u64, b: u64| Ipv6Addr::from_bits(u128::from(a) << 64 | u128::from(b)).into();
        [(address(*a, *b), low), (address(*c, *d), high)]
    }
}

/// As if an Ethernet header without addresses stood in front.
fn layers(ethertype: EtherType, addrs: Addrs, upper: &Upper) -> Layers {
    let protocol = Protocol(upper.protocol);
    let ports = Ports { src: upper.src_port, dst: upper.dst_port };
    Layers {
        ethertype,
        l3_offset: Ethernet::HEADER_LEN as u16,
        l4_offset: (Ethernet::HEADER_LEN + upper.offset) as u16,
        protocol: Some(protocol),
        addrs,
        ports: matches!(protocol, Protocol::TCP | Protocol::UDP).then_some(ports),
        ..Layers::default()
    }
}
