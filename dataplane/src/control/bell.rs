//! Wakes the thread that sits in poll(2).

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// The end that rings.
pub(super) struct Bell(UnixStream);

/// The end that is woken: readable after the bell rang.
pub(super) struct Sleeper(UnixStream);

/// Both ends.
pub(super) fn bell() -> io::Result<(Bell, Sleeper)> {
    let (ring, hear) = UnixStream::pair()?;
    ring.set_nonblocking(true)?;
    hear.set_nonblocking(true)?;
    Ok((Bell(ring), Sleeper(hear)))
}

impl Bell {
    /// Wakes the sleeper, now or when it next goes to sleep.
    pub(super) fn ring(&self) {
        // No room means that it was rung and not heard yet: the sleeper wakes all the same.
        let _ = (&self.0).write(&[0]);
    }
}

impl Sleeper {
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Forgets the rings so far. What they announced is to be looked at after this, not before.
    pub(super) fn hush(&self) {
        let mut buffer = [0; 64];
        while (&self.0).read(&mut buffer).is_ok_and(|n| n == buffer.len()) {}
    }
}
