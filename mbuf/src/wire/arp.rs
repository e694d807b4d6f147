//! ARP for IPv4 over Ethernet (RFC 826; probes and announcements RFC 5227).
//!
//! ```text
//!  0     2     4    5    6    8            14           18           24           28
//!  | htype| ptype| hlen| plen| op | sender MAC | sender IP | target MAC | target IP |
//! ```

use super::bytes::{array, be16, put, put16};
use super::{EtherAddr, EtherType, WireError};
use core::net::Ipv4Addr;

/// Operation of an ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpOp(pub u16);

impl ArpOp {
    /// Who has the target address?
    pub const REQUEST: Self = Self(1);
    /// The sender has it.
    pub const REPLY: Self = Self(2);
}

/// View of an ARP packet. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Arp<T>(T);

impl Arp<()> {
    /// The whole packet: ARP carries no payload (Ethernet padding may follow).
    pub const HEADER_LEN: usize = 28;
}

const HTYPE: usize = 0;
const PTYPE: usize = 2;
const HLEN: usize = 4;
const PLEN: usize = 5;
const OP: usize = 6;
const SHA: usize = 8;
const SPA: usize = 14;
const THA: usize = 18;
const TPA: usize = 24;
const HEADER_LEN: usize = Arp::HEADER_LEN;
const HTYPE_ETHERNET: u16 = 1;

impl<T: AsRef<[u8]>> Arp<T> {
    /// [`Unsupported`](WireError::Unsupported) for address kinds other than Ethernet and IPv4.
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let bytes = buf.as_ref();
        // The kinds come first: they decide how long the packet has to be.
        let fixed = bytes.get(..OP).ok_or(WireError::Truncated)?;
        let kinds = (be16(fixed, HTYPE), be16(fixed, PTYPE), fixed[HLEN], fixed[PLEN]);
        if kinds != (HTYPE_ETHERNET, EtherType::IPV4.0, 6, 4) {
            return Err(WireError::Unsupported);
        }
        if bytes.len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(buf)) }
    }

    /// Request or reply.
    pub fn op(&self) -> ArpOp {
        ArpOp(be16(self.0.as_ref(), OP))
    }

    /// Sender hardware address.
    pub fn sender_hw(&self) -> EtherAddr {
        EtherAddr(array(self.0.as_ref(), SHA))
    }

    /// Sender protocol address; unspecified in a probe (RFC 5227 section 2.1.1).
    pub fn sender_ip(&self) -> Ipv4Addr {
        array(self.0.as_ref(), SPA).into()
    }

    /// Target hardware address; has no meaning in a request.
    pub fn target_hw(&self) -> EtherAddr {
        EtherAddr(array(self.0.as_ref(), THA))
    }

    /// Target protocol address.
    pub fn target_ip(&self) -> Ipv4Addr {
        array(self.0.as_ref(), TPA).into()
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Arp<T> {
    /// Starts a packet: kinds and sizes of Ethernet/IPv4, everything else zero.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        let header = buf.as_mut().get_mut(..HEADER_LEN).ok_or(WireError::Truncated)?;
        header.fill(0);
        put16(header, HTYPE, HTYPE_ETHERNET);
        put16(header, PTYPE, EtherType::IPV4.0);
        header[HLEN] = 6;
        header[PLEN] = 4;
        Ok(Self(buf))
    }

    /// Writes the operation.
    pub fn set_op(&mut self, op: ArpOp) {
        put16(self.0.as_mut(), OP, op.0);
    }

    /// Writes both sender addresses.
    pub fn set_sender(&mut self, hw: EtherAddr, ip: Ipv4Addr) {
        put(self.0.as_mut(), SHA, &hw.0);
        put(self.0.as_mut(), SPA, &ip.octets());
    }

    /// Writes both target addresses.
    pub fn set_target(&mut self, hw: EtherAddr, ip: Ipv4Addr) {
        put(self.0.as_mut(), THA, &hw.0);
        put(self.0.as_mut(), TPA, &ip.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_has_the_bytes_of_rfc_826() {
        let mut arp = Arp::init([0xeeu8; 28]).unwrap();
        arp.set_op(ArpOp::REQUEST);
        arp.set_sender(EtherAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(192, 0, 2, 1));
        arp.set_target(EtherAddr::default(), Ipv4Addr::new(192, 0, 2, 2));
        let bytes = arp.into_inner();
        let expect = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2];
        assert_eq!(bytes, expect);
        let arp = Arp::new_checked(&bytes[..]).unwrap();
        assert_eq!(arp.op(), ArpOp::REQUEST);
        assert_eq!(arp.sender_hw(), EtherAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(arp.target_ip(), Ipv4Addr::new(192, 0, 2, 2));
    }

    #[test]
    fn other_hardware_is_unsupported_and_short_is_truncated() {
        let good = Arp::init([0u8; 28]).unwrap().into_inner();
        for at in 0..6 {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert_eq!(Arp::new_checked(bad).err(), Some(WireError::Unsupported));
        }
        for len in 0..28 {
            assert_eq!(Arp::new_checked(&good[..len]).err(), Some(WireError::Truncated));
        }
    }
}
