//! What workers see: filter chains of each interface and of IP, immutable once published.

use std::sync::Arc;

use crossbeam::utils::CachePadded;
use nke_filters::{
    AttachId, CallEnv, Cookie, Counter, Family, FlowEntry, Hold, IfIndex, InterfaceFilter, IpFilter, IpHook,
    IpHooks, Probe,
};
use nke_mbuf::Owner;

use crate::inet::Link;
use crate::probes::Probes;

/// What happens to the packets a filter was shown when it panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnPanic {
    /// They go on as if the filter were not there.
    #[default]
    Open,
    /// They are dropped with reason `filter_panic`.
    Closed,
}

/// Counters of one attachment on one worker.
#[derive(Default)]
pub struct FilterStats {
    /// Packets shown to the filter.
    pub packets: Counter,
    /// Of these, dropped by it.
    pub dropped: Counter,
    /// Of these, taken by it.
    pub consumed: Counter,
    /// Calls that panicked.
    pub panics: Counter,
}

/// An attached instance. Shared by the snapshots that show it and the control thread; workers only borrow it.
pub struct Attachment {
    /// Its number.
    pub id: AttachId,
    /// Name of its kind.
    pub kind: String,
    /// The extension charged for it.
    pub owner: Owner,
    /// The interface it is attached to; [`IfIndex::NONE`] for an IP filter.
    pub interface: IfIndex,
    /// Which directions it sees.
    pub directions: Directions,
    /// Only packets of this ethertype, or all.
    pub protocol: Option<u16>,
    /// The attacher's.
    pub cookie: Cookie,
    /// What a panic means for the packets.
    pub on_panic: OnPanic,
    /// The instance.
    pub filter: Instance,
    /// One per worker.
    pub stats: Box<[CachePadded<FilterStats>]>,
    /// Its line on the ledger.
    pub hold: Hold,
}

impl Attachment {
    /// Both directions, all protocols, no cookie, open on a panic.
    pub fn new(
        id: AttachId,
        kind: String,
        owner: Owner,
        interface: IfIndex,
        filter: Instance,
        workers: usize,
        hold: Hold,
    ) -> Attachment {
        Attachment {
            id,
            kind,
            owner,
            interface,
            directions: Directions::BOTH,
            protocol: None,
            cookie: Cookie(0),
            on_panic: OnPanic::Open,
            filter,
            stats: (0..workers).map(|_| CachePadded::new(FilterStats::default())).collect(),
            hold,
        }
    }
}

impl Attachment {
    /// What a call of the instance is told.
    #[inline(always)]
    pub fn env(&self, worker: usize, now_ms: u64) -> CallEnv {
        CallEnv {
            interface: self.interface,
            attachment: self.id,
            cookie: self.cookie,
            worker,
            now_ms,
            owner: self.owner,
        }
    }
}

/// An instance of one layer or the other, or of none.
pub enum Instance {
    /// Attached to an interface.
    Interface(Box<dyn InterfaceFilter>),
    /// Attached to a version of IP, at these hooks.
    Ip(Family, IpHooks, Box<dyn IpFilter>),
    /// Attached to the path as a whole.
    Probe(Box<dyn Probe>),
}

impl Instance {
    /// Its figures, by its own account.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        match self {
            Instance::Interface(filter) => filter.figures(),
            Instance::Ip(.., filter) => filter.figures(),
            Instance::Probe(probe) => probe.figures(),
        }
    }
    /// Up to `most` of the flows it keeps.
    pub fn flows(&self, most: usize) -> Vec<FlowEntry> {
        match self {
            Instance::Interface(_) | Instance::Probe(_) => Vec::new(),
            Instance::Ip(.., filter) => filter.flows(most),
        }
    }
    /// Lets it age its tables.
    pub fn tick(&self) {
        match self {
            Instance::Interface(filter) => filter.tick(),
            Instance::Ip(.., filter) => filter.tick(),
            Instance::Probe(probe) => probe.tick(),
        }
    }
    /// Its last call.
    pub fn detached(&self, interface: IfIndex, cookie: Cookie) {
        match self {
            Instance::Interface(filter) => filter.detached(interface, cookie),
            Instance::Ip(.., filter) => filter.detached(cookie),
            Instance::Probe(probe) => probe.detached(cookie),
        }
    }
}

