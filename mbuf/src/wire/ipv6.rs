//! IPv6 (RFC 8200). Extension headers are walked in [`super::ipv6_ext`].
//!
//! ```text
//!  0  version 4, traffic class 8, flow label 20
//!  4  payload length (behind these 40 bytes) | 6 next header | 7 hop limit
//!  8  source | 24 destination | 40 extension headers, upper protocol
//! ```

use super::bytes::{array, be16, be32, cut, cut_mut, put, put16, put32};
use super::ipv6_ext::{self, ExtWalk};
use super::{Protocol, PseudoHeader, WireError};
use core::net::Ipv6Addr;

/// View of an IPv6 packet. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<T>(T);

impl Ipv6<()> {
    /// The fixed header; extension headers belong to the payload.
    pub const HEADER_LEN: usize = 40;
}

const VERSION_CLASS_FLOW: usize = 0;
const PAYLOAD_LEN: usize = 4;
const NEXT_HEADER: usize = 6;
const HOP_LIMIT: usize = 7;
const SRC: usize = 8;
const DST: usize = 24;
const HEADER_LEN: usize = Ipv6::HEADER_LEN;

impl<T: AsRef<[u8]>> Ipv6<T> {
    /// Accepts a packet whose payload length lies inside `buf`; bytes behind it (Ethernet padding) are allowed
    /// and never shown. Jumbograms are not known: payload length 0 means no payload.
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let view = Self::new_quoted(buf)?;
        if view.total_len() > view.0.as_ref().len() { Err(WireError::Truncated) } else { Ok(view) }
    }

    /// [`new_checked`](Self::new_checked) for a packet quoted in an ICMPv6 error, which may end early (RFC 4443
    /// section 2.4). The payload is what is there.
    pub fn new_quoted(buf: T) -> Result<Self, WireError> {
        let bytes = buf.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        if bytes[0] >> 4 != 6 { Err(WireError::Version) } else { Ok(Self(buf)) }
    }

    /// Traffic class: code point and congestion notification, as in the IPv4 TOS byte.
    pub fn traffic_class(&self) -> u8 {
        (self.first_word() >> 20) as u8
    }

    /// Flow label, 20 bits (RFC 6437).
    pub fn flow_label(&self) -> u32 {
        self.first_word() & 0x000f_ffff
    }

    /// Bytes behind the fixed header.
    pub fn payload_len(&self) -> usize {
        usize::from(be16(self.0.as_ref(), PAYLOAD_LEN))
    }

    /// Fixed header and payload, in bytes.
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.payload_len()
    }

    /// What follows the fixed header: an extension header or the upper protocol.
    pub fn next_header(&self) -> Protocol {
        Protocol(self.0.as_ref()[NEXT_HEADER])
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[HOP_LIMIT]
    }

    /// Source address.
    pub fn src(&self) -> Ipv6Addr {
        array(self.0.as_ref(), SRC).into()
    }

    /// Destination address: with a routing header, the next waypoint.
    pub fn dst(&self) -> Ipv6Addr {
        array(self.0.as_ref(), DST).into()
    }

    /// Everything behind the fixed header, without padding behind the payload length.
    pub fn payload(&self) -> &[u8] {
        cut(self.0.as_ref(), HEADER_LEN, self.total_len())
    }

    /// Walks the extension headers to the upper protocol. Offsets in the answer count from the payload's start.
    pub fn extensions(&self) -> Result<ExtWalk, WireError> {
        ipv6_ext::walk(self.next_header(), self.payload())
    }

    /// The addresses, for the checksum of the upper protocol.
    pub fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V6 { src: self.src(), dst: self.dst() }
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }

    fn first_word(&self) -> u32 {
        be32(self.0.as_ref(), VERSION_CLASS_FLOW)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv6<T> {
    /// Starts a packet that fills `buf`: version and payload length set, the rest zero.
    /// [`Length`](WireError::Length) if the payload is longer than 65535 bytes.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        let bytes = buf.as_mut();
        let payload_len = bytes.len().checked_sub(HEADER_LEN).ok_or(WireError::Truncated)?;
        let payload_len = u16::try_from(payload_len).map_err(|_| WireError::Length)?;
        bytes[..HEADER_LEN].fill(0);
        bytes[VERSION_CLASS_FLOW] = 0x60;
        put16(bytes, PAYLOAD_LEN, payload_len);
        Ok(Self(buf))
    }

    /// Writes the traffic class.
    pub fn set_traffic_class(&mut self, class: u8) {
        let word = self.first_word() & 0xf00f_ffff | u32::from(class) << 20;
        put32(self.0.as_mut(), VERSION_CLASS_FLOW, word);
    }

    /// Writes the flow label (low 20 bits).
    pub fn set_flow_label(&mut self, label: u32) {
        let word = self.first_word() & 0xfff0_0000 | label & 0x000f_ffff;
        put32(self.0.as_mut(), VERSION_CLASS_FLOW, word);
    }

    /// Writes the payload length. A value past the buffer is written, but no slice will follow it.
    pub fn set_payload_len(&mut self, len: u16) {
        put16(self.0.as_mut(), PAYLOAD_LEN, len);
    }

    /// Writes the next header.
    pub fn set_next_header(&mut self, protocol: Protocol) {
        self.0.as_mut()[NEXT_HEADER] = protocol.0;
    }

    /// Writes the hop limit.
    pub fn set_hop_limit(&mut self, hops: u8) {
        self.0.as_mut()[HOP_LIMIT] = hops;
    }

    /// Takes one from the hop limit. False, and nothing is changed, if the packet must not travel on: RFC 4443
    /// section 3.3. There is no checksum to update.
    #[must_use]
    pub fn decrement_hop_limit(&mut self) -> bool {
        let hops = self.hop_limit();
        if hops > 1 {
            self.set_hop_limit(hops - 1);
        }
        hops > 1
    }

    /// Writes the source address.
    pub fn set_src(&mut self, addr: Ipv6Addr) {
        put(self.0.as_mut(), SRC, &addr.octets());
    }

    /// Writes the destination address.
    pub fn set_dst(&mut self, addr: Ipv6Addr) {
        put(self.0.as_mut(), DST, &addr.octets());
    }

    /// Everything behind the fixed header, for writing.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let to = self.total_len();
        cut_mut(self.0.as_mut(), HEADER_LEN, to)
    }
}
