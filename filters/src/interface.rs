//! Interface filters: see every frame of an interface, in both directions (KPI: `<net/kpi_interfacefilter.h>`).

use nke_mbuf::{Cache, Mbuf, Owner};

use crate::batch::Batch;
use crate::host::Refused;
use crate::ifnet::{IfIoctl, IoctlAnswer};
use crate::kind::AttachId;
use crate::protocol::{LinkDest, ProtocolFamily};
use crate::requeue::{Requeue, Target};

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
    /// Milliseconds of a clock that only goes forward (CLOCK_MONOTONIC), a millisecond or two behind at most.
    pub now_ms: u64,
    cache: &'a mut Cache,
    requeue: &'a mut Requeue,
    owner: Owner,
}

/// What a call is told about itself.
#[derive(Clone, Copy, Debug)]
pub struct CallEnv {
    /// The interface the instance is attached to.
    pub interface: IfIndex,
    /// The instance.
    pub attachment: AttachId,
    /// The attacher's cookie.
    pub cookie: Cookie,
    /// The calling worker.
    pub worker: usize,
    /// The clock.
    pub now_ms: u64,
    /// Who is charged.
    pub owner: Owner,
}

impl<'a> Cx<'a> {
    /// The context of one call. Made by the runner of the chain.
    #[inline(always)]
    pub fn new(env: CallEnv, cache: &'a mut Cache, requeue: &'a mut Requeue) -> Cx<'a> {
        let CallEnv { interface, attachment, cookie, worker, now_ms, owner } = env;
        Cx { interface, attachment, cookie, worker, now_ms, cache, requeue, owner }
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

    /// The worker's cache, for calls that make packets of packets.
    #[inline]
    pub fn cache(&mut self) -> &mut Cache {
        self.cache
    }

    /// Puts a frame into `interface` as if it had been received there (KPI: `ifnet_input`): in this round of the worker,
    /// after this call. All input filters of the interface see it.
    #[inline]
    pub fn input(&mut self, interface: IfIndex, frame: Mbuf) -> Result<(), Refused> {
        self.requeue.push(Target::Input(interface), frame)
    }

    /// Sends a framed packet by `interface` (KPI: `ifnet_output_raw`); its output filters see it.
    #[inline]
    pub fn output(&mut self, interface: IfIndex, frame: Mbuf) -> Result<(), Refused> {
        self.requeue.push(Target::Output(interface), frame)
    }

    /// Sends a packet of a protocol that is attached to `interface` (KPI: `ifnet_output`): the protocol's pre-output says
    /// how to frame it.
    #[inline]
    pub fn output_protocol(
        &mut self,
        interface: IfIndex,
        family: ProtocolFamily,
        dest: LinkDest,
        packet: Mbuf,
    ) -> Result<(), Refused> {
        self.requeue.push(Target::Protocol(interface, family, dest), packet)
    }

    /// Puts an IP packet (data at its IP header) in as if it had just been received and validated (KPI:
    /// `ipf_inject_input`). With `after`, filters up to and including that instance do not see it at the first hook.
    #[inline]
    pub fn ip_input(&mut self, packet: Mbuf, after: Option<AttachId>) -> Result<(), Refused> {
        self.requeue.push(Target::IpInput(after), packet)
    }

    /// Routes and sends an IP packet (data at its IP header) (KPI: `ipf_inject_output`).
    #[inline]
    pub fn ip_output(&mut self, packet: Mbuf, after: Option<AttachId>) -> Result<(), Refused> {
        self.requeue.push(Target::IpOutput(after), packet)
    }
}

/// What happened to an interface (KPI: `KEV_DL_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IfEventKind {
    /// The interface was attached (`KEV_DL_IF_ATTACHED`).
    Attached,
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
    /// The interface was detached; only its driver hears it.
    Detached,
    /// A protocol was attached (`KEV_DL_PROTO_ATTACHED`).
    ProtocolAttached,
    /// A protocol was detached (`KEV_DL_PROTO_DETACHED`).
    ProtocolDetached,
    /// The largest packet is another one (`KEV_DL_SIFMTU`).
    MtuChanged,
    /// The link address is another one (`KEV_DL_LINK_ADDRESS_CHANGED`).
    LladdrChanged,
    /// An address was given or taken (`KEV_INET_NEW_ADDR` and its like).
    AddressesChanged,
}

impl IfEventKind {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            IfEventKind::Attached => "attached",
            IfEventKind::Detached => "detached",
            IfEventKind::ProtocolAttached => "protocol_attached",
            IfEventKind::ProtocolDetached => "protocol_detached",
            IfEventKind::MtuChanged => "mtu_changed",
            IfEventKind::LladdrChanged => "lladdr_changed",
            IfEventKind::AddressesChanged => "addresses_changed",
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

    /// A request to the interface, before its protocols and driver get it (KPI: `iff_ioctl`). On the control thread.
    fn ioctl(&self, request: &mut IfIoctl<'_>) -> IoctlAnswer {
        let _ = request;
        IoctlAnswer::NotMine
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
