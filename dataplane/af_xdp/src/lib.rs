//! AF_XDP sockets in pure Rust. The README has an example and the traps.
//!
//! An AF_XDP socket gives a process the packets of one queue of one network device through four rings in shared
//! memory, without a system call per packet. This crate has the parts: the memory ([`Umem`]), the sockets with their
//! rings ([`Socket`]), and the XDP programs that steer packets into them ([`program`]).
//!
//! Who owns a frame is who has its token:
//!
//! ```text
//!                 fill()                 a packet arrives
//!     Frame ──────────────▶ fill ring ──────────────────▶ rx ring
//!       ▲ ▲                                                  │
//!       │ └───────────────────── receive() ──────────────────┘
//!       │
//!       │  transmit()                      sent
//!     Frame ──────────────▶ tx ring  ───────────────▶ completion ring
//!       ▲                                                  │
//!       └───────────────────── complete() ─────────────────┘
//! ```
//!
//! A [`Frame`] can be neither copied nor cloned, and every ring call takes or gives tokens: a frame is in one place at
//! a time, and nobody touches it while the kernel has it.
//!
//! Nothing on the packet path allocates, locks, or calls the kernel, except the kicks, which say so.

mod bpf;
mod device;
mod error;
mod frame;
mod map;
pub mod program;
mod ring;
mod socket;
mod sync;
mod sys;
mod umem;

pub use error::Error;
pub use frame::Frame;
pub use socket::{
    BindMode, BusyPoll, Kick, Mode, Received, Reclaimed, Socket, SocketConfig, Statistics, Transmit,
    statistics_of, wait,
};
pub use umem::{Backing, Pages, Umem, UmemConfig};

/// The README's example, kept compiling.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
