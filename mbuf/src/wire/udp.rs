//! UDP (RFC 768; over IPv6 RFC 8200 section 8.1 and RFC 6935).
//!
//! ```text
//!  0 source port | 2 destination port | 4 length, header included | 6 checksum | 8 payload
//! ```

use super::bytes::{be16, cut, cut_mut, put16};
use super::{Protocol, PseudoHeader, WireError};

/// View of a UDP datagram. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Udp<T>(T);

impl Udp<()> {
    /// Bytes before the payload.
    pub const HEADER_LEN: usize = 8;
}

const SRC_PORT: usize = 0;
const DST_PORT: usize = 2;
const LEN: usize = 4;
const CHECKSUM: usize = 6;
const HEADER_LEN: usize = Udp::HEADER_LEN;

impl<T: AsRef<[u8]>> Udp<T> {
    /// Accepts a datagram whose length field is inside `buf`; a shorter one than the IP payload is allowed, and
    /// the surplus is never shown.
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let view = Self::new_quoted(buf)?;
        if view.total_len() > view.0.as_ref().len() { Err(WireError::Truncated) } else { Ok(view) }
    }

    /// [`new_checked`](Self::new_checked) for a datagram cut short: the first fragment, or a quote in an ICMP
    /// error. The payload is what is there.
    pub fn new_quoted(buf: T) -> Result<Self, WireError> {
        let bytes = buf.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        if usize::from(be16(bytes, LEN)) < HEADER_LEN { Err(WireError::Length) } else { Ok(Self(buf)) }
    }

    /// Source port; 0 if the sender expects no answer.
    pub fn src_port(&self) -> u16 {
        be16(self.0.as_ref(), SRC_PORT)
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        be16(self.0.as_ref(), DST_PORT)
    }

    /// Header and payload, in bytes (the length field).
    pub fn total_len(&self) -> usize {
        usize::from(be16(self.0.as_ref(), LEN))
    }

    /// Checksum as written; 0 means that the sender made none.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), CHECKSUM)
    }

    /// What the datagram carries.
    pub fn payload(&self) -> &[u8] {
        cut(self.0.as_ref(), HEADER_LEN, self.total_len())
    }

    /// True if the checksum holds, or if there is none and IPv4 allows that. Over IPv6 a missing checksum is an
    /// error here; tunnels that use RFC 6935 look at [`checksum`](Self::checksum) first.
    pub fn verify_checksum(&self, pseudo: &PseudoHeader) -> bool {
        match (self.checksum(), pseudo) {
            (0, PseudoHeader::V4 { .. }) => true,
            (0, PseudoHeader::V6 { .. }) => false,
            _ => {
                let sum = pseudo.sum(Protocol::UDP, self.total_len());
                sum.add_bytes(cut(self.0.as_ref(), 0, self.total_len())).is_valid()
            }
        }
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Udp<T> {
    /// Starts a datagram that fills `buf`: length set, the rest of the header zero.
    /// [`Length`](WireError::Length) if `buf` is longer than a datagram can be.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        let bytes = buf.as_mut();
        let len = u16::try_from(bytes.len()).map_err(|_| WireError::Length)?;
        let header = bytes.get_mut(..HEADER_LEN).ok_or(WireError::Truncated)?;
        header.fill(0);
        put16(header, LEN, len);
        Ok(Self(buf))
    }

    /// Writes the source port.
    pub fn set_src_port(&mut self, port: u16) {
        put16(self.0.as_mut(), SRC_PORT, port);
    }

    /// Writes the destination port.
    pub fn set_dst_port(&mut self, port: u16) {
        put16(self.0.as_mut(), DST_PORT, port);
    }

    /// Writes the length field. A value past the buffer is written, but no slice will follow it.
    pub fn set_total_len(&mut self, len: u16) {
        put16(self.0.as_mut(), LEN, len);
    }

    /// Writes the checksum field; 0 for "none".
    pub fn set_checksum(&mut self, checksum: u16) {
        put16(self.0.as_mut(), CHECKSUM, checksum);
    }

    /// What the datagram carries, for writing.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let to = self.total_len();
        cut_mut(self.0.as_mut(), HEADER_LEN, to)
    }

    /// Computes the checksum. One that comes out as 0 is sent as all ones (RFC 768), which sums to the same.
    pub fn fill_checksum(&mut self, pseudo: &PseudoHeader) {
        self.set_checksum(0);
        let sum = pseudo.sum(Protocol::UDP, self.total_len());
        let sum = sum.add_bytes(cut(self.0.as_ref(), 0, self.total_len()));
        self.set_checksum(sum.finish_for(Protocol::UDP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const V4: PseudoHeader = PseudoHeader::V4 { src: Ipv4Addr::LOCALHOST, dst: Ipv4Addr::LOCALHOST };
    const V6: PseudoHeader = PseudoHeader::V6 { src: Ipv6Addr::LOCALHOST, dst: Ipv6Addr::LOCALHOST };

    #[test]
    fn zero_is_never_sent_as_a_computed_checksum() {
        let mut udp = Udp::init([0; 10]).unwrap();
        udp.fill_checksum(&V4);
        let first = udp.checksum();
        // A payload word equal to the checksum brings the new checksum to zero.
        udp.payload_mut().copy_from_slice(&first.to_be_bytes());
        udp.fill_checksum(&V4);
        assert_eq!(udp.checksum(), 0xffff);
        assert!(udp.verify_checksum(&V4));
    }

    #[test]
    fn absent_checksum_is_for_ipv4_only() {
        let udp = Udp::init([0; 8]).unwrap();
        assert!(udp.verify_checksum(&V4));
        assert!(!udp.verify_checksum(&V6));
    }

    #[test]
    fn length_field_rules() {
        let with_len = |len: u8, size: usize| {
            let mut bytes = vec![0; size];
            if size > 5 {
                bytes[5] = len;
            }
            Udp::new_checked(bytes).map(|udp| udp.payload().len())
        };
        assert_eq!(with_len(0, 7), Err(WireError::Truncated));
        assert_eq!(with_len(7, 8), Err(WireError::Length));
        assert_eq!(with_len(9, 8), Err(WireError::Truncated));
        assert_eq!(with_len(9, 18), Ok(1)); // padding stays hidden
        assert_eq!(Udp::init(vec![0; 65_536]).err(), Some(WireError::Length));
    }
}
