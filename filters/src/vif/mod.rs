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

mod gre;
mod loopback;
mod pair;
mod tunnel;
mod vlan;
mod vxlan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use nke_mbuf::Mbuf;
use nke_mbuf::wire::EtherAddr;

pub use gre::Gre;
pub use loopback::Loopback;
pub use pair::Pair;
pub use vlan::Vlan;
pub use vxlan::Vxlan;

use crate::batch::Batch;
use crate::host::Refused;
use crate::ifnet::{Demux, IfnetEnv, IfnetKind};
use crate::interface::{Cx, IfIndex};
use crate::kind::{Args, CreateError};
use crate::per_worker::{Counter, PerWorker};
use crate::protocol::ProtocolFamily;
use crate::requeue::INJECTIONS_MAX;
use crate::verdict::DropReason;

/// All kinds of virtual interfaces, to be registered.
pub fn all() -> Vec<Arc<dyn IfnetKind>> {
    vec![
        // One line for each.
        Arc::new(Gre::default()),
        Arc::new(Loopback),
        Arc::new(Pair::default()),
        Arc::new(Vlan::default()),
        Arc::new(Vxlan::default()),
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

/// For links without a header: the version of IP in its first byte tells the protocol of a packet.
pub fn by_version(packet: &Mbuf) -> Demux {
    match packet.data().first().map(|byte| byte >> 4) {
        Some(4) => Demux::Protocol(ProtocolFamily::INET, 0),
        Some(6) => Demux::Protocol(ProtocolFamily::INET6, 0),
        _ => Demux::Unknown,
    }
}

/// The argument `mac`; without it 02, and five bytes of the name's FNV-1a hash: names are the operator's, so that the hash needs
/// no key, and the address is the same in every run.
pub fn mac_arg(args: &Args, name: &str) -> Result<EtherAddr, CreateError> {
    let Some(text) = args.text("mac")? else {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        return Ok(EtherAddr([2, a, b, c, d, e]));
    };
    text.parse().ok().filter(|mac: &EtherAddr| mac.is_unicast()).ok_or_else(|| {
        CreateError::new("`mac` is not the address of one station", "write mac = \"02:00:00:00:00:01\"")
    })
}

fn reason(env: &IfnetEnv, name: &str) -> Result<DropReason, CreateError> {
    let made = env.host.drop_reason(env.owner, name);
    made.map_err(|e| CreateError::new(e.to_string(), "unload extensions that have drop reasons of their own"))
}
