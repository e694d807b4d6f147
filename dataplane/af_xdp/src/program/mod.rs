//! XDP programs: the code in the kernel that decides which packets go to a socket.
//!
//! They are emitted as bytecode here and attached by a link whose descriptor this process holds: when the process ends,
//! however it ends, the link is closed and the device is as it was.

mod link;
mod live;
mod matcher;
mod redirect;
mod sink;

pub use link::{AttachMode, Link, LinkMode};
pub use live::{LiveSource, Rate, RunReport};
pub use matcher::{MATCHES_MAX, Match, Selection};
pub use redirect::{Counters, ProgramConfig, Redirect};
pub use sink::{Sink, SinkCounters};

use std::io;

use crate::error::{CAP_BPF, CAP_NET_ADMIN, Error};

pub(crate) const XDP_DROP: i32 = 1;
pub(crate) const XDP_PASS: i32 = 2;
pub(crate) const XDP_REDIRECT: i32 = 4;

/// Offsets in `struct xdp_md`.
pub(crate) mod xdp_md {
    pub(crate) const DATA: i16 = 0;
    pub(crate) const DATA_END: i16 = 4;
    pub(crate) const RX_QUEUE_INDEX: i16 = 16;
}

fn load_error(what: &str, error: &io::Error) -> Error {
    Error::privileged("AFXDP-PROGRAM-LOAD", what, &[CAP_BPF, CAP_NET_ADMIN], error)
}
