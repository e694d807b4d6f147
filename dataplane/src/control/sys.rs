//! The calls the standard library does not have.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::server::Peer;

/// What to wait for on a descriptor, and what came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interest {
    pub(super) fd: RawFd,
    pub(super) read: bool,
    pub(super) write: bool,
}

/// Waits until one of the descriptors is ready; `read` and `write` then tell which are. A hang-up counts as readable.
pub(super) fn poll(interests: &mut [Interest], timeout: Duration) -> io::Result<()> {
    let events = |i: &Interest| {
        let read = if i.read { libc::POLLIN } else { 0 };
        read | if i.write { libc::POLLOUT } else { 0 }
    };
    let mut fds: Vec<_> =
        interests.iter().map(|i| libc::pollfd { fd: i.fd, events: events(i), revents: 0 }).collect();
    let timeout_ms = timeout.as_millis().min(i32::MAX as u128) as i32;
    // SAFETY: the vector has as many entries as said.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    for (interest, fd) in interests.iter_mut().zip(&fds) {
        interest.read = fd.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0;
        interest.write = fd.revents & libc::POLLOUT != 0;
    }
    Ok(())
}

/// Who is at the other end (SO_PEERCRED).
pub(super) fn peer(stream: &UnixStream) -> io::Result<Peer> {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut credentials: libc::ucred = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&credentials) as libc::socklen_t;
    let (fd, level, option) = (stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: at most `len` bytes are written to the structure.
    if unsafe { libc::getsockopt(fd, level, option, (&raw mut credentials).cast(), &raw mut len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { uid: credentials.uid, gid: credentials.gid, pid: credentials.pid })
}

/// The user and group this process acts as.
pub(super) fn own_ids() -> (u32, u32) {
    // SAFETY: these calls take nothing and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}
