//! What workers see: filter chains of each interface, immutable once published.

use std::sync::Arc;

use crossbeam::utils::CachePadded;
use nke_filters::{AttachId, Cookie, Counter, Hold, IfIndex, InterfaceFilter};
use nke_mbuf::Owner;

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
    /// Where it is attached.
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
    pub filter: Box<dyn InterfaceFilter>,
    /// One per worker.
    pub stats: Box<[CachePadded<FilterStats>]>,
    /// Its line on the ledger.
    pub hold: Hold,
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

/// One published state.
pub struct Snapshot {
    /// By interface index.
    pub chains: Vec<IfChains>,
}

impl Snapshot {
    /// The state with `attachments` (in attach order) on `interfaces` interfaces.
    pub fn of(interfaces: usize, attachments: &[Arc<Attachment>]) -> Snapshot {
        let on = |i: usize| attachments.iter().filter(move |a| usize::from(a.interface.0) == i);
        let chains = (0..interfaces)
            .map(|i| IfChains {
                input: Chain::of(on(i).filter(|a| a.directions.input)),
                output: Chain::of(on(i).filter(|a| a.directions.output)),
            })
            .collect();
        Snapshot { chains }
    }
}
