//! The Internet checksum: RFC 1071 for the sum, RFC 1624 for the update, RFC 9293 section 3.1 and RFC 8200
//! section 8.1 for the pseudo headers.
//!
//! Two properties of the one's-complement sum do the work here (RFC 1071 section 2):
//!
//! - it does not care about byte order, so words are added as the machine loads them and swapped once, at the
//!   end;
//! - it does not care about grouping, so 32-bit words can be added into 64-bit lanes and folded at the end
//!   without ever looking at a carry on the way.

use super::Protocol;
use core::net::{Ipv4Addr, Ipv6Addr};

/// A running one's-complement sum.
///
/// Pieces may be added one after the other, of any length each: a piece that starts at an odd position is swapped
/// in place, so the sum over an mbuf chain is that of the joined bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum {
    /// Folded to 16 bits after each piece, in the machine's byte order.
    sum: u16,
    /// The bytes added so far are odd in number.
    odd: bool,
}

impl Checksum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Adds the next piece.
    #[inline]
    #[must_use]
    pub fn add_bytes(mut self, bytes: &[u8]) -> Self {
        let piece = sum_ne(bytes);
        let piece = if self.odd { piece.swap_bytes() } else { piece };
        self.sum = add16(self.sum, piece);
        self.odd ^= bytes.len() % 2 == 1;
        self
    }

    /// Adds one 16-bit word given in host order.
    #[inline]
    #[must_use]
    pub fn add_u16(self, word: u16) -> Self {
        self.add_bytes(&word.to_be_bytes())
    }

    /// Adds one 32-bit word given in host order.
    #[inline]
    #[must_use]
    pub fn add_u32(self, word: u32) -> Self {
        self.add_bytes(&word.to_be_bytes())
    }

    /// The sum itself, in host order. This, over a pseudo header, is what a NIC wants to find in the checksum
    /// field when it is to complete the checksum.
    #[inline]
    pub fn fold(self) -> u16 {
        u16::from_be(self.sum)
    }

    /// The complement: what goes into a checksum field that was zero (or left out) while summing.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// [`finish`](Self::finish) for a header of `protocol`: in UDP's, zero says that there is none (RFC 768), so that all ones
    /// stand for it.
    #[inline]
    pub fn finish_for(self, protocol: Protocol) -> u16 {
        match self.finish() {
            0 if protocol == Protocol::UDP => 0xffff,
            value => value,
        }
    }

    /// True if bytes that *include* their checksum field are intact: they sum to all ones.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.sum == 0xffff
    }
}

/// End-around-carry addition of two 16-bit words.
#[inline]
const fn add16(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16 // sum <= 0xfffe when there was a carry
}

/// Folds 64 bits to 16 with end-around carry. Zero stays zero; nothing else becomes zero.
#[inline]
const fn fold64(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sum in machine order; an odd last byte is padded with zero.
///
/// Each turn takes 8 bytes as two 32-bit halves into two 64-bit lanes, with no carry between turns: the form that
/// the compiler turns into SIMD. A lane would need 2^32 turns to overflow.
#[inline]
fn sum_ne(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut even, mut odd) = (0u64, 0u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        even += word & 0xffff_ffff;
        odd += word >> 32;
    }
    // Zero padding adds nothing, so the tail is one more word.
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    let tail = u64::from_ne_bytes(tail);
    fold64(fold64(even) as u64 + fold64(odd) as u64 + (tail & 0xffff_ffff) + (tail >> 32))
}

/// Checksum of one contiguous piece whose checksum field is zero.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Checksum::new().add_bytes(bytes).finish()
}

/// The checksum after one 16-bit word of the covered bytes changed from `old` to `new` (RFC 1624 equation 3).
///
/// Equal to a full recomputation, except over bytes that are *all* zero after the change, which no IP, TCP, UDP
/// or ICMP packet is: there the answer is the other representation of zero.
#[inline]
pub const fn update(check: u16, old: u16, new: u16) -> u16 {
    !add16(add16(!check, !old), new)
}

/// [`update`] for a 32-bit field at an even offset: an IPv4 address, a sequence number.
#[inline]
pub const fn update32(check: u16, old: u32, new: u32) -> u16 {
    let check = update(check, (old >> 16) as u16, (new >> 16) as u16);
    update(check, old as u16, new as u16)
}

/// [`update`] for any field at an even offset: `old` and `new` may differ in length if the covered length field
/// is updated too. An IPv6 address, a MAC address.
#[inline]
pub fn update_bytes(check: u16, old: &[u8], new: &[u8]) -> u16 {
    let old = Checksum::new().add_bytes(old).fold();
    let new = Checksum::new().add_bytes(new).fold();
    update(check, old, new)
}

/// The addresses that TCP, UDP and ICMPv6 checksums cover although IP carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PseudoHeader {
    /// RFC 9293 section 3.1, RFC 768.
    V4 {
        /// Source address of the IPv4 header.
        src: Ipv4Addr,
        /// Destination address of the IPv4 header.
        dst: Ipv4Addr,
    },
    /// RFC 8200 section 8.1.
    V6 {
        /// Source address of the IPv6 header.
        src: Ipv6Addr,
        /// The *final* destination: with a routing header still to be followed, its last address.
        dst: Ipv6Addr,
    },
}

impl PseudoHeader {
    /// The sum over the pseudo header, to which the segment is added.
    #[inline]
    pub fn sum(&self, protocol: Protocol, len_bytes: usize) -> Checksum {
        // Both forms sum alike: zero bytes add nothing, and the length may be split into two words anywhere.
        let sum = match self {
            Self::V4 { src, dst } => Checksum::new().add_bytes(&src.octets()).add_bytes(&dst.octets()),
            Self::V6 { src, dst } => Checksum::new().add_bytes(&src.octets()).add_bytes(&dst.octets()),
        };
        sum.add_u32(len_bytes as u32).add_u16(u16::from(protocol.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Checksum::new().add_bytes(&bytes).fold(), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn corner_case_of_rfc_1624_section_4() {
        // The older equation gives 0xffff here; the right answer is 0x0000.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
        assert_eq!(update32(0xdd2f, 0x0000_5555, 0x0000_3285), 0x0000);
        assert_eq!(update_bytes(0xdd2f, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
    }

    #[test]
    fn all_ones_do_not_overflow() {
        for len in [0, 1, 7, 8, 9, 64, 65_535] {
            let fold = Checksum::new().add_bytes(&vec![0xff; len]).fold();
            let expect = match len {
                0 => 0,
                _ if len % 2 == 0 => 0xffff,
                1 => 0xff00,
                _ => 0xff00,
            };
            assert_eq!(fold, expect, "{len}");
        }
        assert_eq!(fold64(u64::MAX), 0xffff);
        assert_eq!(fold64(0), 0);
    }

    #[test]
    fn pseudo_header_is_the_sum_of_its_written_form() {
        let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
        let written = [192, 0, 2, 1, 198, 51, 100, 7, 0, 17, 0x12, 0x34];
        let sum = PseudoHeader::V4 { src, dst }.sum(Protocol::UDP, 0x1234);
        assert_eq!(sum.fold(), Checksum::new().add_bytes(&written).fold());
    }
}
