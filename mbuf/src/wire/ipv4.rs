//! IPv4 (RFC 791; TOS byte RFC 2474 and RFC 3168; identification RFC 6864).
//!
//! ```text
//!  0  version 4, IHL 4 | 1 dscp 6, ecn 2 | 2 total length
//!  4  identification   | 6 flags 3 (reserved, DF, MF), fragment offset 13 in 8-byte units
//!  8  TTL | 9 protocol | 10 header checksum
//!  12 source           | 16 destination | 20 options, padded to IHL * 4
//! ```

use super::bytes::{array, be16, cut, cut_mut, put, put16};
use super::checksum::{self, Checksum};
use super::{Options, Protocol, PseudoHeader, WireError};
use core::net::Ipv4Addr;

/// View of an IPv4 packet. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<T>(T);

impl Ipv4<()> {
    /// Bytes of a header without options.
    pub const HEADER_LEN: usize = 20;
    /// Bytes of a header with all options it can hold (IHL 15).
    pub const HEADER_LEN_MAX: usize = 60;
}

const VERSION_IHL: usize = 0;
const TOS: usize = 1;
const TOTAL_LEN: usize = 2;
const IDENT: usize = 4;
const FRAGMENT: usize = 6;
const TTL: usize = 8;
const PROTOCOL: usize = 9;
const CHECKSUM: usize = 10;
const SRC: usize = 12;
const DST: usize = 16;
const HEADER_LEN: usize = Ipv4::HEADER_LEN;

const DF: u16 = 0x4000;
const MF: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

