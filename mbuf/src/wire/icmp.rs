//! ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443): one layout, two number spaces.
//!
//! ```text
//!  0 type | 1 code | 2 checksum | 4 four bytes that depend on the type | 8 payload
//!                                 echo: ident, sequence
//!                                 packet too big: mtu (v4: low half, RFC 1191)
//! ```
//!
//! The payload of an error is the packet that caused it: read it with `Ipv4::new_quoted` or `Ipv6::new_quoted`.

use super::bytes::{array, be16, be32, cut, cut_mut, put, put16, put32};
use super::checksum::Checksum;
use super::{Protocol, PseudoHeader, WireError};

/// Types of ICMP for IPv4.
pub mod v4 {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: the packet is too big and must not be fragmented.
    pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Types of ICMP for IPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement (RFC 4861).
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbor solicitation (RFC 4861): see [`Ndp`](crate::wire::Ndp).
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Neighbor advertisement (RFC 4861).
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
}

/// View of an ICMP message. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Icmp<T>(T);

impl Icmp<()> {
    /// Bytes before the payload.
    pub const HEADER_LEN: usize = 8;
}

const TYPE: usize = 0;
const CODE: usize = 1;
const CHECKSUM: usize = 2;
const REST: usize = 4;
const HEADER_LEN: usize = Icmp::HEADER_LEN;

impl<T: AsRef<[u8]>> Icmp<T> {
    /// Accepts any message of at least 8 bytes. `buf` must be cut to the IP payload, since ICMP has no length.
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        if buf.as_ref().len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(buf)) }
    }

    /// Type; its meaning depends on the IP version: [`v4`], [`v6`].
    pub fn icmp_type(&self) -> u8 {
        self.0.as_ref()[TYPE]
    }

    /// Code within the type.
    pub fn code(&self) -> u8 {
        self.0.as_ref()[CODE]
    }

    /// Checksum as written.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), CHECKSUM)
    }

    /// The four bytes behind the checksum, whatever the type makes of them.
    pub fn rest(&self) -> [u8; 4] {
        array(self.0.as_ref(), REST)
    }

    /// Echo: identifier.
    pub fn ident(&self) -> u16 {
        be16(self.0.as_ref(), REST)
    }

    /// Echo: sequence number.
    pub fn sequence(&self) -> u16 {
        be16(self.0.as_ref(), REST + 2)
    }

    /// Packet too big: the MTU. For IPv4 the high half is unused and zero (RFC 1191 section 4).
    pub fn mtu(&self) -> u32 {
        be32(self.0.as_ref(), REST)
    }

    /// Everything behind the first 8 bytes.
    pub fn payload(&self) -> &[u8] {
        cut(self.0.as_ref(), HEADER_LEN, usize::MAX)
    }

    /// True if the checksum holds. ICMPv6 covers the pseudo header, ICMP for IPv4 does not: pass `None`.
    pub fn verify_checksum(&self, pseudo: Option<&PseudoHeader>) -> bool {
        self.pseudo_sum(pseudo).add_bytes(self.0.as_ref()).is_valid()
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }

    fn pseudo_sum(&self, pseudo: Option<&PseudoHeader>) -> Checksum {
        pseudo.map_or(Checksum::new(), |pseudo| pseudo.sum(Protocol::ICMPV6, self.0.as_ref().len()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Icmp<T> {
    /// Starts a message that fills `buf`: first 8 bytes zero.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        buf.as_mut().get_mut(..HEADER_LEN).ok_or(WireError::Truncated)?.fill(0);
        Ok(Self(buf))
    }

    /// Writes the type.
    pub fn set_icmp_type(&mut self, icmp_type: u8) {
        self.0.as_mut()[TYPE] = icmp_type;
    }

    /// Writes the code.
    pub fn set_code(&mut self, code: u8) {
        self.0.as_mut()[CODE] = code;
    }

    /// Writes the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        put16(self.0.as_mut(), CHECKSUM, checksum);
    }

    /// Writes the four bytes behind the checksum.
    pub fn set_rest(&mut self, rest: [u8; 4]) {
        put(self.0.as_mut(), REST, &rest);
    }

    /// Echo: writes identifier and sequence number.
    pub fn set_echo(&mut self, ident: u16, sequence: u16) {
        put16(self.0.as_mut(), REST, ident);
        put16(self.0.as_mut(), REST + 2, sequence);
    }

    /// Packet too big: writes the MTU.
    pub fn set_mtu(&mut self, mtu: u32) {
        put32(self.0.as_mut(), REST, mtu);
    }

    /// Everything behind the first 8 bytes, for writing.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        cut_mut(self.0.as_mut(), HEADER_LEN, usize::MAX)
    }

    /// Computes the checksum; `pseudo` as in [`verify_checksum`](Self::verify_checksum).
    pub fn fill_checksum(&mut self, pseudo: Option<&PseudoHeader>) {
        self.set_checksum(0);
        let check = self.pseudo_sum(pseudo).add_bytes(self.0.as_ref()).finish();
        self.set_checksum(check);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    #[test]
    fn echo_round_trip_both_versions() {
        let v6 = PseudoHeader::V6 { src: Ipv6Addr::LOCALHOST, dst: "2001:db8::1".parse().unwrap() };
        for pseudo in [None, Some(&v6)] {
            let mut icmp = Icmp::init([0x5a; 13]).unwrap();
            icmp.set_icmp_type(v4::ECHO_REQUEST);
            icmp.set_echo(0x1234, 7);
            icmp.payload_mut().copy_from_slice(b"hello");
            icmp.fill_checksum(pseudo);
            assert!(icmp.verify_checksum(pseudo));
            assert_eq!((icmp.ident(), icmp.sequence(), icmp.code()), (0x1234, 7, 0));
            icmp.payload_mut()[4] ^= 1;
            assert!(!icmp.verify_checksum(pseudo));
        }
    }

    #[test]
    fn too_big_carries_the_mtu() {
        let mut icmp = Icmp::init([0; 8]).unwrap();
        icmp.set_mtu(1280);
        assert_eq!((icmp.mtu(), icmp.rest()), (1280, [0, 0, 5, 0]));
        assert!(Icmp::new_checked([0; 7]).is_err());
    }
}
