//! The few facts and settings of kernel network devices that NKE needs, and doing things in another network namespace.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps namespaces.
pub fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Moves this thread to network namespace `name`, for good.
pub fn enter_netns(name: &str) -> io::Result<()> {
    let file = File::open(netns_path(name))?;
    // SAFETY: no memory is passed; only this thread changes namespace.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Runs `body` on a thread of its own in network namespace `name`, or on this thread if there is no name.
pub fn in_netns<T: Send>(name: Option<&str>, body: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(name) = name else { return Ok(body()) };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter_netns(name).map(|()| body()));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the result is checked and owned.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn named(device: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a structure of integers and arrays, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// The device's MTU: bytes of a packet without its link header.
pub fn mtu(device: &str) -> io::Result<u32> {
    let socket = control_socket()?;
    let mut request = named(device)?;
    // SAFETY: the kernel reads the name and writes the MTU, both inside `request`.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFMTU filled this member.
    Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
}

/// Makes the device receive frames for other addresses, too, until the result is dropped or the process ends.
pub fn promiscuous(device: &str) -> io::Result<OwnedFd> {
    let name = CString::new(device).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: a NUL-terminated string is read.
    let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if ifindex == 0 {
        return Err(io::Error::last_os_error());
    }
    // Protocol 0: the socket itself receives nothing.
    // SAFETY: no memory is passed; the result is checked and owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a structure of integers and an array, for which zero is valid.
    let mut membership: libc::packet_mreq = unsafe { std::mem::zeroed() };
    membership.mr_ifindex = ifindex as libc::c_int;
    membership.mr_type = libc::PACKET_MR_PROMISC as u16;
    let len = size_of_val(&membership) as libc::socklen_t;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
    // SAFETY: `len` bytes of `membership` are read.
    if unsafe { libc::setsockopt(fd, level, option, (&raw const membership).cast(), len) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// What a device may do for the stack, as `ethtool -K` sets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// Fill in transport checksums on transmit.
    TxChecksum,
    /// Cut large TCP segments.
    Tso,
    /// Cut large segments, generic.
    Gso,
    /// Merge received segments; on veth this also makes the device receive by NAPI.
    Gro,
}

/// Switches an offload of a device.
pub fn set_offload(device: &str, offload: Offload, on: bool) -> io::Result<()> {
    // `linux/ethtool.h`: struct ethtool_value and the commands that take it.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let command = match offload {
        Offload::TxChecksum => 0x17,
        Offload::Tso => 0x1f,
        Offload::Gso => 0x24,
        Offload::Gro => 0x2c,
    };
    let socket = control_socket()?;
    let mut value = Value { command, data: u32::from(on) };
    let mut request = named(device)?;
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    // SAFETY: the kernel reads the name, and reads and writes the value, which both outlive the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
