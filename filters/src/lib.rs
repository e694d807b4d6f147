//! The contract between NKE and its extensions, and the filters that come with it.
//!
//! # Life of a filter
//!
//! ```text
//!   register(kind) ── attach(kind, interface, cookie) ──▶ instance        on the control thread: create
//!                                                            │
//!        workers, concurrently:  input(batch) / output(batch)│            never blocks, allocates or calls the kernel
//!        control thread:         event(interface event)      │
//!                                                            │
//!                         detach ──▶ no new calls ──▶ grace period ──▶ detached   the last call, control thread
//!   unregister(kind) ──▶ after every `detached`: unregistered
//! ```
//!
//! * A *kind* is registered once and makes instances; an *instance* is attached to one interface with a [`Cookie`]
//!   that comes back at every call. Instances run in attach order, oldest first, in both directions.
//! * `input` and `output` get a [`Batch`]: a view on the packets that the instance selected by protocol. For each it
//!   leaves the packet (Continue), calls [`Batch::drop`] with a reason, or takes it with [`Batch::take`] (Consumed).
//!   A packet taken belongs to the filter, is charged to it on the ledger, and is re-injected or dropped by it.
//! * Calls come from several workers at once: an instance is `Sync`. State per worker sits in [`PerWorker`].
//! * Detaching is asked for from anywhere, also from inside `input` or `output`: it is carried out by the control
//!   thread after every worker has left the old chain, so it never waits for the caller.
//! * Filters of IP ([`IpFilter`]) and probes ([`Probe`]), which are told what becomes of packets, live the same life.
//! * What an instance holds beside packets (threads, files) it announces with [`Host::hold`]; the ledger lists it
//!   until it is given back, and refuses to call the extension gone before.

mod batch;
pub mod builtin;
pub mod expr;
mod flow;
mod host;
mod ifnet;
mod interface;
mod ip;
mod kind;
mod ledger;
mod per_worker;
mod probe;
mod protocol;
mod random;
mod recorder;
mod requeue;
mod swap;
mod verdict;
pub mod vif;

pub use batch::{Batch, Removed};
pub use host::{Host, HostError, Refused};
pub use ifnet::{
    Demux, IFNAME_MAX, IFNETS_MAX, IfError, IfFamily, IfFlags, IfIoctl, IfParams, Ifnet, IfnetDriver,
    IfnetEnv, IfnetKind, IoctlAnswer,
};
pub use interface::{CallEnv, Cookie, Cx, Direction, IfEvent, IfEventKind, IfIndex, InterfaceFilter};
pub use ip::{Family, FlowEntry, IpAttachEnv, IpFilter, IpFilterKind, IpHook, IpHooks};
pub use kind::{ArgValue, Args, AttachEnv, AttachId, CreateError, FilterKind};
pub use ledger::{Entry, Hold, HoldKind, Ledger};
pub use per_worker::{Counter, PerWorker};
pub use probe::{Layer, NextHop, PathReport, Probe, ProbeEnv, ProbeKind, Stage};
pub use protocol::{
    DemuxDesc, IfProtocol, LinkDest, PROTOCOLS_MAX, Plumber, PreOutput, ProtocolFamily, ProtocolHandler,
    ProtocolSpec,
};
pub use random::random_key;
pub use recorder::{RecordFile, Recorder, Remark};
pub use requeue::{INJECTIONS_MAX, REQUEUE_MAX, Requeue, Target};
pub use swap::Swap;
pub use verdict::{DropClass, DropReason, REASONS_MAX};
