//! Interfaces as the dataplane keeps them: a name, a number, and the queues by which extensions inject.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use nke_filters::{Direction, IfIndex};
use nke_mbuf::Mbuf;

/// Packets an injection queue holds at most.
pub const INJECT_QUEUE: usize = 1024;

/// State of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum IfState {
    /// Carries packets.
    Up = 0,
    /// Exists, and is down.
    Down = 1,
    /// The device vanished.
    Gone = 2,
}

impl IfState {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            IfState::Up => "up",
            IfState::Down => "down",
            IfState::Gone => "gone",
        }
    }
}

/// Figures of the port beyond the common counters, read by the control thread: name and value.
pub type Telemetry = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// An interface.
pub struct Ifnet {
    /// Its name in NKE.
    pub name: String,
    /// Its number.
    pub index: IfIndex,
    /// Kind of port behind it: `af_xdp`, `memory`, `pcap`, `ring`.
    pub kind: &'static str,
    /// What the port tells about itself once and for all: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// The worker that drains the injection queues.
    pub worker: usize,
    telemetry: Telemetry,
    state: AtomicU64,
    input: ArrayQueue<Mbuf>,
    output: ArrayQueue<Mbuf>,
}

impl Ifnet {
    /// An interface that is up.
    pub fn new(
        name: &str,
        index: IfIndex,
        kind: &'static str,
        facts: Vec<(&'static str, String)>,
        telemetry: Telemetry,
        worker: usize,
    ) -> Ifnet {
        Ifnet {
            name: name.to_owned(),
            index,
            kind,
            facts,
            worker,
            telemetry,
            state: AtomicU64::new(IfState::Up as u64),
            input: ArrayQueue::new(INJECT_QUEUE),
            output: ArrayQueue::new(INJECT_QUEUE),
        }
    }

    /// The queue of packets injected in `direction`.
    #[inline(always)]
    pub fn injected(&self, direction: Direction) -> &ArrayQueue<Mbuf> {
        match direction {
            Direction::Input => &self.input,
            Direction::Output => &self.output,
        }
    }

    /// Figures of the port behind it, as they are now.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        (self.telemetry)()
    }

    /// Its state.
    pub fn state(&self) -> IfState {
        match self.state.load(Ordering::Relaxed) {
            0 => IfState::Up,
            1 => IfState::Down,
            _ => IfState::Gone,
        }
    }

    /// Sets the state; returns what it was.
    pub fn set_state(&self, state: IfState) -> IfState {
        let old = self.state();
        self.state.store(state as u64, Ordering::Relaxed);
        old
    }
}