/// Input, output, or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Directions {
    /// Sees received frames.
    pub input: bool,
    /// Sees frames about to be sent.
    pub output: bool,
}

impl Directions {
    /// Received frames only.
    pub const INPUT: Directions = Directions { input: true, output: false };
    /// Sent frames only.
    pub const OUTPUT: Directions = Directions { input: false, output: true };
    /// Both.
    pub const BOTH: Directions = Directions { input: true, output: true };

    /// As shown to users.
    pub fn name(self) -> &'static str {
        match (self.input, self.output) {
            (true, false) => "input",
            (false, true) => "output",
            _ => "both",
        }
    }
}

/// The instances packets of one interface pass in one direction, oldest attachment first (the contract's order for
/// interface filters, in both directions).
#[derive(Default)]
pub struct Chain {
    /// The instances.
    pub entries: Vec<Arc<Attachment>>,
    /// Whether any of them asks for one protocol only, so that demux must run first.
    pub needs_protocol: bool,
}

impl Chain {
    fn of<'a>(entries: impl Iterator<Item = &'a Arc<Attachment>>) -> Chain {
        let entries: Vec<_> = entries.cloned().collect();
        let needs_protocol = entries.iter().any(|e| e.protocol.is_some());
        Chain { entries, needs_protocol }
    }
}

/// Chains of one interface.
#[derive(Default)]
pub struct IfChains {
    /// For received frames.
    pub input: Chain,
    /// For frames about to be sent.
    pub output: Chain,
}

/// Chains of one version of IP: for each hook the instances packets pass, newest attachment first (the contract's order
/// for IP filters).
#[derive(Default)]
pub struct IpChains {
    hooks: [Vec<Arc<Attachment>>; IpHook::ALL.len()],
    /// Whether an instance wants forwarded fragments put together.
    pub wants_whole: bool,
}

impl IpChains {
    /// The instances at `hook`.
    #[inline(always)]
    pub fn at(&self, hook: IpHook) -> &[Arc<Attachment>] {
        &self.hooks[hook.index()]
    }
}

/// One published state.
#[derive(Default)]
pub struct Snapshot {
    /// By interface index.
    pub chains: Vec<IfChains>,
    /// By interface index.
    pub links: Vec<Link>,
    /// For each worker the interfaces whose injection queues it drains.
    pub drains: Vec<Vec<u16>>,
    /// By version of IP: [`Family::V4`], [`Family::V6`].
    pub ip: [IpChains; 2],
    /// Whoever watches the path.
    pub probes: Probes,
}

impl Snapshot {
    /// The state with `attachments` (in attach order) on interfaces with these `links`.
    pub fn of(links: Vec<Link>, drains: Vec<Vec<u16>>, attachments: &[Arc<Attachment>]) -> Snapshot {
        let interfaces = links.len();
        let on = |i: usize| attachments.iter().filter(move |a| usize::from(a.interface.0) == i);
        let chains = (0..interfaces)
            .map(|i| IfChains {
                input: Chain::of(on(i).filter(|a| a.directions.input)),
                output: Chain::of(on(i).filter(|a| a.directions.output)),
            })
            .collect();
        let mut ip: [IpChains; 2] = Default::default();
        for attachment in attachments.iter().rev() {
            let Instance::Ip(family, hooks, _) = &attachment.filter else { continue };
            let chains = &mut ip[*family as usize];
            chains.wants_whole |= hooks.wants_whole();
            for hook in IpHook::ALL.into_iter().filter(|h| hooks.has(*h)) {
                chains.hooks[hook.index()].push(attachment.clone());
            }
        }
        Snapshot { chains, links, drains, ip, probes: Probes::of(attachments) }
    }
}
