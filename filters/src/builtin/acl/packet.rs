//! Packets into keys.
//!
//! IP headers are valid when filters see them; what is behind may be anything. Two kinds of fragments are not judged but
//! dropped, since they exist to get past a filter that looks at ports and flags (RFC 1858 section 3 and 4, RFC 3128):
//! a first fragment of TCP too short for its flags, and one that continues 8 bytes into the TCP header and would write
//! over them. So is an IPv6 packet whose chain of extension headers does not hold or does not end within the first
//! fragment (RFC 7112): where its upper header is nobody can say.

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{EXT_BYTES_MAX, Ipv4, Ipv6, Protocol, WireError};

use super::classify::Key;
use super::list::FamilyAddress;

/// Bytes of the upper header that are looked at: up to the TCP flags.
const UPPER: usize = 14;
/// Least bytes of TCP in a first fragment (RFC 1858 section 3.1.2: TMIN).
const TCP_FIRST_MIN: usize = 16;

/// What a packet is to the filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen<A> {
    /// To be classified.
    Packet(Key<A>),
    /// A fragment without upper header.
    LaterFragment(Key<A>),
    /// Not to be judged, and not to be trusted.
    Evasive,
}

/// A family whose packets can be read.
pub trait Packets: FamilyAddress {
    /// What the packet of `mbuf` is, whose data start at the IP header.
    fn read(mbuf: &Mbuf) -> Seen<Self>;
}

impl Packets for u32 {
    #[inline]
    fn read(mbuf: &Mbuf) -> Seen<u32> {
        let Ok(ip) = Ipv4::new_quoted(mbuf.data()) else { return Seen::Evasive };
        let piece = Piece {
            protocol: ip.protocol(),
            offset: ip.fragment_offset(),
            more: ip.more_fragments(),
            at: ip.header_len(),
            len_bytes: ip.total_len() - ip.header_len(),
        };
        piece.seen(mbuf, ip.src().to_bits(), ip.dst().to_bits())
    }
}

impl Packets for u128 {
    #[inline]
    fn read(mbuf: &Mbuf) -> Seen<u128> {
        let Ok(ip) = Ipv6::new_quoted(mbuf.data()) else { return Seen::Evasive };
        let walk = match ip.extensions() {
            Err(WireError::Truncated) if !mbuf.is_contiguous() => gathered(mbuf),
            walk => walk,
        };
        let Ok(walk) = walk else { return Seen::Evasive };
        let Some(len_bytes) = ip.payload_len().checked_sub(walk.offset) else { return Seen::Evasive };
        let piece = Piece {
            protocol: walk.protocol,
            offset: walk.fragment.map_or(0, |f| f.offset),
            more: walk.fragment.is_some_and(|f| f.more),
            at: Ipv6::HEADER_LEN + walk.offset,
            len_bytes,
        };
        piece.seen(mbuf, ip.src().to_bits(), ip.dst().to_bits())
    }
}

/// The walk over extension headers that lie in more than one segment.
#[cold]
fn gathered(mbuf: &Mbuf) -> Result<nke_mbuf::wire::ExtWalk, WireError> {
    let mut bytes = [0; Ipv6::HEADER_LEN + EXT_BYTES_MAX + 8];
    let len = bytes.len().min(mbuf.segments().map(<[u8]>::len).sum());
    if !mbuf.copy_out(0, &mut bytes[..len]) {
        return Err(WireError::Truncated);
    }
    Ipv6::new_quoted(&bytes[..len])?.extensions()
}

/// An IP packet or a piece of one.
struct Piece {
    protocol: Protocol,
    /// Where in the whole it belongs.
    offset: usize,
    /// Not the last piece.
    more: bool,
    /// Where the upper protocol starts, in bytes from the IP header, and how long it is.
    at: usize,
    len_bytes: usize,
}

impl Piece {
    #[inline(always)]
    fn seen<A: FamilyAddress>(self, mbuf: &Mbuf, src: A, dst: A) -> Seen<A> {
        let Protocol(protocol) = self.protocol;
        let rcvif = mbuf.rcvif();
        let mut key = Key { src, dst, sport: 0, dport: 0, protocol, upper: false, flags: 0, rcvif };
        if self.offset != 0 {
            let overwrites = self.protocol == Protocol::TCP && self.offset == 8;
            return if overwrites { Seen::Evasive } else { Seen::LaterFragment(key) };
        }
        if self.more && self.protocol == Protocol::TCP && self.len_bytes < TCP_FIRST_MIN {
            return Seen::Evasive;
        }
        let wanted = match self.protocol {
            Protocol::TCP => UPPER,
            Protocol::UDP | Protocol::SCTP | Protocol(33 | 136) => 4,
            Protocol::ICMP | Protocol::ICMPV6 => 2,
            _ => 0,
        };
        let Some(bytes) = self.bytes(mbuf, wanted) else { return Seen::Packet(key) };
        key.upper = true;
        match wanted {
            0 => {}
            2 => (key.sport, key.dport) = (bytes[0].into(), bytes[1].into()),
            _ => {
                key.sport = u16::from_be_bytes([bytes[0], bytes[1]]);
                key.dport = u16::from_be_bytes([bytes[2], bytes[3]]);
                key.flags = bytes[UPPER - 1];
            }
        }
        Seen::Packet(key)
    }

    /// The first `wanted` bytes of the upper header, zeros behind. `None` if they are not there.
    #[inline(always)]
    fn bytes(&self, mbuf: &Mbuf, wanted: usize) -> Option<[u8; UPPER]> {
        let mut bytes = [0; UPPER];
        if wanted > self.len_bytes {
            return None;
        }
        match mbuf.data().get(self.at..self.at + wanted) {
            Some(there) => bytes[..wanted].copy_from_slice(there),
            None if mbuf.copy_out(self.at, &mut bytes[..wanted]) => {}
            None => return None,
        }
        Some(bytes)
    }
}
