//! Waking a worker that sleeps in poll(2): an eventfd.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// One worker's alarm.
pub struct Wake(OwnedFd);

impl Wake {
    /// A new one.
    pub fn new() -> io::Result<Wake> {
        // SAFETY: no memory is passed; the result is checked and owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is nobody else's.
        Ok(Wake(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Ends the worker's sleep, the present or the next one.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of a local are read. A full counter (EAGAIN) wakes as well.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Sleeps until woken, until one of `fds` has something to read, or for `timeout`.
    pub fn sleep(&self, fds: impl Iterator<Item = RawFd>, timeout: Duration) {
        // Bounded: a worker with more queues than this wakes by the timeout for the rest.
        const FDS_MAX: usize = 64;
        let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; FDS_MAX];
        polled[0].fd = self.0.as_raw_fd();
        let mut n = 1;
        for (slot, fd) in polled[1..].iter_mut().zip(fds) {
            slot.fd = fd;
            n += 1;
        }
        let timeout_ms = timeout.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: the first `n` entries are initialised. Errors (EINTR) only shorten the sleep.
        unsafe { libc::poll(polled.as_mut_ptr(), n, timeout_ms) };
        if polled[0].revents != 0 {
            let mut count = 0u64;
            // SAFETY: eight bytes go to a local.
            unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
    }
}
