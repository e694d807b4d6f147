//! TCP (RFC 9293 section 3.1; options RFC 9293 section 3.2, RFC 7323, RFC 2018).
//!
//! ```text
//!  0  source port | 2 destination port
//!  4  sequence number | 8 acknowledgment number
//!  12 data offset 4, reserved 4 | 13 flags | 14 window
//!  16 checksum | 18 urgent pointer | 20 options, padded to data offset * 4
//! ```

use super::bytes::{be16, be32, cut, cut_mut, put16, put32};
use super::checksum::Checksum;
use super::{Options, Protocol, PseudoHeader, WireError};

/// Option kinds.
pub mod option {
    /// Maximum segment size.
    pub const MSS: u8 = 2;
    /// Window scale.
    pub const WINDOW_SCALE: u8 = 3;
    /// Selective acknowledgment permitted.
    pub const SACK_PERMITTED: u8 = 4;
    /// Selective acknowledgment.
    pub const SACK: u8 = 5;
    /// Timestamps.
    pub const TIMESTAMPS: u8 = 8;
}

/// The eight control bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// True if every bit of `flags` is set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl core::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// View of a TCP segment. Shape and panic promise: see [the module](super).
#[derive(Clone, Copy, Debug)]
pub struct Tcp<T>(T);

impl Tcp<()> {
    /// Bytes of a header without options.
    pub const HEADER_LEN: usize = 20;
    /// Bytes of a header with all options it can hold (data offset 15).
    pub const HEADER_LEN_MAX: usize = 60;
}

const SRC_PORT: usize = 0;
const DST_PORT: usize = 2;
const SEQ: usize = 4;
const ACK: usize = 8;
const OFFSET: usize = 12;
const FLAGS: usize = 13;
const WINDOW: usize = 14;
const CHECKSUM: usize = 16;
const URGENT: usize = 18;
const HEADER_LEN: usize = Tcp::HEADER_LEN;

impl<T: AsRef<[u8]>> Tcp<T> {
    /// Accepts a segment whose header lies inside `buf`. TCP has no length of its own: `buf` must be cut to the
    /// IP payload. Options are judged when [walked](Self::options).
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let len = buf.as_ref().len();
        if len < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let view = Self(buf);
        match view.header_len() {
            ..HEADER_LEN => Err(WireError::Length),
            header_len if header_len > len => Err(WireError::Truncated),
            _ => Ok(view),
        }
    }

    /// Source port.
    pub fn src_port(&self) -> u16 {
        be16(self.0.as_ref(), SRC_PORT)
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        be16(self.0.as_ref(), DST_PORT)
    }

    /// Sequence number.
    pub fn seq(&self) -> u32 {
        be32(self.0.as_ref(), SEQ)
    }

    /// Acknowledgment number; counts only with [`TcpFlags::ACK`].
    pub fn ack(&self) -> u32 {
        be32(self.0.as_ref(), ACK)
    }

    /// Header with options, in bytes (data offset * 4).
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[OFFSET] >> 4) * 4
    }

    /// Control bits.
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.0.as_ref()[FLAGS])
    }

    /// Window as written, unscaled.
    pub fn window(&self) -> u16 {
        be16(self.0.as_ref(), WINDOW)
    }

    /// Checksum as written.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), CHECKSUM)
    }

    /// Urgent pointer; counts only with [`TcpFlags::URG`].
    pub fn urgent(&self) -> u16 {
        be16(self.0.as_ref(), URGENT)
    }

    /// Walks the options; kinds are in [`option`].
    pub fn options(&self) -> Options<'_> {
        Options::new(cut(self.0.as_ref(), HEADER_LEN, self.header_len()))
    }

    /// The maximum segment size that a SYN announces; `None` without the option or with one of another size.
    pub fn mss(&self) -> Result<Option<u16>, WireError> {
        let found = self.options().find(option::MSS)?;
        Ok(found.and_then(|found| found.data.try_into().ok()).map(u16::from_be_bytes))
    }

    /// What the segment carries.
    pub fn payload(&self) -> &[u8] {
        cut(self.0.as_ref(), self.header_len(), usize::MAX)
    }

    /// True if the checksum holds.
    pub fn verify_checksum(&self, pseudo: &PseudoHeader) -> bool {
        self.sum(pseudo).is_valid()
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }

    fn sum(&self, pseudo: &PseudoHeader) -> Checksum {
        let bytes = self.0.as_ref();
        pseudo.sum(Protocol::TCP, bytes.len()).add_bytes(bytes)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Tcp<T> {
    /// Starts a segment without options that fills `buf`: data offset set, the rest of the header zero.
    pub fn init(mut buf: T) -> Result<Self, WireError> {
        let header = buf.as_mut().get_mut(..HEADER_LEN).ok_or(WireError::Truncated)?;
        header.fill(0);
        header[OFFSET] = 0x50;
        Ok(Self(buf))
    }

    /// Makes room for options: `len` is a multiple of 4 in 20..=60 and inside the buffer. The bytes gained keep
    /// their content; write them with [`options_mut`](Self::options_mut).
    pub fn set_header_len(&mut self, len: usize) -> Result<(), WireError> {
        let fits = (HEADER_LEN..=Tcp::HEADER_LEN_MAX).contains(&len) && len <= self.0.as_ref().len();
        if !fits || !len.is_multiple_of(4) {
            return Err(WireError::Length);
        }
        let byte = &mut self.0.as_mut()[OFFSET];
        *byte = *byte & 0x0f | (len as u8 / 4) << 4;
        Ok(())
    }

    /// Writes the source port.
    pub fn set_src_port(&mut self, port: u16) {
        put16(self.0.as_mut(), SRC_PORT, port);
    }

    /// Writes the destination port.
    pub fn set_dst_port(&mut self, port: u16) {
        put16(self.0.as_mut(), DST_PORT, port);
    }

    /// Writes the sequence number.
    pub fn set_seq(&mut self, seq: u32) {
        put32(self.0.as_mut(), SEQ, seq);
    }

    /// Writes the acknowledgment number.
    pub fn set_ack(&mut self, ack: u32) {
        put32(self.0.as_mut(), ACK, ack);
    }

    /// Writes the control bits.
    pub fn set_flags(&mut self, flags: TcpFlags) {
        self.0.as_mut()[FLAGS] = flags.0;
    }

    /// Writes the window.
    pub fn set_window(&mut self, window: u16) {
        put16(self.0.as_mut(), WINDOW, window);
    }

    /// Writes the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        put16(self.0.as_mut(), CHECKSUM, checksum);
    }

    /// Writes the urgent pointer.
    pub fn set_urgent(&mut self, urgent: u16) {
        put16(self.0.as_mut(), URGENT, urgent);
    }

    /// The option area, for writing: fill what an option does not use with [`Opt::NOP`](super::Opt::NOP).
    pub fn options_mut(&mut self) -> &mut [u8] {
        let end = self.header_len();
        cut_mut(self.0.as_mut(), HEADER_LEN, end)
    }

    /// What the segment carries, for writing.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let from = self.header_len();
        cut_mut(self.0.as_mut(), from, usize::MAX)
    }

    /// Computes the checksum. Last step of building.
    pub fn fill_checksum(&mut self, pseudo: &PseudoHeader) {
        self.set_checksum(0);
        let check = self.sum(pseudo).finish();
        self.set_checksum(check);
    }
}
