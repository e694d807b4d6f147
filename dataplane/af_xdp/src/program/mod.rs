//! XDP programs: the code in the kernel that decides which packets go to a socket.
//!
//! They are emitted as bytecode here and attached by a link whose descriptor this process holds: when the process ends,
//! however it ends, the link is closed and the device is as it was.
//!
//! - [`Redirect`] sends packets to sockets, all or those of a [`Selection`]; everything else goes on to the kernel.
//! - With a [`Shortcut`] it forwards by itself what user space need not see.
//! - [`LiveSource`] sends packets, and puts into each when it was sent.
//! - [`Sink`] counts packets, takes their latency if told to, and drops them or not.
//! - [`attached`] tells whose program is on a device.
//!
//! Linux 5.9 has all that [`Redirect`] needs; `frags`, [`Sink`] and [`LiveSource`] need Linux 5.18.

mod attached;
mod layout;
mod link;
mod live;
mod matcher;
mod redirect;
mod shortcut;
mod sink;
mod tally;
mod transit;

pub use attached::{Attached, Holder, attached};
pub use link::{AttachMode, Link, LinkMode};
pub use live::{LiveConfig, LiveSource, Rate, RunReport};
pub use matcher::{MATCHES_MAX, Match, Selection};
pub use redirect::{Counters, ProgramConfig, Redirect};
pub use shortcut::{Shortcut, ShortcutPort, ShortcutSizes};
pub use sink::{Sink, SinkAction};
pub use tally::Count;
pub use transit::LOCALS_MAX;

use std::io;

use crate::bpf::Refusal;
use crate::error::{CAP_BPF, CAP_NET_ADMIN, Error};

/// What a program does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Action {
    /// An error of the program; the kernel drops the packet. No program here does it.
    Aborted = 0,
    /// The packet ends here.
    Drop = 1,
    /// It goes on to the kernel.
    Pass = 2,
    /// It goes back where it came from. No program here does it.
    Tx = 3,
    /// It goes to a socket, or out by another device.
    Redirect = 4,
}

impl Action {
    fn from_number(number: u32) -> Action {
        match number {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            // So does the kernel with what it does not know.
            _ => Action::Aborted,
        }
    }
}

/// Offsets in `struct xdp_md`.
pub(crate) mod xdp_md {
    pub(crate) const DATA: i16 = 0;
    pub(crate) const DATA_END: i16 = 4;
    pub(crate) const RX_QUEUE_INDEX: i16 = 16;
}

/// Why a program was not loaded.
fn load_error(what: &str, refusal: &Refusal) -> Error {
    let errno = refusal.error.raw_os_error().unwrap_or(0);
    match &refusal.verifier {
        Some(log) => Error::new(
            "AFXDP-PROGRAM-VERIFIER",
            what,
            format!("the kernel's verifier refused the program: {log}"),
            "use Linux 5.18 or later; if this is one, report it with the kernel's version: the fault is in this crate",
        )
        .with_errno(errno),
        None => map_error(what, &refusal.error),
    }
}

/// Why a map was not made, or a program not loaded though the verifier has nothing against it.
fn map_error(what: &str, error: &io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(0);
    let privilege = Error::privileged("AFXDP-PROGRAM-LOAD", what, &[CAP_BPF, CAP_NET_ADMIN], error);
    let (cause, cure) = match errno {
        libc::EPERM | libc::EACCES if privilege.id() == "AFXDP-PROGRAM-LOAD" => (
            "bpf(2) is refused though CAP_BPF and CAP_NET_ADMIN are there",
            "allow bpf(2) in the container's seccomp profile; before Linux 5.11, raise `ulimit -l`",
        ),
        libc::EINVAL => (
            "the kernel does not know this kind of map or program",
            "use Linux 5.18 or later with CONFIG_XDP_SOCKETS",
        ),
        libc::ENOMEM => ("the kernel has no memory for it", "free memory, or use fewer queues"),
        libc::ENOSYS => ("the kernel has no bpf(2)", "use one with CONFIG_BPF_SYSCALL"),
        _ => return privilege,
    };
    Error::new("AFXDP-PROGRAM-LOAD", what, cause, cure).with_errno(errno)
}