impl<T: AsRef<[u8]>> Ipv4<T> {
    /// Accepts a packet whose header and total length lie inside `buf`; bytes behind the total length (Ethernet
    /// padding) are allowed and never shown. Options and checksum are not judged here: see
    /// [`options`](Self::options) and [`verify_checksum`](Self::verify_checksum).
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let view = Self::new_quoted(buf)?;
        if view.total_len() > view.0.as_ref().len() { Err(WireError::Truncated) } else { Ok(view) }
    }

    /// [`new_checked`](Self::new_checked) for a packet quoted in an ICMP error, which ends before its total
    /// length does (RFC 792, RFC 1812 section 4.3.2.3). The payload is what is there.
    pub fn new_quoted(buf: T) -> Result<Self, WireError> {
        let bytes = buf.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        if bytes[VERSION_IHL] >> 4 != 4 {
            return Err(WireError::Version);
        }
        let view = Self(buf);
        let header_len = view.header_len();
        if header_len < HEADER_LEN || view.total_len() < header_len {
            return Err(WireError::Length);
        }
        if view.0.as_ref().len() < header_len { Err(WireError::Truncated) } else { Ok(view) }
    }

    /// Header with options, in bytes (IHL * 4).
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[VERSION_IHL] & 0x0f) * 4
    }

    /// Differentiated services code point, 0..=63.
    pub fn dscp(&self) -> u8 {
        self.0.as_ref()[TOS] >> 2
    }

    /// Explicit congestion notification, 0..=3.
    pub fn ecn(&self) -> u8 {
        self.0.as_ref()[TOS] & 3
    }

    /// Header and payload, in bytes.
    pub fn total_len(&self) -> usize {
        usize::from(be16(self.0.as_ref(), TOTAL_LEN))
    }

    /// Identification: what fragments of one packet share.
    pub fn ident(&self) -> u16 {
        be16(self.0.as_ref(), IDENT)
    }

    /// DF: routers must not fragment.
    pub fn dont_fragment(&self) -> bool {
        self.fragment_word() & DF != 0
    }

    /// MF: not the last fragment.
    pub fn more_fragments(&self) -> bool {
        self.fragment_word() & MF != 0
    }

    /// Where this payload belongs in the whole one, in bytes.
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment_word() & OFFSET) * 8
    }

    /// True for any piece of a fragmented packet, the first included.
    pub fn is_fragment(&self) -> bool {
        self.fragment_word() & (MF | OFFSET) != 0
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[TTL]
    }

    /// Protocol of the payload.
    pub fn protocol(&self) -> Protocol {
        Protocol(self.0.as_ref()[PROTOCOL])
    }

    /// Header checksum as written.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), CHECKSUM)
    }

    /// Source address.
    pub fn src(&self) -> Ipv4Addr {
        array(self.0.as_ref(), SRC).into()
    }

    /// Destination address.
    pub fn dst(&self) -> Ipv4Addr {
        array(self.0.as_ref(), DST).into()
    }

    /// Walks the options; kinds are those of RFC 791 (copied flag and class included in the byte).
    pub fn options(&self) -> Options<'_> {
        Options::new(cut(self.0.as_ref(), HEADER_LEN, self.header_len()))
    }

    /// What the packet carries, without padding behind the total length.
    pub fn payload(&self) -> &[u8] {
        cut(self.0.as_ref(), self.header_len(), self.total_len())
    }

    /// The addresses, for the checksum of the payload.
    pub fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V4 { src: self.src(), dst: self.dst() }
    }

    /// True if the header checksum holds.
    pub fn verify_checksum(&self) -> bool {
        Checksum::new().add_bytes(cut(self.0.as_ref(), 0, self.header_len())).is_valid()
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }

    fn fragment_word(&self) -> u16 {
        be16(self.0.as_ref(), FRAGMENT)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ipv4<T> {
    /// Starts a packet without options that fills `buf`: version, IHL and total length set, the rest zero.
    /// [`Length`](WireError::Length) if `buf` is longer than an IPv4 packet can be.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        let bytes = buf.as_mut();
        let total_len = u16::try_from(bytes.len()).map_err(|_| WireError::Length)?;
        let header = bytes.get_mut(..HEADER_LEN).ok_or(WireError::Truncated)?;
        header.fill(0);
        header[VERSION_IHL] = 0x45;
        put16(header, TOTAL_LEN, total_len);
        Ok(Self(buf))
    }

    /// Makes room for options: `len` is a multiple of 4 in 20..=60 and within the total length. The bytes gained
    /// keep their content; write them with [`options_mut`](Self::options_mut).
    pub fn set_header_len(&mut self, len: usize) -> Result<(), WireError> {
        if !(HEADER_LEN..=Ipv4::HEADER_LEN_MAX).contains(&len)
            || !len.is_multiple_of(4)
            || len > self.total_len()
        {
            return Err(WireError::Length);
        }
        self.0.as_mut()[VERSION_IHL] = 0x40 | (len / 4) as u8;
        Ok(())
    }

    /// Writes the differentiated services code point (low 6 bits).
    pub fn set_dscp(&mut self, dscp: u8) {
        let ecn = self.ecn();
        self.0.as_mut()[TOS] = dscp << 2 | ecn;
    }

    /// Writes the congestion notification (low 2 bits).
    pub fn set_ecn(&mut self, ecn: u8) {
        let dscp = self.dscp();
        self.0.as_mut()[TOS] = dscp << 2 | ecn & 3;
    }

    /// Writes the total length in bytes. A value past the buffer is written, but no slice will follow it.
    pub fn set_total_len(&mut self, len: u16) {
        put16(self.0.as_mut(), TOTAL_LEN, len);
    }

    /// Writes the identification.
    pub fn set_ident(&mut self, ident: u16) {
        put16(self.0.as_mut(), IDENT, ident);
    }

    /// Writes all fragment fields. The offset counts bytes; its low 3 bits cannot be expressed and are dropped.
    pub fn set_fragment(&mut self, dont_fragment: bool, more_fragments: bool, offset: u16) {
        let df = if dont_fragment { DF } else { 0 };
        let mf = if more_fragments { MF } else { 0 };
        put16(self.0.as_mut(), FRAGMENT, df | mf | offset >> 3);
    }

    /// Writes the time to live. Forwarding uses [`decrement_ttl`](Self::decrement_ttl).
    pub fn set_ttl(&mut self, ttl: u8) {
        self.0.as_mut()[TTL] = ttl;
    }

    /// Takes one from the time to live and updates the checksum incrementally (RFC 1624). False, and nothing is
    /// changed, if the packet must not travel on: RFC 1812 section 5.3.1.
    #[must_use]
    pub fn decrement_ttl(&mut self) -> bool {
        if self.ttl() <= 1 {
            return false;
        }
        let old = be16(self.0.as_ref(), TTL); // the 16-bit word of TTL and protocol
        let check = checksum::update(self.checksum(), old, old - 0x0100);
        self.set_ttl((old >> 8) as u8 - 1);
        self.set_checksum(check);
        true
    }

    /// Writes the protocol.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.0.as_mut()[PROTOCOL] = protocol.0;
    }

    /// Writes the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        put16(self.0.as_mut(), CHECKSUM, checksum);
    }

    /// Computes the header checksum. Last step of building.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let check = checksum::checksum(cut(self.0.as_ref(), 0, self.header_len()));
        self.set_checksum(check);
    }

    /// Writes the source address. A NAT then [updates](checksum::update32) this checksum and the transport's.
    pub fn set_src(&mut self, addr: Ipv4Addr) {
        put(self.0.as_mut(), SRC, &addr.octets());
    }

    /// Writes the destination address.
    pub fn set_dst(&mut self, addr: Ipv4Addr) {
        put(self.0.as_mut(), DST, &addr.octets());
    }

    /// The option area, for writing.
    pub fn options_mut(&mut self) -> &mut [u8] {
        let end = self.header_len();
        cut_mut(self.0.as_mut(), HEADER_LEN, end)
    }

    /// What the packet carries, for writing.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let (from, to) = (self.header_len(), self.total_len());
        cut_mut(self.0.as_mut(), from, to)
    }
}
