//! Interface filters: see every frame of an interface, in both directions (KPI: `<net/kpi_interfacefilter.h>`).

use nke_mbuf::{Cache, Mbuf, Owner};

use crate::batch::Batch;
use crate::kind::AttachId;

/// Number of an interface, stable while it is attached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IfIndex(pub u16);

impl IfIndex {
    /// No interface: what filters that are not attached to one are told.
    pub const NONE: IfIndex = IfIndex(u16::MAX);
}

/// What the attacher handed in, given back at every call (KPI: `iff_cookie`). NKE never looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cookie(pub u64);

/// Which way packets go, seen from the interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Received by the interface.
    Input,
    /// About to be sent by it.
    Output,
}

/// What a filter call gets beside the packets.
pub struct Cx<'a> {
    /// The interface the instance is attached to.
    pub interface: IfIndex,
    /// This instance.
    pub attachment: AttachId,
    /// The attacher's cookie.
    pub cookie: Cookie,
    /// Which worker is calling: below the number of workers, for [`crate::PerWorker`].
    pub worker: usize,
    cache: &'a mut Cache,
    owner: Owner,
}

impl<'a> Cx<'a> {
    /// The context of one call. Made by the runner of the chain.
    #[inline(always)]
    pub fn new(
        interface: IfIndex,
        attachment: AttachId,
        cookie: Cookie,
        worker: usize,
        cache: &'a mut Cache,
        owner: Owner,
    ) -> Cx<'a> {
        Cx { interface, attachment, cookie, worker, cache, owner }
    }

    /// An empty packet from the worker's cache, charged to the extension. `None` when the pool is exhausted.
    #[inline]
    pub fn alloc(&mut self) -> Option<Mbuf> {
        let mut mbuf = self.cache.alloc()?;
        mbuf.set_owner(self.owner);
        Some(mbuf)
    }

    /// A copy of a packet, charged to the extension. `None` when the pool is exhausted.
    pub fn dup(&mut self, mbuf: &Mbuf) -> Option<Mbuf> {
        let mut copy = mbuf.dup(self.cache)?;
        copy.set_owner(self.owner);
        Some(copy)
    }

    /// Gives a packet back. Dropping it does as well; this is cheaper on a worker.
    #[inline]
    pub fn free(&mut self, mbuf: Mbuf) {
        self.cache.free(mbuf);
    }
}

/// What happened to an interface (KPI: `KEV_DL_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IfEventKind {
    /// Carrier or administrative state went up.
    LinkOn,
    /// Carrier or administrative state went down.
    LinkOff,
    /// The device vanished; the interface stays and is re-attached when the device comes back.
    DeviceGone,
    /// The device is back.
    DeviceBack,
    /// The interface is about to be detached; filters are detached next.
    Detaching,
}

impl IfEventKind {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            IfEventKind::LinkOn => "link_on",
            IfEventKind::LinkOff => "link_off",
            IfEventKind::DeviceGone => "device_gone",
            IfEventKind::DeviceBack => "device_back",
            IfEventKind::Detaching => "detaching",
        }
    }
}

/// An event of the interface an instance is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IfEvent {
    /// The interface.
    pub interface: IfIndex,
    /// The attacher's cookie.
    pub cookie: Cookie,
    /// What happened.
    pub kind: IfEventKind,
}

/// An instance of an interface filter.
///
/// `input` and `output` run on workers, several at a time, and must neither block nor call the kernel: a worker that
/// does not come back is reported with the name of the filter it is in. A panic is caught; the packets it left in the
/// batch go on or are dropped as the attachment's policy says, and the instance is detached.
pub trait InterfaceFilter: Send + Sync {
    /// Frames received by the interface, data starting at the link header.
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let _ = (cx, batch);
    }

    /// Fully framed packets about to be sent by the interface.
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let _ = (cx, batch);
    }

    /// An event of the interface. On the control thread.
    fn event(&self, event: &IfEvent) {
        let _ = event;
    }

    /// About once a second, on the control thread: to age tables, to look at a file. Runs beside the other calls.
    fn tick(&self) {}

    /// The last call, on the control thread, when no other call is running or will come. The instance is dropped
    /// after it: packets it still holds should be injected or dropped here, threads joined.
    fn detached(&self, interface: IfIndex, cookie: Cookie) {
        let _ = (interface, cookie);
    }

    /// Figures of this instance for `nke show filters`: name and value.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
