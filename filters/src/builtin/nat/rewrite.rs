//! Writing an address and a port into a packet, with the checksums brought along (RFC 1624).
//!
//! A checksum that is still to be completed by a device or by us ([`Flags::CSUM_L4_PARTIAL`] and the requests) is the plain
//! sum of the pseudo header: the address changes it, the port does not, and it is not complemented. A UDP checksum of 0
//! is none and stays none; one that comes out as 0 is written as all ones (RFC 768).

use nke_mbuf::wire::checksum::{update, update32};
use nke_mbuf::wire::{Checksum, Protocol};
use nke_mbuf::{Flags, Mbuf};

use super::args::Endpoint;
use crate::flow::packet::{Role, Upper, V4, be16};

/// Which end of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Src,
    Dst,
}

impl End {
    /// Where its address is in the IP header.
    fn addr_at(self) -> usize {
        if self == End::Src { 12 } else { 16 }
    }

    /// Where its port is in the upper header, if it has one there.
    fn port_at(self, upper: &Upper) -> Option<usize> {
        match (Protocol(upper.protocol), self) {
            (Protocol::TCP | Protocol::UDP, End::Src) => Some(0),
            (Protocol::TCP | Protocol::UDP, End::Dst) => Some(2),
            (Protocol::ICMP, End::Src) if upper.role == Role::Query => Some(4),
            (Protocol::ICMP, End::Dst) if upper.role == Role::Answer => Some(4),
            _ => None,
        }
    }
}

const IP_CHECKSUM: usize = 10;

/// Where the checksum is in the upper header, and whether it covers the addresses.
#[inline(always)]
fn checksum_at(protocol: u8) -> Option<(usize, bool)> {
    match Protocol(protocol) {
        Protocol::TCP => Some((16, true)),
        Protocol::UDP => Some((6, true)),
        Protocol::ICMP => Some((2, false)),
        _ => None,
    }
}

/// Whether the transport checksum is still to be completed.
#[inline(always)]
pub(super) fn is_pending(mbuf: &Mbuf) -> bool {
    const PENDING: u16 = Flags::CSUM_L4_PARTIAL.0 | Flags::CSUM_REQ_TCP.0 | Flags::CSUM_REQ_UDP.0;
    mbuf.flags().0 & PENDING != 0
}

/// What the change of a field adds to a sum: `~m + m'` of RFC 1624 equation 3, not yet folded.
#[inline(always)]
fn change(old: u32, new: u32) -> u32 {
    (!old >> 16) + (!old & 0xffff) + (new >> 16) + (new & 0xffff)
}

