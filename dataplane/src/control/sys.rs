//! The calls the standard library does not have.
#![allow(unsafe_code)]

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::server::Peer;

/// What to wait for on a descriptor, and what came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interest {
    pub(super) fd: RawFd,
    pub(super) read: bool,
    pub(super) write: bool,
    /// Came: the other end is gone. There may still be something to read.
    pub(super) gone: bool,
}

impl Interest {
    pub(super) fn new(fd: RawFd, read: bool, write: bool) -> Interest {
        Interest { fd, read, write, gone: false }
    }
}

/// Waits until one of the descriptors is ready, or a signal came, or `timeout` is over.
pub(super) fn poll(interests: &mut [Interest], timeout: Duration) -> io::Result<()> {
    let events = |i: &Interest| {
        let read = if i.read { libc::POLLIN } else { 0 };
        read | if i.write { libc::POLLOUT } else { 0 }
    };
    let mut fds: Vec<_> =
        interests.iter().map(|i| libc::pollfd { fd: i.fd, events: events(i), revents: 0 }).collect();
    // Rounded up: a deadline that is not quite reached would be waited for in a busy loop.
    let timeout_ms = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
    // SAFETY: the vector has as many entries as said.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    for (interest, fd) in interests.iter_mut().zip(&fds) {
        interest.read = fd.revents & libc::POLLIN != 0;
        interest.write = fd.revents & libc::POLLOUT != 0;
        interest.gone = fd.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0;
    }
    Ok(())
}

/// A Unix stream socket that never waits, and the address of `path` for it.
fn socket(path: &Path) -> io::Result<(OwnedFd, libc::sockaddr_un)> {
    // SAFETY: a structure of integers and an array, for which zero is valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let bytes = path.as_os_str().as_bytes();
    // One byte stays zero, for the end.
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        let most = address.sun_path.len() - 1;
        let message = format!("the path of a socket has 1 to {most} bytes, none of them zero");
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is passed; the result is checked and owned.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, address))
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

/// A listening socket at `path` that never waits. Nobody can connect before it has its `mode`.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let (socket, address) = socket(path)?;
    // SAFETY: as many bytes of the address are read as it has.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) } < 0 {
        return Err(io::Error::last_os_error());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    // SAFETY: no memory is passed.
    if unsafe { libc::listen(socket.as_raw_fd(), 128) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}

/// A connection to `path`. The standard library's waits for ever when the other process is stopped and many wait already;
/// this says [`ErrorKind::TimedOut`].
pub(super) fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let (socket, address) = socket(path)?;
    let end = Instant::now() + timeout;
    // SAFETY: as many bytes of the address are read as it has.
    while unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN) } < 0 {
        let e = io::Error::last_os_error();
        match e.kind() {
            ErrorKind::Interrupted => (),
            // There is no way to be told when there is room.
            ErrorKind::WouldBlock if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            _ => return Err(e),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Who is at the other end (SO_PEERCRED), and all groups it is in (SO_PEERGROUPS), as they were when it connected.
pub(super) fn peer(stream: &UnixStream) -> io::Result<(Peer, Vec<u32>)> {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut credentials: libc::ucred = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&credentials) as libc::socklen_t;
    let (fd, level) = (stream.as_raw_fd(), libc::SOL_SOCKET);
    let to = (&raw mut credentials).cast();
    // SAFETY: at most `len` bytes are written to the structure.
    if unsafe { libc::getsockopt(fd, level, libc::SO_PEERCRED, to, &raw mut len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let peer = Peer { uid: credentials.uid, gid: credentials.gid, pid: credentials.pid };
    let mut groups = vec![0u32; 64];
    for _ in 0..2 {
        let mut len = size_of_val(&groups[..]) as libc::socklen_t;
        // SAFETY: at most `len` bytes are written, which the vector has.
        let result = unsafe {
            libc::getsockopt(fd, level, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut len)
        };
        groups.resize(len as usize / size_of::<u32>(), 0);
        if result == 0 {
            groups.push(peer.gid);
            return Ok((peer, groups));
        }
        // ERANGE: the length now says how many there are.
        if io::Error::last_os_error().raw_os_error() != Some(libc::ERANGE) {
            break;
        }
    }
    // A kernel without it: the primary group has to do.
    Ok((peer, vec![peer.gid]))
}

/// The user and group this process acts as.
pub(super) fn own_ids() -> (u32, u32) {
    // SAFETY: these calls take nothing and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}
