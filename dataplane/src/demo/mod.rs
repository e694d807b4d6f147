//! `nke demo`: shows the whole of NKE in a few seconds, with nothing to configure.
//!
//! A source sends as fast as the worker takes it, while the control thread attaches and detaches a filter over and
//! over; then an extension is unloaded, and the account is settled: every packet offered was delivered, every frame
//! is back in the pool, nothing is left on the ledger.

mod memory;
mod report;
mod veth;

pub use memory::{MemoryDemo, run as run_memory};
pub use report::{Conditions, Latency, LedgerLine, PoolLine, Reconf, Report};
pub use veth::{VethDemo, run as run_veth};

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nke_filters::{ArgValue, Direction, builtin, vif};

use crate::control_handle::{AttachSpec, Control};
use crate::fault::Fault;
use crate::port::memory::latency_histogram;
use crate::report::{DetachReport, UnloadReport};
use crate::snapshot::Directions;
use crate::tap::Tap;

/// How long a change may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the cycles of attach and detach showed.
pub struct Cycles {
    /// Cycles done.
    pub count: u64,
    /// Time from asking for a detach to after `detached`, in nanoseconds.
    pub detach_ns: Histogram<u64>,
    /// The last detach.
    pub last: Option<DetachReport>,
}

/// Registers the built-in kinds.
pub fn register_builtin(control: &Control) -> Result<(), Fault> {
    for kind in builtin::all() {
        control.register(kind)?.wait(PATIENCE)?;
    }
    for kind in builtin::all_ip() {
        control.register_ip(kind)?.wait(PATIENCE)?;
    }
    for kind in builtin::all_probes() {
        control.register_probe(kind)?.wait(PATIENCE)?;
    }
    for kind in vif::all() {
        control.register_ifnet(kind)?.wait(PATIENCE)?;
    }
    control.register_ifnet(Arc::new(Tap))?.wait(PATIENCE)?;
    Ok(())
}

/// Attaches filter kind `drop`, with a match that no packet fits, to `interface` and detaches it again, until `until`,
/// `most` cycles are done, or `ended` says so.
pub fn cycle(
    control: &Control,
    interface: &str,
    until: Instant,
    most: u64,
    ended: impl Fn() -> bool,
) -> Result<Cycles, Fault> {
    let mut cycles = Cycles { count: 0, detach_ns: latency_histogram(), last: None };
    while cycles.count < most && Instant::now() < until && !ended() {
        let id = control.attach(never_matching(interface, Direction::Input))?.wait(PATIENCE)?;
        let asked = Instant::now();
        cycles.last = Some(control.detach(id)?.wait(PATIENCE)?);
        cycles.detach_ns.saturating_record(asked.elapsed().as_nanos() as u64);
        cycles.count += 1;
    }
    Ok(cycles)
}

fn never_matching(interface: &str, direction: Direction) -> AttachSpec {
    let mut spec = AttachSpec::kind("drop", interface);
    spec.directions = match direction {
        Direction::Input => Directions::INPUT,
        Direction::Output => Directions::OUTPUT,
    };
    // Looked at for every packet, so that the filter works while it is attached.
    spec.args.0.insert("match".into(), ArgValue::Text("tcp dst port 1".into()));
    spec
}

/// Unloads filter kind `name`, which has `instances` instances attached to `interface`.
pub fn unload(
    control: &Control,
    name: &str,
    interface: &str,
    instances: usize,
) -> Result<UnloadReport, Fault> {
    for _ in 0..instances {
        control.attach(AttachSpec::kind(name, interface))?.wait(PATIENCE)?;
    }
    control.unregister(name, PATIENCE)?.wait(PATIENCE * 2)
}
