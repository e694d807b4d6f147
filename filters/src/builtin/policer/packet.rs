//! What of an IP packet decides on its bucket, and how it is marked.

use nke_mbuf::wire::{Ipv4, Ipv6, Protocol, checksum};

/// Addresses, protocol and ports, as words to be hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Tuple {
    pub(super) src: u128,
    pub(super) dst: u128,
    /// IP version, protocol, ports. Ports are 0 where there are none, and in every fragment: the first one shall not be of
    /// another flow than the rest.
    pub(super) rest: u64,
}

/// Reads an IP packet, of which the end may be missing. `None` if the header does not hold.
#[inline]
pub(super) fn tuple(ip: &[u8]) -> Option<Tuple> {
    match ip.first()? >> 4 {
        4 => {
            let v4 = Ipv4::new_quoted(ip).ok()?;
            let ports = if v4.is_fragment() { 0 } else { ports(v4.protocol(), v4.payload()) };
            let rest = 4 << 56 | u64::from(v4.protocol().0) << 32 | ports;
            Some(Tuple { src: v4.src().to_bits().into(), dst: v4.dst().to_bits().into(), rest })
        }
        6 => {
            let v6 = Ipv6::new_quoted(ip).ok()?;
            let (protocol, ports) = match v6.extensions() {
                Ok(walk) if walk.fragment.is_none_or(|f| f.offset == 0 && !f.more) => {
                    let upper = v6.payload().get(walk.offset..).unwrap_or(&[]);
                    (walk.protocol, ports(walk.protocol, upper))
                }
                Ok(walk) => (walk.protocol, 0),
                Err(_) => (v6.next_header(), 0),
            };
            let rest = 6 << 56 | u64::from(protocol.0) << 32 | ports;
            Some(Tuple { src: v6.src().to_bits(), dst: v6.dst().to_bits(), rest })
        }
        _ => None,
    }
}

fn ports(protocol: Protocol, upper: &[u8]) -> u64 {
    match (protocol, upper.first_chunk()) {
        (Protocol::TCP | Protocol::UDP, Some(ports)) => u32::from_be_bytes(*ports).into(),
        _ => 0,
    }
}

/// The differentiated services code point, 0 to 63.
#[inline]
pub(super) fn dscp(ip: &[u8]) -> Option<u8> {
    match ip.first()? >> 4 {
        4 => Some(Ipv4::new_quoted(ip).ok()?.dscp()),
        6 => Some(Ipv6::new_quoted(ip).ok()?.traffic_class() >> 2),
        _ => None,
    }
}

/// Sets the code point and keeps the congestion bits; the IPv4 checksum stays as right as it was.
#[inline]
pub(super) fn mark(ip: &mut [u8], dscp: u8) {
    if let Ok(mut v4) = Ipv4::new_quoted(&mut *ip) {
        let word = |tos: u8| u16::from_be_bytes([0x45, tos]);
        let old = word(v4.dscp() << 2);
        v4.set_dscp(dscp);
        let check = checksum::update(v4.checksum(), old, word(v4.dscp() << 2));
        v4.set_checksum(check);
    } else if let Ok(mut v6) = Ipv6::new_quoted(ip) {
        let ecn = v6.traffic_class() & 3;
        v6.set_traffic_class(dscp << 2 | ecn);
    }
}
