//! A socket of rtnetlink. The one room of this crate that is unsafe: it calls the kernel.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, sockaddr_nl, socklen_t};

/// Result of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// A datagram of the kernel, this many bytes.
    Datagram(usize),
    /// One that is not from the kernel.
    Foreign,
    /// One that was longer than the buffer, and is lost.
    Truncated,
    /// Notifications were lost for want of room. What is still in the socket comes first; until it is empty the kernel
    /// goes on to lose what is new.
    Overrun,
    /// The socket is empty.
    Nothing,
}

/// A socket of rtnetlink, which never waits unless asked to.
pub(crate) struct Socket {
    fd: OwnedFd,
    /// Its address, by which answers to it are told from notifications.
    port: u32,
}

impl Socket {
    /// A socket in the network namespace of this thread, that belongs to no group yet.
    pub fn open() -> io::Result<Socket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let mut socket = Socket { fd: unsafe { OwnedFd::from_raw_fd(fd) }, port: 0 };
        // Binding takes the socket out of groups: it comes first. The kernel chooses the port.
        let mut own = address();
        // SAFETY: `own` is read for its size.
        if unsafe { libc::bind(fd, (&raw const own).cast(), ADDRESS_LEN) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut len = ADDRESS_LEN;
        // SAFETY: `own` and `len` are written within the size that `len` says.
        if unsafe { libc::getsockname(fd, (&raw mut own).cast(), &raw mut len) } < 0 {
            return Err(io::Error::last_os_error());
        }
        socket.port = own.nl_pid;
        // Errors with words, without the whole request, and requests checked: from Linux 4.20 on. Before, errors have no
        // words, and a dump of one family may bring others.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let _ = socket.set(libc::SOL_NETLINK, option, 1);
        }
        Ok(socket)
    }

    /// Room for datagrams not yet read; past the system's limit (`net.core.rmem_max`) only with CAP_NET_ADMIN.
    pub fn receive_buffer(&self, bytes: usize) -> io::Result<()> {
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
            .or_else(|_| self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
    }

    /// From now on notifications of this group (`RTNLGRP_*`) come in.
    pub fn subscribe(&self, group: u32) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group as c_int)
    }

    fn set(&self, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
        let len = size_of::<c_int>() as socklen_t;
        // SAFETY: `len` bytes of `value` are read.
        let done =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, (&raw const value).cast(), len) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends a request to the kernel, which works on it before this returns.
    pub fn send(&self, request: &[u8]) -> io::Result<()> {
        let kernel = address();
        // SAFETY: `request` and `kernel` are read for their sizes.
        let sent = unsafe {
            let (data, to) = (request.as_ptr().cast(), (&raw const kernel).cast());
            libc::sendto(self.fd.as_raw_fd(), data, request.len(), 0, to, ADDRESS_LEN)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes one datagram, if there is one.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut from = address();
        let mut len = ADDRESS_LEN;
        // SAFETY: at most `buffer.len()` bytes are written to `buffer`, and at most `len` to `from`. With MSG_TRUNC the
        // datagram's own length comes back, which may be more.
        let got = unsafe {
            let (data, sender) = (buffer.as_mut_ptr().cast(), (&raw mut from).cast());
            let fd = self.fd.as_raw_fd();
            libc::recvfrom(fd, data, buffer.len(), libc::MSG_TRUNC, sender, &raw mut len)
        };
        if got < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN) => Ok(Received::Nothing),
                Some(libc::ENOBUFS) => Ok(Received::Overrun),
                Some(libc::EINTR) => self.receive(buffer),
                _ => Err(error),
            };
        }
        Ok(match got as usize {
            _ if from.nl_pid != 0 => Received::Foreign,
            got if got > buffer.len() => Received::Truncated,
            got => Received::Datagram(got),
        })
    }

    /// Waits until there is something to read, a signal, or the time is over.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout_ms = c_int::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX);
        // SAFETY: one pollfd is read and written.
        if unsafe { libc::poll(&raw mut poll, 1, timeout_ms) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const ADDRESS_LEN: socklen_t = size_of::<sockaddr_nl>() as socklen_t;

/// The kernel's address, and that of a socket for which the kernel is to choose one.
fn address() -> sockaddr_nl {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut address: sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address
}
