//! Memory mappings that unmap themselves.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

/// One mapping.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range; whoever hands out access to it answers for that.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed private memory in plain pages, present from the start.
    pub(crate) fn plain(len: usize) -> io::Result<Mapping> {
        Mapping::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1, 0)
    }

    /// The same in huge pages of 2 MiB; fails if not enough are reserved.
    pub(crate) fn huge(len: usize) -> io::Result<Mapping> {
        let flags = libc::MAP_PRIVATE
            | libc::MAP_ANONYMOUS
            | libc::MAP_POPULATE
            | libc::MAP_HUGETLB
            | libc::MAP_HUGE_2MB;
        Mapping::map(len.next_multiple_of(2 << 20), flags, -1, 0)
    }

    /// Memory shared with the kernel: a ring of socket `fd`, or a map's.
    pub(crate) fn shared(fd: RawFd, len: usize, offset: libc::off_t) -> io::Result<Mapping> {
        Mapping::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd, offset)
    }

    fn map(len: usize, flags: libc::c_int, fd: RawFd, offset: libc::off_t) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses; nothing existing is touched.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Mapping { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; whoever used the memory is gone, or holds what holds us.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
