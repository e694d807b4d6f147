//! One received fragment, read: RFC 791 section 3.2, RFC 8200 section 4.5, RFC 7112.

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{ExtWalk, FragmentHeader, Ipv4, Ipv6, Protocol, WireError};

use super::{DropReason, FragmentKey, Problem};

/// The longest datagram, header and all (IPv4) or without its fixed header (IPv6).
pub(super) const DATAGRAM_MAX: usize = 65535;

/// A fragment whose lengths hold.
pub(super) struct Piece {
    pub(super) key: FragmentKey,
    /// Bytes in front of the payload, the fragment header included.
    pub(super) header_len: usize,
    /// Payload: where it belongs, how long it is.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Not the last one.
    pub(super) more: bool,
    /// The ECN field.
    pub(super) ecn: u8,
}

/// What a packet is to a reassembler.
pub(super) enum Read {
    NotAFragment,
    /// RFC 6946: a whole packet behind a fragment header that starts `header_at` bytes in.
    Atomic {
        header_at: usize,
    },
    Piece(Piece),
    Bad(DropReason),
    /// Bad, and the sender is to be told.
    Problem(DropReason, Problem),
}

#[inline]
pub(super) fn read(mbuf: &Mbuf) -> Read {
    match mbuf.data().first().map(|byte| byte >> 4) {
        Some(4) => read_v4(mbuf),
        Some(6) => read_v6(mbuf),
        _ => Read::Bad(DropReason::BadHeader),
    }
}

#[inline]
fn read_v4(mbuf: &Mbuf) -> Read {
    let Ok(ip) = Ipv4::new_quoted(mbuf.data()) else { return Read::Bad(DropReason::BadHeader) };
    if !ip.is_fragment() {
        return Read::NotAFragment;
    }
    let piece = Piece {
        key: FragmentKey::v4(ip.src(), ip.dst(), ip.ident(), ip.protocol()),
        header_len: ip.header_len(),
        start: ip.fragment_offset(),
        len: ip.total_len() - ip.header_len(),
        more: ip.more_fragments(),
        ecn: ip.ecn(),
    };
    match piece.wrong(ip.total_len(), mbuf) {
        Some(reason) => Read::Bad(reason),
        None => Read::Piece(piece),
    }
}

#[inline]
fn read_v6(mbuf: &Mbuf) -> Read {
    let Ok(ip) = Ipv6::new_quoted(mbuf.data()) else { return Read::Bad(DropReason::BadHeader) };
    let (walk, fragment) = match ip.extensions() {
        Ok(ExtWalk { fragment: None, .. }) => return Read::NotAFragment,
        Ok(walk @ ExtWalk { fragment: Some(fragment), .. }) => (walk, fragment),
        Err(error) => return broken_chain(&ip, error),
    };
    let header_at = Ipv6::HEADER_LEN + fragment.header_offset;
    let header_len = header_at + FragmentHeader::LEN;
    if fragment.is_atomic() {
        return Read::Atomic { header_at };
    }
    let piece = Piece {
        key: FragmentKey::v6(ip.src(), ip.dst(), fragment.ident, mbuf.rcvif()),
        header_len,
        start: fragment.offset,
        len: ip.total_len().saturating_sub(header_len),
        more: fragment.more,
        ecn: ip.traffic_class() & 3,
    };
    // RFC 7112: the first fragment holds every header, the upper protocol's too, so that what filters look at is there.
    if piece.start == 0 && ip.payload_len() < walk.offset + upper_header_len(walk.protocol) {
        return Read::Problem(DropReason::IncompleteChain, Problem::INCOMPLETE_CHAIN);
    }
    match piece.wrong(ip.total_len(), mbuf) {
        None => Read::Piece(piece),
        Some(reason @ DropReason::BadLength) if piece.more && !piece.len.is_multiple_of(8) => {
            Read::Problem(reason, Problem { code: 0, pointer: 4 }) // the payload length field
        }
        Some(reason @ DropReason::TooLong) => {
            Read::Problem(reason, Problem { code: 0, pointer: header_at as u32 + 2 }) // the offset field
        }
        Some(reason) => Read::Bad(reason),
    }
}

impl Piece {
    #[inline]
    pub(super) fn end(&self) -> usize {
        self.start + self.len
    }

    /// What is wrong with the lengths of a fragment of `total_len` bytes.
    #[inline]
    fn wrong(&self, total_len: usize, mbuf: &Mbuf) -> Option<DropReason> {
        if total_len > mbuf.len() {
            Some(DropReason::BadHeader)
        } else if self.len == 0 || self.more && !self.len.is_multiple_of(8) {
            Some(DropReason::BadLength)
        } else if self.end() > DATAGRAM_MAX {
            Some(DropReason::TooLong)
        } else {
            None
        }
    }
}

/// The least a first fragment holds of the upper protocol.
pub(crate) const fn upper_header_len(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => 20,
        Protocol::UDP | Protocol::ICMPV6 => 8,
        Protocol::NO_NEXT => 0,
        _ => 1,
    }
}

/// The header chain does not hold. If that is so behind a fragment header, it is this layer's to say; otherwise the
/// packet is as bad as any other.
#[cold]
fn broken_chain(ip: &Ipv6<&[u8]>, error: WireError) -> Read {
    match fragment_header(ip) {
        None => Read::NotAFragment,
        Some(_) if error == WireError::Truncated => {
            Read::Problem(DropReason::IncompleteChain, Problem::INCOMPLETE_CHAIN)
        }
        Some(_) => Read::Bad(DropReason::BadHeader),
    }
}

/// The first fragment header of the chain, whatever follows it.
pub(super) fn fragment_header(ip: &Ipv6<&[u8]>) -> Option<FragmentHeader> {
    if let Ok(walk) = ip.extensions() {
        return walk.fragment;
    }
    let (mut kind, mut at) = (ip.next_header(), 0);
    for _ in 0..nke_mbuf::wire::EXT_HEADERS_MAX {
        let rest = ip.payload().get(at..)?;
        if kind == Protocol::FRAGMENT {
            let [_, _, high, low, ident @ ..] = *rest.first_chunk::<8>()?;
            let word = u16::from_be_bytes([high, low]);
            return Some(FragmentHeader {
                header_offset: at,
                offset: usize::from(word & 0xfff8),
                more: word & 1 != 0,
                ident: u32::from_be_bytes(ident),
            });
        }
        at += extension_len(kind, rest)?;
        kind = Protocol(rest[0]);
    }
    None
}

/// Bytes of the extension header of this kind at the front of `bytes`; `None` for anything else.
pub(crate) fn extension_len(kind: Protocol, bytes: &[u8]) -> Option<usize> {
    let [_, len, ..] = *bytes else { return None };
    match kind {
        Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DEST_OPTIONS => Some((usize::from(len) + 1) * 8),
        Protocol::AH => Some((usize::from(len) + 2) * 4),
        _ => None,
    }
}
