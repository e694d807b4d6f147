//! The poll loop. One thread per configured core takes packets from its queues, through the filters, to the wire.
//!
//! A packet's way through this file, downwards: `Worker::round` receives a burst, `Path::input` runs the input
//! filters, `Path::output` the output filters of the other side of the wire and hands the burst to its queue.
//! Only the worker transmits. Nothing here locks, allocates or logs; the kernel is called in `Queue::flush` (the
//! kick) and, in adaptive mode, to sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nke_filters::{Direction, DropReason, Removed};
use nke_mbuf::{BURST_MAX, Burst, Cache};

use crate::drop::{IF_DOWN, NO_PROTOCOL, TX_FULL};
use crate::mailbox::Mailbox;
use crate::pfil::Hook;
use crate::port::{Link, Queue};
use crate::quiesce::Reader;
use crate::shared::{Shared, never_wait_here};
use crate::snapshot::Snapshot;
use crate::status::State;

/// A queue, and where what it receives goes.
pub struct Lane {
    /// Index of the interface the queue belongs to.
    pub interface: usize,
    /// The queue.
    pub queue: Box<dyn Queue>,
    /// The lane of the same worker at the other end of the wire.
    pub peer: Option<usize>,
    /// Whether this lane drains the interface's injection queues.
    pub injects: bool,
}

/// How a worker spends its time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Packets per burst, 1 to 64.
    pub burst: usize,
    /// Sleep when nothing arrives.
    pub adaptive: bool,
}

/// Empty rounds before an adaptive worker sleeps: some tens of microseconds, longer than a gap between bursts.
const IDLE_ROUNDS: u32 = 2000;
/// Longest sleep. Queues that cannot be waited on are looked at this often.
const SLEEP_MAX: Duration = Duration::from_millis(2);
/// Injected packets taken per round and direction, so that injection cannot starve the queues.
const INJECTED_PER_ROUND: usize = BURST_MAX;

/// One worker.
pub struct Worker {
    number: usize,
    shared: Arc<Shared>,
    snapshots: Reader<Snapshot>,
    mailbox: Arc<Mailbox>,
    lanes: Vec<Lane>,
    pace: Pace,
    cache: Cache,
    burst: Burst,
    removed: Removed,
}

impl Worker {
    /// Worker `number` with its lanes.
    pub fn new(
        number: usize,
        shared: Arc<Shared>,
        snapshots: Reader<Snapshot>,
        mailbox: Arc<Mailbox>,
        lanes: Vec<Lane>,
        pace: Pace,
    ) -> Worker {
        let cache = Cache::new(&shared.pool);
        let (burst, removed) = (Burst::new(), Removed::default());
        Worker { number, shared, snapshots, mailbox, lanes, pace, cache, burst, removed }
    }

    /// Runs until the dataplane stops, then closes the queues.
    pub fn run(mut self) {
        never_wait_here();
        let shared = self.shared.clone();
        let status = &shared.workers[self.number];
        status.state.set(State::Running as u64);
        let mut idle = 0;
        while !shared.stop.load(Ordering::Acquire) {
            let moved = self.round();
            status.loops.add(1);
            if moved {
                status.busy_loops.add(1);
                idle = 0;
            } else {
                idle += 1;
                if self.pace.adaptive && idle >= IDLE_ROUNDS {
                    self.sleep();
                    idle = 0;
                } else {
                    std::hint::spin_loop();
                }
            }
            if self.mailbox.has_mail() {
                self.mailbox.exchange(&mut self.lanes);
            }
        }
        self.finish();
        status.state.set(State::Stopped as u64);
    }

    /// One round: every queue once, then what was injected, then the kicks. Tells whether a packet moved.
    #[inline]
    fn round(&mut self) -> bool {
        let snapshot = self.snapshots.pin();
        let mut path = Path {
            snapshot,
            hook: Hook {
                worker: self.number,
                cache: &mut self.cache,
                removed: &mut self.removed,
                status: &self.shared.workers[self.number],
            },
            lanes: &mut self.lanes,
            burst: &mut self.burst,
        };
        let mut moved = false;
        for lane in 0..path.lanes.len() {
            moved |= path.receive(lane, self.pace.burst);
            if path.lanes[lane].injects {
                moved |= path.injected(lane, &self.shared);
            }
        }
        for lane in path.lanes.iter_mut() {
            lane.queue.flush(path.hook.cache);
        }
        moved
    }

