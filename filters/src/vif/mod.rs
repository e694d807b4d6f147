//! Virtual interfaces that come with NKE. Each is one file, uses nothing but the contract, and is meant to be copied.
//!
//! ```text
//!            kind: create(args) ─▶ IfParams + driver          the core allocates and attaches the interface
//!                                        │
//!   stack sends ─▶ driver.output(batch) ─┴─▶ Cx::output(parent) or Cx::input(other end)     same round, same worker
//! ```
//!
//! Three things are the same in all of them:
//! * a driver learns its number from the event `attached`, and gives it up at `detaching`; workers read it without a lock;
//! * whatever refers to another interface keeps an [`Ifnet`](crate::Ifnet), so that its number is not given to a third one;
//! * each packet handed on counts as an injection, and so does a packet that the stack sends by a driver: where interfaces
//!   lead into each other in a circle the packet is dropped after [`INJECTIONS_MAX`] of them, by the interface (`loop`) or
//!   by the stack (`looped`), whichever's turn it is.

mod loopback;
mod pair;
mod vlan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

pub use loopback::Loopback;
pub use pair::Pair;
pub use vlan::Vlan;

use crate::batch::Batch;
use crate::host::Refused;
use crate::ifnet::{IfnetEnv, IfnetKind};
use crate::interface::{Cx, IfIndex};
use crate::kind::CreateError;
use crate::per_worker::{Counter, PerWorker};
use crate::requeue::INJECTIONS_MAX;
use crate::verdict::DropReason;

/// All kinds of virtual interfaces, to be registered.
pub fn all() -> Vec<Arc<dyn IfnetKind>> {
    vec![
        // One line for each.
        Arc::new(Loopback),
        Arc::new(Pair::default()),
        Arc::new(Vlan::default()),
    ]
}

/// Number of an interface that comes and goes.
struct IndexCell(AtomicU16);

impl Default for IndexCell {
    fn default() -> Self {
        IndexCell(AtomicU16::new(IfIndex::NONE.0))
    }
}

impl IndexCell {
    #[inline]
    fn get(&self) -> IfIndex {
        IfIndex(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, index: IfIndex) {
        self.0.store(index.0, Ordering::Relaxed);
    }
}

/// Packets handed on, and those that the worker's queue had no place for: these were no longer in a batch to be dropped
/// from, so that they are counted here.
struct Tally(PerWorker<[Counter; 2]>);

impl Tally {
    fn new(workers: usize) -> Tally {
        Tally(PerWorker::new(workers, Default::default))
    }

    #[inline]
    fn settle(&self, cx: &mut Cx<'_>, outcome: Result<(), Refused>) {
        let [passed, queue_full] = self.0.of(cx.worker);
        match outcome {
            Ok(()) => passed.add(1),
            Err(refused) => {
                queue_full.add(1);
                cx.free(refused.into_mbuf());
            }
        }
    }

    fn sum(&self, i: usize) -> u64 {
        self.0.iter().map(|counters| counters[i].get()).sum()
    }
}

/// Drops the packet at `place` if it was handed on too often already.
#[inline]
fn goes_round(batch: &mut Batch<'_>, place: usize, reason: DropReason) -> bool {
    let round = batch.get(place).is_some_and(|mbuf| mbuf.inject_depth() >= INJECTIONS_MAX);
    if round {
        batch.drop(place, reason);
    }
    round
}

fn reason(env: &IfnetEnv, name: &str) -> Result<DropReason, CreateError> {
    let made = env.host.drop_reason(env.owner, name);
    made.map_err(|e| CreateError::new(e.to_string(), "unload extensions that have drop reasons of their own"))
}
