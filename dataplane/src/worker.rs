//! The poll loop. One thread per configured core takes packets from its queues, through the filters, to the wire.
//!
//! A packet's way through this file, downwards: `Worker::round` receives a burst, `Path::input` runs the input
//! filters, `Path::output_lane` the output filters of the other side of the wire and hands the burst to its queue. What
//! is on no wire goes by [`Path::demux`](crate::inet) into the protocols of its interface. Only the worker transmits. Nothing here locks, allocates or logs; the kernel is called in `Queue::flush` (the
//! kick) and, in adaptive mode, to sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nke_filters::{Direction, DropReason, IfIndex, IfnetDriver, Removed, Requeue, Stage};
use nke_mbuf::{BURST_MAX, Burst, Cache, Owner};

use crate::drop::{DRIVER_FULL, HANDOVER_FULL, IF_DOWN, TX_FULL};
use crate::inet::{InetWorker, Path};
use crate::mailbox::Mailbox;
use crate::pfil::Hook;
use crate::port::{Link, Moved, Queue};
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
/// Rounds between looks at the clock.
const ROUNDS_PER_LOOK: u32 = 8;

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
    requeue: Requeue,
    inet: InetWorker,
    now_ms: u64,
    clock_in: u32,
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
        let (burst, removed, requeue) = (Burst::new(), Removed::default(), Requeue::default());
        let inet = InetWorker::new(shared.tables.clone(), &lanes, nke_filters::random_key());
        Worker {
            number,
            shared,
            snapshots,
            mailbox,
            lanes,
            pace,
            cache,
            burst,
            removed,
            requeue,
            inet,
            now_ms: 0,
            clock_in: 0,
        }
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

    /// One round: every queue once, then what was handed on and injected, then the kicks. Tells whether a packet moved.
    #[inline]
    fn round(&mut self) -> bool {
        self.look_at_clock();
        let snapshot = self.snapshots.pin();
        let mut path = Path {
            snapshot,
            hook: Hook {
                worker: self.number,
                cache: &mut self.cache,
                removed: &mut self.removed,
                requeue: &mut self.requeue,
                status: &self.shared.workers[self.number],
                probes: &snapshot.probes,
                now_ms: self.now_ms,
            },
            lanes: &mut self.lanes,
            burst: &mut self.burst,
            inet: &mut self.inet,
            shared: &self.shared,
        };
        let mut moved = false;
        for lane in 0..path.lanes.len() {
            moved |= path.receive(lane, self.pace.burst);
            if !path.hook.requeue.is_empty() {
                path.requeued();
            }
        }
        moved |= path.injected();
        if path.inet.is_due(path.hook.now_ms) {
            path.housekeeping();
            path.transmit_all();
        }
        for lane in path.lanes.iter_mut() {
            lane.queue.flush(path.hook.cache);
        }
        moved
    }

    /// A millisecond is soon enough for whoever asks, and a look costs as much as a few packets.
    #[inline(always)]
    fn look_at_clock(&mut self) {
        match self.clock_in.checked_sub(1) {
            Some(left) => self.clock_in = left,
            None => {
                self.clock_in = ROUNDS_PER_LOOK;
                self.now_ms = self.shared.started.elapsed().as_millis() as u64;
            }
        }
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
        self.clock_in = 0;
    }

    /// Sends what is under way, closes the queues and gives all frames back.
    fn finish(mut self) {
        self.snapshots.offline();
        for lane in self.lanes.drain(..) {
            lane.queue.close(&mut self.cache);
        }
        self.inet.close(&mut self.cache);
        while let Some(target) = self.requeue.target() {
            while let Some(mbuf) = self.requeue.pop(target) {
                self.cache.free(mbuf);
            }
        }
        for ifnet in self.shared.interfaces.iter().filter(|i| i.worker() == self.number) {
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

/// How an interface's packets enter and leave.
impl Path<'_> {
    /// Receives from one queue, not more than the other side of the wire has room for.
    #[inline]
    fn receive(&mut self, lane: usize, burst_max: usize) -> bool {
        let peer = self.lanes[lane].peer;
        let max = match peer {
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
        let interface = self.lanes[lane].interface;
        let counters = &self.hook.status.interfaces[interface];
        counters.rx_packets.add(moved.packets);
        counters.rx_bytes.add(moved.bytes);
        self.input(interface, peer);
        true
    }

    /// Interface input: filters, then the wire, or the protocols.
    #[inline]
    pub(crate) fn input(&mut self, interface: usize, peer: Option<usize>) {
        if self.hook.probes.trace() {
            self.hook.tell_received(self.burst, IfIndex(interface as u16));
        }
        self.hook.run(&self.snapshot.chains[interface].input, Direction::Input, self.burst);
        if self.burst.is_empty() {
            return;
        }
        match peer {
            Some(peer) => self.output_lane(peer),
            None => self.demux(interface),
        }
    }

    #[inline(always)]
    fn output_filters(&mut self, interface: usize) {
        let index = IfIndex(interface as u16);
        self.hook.trace(self.burst, u64::MAX, &Stage::Output(index));
        self.hook.run(&self.snapshot.chains[interface].output, Direction::Output, self.burst);
        self.hook.trace(self.burst, u64::MAX, &Stage::Transmit(index));
    }

    /// Interface output by a queue: filters, then the queue. What it does not take is dropped and counted.
    #[inline]
    pub(crate) fn output_lane(&mut self, lane: usize) {
        let interface = self.lanes[lane].interface;
        self.output_filters(interface);
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

    /// Interface output by whatever the interface has: a queue here, a driver, or a queue of another worker.
    pub(crate) fn output(&mut self, interface: usize) {
        if let Some(lane) = self.inet.lane_of(interface) {
            return self.output_lane(lane);
        }
        let link = &self.snapshot.links[interface];
        if let Some(driver) = link.more.driver.as_ref().filter(|_| link.up) {
            return self.output_driver(interface, &**driver, link.more.owner.unwrap_or(Owner::DATAPLANE));
        }
        let ifnet = self.shared.interfaces.get(IfIndex(interface as u16));
        if let Some(ifnet) = ifnet.filter(|i| i.worker() != self.hook.worker && i.state().is_attached()) {
            while let Some(mbuf) = self.burst.pop() {
                if let Err(mbuf) = ifnet.injected(Direction::Output).push(mbuf) {
                    self.drop(mbuf, HANDOVER_FULL);
                }
            }
            return self.shared.nudge(ifnet.worker());
        }
        self.drop_burst(IF_DOWN);
    }

    #[cold]
    fn output_driver(&mut self, interface: usize, driver: &dyn IfnetDriver, owner: Owner) {
        self.output_filters(interface);
        if self.burst.is_empty() {
            return;
        }
        let before = Moved::of(self.burst);
        let selected = u64::MAX >> (64 - self.burst.len());
        let index = IfIndex(interface as u16);
        self.hook.extension(index, owner, self.burst, selected, |cx, batch| driver.output(cx, batch));
        self.burst.compact();
        let left = Moved::of(self.burst);
        let counters = &self.hook.status.interfaces[interface];
        counters.tx_packets.add(before.packets - left.packets);
        counters.tx_bytes.add(before.bytes - left.bytes);
        if left.packets > 0 {
            self.drop_burst(DRIVER_FULL);
        }
    }

    /// Packets that extensions put in from other threads, a burst of each direction at most; fragments from other workers.
    fn injected(&mut self) -> bool {
        let mut any = false;
        let snapshot = self.snapshot;
        for &interface in &snapshot.drains[self.hook.worker] {
            let Some(ifnet) = self.shared.interfaces.get(IfIndex(interface)) else { continue };
            for direction in [Direction::Input, Direction::Output] {
                let queue = ifnet.injected(direction);
                if queue.is_empty() {
                    continue;
                }
                for _ in 0..INJECTED_PER_ROUND {
                    let Some(mut mbuf) = queue.pop() else { break };
                    if direction == Direction::Input {
                        mbuf.set_rcvif(interface);
                    }
                    let full = self.burst.push(mbuf);
                    debug_assert!(full.is_ok(), "the burst is empty between steps");
                }
                any = true;
                self.enter(IfIndex(interface), direction);
            }
        }
        any |= self.ip_injected();
        any |= self.handed_over(INJECTED_PER_ROUND);
        if !self.hook.requeue.is_empty() {
            self.requeued();
        }
        any
    }

    #[cold]
    pub(crate) fn drop_burst(&mut self, reason: DropReason) {
        self.hook.status.drops[reason.index()].add(self.burst.len() as u64);
        if !self.hook.probes.is_empty() {
            self.burst.iter().for_each(|mbuf| self.hook.tell_dropped(mbuf, reason));
        }
        self.hook.cache.free_burst(self.burst);
    }
}
