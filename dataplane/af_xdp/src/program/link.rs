//! Attaching a program to a device.

use std::io;

use crate::bpf::{self, Program, XDP_GENERIC, XDP_NATIVE};
use crate::error::{CAP_BPF, CAP_NET_ADMIN, Error};
use crate::{device, sys};

/// Where a program is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttachMode {
    /// In the driver if it can, in the stack else.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack, behind the driver: slower, works with every device.
    Generic,
}

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkMode {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

/// A program on a device; dropping it takes the program off.
pub struct Link {
    link: bpf::Link,
    mode: LinkMode,
    ifindex: u32,
}

impl Link {
    pub(crate) fn attach(program: &Program, device: &str, mode: AttachMode) -> Result<Link, Error> {
        let what = || format!("attach an XDP program to {device}");
        let ifindex = sys::if_index(device).map_err(|_| device::missing(what(), device))?;
        let modes: &[_] = match mode {
            AttachMode::Auto => &[LinkMode::Native, LinkMode::Generic],
            AttachMode::Native => &[LinkMode::Native],
            AttachMode::Generic => &[LinkMode::Generic],
        };
        let mut last = None;
        for mode in modes {
            let flags = match mode {
                LinkMode::Native => XDP_NATIVE,
                LinkMode::Generic => XDP_GENERIC,
            };
            match program.attach(ifindex, flags) {
                Ok(link) => return Ok(Link { link, mode: *mode, ifindex }),
                Err(e) => {
                    let unsupported = e.raw_os_error() == Some(libc::EOPNOTSUPP);
                    last = Some(e);
                    if !unsupported {
                        break;
                    }
                }
            }
        }
        let error = last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
        Err(attach_error(what(), &error))
    }

    /// Where the program runs.
    pub fn mode(&self) -> LinkMode {
        self.mode
    }

    /// Number of the device.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Puts another program in place of the present one, between two packets.
    pub fn update(&self, next: &super::Redirect) -> Result<(), Error> {
        self.link.update(next.program()).map_err(|e| attach_error("replace an XDP program".into(), &e))
    }

    /// Takes the program off; the same as dropping the link.
    pub fn detach(self) {}
}

fn attach_error(what: String, error: &io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(0);
    let (id, cause, cure) = match errno {
        libc::EBUSY | libc::EEXIST => (
            "AFXDP-ATTACH-BUSY",
            "another XDP program is on the device",
            "see `ip link show dev DEVICE`; end its owner, or: ip link set dev DEVICE xdp off",
        ),
        libc::ERANGE => (
            "AFXDP-ATTACH-MTU",
            "the MTU is too large for packets in one buffer",
            "allow packets in several buffers (jumbo), or lower the MTU",
        ),
        libc::ENOSPC => (
            "AFXDP-ATTACH-QUEUES",
            "the other end of the veth pair has more transmit queues than this end has receive queues",
            "make both ends with the same number of queues",
        ),
        libc::EOPNOTSUPP => (
            "AFXDP-ATTACH-UNSUPPORTED",
            "the driver cannot run XDP programs this way",
            "attach in generic mode, or `auto`",
        ),
        libc::ENETDOWN => ("AFXDP-ATTACH-DOWN", "the device is down", "bring it up: ip link set DEVICE up"),
        _ => return Error::privileged("AFXDP-ATTACH", what, &[CAP_NET_ADMIN, CAP_BPF], error),
    };
    Error::new(id, what, cause, cure).with_errno(errno)
}
