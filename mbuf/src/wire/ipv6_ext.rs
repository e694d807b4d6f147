//! The chain of IPv6 extension headers (RFC 8200 section 4; AH RFC 4302; handling RFC 7045 and RFC 7112).
//!
//! Walked through: hop-by-hop, routing, fragment, AH and destination options. Anything else ends the chain and is
//! *the* upper protocol, ESP and the rarer headers (mobility, HIP, shim6) included: what they hide is not ours to
//! read.
//!
//! A sender chooses the length of the chain, and the receiver pays for the walk. So two caps end it: header count
//! and total bytes. Both are above anything seen in practice and low enough to keep the worst packet cheap.

use super::bytes::be32;
use super::{Protocol, WireError};

/// Most extension headers followed. RFC 8200 section 4.1 allows each once, destination options twice: six.
pub const EXT_HEADERS_MAX: usize = 8;

/// Most bytes of extension headers followed.
pub const EXT_BYTES_MAX: usize = 512;

/// The fields of a fragment header (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Where the fragment header is, in bytes from the start of the IPv6 payload.
    pub header_offset: usize,
    /// Where this piece belongs in the whole fragmentable part, in bytes.
    pub offset: usize,
    /// Not the last piece.
    pub more: bool,
    /// What the pieces share.
    pub ident: u32,
}

impl FragmentHeader {
    /// Bytes of a fragment header.
    pub const LEN: usize = 8;

    /// A whole packet that carries a fragment header nevertheless (RFC 6946).
    pub const fn is_atomic(self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Where the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtWalk {
    /// The upper protocol. Behind a fragment header with an offset, it is only what that header names: the bytes
    /// at [`offset`](Self::offset) are from the middle of a packet.
    pub protocol: Protocol,
    /// Bytes of extension headers: where the upper protocol starts in the IPv6 payload.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<FragmentHeader>,
}

impl ExtWalk {
    /// True if the upper protocol's header starts at [`offset`](Self::offset).
    pub fn has_upper(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0) && self.protocol != Protocol::NO_NEXT
    }
}

/// Walks the chain that starts `payload`; `first` is the next header field of the fixed header.
///
/// [`Truncated`](WireError::Truncated) if the chain runs past the payload (of a first fragment too: RFC 7112 wants
/// the whole chain there), [`Extension`](WireError::Extension) for a hop-by-hop header that is not first or a
/// second fragment header, [`TooMany`](WireError::TooMany) past the caps.
#[inline]
pub(super) fn walk(first: Protocol, payload: &[u8]) -> Result<ExtWalk, WireError> {
    let mut walk = ExtWalk { protocol: first, offset: 0, fragment: None };
    for count in 0..=EXT_HEADERS_MAX {
        if !is_extension(walk.protocol) {
            return Ok(walk);
        }
        if count == EXT_HEADERS_MAX {
            break;
        }
        if walk.protocol == Protocol::HOP_BY_HOP && count > 0 {
            return Err(WireError::Extension);
        }
        let rest = &payload[walk.offset..]; // step() proved the offset
        let (len, next) = step(walk.protocol, rest)?;
        if walk.protocol == Protocol::FRAGMENT {
            if walk.fragment.is_some() {
                return Err(WireError::Extension);
            }
            walk.fragment = Some(fragment(walk.offset, rest));
        }
        walk.protocol = next;
        walk.offset += len;
        if walk.offset > EXT_BYTES_MAX {
            return Err(WireError::TooMany);
        }
        if walk.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(walk);
        }
    }
    Err(WireError::TooMany)
}

#[inline]
const fn is_extension(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::FRAGMENT | Protocol::AH | Protocol::DEST_OPTIONS
    )
}

/// Length and next header of the extension header at the front of `bytes`; proves that all of it is there.
fn step(kind: Protocol, bytes: &[u8]) -> Result<(usize, Protocol), WireError> {
    let [next, len, ..] = *bytes else { return Err(WireError::Truncated) };
    let len = match kind {
        Protocol::FRAGMENT => FragmentHeader::LEN, // its second byte is reserved
        Protocol::AH => (usize::from(len) + 2) * 4,
        _ => (usize::from(len) + 1) * 8,
    };
    if bytes.len() < len { Err(WireError::Truncated) } else { Ok((len, Protocol(next))) }
}

