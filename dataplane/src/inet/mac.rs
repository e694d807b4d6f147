//! Link addresses as the path compares and writes them.

use nke_mbuf::wire::EtherAddr;

/// A link address in the low 48 bits of a word, first byte lowest.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mac(u64);

const BITS: u64 = 0xffff_ffff_ffff;

impl Mac {
    /// The first address of an Ethernet header.
    #[inline(always)]
    pub fn destination(header: &[u8; 14]) -> Mac {
        // One wide load.
        header.first_chunk().map_or(Mac(0), |first| Mac(u64::from_le_bytes(*first) & BITS))
    }

    /// The address in the low 48 bits of a word.
    #[inline(always)]
    pub fn from_bits(bits: u64) -> Mac {
        Mac(bits & BITS)
    }

    /// The address in the low 48 bits of a word, the others zero.
    #[inline(always)]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Fills in a frame's header: to this station, from `from`, carrying `ethertype`. Two wide stores that overlap.
    #[inline(always)]
    pub fn write_header(self, header: &mut [u8; 14], from: Mac, ethertype: u16) {
        let ethertype = u64::from(ethertype.swap_bytes());
        header[..8].copy_from_slice(&(self.0 | from.0 << 48).to_le_bytes());
        header[6..].copy_from_slice(&(from.0 | ethertype << 48).to_le_bytes());
    }

    /// Its bytes.
    #[inline(always)]
    pub fn bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether it is a group's.
    #[inline(always)]
    pub fn is_group(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether it is everybody's.
    #[inline(always)]
    pub fn is_broadcast(self) -> bool {
        self.0 == BITS
    }
}

impl From<[u8; 6]> for Mac {
    fn from([a, b, c, d, e, f]: [u8; 6]) -> Mac {
        Mac(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

impl From<EtherAddr> for Mac {
    fn from(address: EtherAddr) -> Mac {
        Mac::from(address.0)
    }
}

impl From<Mac> for EtherAddr {
    fn from(mac: Mac) -> EtherAddr {
        EtherAddr(mac.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_whole() {
        let (to, from) = (Mac::from([2, 1, 2, 3, 4, 5]), Mac::from([0xfe, 6, 7, 8, 9, 0xaa]));
        let mut header = [0x55; 14];
        to.write_header(&mut header, from, 0x86dd);
        assert_eq!(header, [2, 1, 2, 3, 4, 5, 0xfe, 6, 7, 8, 9, 0xaa, 0x86, 0xdd]);
        assert_eq!(Mac::destination(&header), to);
    }
}
