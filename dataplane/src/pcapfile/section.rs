//! What a file has said so far that its packets need: byte order and interfaces.
//!
//! Times are computed here and not by `pcap-parser` 0.17, which has no answer for resolutions that are powers of two and
//! reads `if_tsoffset` in the wrong byte order in big-endian files.

use pcap_parser::{InterfaceDescriptionBlock, OptionCode, PcapHeader};

use super::error::Flaw;

/// Interfaces remembered per section. A file can claim one for every 20 bytes.
pub(super) const INTERFACES_MAX: usize = 4096;

const ETHERNET: i32 = 1;
/// The bits of a classic header's link type that are one; those above tell of frame check sequences.
const LINK_TYPE_MASK: i32 = 0x03ff_ffff;
const NS_PER_S: u128 = 1_000_000_000;

/// A section of pcapng, or a whole classic file.
#[derive(Default)]
pub(super) struct Section {
    classic: bool,
    big_endian: bool,
    interfaces: Vec<Interface>,
}

/// What is known of an interface.
#[derive(Clone, Copy)]
pub(super) struct Interface {
    link_type: i32,
    /// Most bytes captured of a packet; 0: no limit.
    snaplen: u32,
    /// The option `if_tsresol`: 10 to the minus that, or with the top bit set, 2.
    resolution: u8,
    offset_s: i64,
}

impl Section {
    /// Begins at a pcapng section header.
    pub(super) fn begin(big_endian: bool) -> Section {
        Section { classic: false, big_endian, interfaces: Vec::new() }
    }

    /// All of a classic file.
    pub(super) fn classic(header: &PcapHeader) -> Section {
        let interface = Interface {
            link_type: header.network.0 & LINK_TYPE_MASK,
            snaplen: 0,
            resolution: if header.is_nanosecond_precision() { 9 } else { 6 },
            offset_s: 0,
        };
        Section { classic: true, big_endian: header.is_bigendian(), interfaces: vec![interface] }
    }

    pub(super) fn describe(&mut self, block: &InterfaceDescriptionBlock<'_>) -> Result<(), Flaw> {
        if self.interfaces.len() == INTERFACES_MAX {
            return Err(Flaw::TooManyInterfaces);
        }
        let offset = block.options.iter().find(|o| o.code == OptionCode::IfTsoffset);
        let offset = offset.and_then(|o| o.as_bytes().ok()?.try_into().ok()).unwrap_or_default();
        self.interfaces.push(Interface {
            link_type: block.linktype.0,
            snaplen: block.snaplen,
            resolution: block.if_tsresol,
            offset_s: if self.big_endian { i64::from_be_bytes(offset) } else { i64::from_le_bytes(offset) },
        });
        Ok(())
    }

    pub(super) fn interface(&self, number: u32) -> Result<Interface, Flaw> {
        self.interfaces.get(number as usize).copied().ok_or(Flaw::NoInterface)
    }

    /// Whether `data` begins with all of a pcapng block. If the parser wants more of that, lengths inside it are wrong.
    pub(super) fn has_whole_block(&self, data: &[u8]) -> bool {
        let Some((kind, rest)) = data.split_first_chunk() else { return false };
        let Some(len) = rest.first_chunk() else { return false };
        let len = if self.big_endian { u32::from_be_bytes(*len) } else { u32::from_le_bytes(*len) };
        // A section header may be of the other byte order.
        !self.classic && u32::from_le_bytes(*kind) != SECTION_HEADER && len as usize <= data.len()
    }

    /// The fields of an obsolete packet block, which the parser does not know: interface, time, length on the wire, data.
    pub(super) fn packet_block<'a>(
        &self,
        kind: u32,
        body: &'a [u8],
    ) -> Option<Result<PacketBlock<'a>, Flaw>> {
        // The parser reads the kind as little-endian, whatever the section is.
        let kind = if self.big_endian { kind.swap_bytes() } else { kind };
        (kind == PACKET_BLOCK).then(|| PacketBlock::parse(body, self.big_endian).ok_or(Flaw::Damaged))
    }
}

const PACKET_BLOCK: u32 = 2;
const SECTION_HEADER: u32 = 0x0a0d_0d0a;

/// What tools wrote before there were enhanced packet blocks.
pub(super) struct PacketBlock<'a> {
    pub(super) interface: u32,
    pub(super) time: u64,
    pub(super) orig_len: u32,
    pub(super) data: &'a [u8],
}

impl<'a> PacketBlock<'a> {
    fn parse(body: &'a [u8], big_endian: bool) -> Option<PacketBlock<'a>> {
        let (header, data) = body.split_first_chunk::<20>()?;
        let word = |i: usize| {
            let bytes = [header[i], header[i + 1], header[i + 2], header[i + 3]];
            if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        // Half a word each: the interface, and a count of drops.
        let interface = if big_endian { word(0) >> 16 } else { word(0) & 0xffff };
        Some(PacketBlock {
            interface,
            time: time(word(4), word(8)),
            orig_len: word(16),
            data: data.get(..word(12) as usize)?,
        })
    }
}

/// A time in an interface's units.
pub(super) fn time(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl Interface {
    pub(super) fn is_ethernet(&self) -> bool {
        self.link_type == ETHERNET
    }

    pub(super) fn link_type(&self) -> i32 {
        self.link_type
    }

    /// Units in a second; of a classic file's, which are decimal.
    pub(super) fn per_second(&self) -> u64 {
        10u64.pow(u32::from(self.resolution).min(9))
    }

    /// `data` without what a simple packet block is padded with.
    pub(super) fn unpadded<'a>(&self, data: &'a [u8], orig_len: u32) -> &'a [u8] {
        let most = if self.snaplen == 0 { u32::MAX } else { self.snaplen };
        data.get(..orig_len.min(most) as usize).unwrap_or(data)
    }

    /// Nanoseconds since 1970 of a time in this interface's units; the nearest there is for times before, and far ahead.
    pub(super) fn ns(&self, time: u64) -> u64 {
        let time = u128::from(time);
        let exponent = u32::from(self.resolution & 0x7f);
        let ns = if self.resolution & 0x80 != 0 {
            (time * NS_PER_S) >> exponent
        } else if exponent <= 9 {
            time * 10u128.pow(9 - exponent)
        } else {
            10u128.checked_pow(exponent - 9).map_or(0, |unit| time / unit)
        };
        let ns = ns.cast_signed() + i128::from(self.offset_s) * NS_PER_S.cast_signed();
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_resolutions() {
        let ns = |resolution, offset_s, time| {
            Interface { link_type: 1, snaplen: 0, resolution, offset_s }.ns(time)
        };
        assert_eq!(ns(6, 0, 1_000_001), 1_000_001_000);
        assert_eq!(ns(9, 0, 5), 5);
        assert_eq!(ns(0, 0, 5), 5_000_000_000);
        assert_eq!(ns(12, 0, 5999), 5, "picoseconds");
        assert_eq!(ns(0x80 | 10, 0, 512), 500_000_000, "1024ths");
        assert_eq!(ns(9, 7, 5), 7_000_000_005);
        assert_eq!(ns(9, -1, 5), 0, "before 1970");
        for resolution in 0..=255 {
            for offset in [i64::MIN, 0, i64::MAX] {
                ns(resolution, offset, u64::MAX);
            }
        }
    }
}
