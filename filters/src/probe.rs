//! Probes: are told what workers do with packets, and change nothing.
//!
//! A probe is attached to the whole path (point `path`), not to an interface or a version of IP. It is told of every packet
//! that the dataplane is about to drop, by its own decision or a filter's, with the reason. While no probe is attached that
//! costs one branch for each packet *that is dropped*, and nothing for the others.
//!
//! A probe that traces is shown what interfaces receive, before their filters are. It marks the packets it wants to follow
//! with [`Flags::TRACED`] (and a tag, to know them apart), and is told of each [`Stage`] they pass. While no probe traces that
//! costs one branch for each stage and burst.
//!
//! Not told: drops that happen inside of a device's queue (a descriptor it refuses, a chain with frames missing), fragments
//! that the reassembler discards, and what is left when all ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

#[cfg(doc)]
use nke_mbuf::Flags;
use nke_mbuf::wire::Layers;
use nke_mbuf::{Mbuf, Owner};

use crate::host::Host;
use crate::interface::{Cookie, Cx, IfIndex};
use crate::ip::IpHook;
use crate::kind::{Args, AttachId, CreateError};
use crate::verdict::DropReason;

/// What the data of a packet begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// The link header.
    Frame,
    /// A valid IP header; the link header is gone.
    Ip,
}

/// Where routing sends a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum NextHop {
    /// It is for this host.
    Local,
    /// To a neighbour.
    Via(IpAddr, IfIndex),
    /// To its destination, which is on the link.
    Link(IfIndex),
    /// Somewhere that is not known any more.
    Unknown,
}

/// A step on the way of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Received by an interface; its input filters are next.
    Input(IfIndex),
    /// Shown to a filter, of an interface or of IP.
    Filter(AttachId),
    /// The protocol of a frame is looked at.
    Demux,
    /// At a hook of IP, whether filters are attached there or not.
    Hook(IpHook),
    /// Routed.
    Route(NextHop),
    /// To be sent by an interface; its output filters are next.
    Output(IfIndex),
    /// Handed to the interface's queue or driver.
    Transmit(IfIndex),
    /// Dropped: nothing comes behind.
    Drop(DropReason),
}

/// Packets that took the same way, as a probe tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathReport {
    /// How many.
    pub packets: u64,
    /// The stages, each with the time since the one before in nanoseconds, on average.
    pub stages: Vec<(Stage, u64)>,
    /// What was found in one of the packets as it was received.
    pub example: Layers,
    /// Bytes of that packet.
    pub example_len: usize,
}

/// An instance of a probe. The rules of [`crate::InterfaceFilter`] hold: calls come from several workers at once, neither
/// block nor call the kernel, and a panic is caught and ends the instance.
///
/// In [`Cx`], `interface` is [`crate::IfIndex::NONE`].
pub trait Probe: Send + Sync {
    /// Whether it wants `received` and `passes` to be called. Asked whenever filters come or go.
    fn traces(&self) -> bool {
        false
    }

    /// A packet that an interface received and that is not marked yet. To be told of its stages, mark it.
    fn received(&self, cx: &mut Cx<'_>, mbuf: &mut Mbuf, layer: Layer) {
        let _ = (cx, mbuf, layer);
    }

    /// A marked packet, this probe's or another's, at `stage`. `at` is one time for a burst.
    fn passes(&self, cx: &mut Cx<'_>, mbuf: &Mbuf, stage: Stage, at: Instant) {
        let _ = (cx, mbuf, stage, at);
    }

    /// The ways that packets took, the most frequent first. On the control thread.
    fn paths(&self) -> Vec<PathReport> {
        Vec::new()
    }

    /// A packet that is freed after this call.
    fn dropped(&self, cx: &mut Cx<'_>, mbuf: &Mbuf, layer: Layer, reason: DropReason) {
        let _ = (cx, mbuf, layer, reason);
    }

    /// About once a second, on the control thread. Runs beside the other calls.
    fn tick(&self) {}

    /// The last call, on the control thread.
    fn detached(&self, cookie: Cookie) {
        let _ = cookie;
    }

    /// Figures of this instance for `nke show filters`: name and value.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// What a probe is made with.
pub struct ProbeEnv {
    /// The dataplane, for everything an instance may ask of it.
    pub host: Arc<dyn Host>,
    /// Who is charged for what the instance takes.
    pub owner: Owner,
    /// The instance to be.
    pub attachment: AttachId,
    /// The attacher's cookie.
    pub cookie: Cookie,
    /// How many workers may call at the same time.
    pub workers: usize,
}

/// A kind of probe.
pub trait ProbeKind: Send + Sync {
    /// The name it is registered and attached by.
    fn name(&self) -> &str;

    /// Makes an instance. On the control thread: may allocate, open files, start threads.
    fn create(&self, env: &ProbeEnv, args: &Args) -> Result<Box<dyn Probe>, CreateError>;

    /// After the last `detached` of the last instance, when the kind was unregistered. On the control thread.
    fn unregistered(&self) {}
}
