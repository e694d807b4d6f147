//! Probes: are told what workers do with packets, and change nothing.
//!
//! A probe is attached to the whole path (point `path`), not to an interface or a version of IP. It is told of every packet
//! that the dataplane is about to drop, by its own decision or a filter's, with the reason. While no probe is attached that
//! costs one branch for each packet *that is dropped*, and nothing for the others.
//!
//! Not told: drops that happen inside of a device's queue (a descriptor it refuses, a chain with frames missing), fragments
//! that the reassembler discards, and what is left when all ends.

use std::sync::Arc;

use nke_mbuf::{Mbuf, Owner};

use crate::host::Host;
use crate::interface::{Cookie, Cx};
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

/// An instance of a probe. The rules of [`crate::InterfaceFilter`] hold: calls come from several workers at once, neither
/// block nor call the kernel, and a panic is caught and ends the instance.
///
/// In [`Cx`], `interface` is [`crate::IfIndex::NONE`].
pub trait Probe: Send + Sync {
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
