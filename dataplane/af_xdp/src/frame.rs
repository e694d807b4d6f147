//! Ownership of frames as tokens.

/// The one claim to a frame of a UMEM: whoever has the token may touch the frame. Giving it to a ring gives the frame
/// to the kernel; the kernel's answer is a token again.
///
/// It cannot be copied, so a frame cannot be in two rings, nor be touched after it was sent. Dropping a token loses the
/// frame until the UMEM is dropped; it does no other harm.
#[must_use = "dropping a frame's token loses the frame"]
#[derive(PartialEq, Eq, Debug)]
pub struct Frame(u64);

impl Frame {
    pub(crate) fn new(addr: u64) -> Frame {
        Frame(addr)
    }

    /// Where the frame's data is (or the frame itself): offset from the first byte of the UMEM.
    #[inline(always)]
    pub fn addr(&self) -> u64 {
        self.0
    }

    /// Gives the token up for its address; [`crate::Umem::frame_from_addr`] is the way back.
    #[inline(always)]
    pub fn into_addr(self) -> u64 {
        self.0
    }

    /// The same frame, with its data `offset` bytes further on (or before, if negative). The UMEM checks the range
    /// when the data is accessed or sent.
    pub fn shifted(self, offset: i64) -> Frame {
        Frame(self.0.wrapping_add_signed(offset))
    }
}
