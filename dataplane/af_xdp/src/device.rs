//! What can be found out about a device when binding or attaching to it failed.

use std::fs;
use std::io;

use crate::error::{CAP_NET_ADMIN, CAP_NET_RAW, Error};
use crate::socket::{BindMode, SocketConfig};

pub(crate) fn missing(what: String, device: &str) -> Error {
    Error::new(
        "AFXDP-NO-DEVICE",
        what,
        format!("no device is called {device} in this network namespace"),
        "see `ip link`; devices in another namespace are opened from a thread in it",
    )
    .with_errno(libc::ENODEV)
}

/// Receive queues of a device. From sysfs, which shows the namespace it was mounted in: `None` for others.
fn rx_queues(device: &str) -> Option<u32> {
    let entries = fs::read_dir(format!("/sys/class/net/{device}/queues")).ok()?;
    let rx = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("rx-"));
    Some(rx.count() as u32)
}

pub(crate) fn bind_error(what: String, device: &str, config: &SocketConfig, error: &io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(0);
    let queues = rx_queues(device).map_or_else(String::new, |n| format!(" ({device} has {n})"));
    let (id, cause, cure) = match errno {
        libc::EBUSY => (
            "AFXDP-BIND-BUSY",
            "another AF_XDP socket holds this queue".to_owned(),
            "end the program that holds it, or use another queue; right after a close the kernel needs some 40 ms",
        ),
        libc::EINVAL => (
            "AFXDP-BIND-INVALID",
            format!("no such queue{queues}, or the device cannot do what was asked"),
            "use a queue below the device's number of queues (`ethtool -l`)",
        ),
        libc::EOPNOTSUPP if config.mode == BindMode::ZeroCopy => (
            "AFXDP-BIND-NO-ZEROCOPY",
            "the driver has no zero-copy for AF_XDP".to_owned(),
            "bind in copy mode, or `auto`",
        ),
        libc::EOPNOTSUPP => (
            "AFXDP-BIND-UNSUPPORTED",
            "the device does not support AF_XDP as asked".to_owned(),
            "leave multi-buffer and busy polling off",
        ),
        libc::ENETDOWN => {
            ("AFXDP-BIND-DOWN", "the device is down".to_owned(), "bring it up: ip link set DEVICE up")
        }
        libc::ENOBUFS | libc::ENOMEM => (
            "AFXDP-BIND-MEMORY",
            "the kernel has no memory for the socket".to_owned(),
            "use smaller rings, or free memory",
        ),
        libc::EPERM | libc::EACCES => {
            return Error::privileged("AFXDP-BIND", what, &[CAP_NET_RAW, CAP_NET_ADMIN], error);
        }
        _ => ("AFXDP-BIND", error.to_string(), "see the kernel log"),
    };
    Error::new(id, what, cause, cure).with_errno(errno)
}
