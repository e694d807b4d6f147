//! Ownership of frames as tokens.

/// The one claim to a frame of a UMEM: whoever has the token may touch the frame. Giving it to a ring gives the frame
/// to the kernel; the kernel's answer is a token again.
///
/// It cannot be copied, so a frame cannot be in two rings, nor be touched after it was sent. It knows its UMEM, and is
/// refused by every other. Dropping a token loses the frame until the UMEM is dropped; it does no other harm.
#[must_use = "dropping a frame's token loses the frame"]
#[derive(PartialEq, Eq, Debug)]
pub struct Frame {
    addr: u64,
    umem: u32,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(umem: u32, addr: u64) -> Frame {
        Frame { addr, umem }
    }

    /// Number of the UMEM it belongs to.
    #[inline(always)]
    pub(crate) fn umem(&self) -> u32 {
        self.umem
    }

    /// Where the frame's data is (or the frame itself): offset from the first byte of the UMEM.
    #[inline(always)]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Gives the token up for its address; [`crate::Umem::frame_from_addr`] is the way back.
    #[inline(always)]
    pub fn into_addr(self) -> u64 {
        self.addr
    }
}