/// The checksum after such changes, at most a few of them.
#[inline(always)]
fn apply(check: u16, change: u32) -> u16 {
    let sum = u32::from(!check) + change;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Gives an end of the packet another address and port. `upper` is what was read of the packet in `data`.
#[inline(always)]
pub(super) fn rewrite(data: &mut [u8], upper: &Upper, end: End, to: Endpoint, pending: bool) {
    let at = end.addr_at();
    let Some(ip) = data.first_chunk_mut::<20>() else { return };
    let addr_change = change(be32(ip, at), to.0);
    let check = apply(be16(ip, IP_CHECKSUM), addr_change);
    put16(ip, IP_CHECKSUM, check);
    put32(ip, at, to.0);
    let Some((check_at, covers_addrs)) = checksum_at(upper.protocol) else { return };
    let Some(bytes) = data.get_mut(upper.offset..) else { return };
    let pending = pending && covers_addrs;
    let mut sum_change = if covers_addrs { addr_change } else { 0 };
    if let Some(at) = end.port_at(upper) {
        // The upper half stays 0, which changes nothing.
        let old = be16(bytes, at);
        put16(bytes, at, to.1);
        if !pending {
            sum_change += change(u32::from(old), u32::from(to.1));
        }
    }
    let check = be16(bytes, check_at);
    if pending {
        return put16(bytes, check_at, !apply(!check, sum_change));
    }
    let udp = Protocol(upper.protocol) == Protocol::UDP;
    if udp && check == 0 {
        return;
    }
    let new = apply(check, sum_change);
    put16(bytes, check_at, if udp && new == 0 { 0xffff } else { new });
}

/// Gives an end of the packet that an ICMP error quotes another address and port. The ICMP header is at `icmp_at`,
/// `quoted` was read behind it, and the IP packet ends at `end_at`.
pub(super) fn rewrite_quoted(
    data: &mut [u8],
    icmp_at: usize,
    end_at: usize,
    quoted: &V4,
    end: End,
    to: Endpoint,
) {
    let end_at = end_at.min(data.len());
    let data = &mut data[..end_at];
    let ip_at = icmp_at + 8;
    let upper = &quoted.upper;
    let upper_at = ip_at + upper.offset;
    let (old, old_port) = match end {
        End::Src => (quoted.src, upper.src_port),
        End::Dst => (quoted.dst, upper.dst_port),
    };
    let ip_check = update32(be16(data, ip_at + IP_CHECKSUM), old, to.0);
    let port_at = end.port_at(upper);
    // What is quoted of the transport's checksum is kept right, for who compares it. It may be cut off.
    let udp = Protocol(upper.protocol) == Protocol::UDP;
    let check = checksum_at(upper.protocol).and_then(|(at, covers_addrs)| {
        let old_check = u16::from_be_bytes(*data.get(upper_at + at..)?.first_chunk()?);
        let mut new = if covers_addrs { update32(old_check, old, to.0) } else { old_check };
        if port_at.is_some() {
            new = update(new, old_port, to.1);
        }
        let none = udp && old_check == 0;
        (!none).then_some((upper_at + at, if udp && new == 0 { 0xffff } else { new }))
    });
    // The ICMP checksum follows each word. All words are at even offsets: IP headers are multiples of 4 long.
    let mut put = |at: usize, new: u16| {
        let icmp_check = update(be16(data, icmp_at + 2), be16(data, at), new);
        put16(data, at, new);
        put16(data, icmp_at + 2, icmp_check);
    };
    put(ip_at + end.addr_at(), (to.0 >> 16) as u16);
    put(ip_at + end.addr_at() + 2, to.0 as u16);
    put(ip_at + IP_CHECKSUM, ip_check);
    if let Some(at) = port_at {
        put(upper_at + at, to.1);
    }
    if let Some((at, new)) = check {
        put(at, new);
    }
}

/// Whether bytes `from..to` of the packet, across its frames, sum up to all ones.
pub(super) fn is_intact(mbuf: &Mbuf, from: usize, to: usize) -> bool {
    let (mut at, mut sum) = (0, Checksum::new());
    for data in mbuf.segments() {
        let (start, end) = (from.saturating_sub(at), to.saturating_sub(at).min(data.len()));
        sum = sum.add_bytes(data.get(start..end).unwrap_or(&[]));
        at += data.len();
    }
    at >= to && sum.is_valid()
}

/// Lowers the maximum segment size that a SYN announces to `max`.
pub(super) fn clamp_mss(data: &mut [u8], upper: &Upper, max: u16, pending: bool) {
    use nke_mbuf::wire::{Tcp, tcp};
    let Some(segment) = data.get(upper.offset..).and_then(|bytes| Tcp::new_checked(bytes).ok()) else {
        return;
    };
    let Ok(Some(option)) = segment.options().find(tcp::option::MSS) else { return };
    let Ok(mss) = option.data.try_into().map(u16::from_be_bytes) else { return };
    if mss <= max {
        return;
    }
    let (at, odd) = (upper.offset + Tcp::HEADER_LEN + option.offset + 2, option.offset % 2 == 1);
    put16(data, at, max);
    if !pending {
        // A word at an odd offset counts with its bytes swapped.
        let (old, new) = if odd { (mss.swap_bytes(), max.swap_bytes()) } else { (mss, max) };
        let check_at = upper.offset + 16;
        put16(data, check_at, update(be16(data, check_at), old, new));
    }
}

#[inline(always)]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

#[inline(always)]
fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[inline(always)]
fn put32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}
