//! Packet buffers for poll-mode pipelines.
//!
//! A [`Pool`] divides one region of memory, which the caller mapped, into frames of equal size. A frame is
//! always in exactly one place:
//!
//! ```text
//!             alloc                      into_frame (tx, fill)
//!   free ────────────────▶  Mbuf  ─────────────────────────▶  a ring, owned by the kernel
//!    ▲                       │ ▲                                   │
//!    └───────────────────────┘ └───────────────────────────────────┘
//!        drop, Cache::free                from_frame (rx, completion)
//! ```
//!
//! An [`Mbuf`] is an owned handle of eight bytes: it cannot be copied, so a packet that was handed on cannot be
//! touched again, and a packet that goes out of scope is back in its pool. What is known of a packet (data
//! window, receiving interface, flags, chain, tags) lies in a header beside the frame, not in it: frames are
//! powers of two apart and headers inside them would all fall into the same few cache sets.
//!
//! Each worker owns a [`Cache`] of free frames, so that allocation and release on the path are an array pop and
//! push. Any other thread may drop an `Mbuf`: it goes to the pool's shared free list with one compare-and-swap.
//!
//! Every frame carries the [`Owner`] that answers for it; [`Pool::census`] counts them while traffic flows, which
//! is how the ledger knows what an extension still holds.
//!
//! The crate makes no system call. Running out of frames is an outcome (`None`), never a panic.

mod burst;
mod cache;
mod chain;
mod freelist;
pub mod hash;
mod hdr;
mod mbuf;
mod mempool;
mod region;
mod sync;
mod tags;
pub mod wire;

pub use burst::{BURST_MAX, Burst};
pub use cache::{CACHE_FRAMES, Cache};
pub use hdr::{Device, Flags, Owner};
pub use mbuf::{FrameAddr, Mbuf};
pub use mempool::{Census, Holding, Pool, PoolConfig, PoolError};
pub use region::Region;
pub use tags::{TAG_BYTES_MAX, TagError, TagId};
