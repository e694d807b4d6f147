//! Links: programs attached to devices.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Program;
use super::sys::{bpf, bpf_fd};

const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
pub(super) const ATTACH_XDP: u32 = 37;

/// Attach in the driver.
pub(crate) const XDP_NATIVE: u32 = 1 << 2;
/// Attach in the stack, behind the driver.
pub(crate) const XDP_GENERIC: u32 = 1 << 1;

/// A program attached to a device. Closing the descriptor detaches it, also when the process is killed.
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Attaches `program` to device number `ifindex` of this thread's network namespace.
    pub(crate) fn attach(program: &Program, ifindex: u32, flags: u32) -> io::Result<Link> {
        #[repr(C)]
        struct Attr {
            program: u32,
            ifindex: u32,
            attach_type: u32,
            flags: u32,
        }
        let mut attr = Attr { program: program.fd() as u32, ifindex, attach_type: ATTACH_XDP, flags };
        // SAFETY: LINK_CREATE reads this much of the attribute, without addresses, and returns a descriptor.
        unsafe { bpf_fd(LINK_CREATE, &mut attr).map(Link) }
    }

    /// Puts another program in place of the present one, between two packets.
    pub(crate) fn update(&self, program: &Program) -> io::Result<()> {
        #[repr(C)]
        struct Attr {
            link: u32,
            program: u32,
            flags: u32,
            old: u32,
        }
        let mut attr =
            Attr { link: self.0.as_raw_fd() as u32, program: program.fd() as u32, flags: 0, old: 0 };
        // SAFETY: no addresses.
        unsafe { bpf(LINK_UPDATE, &mut attr).map(drop) }
    }
}
