//! What a worker tells about itself: written by it alone, read by anybody without stopping it.

use std::sync::atomic::{AtomicU64, Ordering};

use nke_filters::{Counter, REASONS_MAX};

/// A figure with one writer that is set rather than counted.
#[derive(Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    /// Sets it and returns what it was, in one step.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::AcqRel)
    }
    /// Reads it.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a worker is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum State {
    /// Not started yet, or over.
    Stopped = 0,
    /// Polling.
    Running = 1,
    /// Asleep in poll(2), adaptive mode.
    Sleeping = 2,
}

impl State {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            State::Stopped => "stopped",
            State::Running => "running",
            State::Sleeping => "sleeping",
        }
    }
}

/// Counters of one interface on one worker.
#[derive(Default)]
pub struct IfCounters {
    /// Packets received.
    pub rx_packets: Counter,
    /// Bytes received.
    pub rx_bytes: Counter,
    /// Packets handed to the device.
    pub tx_packets: Counter,
    /// Bytes handed to the device.
    pub tx_bytes: Counter,
    /// Packets that extensions put in.
    pub injected: Counter,
}

/// One worker.
pub struct WorkerStatus {
    /// Rounds of the loop.
    pub loops: Counter,
    /// Of these, rounds that moved a packet.
    pub busy_loops: Counter,
    /// A [`State`].
    pub state: Gauge,
    /// Attachment number of the filter it is in, 0 for none.
    pub in_filter: Gauge,
    /// Set when a filter panicked; cleared by the control thread.
    pub panicked: Gauge,
    /// Times it went to sleep.
    pub sleeps: Counter,
    /// Packets dropped, by reason.
    pub drops: [Counter; REASONS_MAX],
    /// By interface index.
    pub interfaces: Box<[IfCounters]>,
}

impl WorkerStatus {
    /// All zero, for `interfaces` interfaces.
    pub fn new(interfaces: usize) -> WorkerStatus {
        WorkerStatus {
            loops: Counter::default(),
            busy_loops: Counter::default(),
            state: Gauge::default(),
            in_filter: Gauge::default(),
            panicked: Gauge::default(),
            sleeps: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            interfaces: (0..interfaces).map(|_| IfCounters::default()).collect(),
        }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        match self.state.get() {
            1 => State::Running,
            2 => State::Sleeping,
            _ => State::Stopped,
        }
    }
}
