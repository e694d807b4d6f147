//! Ethernet II (RFC 894; IEEE 802.3 clause 3).
//!
//! ```text
//!  0        6        12     14
//!  | dst    | src    | type | payload (46..=1500, padded on the wire; no FCS here)
//! ```

use super::WireError;
use super::bytes::{array, be16, put, put16};
use core::fmt;
use core::str::FromStr;

/// A 48-bit MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherAddr(pub [u8; 6]);

impl EtherAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The group bit: multicast, and broadcast as its extreme case.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// All ones.
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Fit to be a source address: neither a group address nor all zeros.
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }
}

impl fmt::Display for EtherAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six hexadecimal bytes separated by colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherAddrError;

impl fmt::Display for EtherAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address; write six bytes like 02:00:5e:10:00:01")
    }
}

impl core::error::Error for EtherAddrError {}

impl FromStr for EtherAddr {
    type Err = EtherAddrError;

    fn from_str(text: &str) -> Result<Self, EtherAddrError> {
        let mut addr = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut addr {
            let part = parts.next().ok_or(EtherAddrError)?;
            // from_str_radix takes a leading '+', a MAC address does not.
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(EtherAddrError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| EtherAddrError)?;
        }
        if parts.next().is_some() { Err(EtherAddrError) } else { Ok(Self(addr)) }
    }
}

/// What an Ethernet frame (or a VLAN tag) carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: Self = Self(0x0800);
    /// ARP (RFC 826).
    pub const ARP: Self = Self(0x0806);
    /// 802.1Q customer tag.
    pub const VLAN: Self = Self(0x8100);
    /// IPv6 (RFC 2464).
    pub const IPV6: Self = Self(0x86dd);
    /// 802.1ad service tag, the outer one of QinQ.
    pub const QINQ: Self = Self(0x88a8);

    /// True for values below 0x0600, which are an 802.3 length and not a type.
    pub const fn is_length(self) -> bool {
        self.0 < 0x0600
    }

    /// True for the two tag protocol identifiers.
    pub const fn is_vlan(self) -> bool {
        self.0 == Self::VLAN.0 || self.0 == Self::QINQ.0
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// View of an Ethernet frame. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<T>(T);

impl Ethernet<()> {
    /// Bytes before the payload.
    pub const HEADER_LEN: usize = 14;
}

const DST: usize = 0;
const SRC: usize = 6;
const TYPE: usize = 12;
const HEADER_LEN: usize = Ethernet::HEADER_LEN;

impl<T: AsRef<[u8]>> Ethernet<T> {
    /// Accepts any frame of at least 14 bytes.
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        if buf.as_ref().len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(buf)) }
    }

    /// Destination address.
    pub fn dst(&self) -> EtherAddr {
        EtherAddr(array(self.0.as_ref(), DST))
    }

    /// Source address.
    pub fn src(&self) -> EtherAddr {
        EtherAddr(array(self.0.as_ref(), SRC))
    }

    /// Type of the payload, or the type of the outer tag.
    pub fn ethertype(&self) -> EtherType {
        EtherType(be16(self.0.as_ref(), TYPE))
    }

    /// Everything behind the header, padding included: Ethernet has no length field.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ethernet<T> {
    /// Starts a frame: header zeroed.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        buf.as_mut().get_mut(..HEADER_LEN).ok_or(WireError::Truncated)?.fill(0);
        Ok(Self(buf))
    }

    /// Writes the destination address.
    pub fn set_dst(&mut self, addr: EtherAddr) {
        put(self.0.as_mut(), DST, &addr.0);
    }

    /// Writes the source address.
    pub fn set_src(&mut self, addr: EtherAddr) {
        put(self.0.as_mut(), SRC, &addr.0);
    }

    /// Writes the type.
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        put16(self.0.as_mut(), TYPE, ethertype.0);
    }

    /// Everything behind the header, for writing.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.0.as_mut()[HEADER_LEN..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trip_and_refusals() {
        let addr = EtherAddr([0x02, 0, 0x5e, 0x10, 0, 0xff]);
        assert_eq!(addr.to_string(), "02:00:5e:10:00:ff");
        assert_eq!(addr.to_string().parse(), Ok(addr));
        assert_eq!("2:0:5E:10:0:ff".parse(), Ok(addr));
        for bad in ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "+2:0:0:0:0:0", "002:0:0:0:0:0", "::::: "] {
            assert_eq!(bad.parse::<EtherAddr>(), Err(EtherAddrError), "{bad:?}");
        }
    }

    #[test]
    fn address_kinds() {
        assert!(EtherAddr::BROADCAST.is_multicast() && EtherAddr::BROADCAST.is_broadcast());
        assert!(EtherAddr([1, 0, 0x5e, 0, 0, 1]).is_multicast());
        assert!(!EtherAddr([0; 6]).is_unicast());
        assert!(EtherType(0x05dc).is_length() && !EtherType::IPV4.is_length());
    }
}
