//! Header views: typed, checked, zero-copy readings of bytes that came off a wire.
//!
//! # One shape for every header
//!
//! Each file holds one protocol as a view `Proto<T>` over any buffer `T: AsRef<[u8]>`. What you learn from one
//! holds for all:
//!
//! | call | does |
//! |---|---|
//! | `new_checked(buf)` | reads a received header; an error says what is wrong with it |
//! | `init(buf)` | starts a header to send: zeroed, with version and length fields that fit `buf` |
//! | `field()` | reads a field, in host byte order and whole units (bytes, not words) |
//! | `payload()` | what the header carries, cut to the header's own length field |
//! | `set_field(v)`, `payload_mut()` | the same for `T: AsMut<[u8]>` |
//! | `verify_checksum`, `fill_checksum` | where the protocol has one |
//! | `into_inner()` | gives the buffer back |
//!
//! Because a payload is a slice, views stack without copies:
//!
//! ```
//! use nke_mbuf::wire::{Ethernet, EtherType, Ipv4, Udp, WireError};
//!
//! fn udp_payload(frame: &[u8]) -> Result<Option<&[u8]>, WireError> {
//!     let ether = Ethernet::new_checked(frame)?;
//!     if ether.ethertype() != EtherType::IPV4 {
//!         return Ok(None);
//!     }
//!     let ip = Ipv4::new_checked(&frame[Ethernet::HEADER_LEN..])?;
//!     let from = Ethernet::HEADER_LEN + ip.header_len() + Udp::HEADER_LEN;
//!     Ok(frame.get(from..Ethernet::HEADER_LEN + ip.total_len()))
//! }
//! # assert_eq!(udp_payload(&[0; 13]), Err(WireError::Truncated));
//! ```
//!
//! A filter that only wants to *match* does not stack views: [`Layers::parse`] finds every layer in one pass.
//!
//! # The panic promise
//!
//! `new_checked` and `init` themselves never panic. After either returned `Ok`, no method of the view panics,
//! whatever the bytes are and whatever the setters wrote, as long as the buffer keeps its length (a `T` whose
//! `as_ref` shrinks between two calls breaks the bargain). Two rules make this easy to check by eye:
//!
//! 1. fields at *fixed* offsets lie inside `HEADER_LEN`, and the constructors prove that many bytes;
//! 2. everything of *variable* size (options, payload) is cut with a saturating slice, so that a length field
//!    rewritten to nonsense yields a short or empty slice, never a read past the frame.
//!
//! Every loop over received data consumes at least one byte per turn or is capped by a constant.
//!
//! # What is not here
//!
//! No reassembly, no policy (a private source address is well-formed), no jumbograms (RFC 2675), no ARP other
//! than Ethernet/IPv4. Checksums are checked when asked, never in a constructor: hardware may have done it.

mod arp;
mod bytes;
pub mod checksum;
mod ethernet;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(missing_docs, clippy::missing_panics_doc)]
pub mod harness;
pub mod icmp;
mod ipv4;
mod ipv6;
mod ipv6_ext;
mod ndp;
mod options;
pub mod parse;
mod protocol;
pub mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod vlan;

pub use arp::{Arp, ArpOp};
pub use checksum::{Checksum, PseudoHeader};
pub use ethernet::{EtherAddr, EtherAddrError, EtherType, Ethernet};
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use ipv6_ext::{EXT_BYTES_MAX, EXT_HEADERS_MAX, ExtWalk, FragmentHeader};
pub use ndp::{Ndp, NdpOption, NdpOptions};
pub use options::{Opt, Options};
pub use parse::{Addrs, Fragment, Layer, Layers, Malformed, Ports};
pub use protocol::Protocol;
pub use tcp::{Tcp, TcpFlags};
pub use udp::Udp;
pub use vlan::{Vlan, VlanTag};

/// What is wrong with a header.
///
/// `Copy` and a byte wide, so that a drop reason can carry it and count by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end before the header does, or before the length the header claims.
    Truncated,
    /// The version field is not the one of this protocol.
    Version,
    /// A length field is smaller than the header it belongs to, or cannot hold the length asked for.
    Length,
    /// An option has a length below its own two bytes, or runs past the option area.
    Option,
    /// An IPv6 extension header stands where it must not, or a second time.
    Extension,
    /// More nested headers (tags, extension headers) or header bytes than this implementation follows.
    TooMany,
    /// Well-formed, but of a kind that this view does not read.
    Unsupported,
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated: fewer bytes than the header claims",
            Self::Version => "wrong version field",
            Self::Length => "length field contradicts the header",
            Self::Option => "option with an impossible length",
            Self::Extension => "extension header out of place",
            Self::TooMany => "too many nested headers",
            Self::Unsupported => "kind of header not supported",
        })
    }
}

impl core::error::Error for WireError {}
