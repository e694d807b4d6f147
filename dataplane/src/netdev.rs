//! The few facts and settings of kernel network devices that NKE needs, and doing things in another network namespace.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
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

/// The device's link address.
pub fn mac(device: &str) -> io::Result<[u8; 6]> {
    let socket = control_socket()?;
    let mut request = named(device)?;
    // SAFETY: the kernel reads the name and writes the address, both inside `request`.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFHWADDR filled this member.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    Ok(std::array::from_fn(|i| address.sa_data[i] as u8))
}

/// Number of a device in this thread's network namespace, and whether it is up and has a carrier; `None` if there is no
/// such device.
pub fn state(device: &str) -> Option<(u32, bool)> {
    let name = CString::new(device).ok()?;
    // SAFETY: a NUL-terminated string is read.
    let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let socket = control_socket().ok()?;
    let mut request = named(device).ok()?;
    // SAFETY: the kernel reads the name and writes the flags, both inside `request`.
    if ifindex == 0 || unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return None;
    }
    // SAFETY: SIOCGIFFLAGS filled this member.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Some((ifindex, flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0))
}

/// Packets the device itself dropped since it is there: received, to be sent. Of the calling thread's namespace.
pub fn dropped(device: &str) -> Option<[u64; 2]> {
    dropped_in(&std::fs::read_to_string("/proc/thread-self/net/dev").ok()?, device)
}

/// The fourth column of either half (`proc_net(5)`).
fn dropped_in(table: &str, device: &str) -> Option<[u64; 2]> {
    let of = |line: &str| {
        let (name, columns) = line.split_once(':')?;
        let columns: Vec<u64> = columns.split_whitespace().map_while(|c| c.parse().ok()).collect();
        (name.trim() == device).then_some([*columns.get(3)?, *columns.get(11)?])
    };
    table.lines().find_map(of)
}

/// Switches a device on and sets its MTU.
pub fn bring_up(device: &str, mtu: u32) -> io::Result<()> {
    let socket = control_socket()?;
    let mut request = named(device)?;
    request.ifr_ifru.ifru_mtu = mtu as libc::c_int;
    // SAFETY: the kernel reads name and MTU, both inside `request`.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads name and flags, both inside `request`.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What a TUN device carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tun {
    /// IP packets.
    Packets,
    /// Ethernet frames: a TAP device.
    Frames,
}

/// Makes a TUN device (the kernel's networking/tuntap.rst) in this thread's network namespace. `%d` in the name is a number
/// the kernel chooses. What is written to the result the device receives, what it sends is read; it goes when that is closed.
/// Reads do not wait.
pub fn tun(name: &str, carries: Tun) -> io::Result<(File, String)> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = named(name)?;
    let kind = match carries {
        Tun::Packets => libc::IFF_TUN,
        Tun::Frames => libc::IFF_TAP,
    };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads name and flags, and writes the name, both inside `request`.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    Ok((file, String::from_utf8(name).map_err(io::Error::other)?))
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

/// `linux/ethtool.h`: struct ethtool_value and the commands that take it.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const ETHTOOL_GDRVINFO: u32 = 0x03;

impl Offload {
    /// The commands that get and set it.
    fn commands(self) -> (u32, u32) {
        match self {
            Offload::TxChecksum => (0x16, 0x17),
            Offload::Tso => (0x1e, 0x1f),
            Offload::Gso => (0x23, 0x24),
            Offload::Gro => (0x2b, 0x2c),
        }
    }
}

/// Runs an ethtool command.
///
/// # Safety
/// `T` is the structure that its first member, the command, says.
unsafe fn ethtool<T>(device: &str, value: &mut T) -> io::Result<()> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let socket = control_socket()?;
    let mut request = named(device)?;
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // SAFETY: the kernel reads the name, and reads and writes the value, which both outlive the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Switches an offload of a device.
pub fn set_offload(device: &str, offload: Offload, on: bool) -> io::Result<()> {
    let mut value = EthtoolValue { command: offload.commands().1, data: u32::from(on) };
    // SAFETY: these commands take an ethtool_value.
    unsafe { ethtool(device, &mut value) }
}

/// Whether an offload of a device is on.
pub fn offload(device: &str, offload: Offload) -> io::Result<bool> {
    let mut value = EthtoolValue { command: offload.commands().0, data: 0 };
    // SAFETY: these commands take an ethtool_value.
    unsafe { ethtool(device, &mut value)? };
    Ok(value.data != 0)
}

/// Name of the device's driver.
pub fn driver(device: &str) -> io::Result<String> {
    /// struct ethtool_drvinfo.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: the command takes an ethtool_drvinfo, whose 196 bytes this has.
    unsafe { ethtool(device, &mut info)? };
    let name = info.driver.split(|b| *b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_dropped_is_read_from_its_row() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n \
            veth10: 1       2    3    4    5     6          7         8      9       10    11    12    13     14       15          16\n";
        assert_eq!(dropped_in(table, "veth10"), Some([4, 12]));
        assert_eq!((dropped_in(table, "veth1"), dropped_in("veth1: 1 2", "veth1")), (None, None));
        assert!(dropped("lo").is_some());
    }
}
