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

/// What a worker did with packets of IP.
#[derive(Default)]
pub struct InetCounters {
    /// Packets for others, sent on.
    pub forwarded: Counter,
    /// Whole datagrams for this host that somebody took.
    pub delivered: Counter,
    /// Packets made here: answers, errors, what extensions injected.
    pub originated: Counter,
    /// Datagrams put together of fragments.
    pub reassembled: Counter,
    /// Fragments made.
    pub fragments_made: Counter,
    /// ICMP errors sent.
    pub icmp_errors: Counter,
    /// ICMP errors that the rate limit, or the rules of whom not to answer, held back.
    pub icmp_suppressed: Counter,
    /// ARP and neighbour discovery packets received.
    pub neighbor_packets: Counter,
    /// Of these, answered at once.
    pub neighbor_answers: Counter,
    /// Frames that fragments hold at the moment.
    pub fragment_frames: Gauge,
    /// Packets that wait for a neighbour at the moment.
    pub neighbor_waiting: Gauge,
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
    /// Of the IP layer.
    pub inet: InetCounters,
    /// Panics in drivers and protocols of extensions.
    pub extension_panics: Counter,
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
            inet: InetCounters::default(),
            extension_panics: Counter::default(),
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
