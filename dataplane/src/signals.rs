//! Waiting for the signals that end a program.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// SIGINT and SIGTERM, kept from ending the process at once; for the whole process if made before any thread is.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks the signals in this thread and those it starts.
    pub fn block() -> io::Result<Signals> {
        // SAFETY: a set is made of zeroed memory by sigemptyset; the calls only touch it.
        let set = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            set
        };
        // SAFETY: the set is initialised.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
            0 => Ok(Signals(set)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for one of them; its number.
    pub fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: the set is initialised, the number goes to a local.
        unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        signal
    }

    /// Waits for one of them, at most `timeout`; its number.
    pub fn wait_for(&self, timeout: Duration) -> Option<i32> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the set and the time are initialised, nobody asks for the details of the signal.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const timeout) };
        (signal > 0).then_some(signal)
    }

    /// Whether one of them has come, without waiting.
    pub fn pending(&self) -> bool {
        // SAFETY: a set made of zeroed memory, filled by the call; the lookups only read.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigpending(&raw mut set);
            libc::sigismember(&raw const set, libc::SIGINT) == 1
                || libc::sigismember(&raw const set, libc::SIGTERM) == 1
        }
    }
}