/// Reads a fragment header whose 8 bytes `step` has proven.
fn fragment(header_offset: usize, bytes: &[u8]) -> FragmentHeader {
    let word = be32(bytes, 0);
    FragmentHeader {
        header_offset,
        offset: (word & 0xfff8) as usize, // 13 bits in 8-byte units: masking in place multiplies by 8
        more: word & 1 != 0,
        ident: be32(bytes, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;

    #[test]
    fn walks_all_five_kinds() {
        let mut chain = vec![43, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop
        chain.extend([44, 1, 0, 0]); // routing, 16 bytes
        chain.extend([0; 12]);
        chain.extend([51, 0xff, 0, 1, 0xde, 0xad, 0xbe, 0xef]); // first fragment
        chain.extend([60, 1]); // AH: (1 + 2) * 4 bytes
        chain.extend([0; 10]);
        chain.extend([TCP, 0, 1, 4, 0, 0, 0, 0]); // destination options
        let walk = walk(Protocol::HOP_BY_HOP, &chain).unwrap();
        assert_eq!((walk.protocol, walk.offset), (Protocol::TCP, chain.len()));
        let fragment = FragmentHeader { header_offset: 24, offset: 0, more: true, ident: 0xdead_beef };
        assert_eq!(walk.fragment, Some(fragment));
        assert!(walk.has_upper());
        for len in 0..chain.len() {
            assert_eq!(super::walk(Protocol::HOP_BY_HOP, &chain[..len]), Err(WireError::Truncated));
        }
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        // Names destination options, but the bytes behind are from the middle of the packet.
        let chain = [60, 0, 0x05, 0xa8, 0, 0, 0, 9, 0xff, 0xff];
        let walk = walk(Protocol::FRAGMENT, &chain).unwrap();
        assert_eq!((walk.protocol, walk.offset), (Protocol::DEST_OPTIONS, 8));
        assert_eq!(walk.fragment.map(|f| (f.offset, f.more, f.ident)), Some((1448, false, 9)));
        assert!(!walk.has_upper());
    }

    #[test]
    fn order_rules_and_caps() {
        let after = [Protocol::HOP_BY_HOP.0, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(walk(Protocol::DEST_OPTIONS, &after), Err(WireError::Extension));
        let twice = [44, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(walk(Protocol::FRAGMENT, &twice), Err(WireError::Extension));

        let mut chain = [60u8, 0, 1, 4, 0, 0, 0, 0].repeat(EXT_HEADERS_MAX + 1);
        assert_eq!(walk(Protocol::DEST_OPTIONS, &chain), Err(WireError::TooMany));
        chain[(EXT_HEADERS_MAX - 1) * 8] = TCP;
        assert_eq!(walk(Protocol::DEST_OPTIONS, &chain).unwrap().offset, EXT_HEADERS_MAX * 8);

        let mut long = vec![0; 2048];
        long[..2].copy_from_slice(&[TCP, 255]);
        assert_eq!(walk(Protocol::DEST_OPTIONS, &long), Err(WireError::TooMany));
        long[1] = (EXT_BYTES_MAX / 8 - 1) as u8;
        assert_eq!(walk(Protocol::DEST_OPTIONS, &long).unwrap().offset, EXT_BYTES_MAX);
    }

    #[test]
    fn foreign_headers_are_the_upper_protocol() {
        for protocol in [Protocol::ESP, Protocol::NO_NEXT, Protocol(135), Protocol::TCP] {
            let walk = walk(protocol, &[]).unwrap();
            assert_eq!((walk.protocol, walk.offset), (protocol, 0));
            assert_eq!(walk.has_upper(), protocol != Protocol::NO_NEXT);
        }
    }
}
