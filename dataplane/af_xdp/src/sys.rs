//! The raw calls of AF_XDP sockets, each checked, nothing decided.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

/// Descriptors copy mode sends per call at most; from Linux 6.17 on it can be set (`linux/if_xdp.h`).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

pub(crate) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `len` bytes of `value` are read.
    let result = unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// `T` is a plain C structure for which any bytes are valid.
unsafe fn get<T>(fd: RawFd, name: libc::c_int) -> io::Result<T> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: at most `len` bytes are written to `value`.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_XDP, name, value.as_mut_ptr().cast(), &raw mut len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed or written, and any bytes are valid.
    Ok(unsafe { value.assume_init() })
}

pub(crate) fn register_umem(
    fd: RawFd,
    base: NonNull<u8>,
    len: usize,
    frame_size: u32,
    headroom: u32,
) -> io::Result<()> {
    // SAFETY: all fields are integers; ones that libc knows and we do not set are 0, "not used".
    let mut region: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
    region.addr = base.as_ptr() as u64;
    region.len = len as u64;
    region.chunk_size = frame_size;
    region.headroom = headroom;
    set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &region)
}

pub(crate) fn set_ring_size(fd: RawFd, ring: libc::c_int, entries: u32) -> io::Result<()> {
    set(fd, libc::SOL_XDP, ring, &entries)
}

/// Sets how many descriptors copy mode sends per call; returns what is in force.
pub(crate) fn set_tx_budget(fd: RawFd, budget: u32) -> Option<u32> {
    set(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget).ok().map(|()| budget)
}

pub(crate) fn set_busy_poll(fd: RawFd, usecs: u32, budget: u32, prefer: bool) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &libc::c_int::from(prefer))?;
    set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &usecs)?;
    set(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget)
}

pub(crate) fn mmap_offsets(fd: RawFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: a structure of integers.
    unsafe { get(fd, libc::XDP_MMAP_OFFSETS) }
}

pub(crate) fn statistics(fd: RawFd) -> io::Result<libc::xdp_statistics> {
    // SAFETY: a structure of integers.
    unsafe { get(fd, libc::XDP_STATISTICS) }
}

/// Whether the socket is bound in zero-copy mode.
pub(crate) fn is_zero_copy(fd: RawFd) -> io::Result<bool> {
    // SAFETY: a structure of integers.
    let options: libc::xdp_options = unsafe { get(fd, libc::XDP_OPTIONS)? };
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

pub(crate) fn bind(
    fd: RawFd,
    ifindex: u32,
    queue: u32,
    flags: u16,
    shared_with: Option<RawFd>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared_with.unwrap_or(0) as u32,
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `len` bytes of `address` are read.
    let result = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number of the device called `name` in this thread's network namespace.
pub(crate) fn if_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: a NUL-terminated string is read.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Tells the kernel that there is something to send.
#[inline]
pub(crate) fn kick_tx(fd: RawFd) -> libc::c_int {
    // SAFETY: no memory is passed.
    let sent = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if sent >= 0 { 0 } else { last_errno() }
}

/// Tells the kernel to look at the fill ring.
#[inline]
pub(crate) fn kick_rx(fd: RawFd) {
    let (buffer, address) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: no memory is passed.
    unsafe { libc::recvfrom(fd, buffer, 0, libc::MSG_DONTWAIT, address, std::ptr::null_mut()) };
}

fn last_errno() -> libc::c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Waits until one of `fds` can be read, at most `timeout`; returns how many can.
pub(crate) fn poll_in(fds: &[RawFd], timeout: Duration) -> io::Result<usize> {
    let mut polled: Vec<_> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout_ms = timeout.as_millis().min(i32::MAX as u128) as i32;
    // SAFETY: the vector has as many entries as said.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(ready as usize) }
}

/// The descriptor's number.
pub(crate) fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
