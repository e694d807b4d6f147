//! VLAN tags: 802.1Q (TPID 0x8100) and the outer 802.1ad tag of QinQ (0x88a8).
//!
//! ```text
//!  ... src | TPID | TCI: pcp 3, dei 1, vid 12 | type | payload
//!                 ^ the view starts here: the TPID sits where the previous header keeps its type
//! ```

use super::bytes::{be16, put16};
use super::{EtherType, WireError};

/// One tag by value, as [`Layers`](super::Layers) reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// Which kind of tag: [`EtherType::VLAN`] or [`EtherType::QINQ`].
    pub tpid: EtherType,
    /// Tag control information: priority, drop eligibility and VLAN identifier.
    pub tci: u16,
}

impl VlanTag {
    /// VLAN identifier, 0..=4095 (0 is a priority tag, 4095 reserved).
    pub const fn vid(self) -> u16 {
        self.tci & 0x0fff
    }

    /// Priority code point, 0..=7.
    pub const fn pcp(self) -> u8 {
        (self.tci >> 13) as u8
    }

    /// Drop eligible indicator.
    pub const fn dei(self) -> bool {
        self.tci & 0x1000 != 0
    }
}

/// View of one tag behind its TPID. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Vlan<T>(T);

impl Vlan<()> {
    /// TCI and the type behind it.
    pub const HEADER_LEN: usize = 4;
}

const TCI: usize = 0;
const TYPE: usize = 2;
const HEADER_LEN: usize = Vlan::HEADER_LEN;

impl<T: AsRef<[u8]>> Vlan<T> {
    /// `buf` starts at the TCI, that is, at the payload of the Ethernet header or of the outer tag.
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        if buf.as_ref().len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(buf)) }
    }

    /// The whole tag control information.
    pub fn tci(&self) -> u16 {
        be16(self.0.as_ref(), TCI)
    }

    /// VLAN identifier.
    pub fn vid(&self) -> u16 {
        self.tci() & 0x0fff
    }

    /// Priority code point, 0..=7.
    pub fn pcp(&self) -> u8 {
        (self.tci() >> 13) as u8
    }

    /// Drop eligible indicator.
    pub fn dei(&self) -> bool {
        self.tci() & 0x1000 != 0
    }

    /// Type of the payload, or of the next tag.
    pub fn ethertype(&self) -> EtherType {
        EtherType(be16(self.0.as_ref(), TYPE))
    }

    /// Everything behind the tag.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Vlan<T> {
    /// Starts a tag: priority tag (VID 0) without a type.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        buf.as_mut().get_mut(..HEADER_LEN).ok_or(WireError::Truncated)?.fill(0);
        Ok(Self(buf))
    }

    /// Writes the whole tag control information.
    pub fn set_tci(&mut self, tci: u16) {
        put16(self.0.as_mut(), TCI, tci);
    }

    /// Writes the identifier (low 12 bits of `vid`); priority and DEI stay.
    pub fn set_vid(&mut self, vid: u16) {
        self.set_tci(self.tci() & 0xf000 | vid & 0x0fff);
    }

    /// Writes the priority (low 3 bits of `pcp`).
    pub fn set_pcp(&mut self, pcp: u8) {
        self.set_tci(self.tci() & 0x1fff | u16::from(pcp & 7) << 13);
    }

    /// Writes the drop eligible indicator.
    pub fn set_dei(&mut self, dei: bool) {
        self.set_tci(self.tci() & !0x1000 | u16::from(dei) << 12);
    }

    /// Writes the type of the payload.
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        put16(self.0.as_mut(), TYPE, ethertype.0);
    }

    /// Everything behind the tag, for writing.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.0.as_mut()[HEADER_LEN..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tci_fields_do_not_touch_each_other() {
        let mut tag = Vlan::init([0u8; 6]).unwrap();
        tag.set_vid(0xfabc); // only 12 bits may land
        tag.set_pcp(2);
        tag.set_pcp(0xfd); // only 3 bits, and the old ones go
        tag.set_dei(true);
        tag.set_ethertype(EtherType::IPV6);
        assert_eq!((tag.vid(), tag.pcp(), tag.dei()), (0xabc, 5, true));
        tag.set_dei(false);
        tag.set_vid(1);
        assert_eq!(tag.into_inner()[..4], [0xa0, 0x01, 0x86, 0xdd]);
        let tag = VlanTag { tpid: EtherType::VLAN, tci: 0xb001 };
        assert_eq!((tag.vid(), tag.pcp(), tag.dei()), (1, 5, true));
    }
}
