//! Attaching a program to a device.

use std::io;

use super::attached::attached;
use crate::bpf::{self, Program, XDP_GENERIC, XDP_NATIVE};
use crate::error::{CAP_BPF, CAP_NET_ADMIN, Error};
use crate::{device, sys};

/// Where a program is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttachMode {
    /// In the driver; in the stack if the driver says that it does not run programs. Other failures are not hidden by
    /// falling back: a device that is fast when set up right should not be slow in silence.
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
    device: String,
    ifindex: u32,
}

impl Link {
    pub(crate) fn attach(program: &Program, device: &str, mode: AttachMode) -> Result<Link, Error> {
        let what = || format!("attach an XDP program to {device}");
        let ifindex = sys::if_index(device).map_err(|_| device::missing(what(), device))?;
        let native = || bpf::Link::attach(program, ifindex, XDP_NATIVE).map(|link| (link, LinkMode::Native));
        let generic =
            || bpf::Link::attach(program, ifindex, XDP_GENERIC).map(|link| (link, LinkMode::Generic));
        let result = match mode {
            AttachMode::Native => native(),
            AttachMode::Generic => generic(),
            AttachMode::Auto => match native() {
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => generic(),
                result => result,
            },
        };
        let (link, mode) = result.map_err(|e| attach_error(what(), device, &e))?;
        Ok(Link { link, mode, device: device.to_owned(), ifindex })
    }

    /// Where the program runs.
    pub fn mode(&self) -> LinkMode {
        self.mode
    }

    /// Number of the device.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Puts another program in place of the present one: each packet sees one or the other. `next` has its own map of
    /// sockets; insert them first, or packets pass to the kernel. If this fails, the present program stays.
    pub fn update(&self, next: &super::Redirect) -> Result<(), Error> {
        let what = || format!("replace the XDP program of {}", self.device);
        self.link.update(next.program()).map_err(|e| attach_error(what(), &self.device, &e))
    }

    /// Takes the program off; the same as dropping the link.
    pub fn detach(self) {}
}

fn attach_error(what: String, device: &str, error: &io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(0);
    let (id, cause, cure) = match errno {
        libc::EBUSY | libc::EEXIST => return busy(what, device, errno),
        libc::ERANGE => (
            "AFXDP-ATTACH-MTU",
            "the MTU (with veth: of the other end) is too large for packets in one buffer".to_owned(),
            format!("allow packets in several buffers (`frags`), or: ip link set dev {device} mtu 1500"),
        ),
        libc::ENOSPC => (
            "AFXDP-ATTACH-QUEUES",
            format!(
                "the other end of veth {device} has more transmit queues than {device} has receive queues"
            ),
            "make both ends with the same numtxqueues and numrxqueues".to_owned(),
        ),
        libc::EOPNOTSUPP => (
            "AFXDP-ATTACH-UNSUPPORTED",
            format!("the driver of {device} cannot run XDP programs as it is set up now"),
            format!("attach in generic mode, or `auto`; or: ethtool -K {device} lro off rx-gro-hw off"),
        ),
        libc::ENETDOWN => (
            "AFXDP-ATTACH-DOWN",
            format!("{device} is down"),
            format!("bring it up: ip link set dev {device} up"),
        ),
        libc::ENOLINK | libc::ENODEV => (
            "AFXDP-ATTACH-GONE",
            format!("{device} was removed after the program was attached"),
            "close it, and attach again when it is back".to_owned(),
        ),
        libc::EINVAL => (
            "AFXDP-ATTACH-INVALID",
            format!("{device} refuses this program, or the kernel has no links for XDP"),
            "use Linux 5.9 or later; with a large MTU load the program with `frags`; see the kernel log"
                .to_owned(),
        ),
        _ => return Error::privileged("AFXDP-ATTACH", what, &[CAP_NET_ADMIN, CAP_BPF], error),
    };
    Error::new(id, what, cause, cure).with_errno(errno)
}

/// The device has a program: whose?
fn busy(what: String, device: &str, errno: i32) -> Error {
    let other = attached(device).ok().flatten();
    let cause = match &other {
        Some(other) => format!("{other} is on {device}"),
        None => format!("another XDP program is on {device}"),
    };
    let cure = match other.and_then(|o| o.holder) {
        Some(holder) if holder.pid == std::process::id() => {
            "use `Link::update`, or drop the other link".to_owned()
        }
        Some(holder) => format!("end process {} ({})", holder.pid, holder.command),
        None => format!(
            "ip link set dev {device} xdp off (or xdpgeneric off); if a pinned link keeps it, remove the pin: see `bpftool link`"
        ),
    };
    Error::new("AFXDP-ATTACH-BUSY", what, cause, cure).with_errno(errno)
}