    #[cold]
    fn sleep(&mut self) {
        let status = &self.shared.workers[self.number];
        self.snapshots.offline();
        status.state.set(State::Sleeping as u64);
        status.sleeps.add(1);
        // From here on injectors see that we sleep and wake us; what was injected before is seen after the timeout
        // at the latest.
        let fds = self.lanes.iter().filter_map(|lane| lane.queue.wait_fd());
        self.shared.wakes[self.number].sleep(fds, SLEEP_MAX);
        status.state.set(State::Running as u64);
    }

    /// Sends what is under way, closes the queues and gives all frames back.
    fn finish(mut self) {
        self.snapshots.offline();
        for lane in self.lanes.drain(..) {
            lane.queue.close(&mut self.cache);
        }
        for ifnet in self.shared.interfaces.iter().filter(|i| i.worker == self.number) {
            for direction in [Direction::Input, Direction::Output] {
                while let Some(mbuf) = ifnet.injected(direction).pop() {
                    self.shared.workers[self.number].drops[IF_DOWN.index()].add(1);
                    self.cache.free(mbuf);
                }
            }
        }
        self.cache.flush();
    }
}

/// The way of a burst through one round: the worker's parts, borrowed, under one snapshot.
struct Path<'a> {
    snapshot: &'a Snapshot,
    hook: Hook<'a>,
    lanes: &'a mut Vec<Lane>,
    burst: &'a mut Burst,
}

impl Path<'_> {
    /// Receives from one queue, not more than the other side of the wire has room for.
    #[inline]
    fn receive(&mut self, lane: usize, burst_max: usize) -> bool {
        let max = match self.lanes[lane].peer {
            None => burst_max,
            Some(peer) => burst_max.min(self.lanes[peer].queue.tx_room(self.hook.cache)),
        };
        if max == 0 {
            return false;
        }
        let moved = self.lanes[lane].queue.rx(self.burst, max, self.hook.cache, &self.hook.status.drops);
        if moved.packets == 0 {
            return false;
        }
        let counters = &self.hook.status.interfaces[self.lanes[lane].interface];
        counters.rx_packets.add(moved.packets);
        counters.rx_bytes.add(moved.bytes);
        self.input(lane);
        true
    }

    /// Interface input: filters, then the wire.
    #[inline]
    fn input(&mut self, lane: usize) {
        let interface = self.lanes[lane].interface;
        self.hook.run(&self.snapshot.chains[interface].input, Direction::Input, self.burst);
        if self.burst.is_empty() {
            return;
        }
        match self.lanes[lane].peer {
            Some(peer) => self.output(peer),
            None => self.drop_burst(NO_PROTOCOL),
        }
    }

    /// Interface output: filters, then the queue. What the queue does not take is dropped and counted.
    #[inline]
    fn output(&mut self, lane: usize) {
        let interface = self.lanes[lane].interface;
        self.hook.run(&self.snapshot.chains[interface].output, Direction::Output, self.burst);
        let queue = &mut self.lanes[lane].queue;
        let moved = queue.tx(self.burst, self.hook.cache, &self.hook.status.drops);
        let counters = &self.hook.status.interfaces[interface];
        counters.tx_packets.add(moved.packets);
        counters.tx_bytes.add(moved.bytes);
        if !self.burst.is_empty() {
            let reason = if queue.link() == Link::Gone { IF_DOWN } else { TX_FULL };
            self.drop_burst(reason);
        }
    }

    /// Packets that extensions put in, a burst of each direction at most.
    fn injected(&mut self, lane: usize, shared: &Shared) -> bool {
        let ifnet = &shared.interfaces[self.lanes[lane].interface];
        let mut any = false;
        for direction in [Direction::Input, Direction::Output] {
            let queue = ifnet.injected(direction);
            if queue.is_empty() {
                continue;
            }
            for _ in 0..INJECTED_PER_ROUND {
                let Some(mut mbuf) = queue.pop() else { break };
                if direction == Direction::Input {
                    mbuf.set_rcvif(ifnet.index.0);
                }
                let full = self.burst.push(mbuf);
                debug_assert!(full.is_ok(), "the burst is empty between steps");
            }
            self.hook.status.interfaces[self.lanes[lane].interface].injected.add(self.burst.len() as u64);
            any = true;
            match direction {
                Direction::Input => self.input(lane),
                Direction::Output => self.output(lane),
            }
        }
        any
    }

    #[cold]
    fn drop_burst(&mut self, reason: DropReason) {
        self.hook.status.drops[reason.index()].add(self.burst.len() as u64);
        self.hook.cache.free_burst(self.burst);
    }
}
