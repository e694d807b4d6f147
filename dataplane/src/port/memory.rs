//! `memory`: a source that makes packets and a sink that takes them, inside the worker. No privilege, no device.
//!
//! The source allocates an mbuf and copies the next of a fixed set of frames into it, as DPDK's pcap vdev does; the
//! sink frees what it is sent. Both are honest work: every packet passes pool, header and data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nke_filters::{Counter, PerWorker};
use nke_mbuf::wire::EtherAddr;
use nke_mbuf::{Burst, Cache};

use super::frames::udp_frame;
use super::{Drops, Link, Moved, Queue};

/// The frames a source sends, one after the other, over and over.
pub struct FrameSet {
    /// Frames in slots of `stride` bytes.
    bytes: Box<[u8]>,
    stride: usize,
    len: usize,
}

/// Slots are a multiple of this, so that short frames are copied by a fixed number of wide moves.
const SLOT_BYTES: usize = 64;

impl FrameSet {
    /// UDP frames of `len` bytes without the frame check sequence, of `flows` different flows, to the station `to` or one
    /// that does not matter. `len` is raised to the 42 bytes of the headers if need be.
    pub fn udp(flows: usize, len: usize, to: Option<EtherAddr>) -> FrameSet {
        FrameSet::made(flows, len.max(42), |frame, flow| {
            udp_frame(frame, flow);
            if let Some(to) = to {
                frame[..6].copy_from_slice(&to.0);
            }
        })
    }

    /// `count` frames of `len` bytes, each filled by `make` with its number.
    pub fn made(count: usize, len: usize, make: impl Fn(&mut [u8], u32)) -> FrameSet {
        let count = count.max(1);
        let stride = len.next_multiple_of(SLOT_BYTES);
        let mut bytes = vec![0; count * stride].into_boxed_slice();
        for (flow, slot) in bytes.chunks_exact_mut(stride).enumerate() {
            make(&mut slot[..len], flow as u32);
        }
        FrameSet { bytes, stride, len }
    }
}

/// What a source is told and tells; shared with whoever runs it.
#[derive(Default)]
pub struct SourceControl {
    /// Packets made so far.
    pub offered: Counter,
    stop: AtomicBool,
}

impl SourceControl {
    /// Makes the source end. What it made is on its way already.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A source of packets.
pub struct Source {
    frames: FrameSet,
    /// Where in their bytes the next one begins.
    next: usize,
    control: Arc<SourceControl>,
    /// Stamps packets with nanoseconds since this moment.
    clock: Instant,
    stamp: bool,
    pace: Option<Pace>,
}

/// Holds a source to a rate.
struct Pace {
    per_packet: Duration,
    due: Instant,
}

/// How far behind its schedule a paced source may catch up; beyond that it forgets what it missed.
const CATCH_UP: Duration = Duration::from_millis(1);

impl Source {
    /// A source of `frames`; stamps packets relative to `clock` if `stamp`. `rate_pps` 0 is as fast as possible.
    pub fn new(
        frames: FrameSet,
        control: Arc<SourceControl>,
        clock: Instant,
        stamp: bool,
        rate_pps: u64,
    ) -> Source {
        let pace = (rate_pps > 0).then(|| Pace {
            per_packet: Duration::from_nanos(1_000_000_000 / rate_pps),
            due: Instant::now(),
        });
        Source { frames, next: 0, control, clock, stamp, pace }
    }

    /// How many packets are due, at most `max`.
    fn due(&mut self, max: usize) -> usize {
        let Some(pace) = &mut self.pace else { return max };
        let now = Instant::now();
        if now > pace.due + CATCH_UP {
            pace.due = now;
        }
        let mut n = 0;
        while n < max && pace.due <= now {
            pace.due += pace.per_packet;
            n += 1;
        }
        n
    }
}

impl Queue for Source {
    #[inline]
    fn rx(&mut self, burst: &mut Burst, max: usize, cache: &mut Cache, _: &Drops) -> Moved {
        if self.control.stop.load(Ordering::Relaxed) {
            return Moved::default();
        }
        let max = self.due(max);
        let now = if self.stamp { self.clock.elapsed().as_nanos() as u64 } else { 0 };
        let FrameSet { bytes, stride, len } = &self.frames;
        let (bytes, stride, len) = (&**bytes, *stride, *len);
        let mut next = self.next;
        let made = cache.alloc_burst(burst, max, now, |room| {
            let slot = &bytes[next..next + stride];
            next = if next + stride == bytes.len() { 0 } else { next + stride };
            // A packet is cut to the room in a frame.
            if let (Some(to), Some(from)) = (room.first_chunk_mut(), slot.first_chunk::<SLOT_BYTES>()) {
                *to = *from;
            }
            if stride > SLOT_BYTES {
                let end = stride.min(room.len());
                room[SLOT_BYTES..end].copy_from_slice(&slot[SLOT_BYTES..end]);
            }
            len
        });
        self.next = next;
        let moved = Moved { packets: made as u64, bytes: (made * len) as u64 };
        self.control.offered.add(moved.packets);
        moved
    }

    fn tx_room(&mut self, _: &mut Cache) -> usize {
        nke_mbuf::BURST_MAX
    }

    fn tx(&mut self, burst: &mut Burst, cache: &mut Cache, _: &Drops) -> Moved {
        swallow(burst, cache)
    }

    fn flush(&mut self, _: &mut Cache) {}

    fn link(&self) -> Link {
        if self.control.stop.load(Ordering::Relaxed) { Link::Drained } else { Link::Up }
    }

    fn close(self: Box<Self>, _: &mut Cache) {}
}

fn swallow(burst: &mut Burst, cache: &mut Cache) -> Moved {
    let moved = Moved::of(burst);
    cache.free_burst(burst);
    moved
}

/// What sinks counted, one copy per sink queue.
pub struct SinkTally(PerWorker<SinkCounters>);

#[derive(Default)]
struct SinkCounters {
    packets: Counter,
    bytes: Counter,
}

impl SinkTally {
    /// For `queues` sink queues.
    pub fn new(queues: usize) -> SinkTally {
        SinkTally(PerWorker::new(queues, SinkCounters::default))
    }

    /// Packets that arrived.
    pub fn packets(&self) -> u64 {
        self.0.iter().map(|c| c.packets.get()).sum()
    }

    /// Bytes that arrived.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|c| c.bytes.get()).sum()
    }
}

/// Where the latency a sink saw goes when it is closed.
pub type LatencyOut = crossbeam::channel::Sender<Histogram<u64>>;

/// A sink of packets.
pub struct Sink {
    tally: Arc<SinkTally>,
    queue: usize,
    latency: Option<Latency>,
}

struct Latency {
    clock: Instant,
    histogram: Histogram<u64>,
    out: LatencyOut,
}

/// Highest latency recorded, in nanoseconds; longer ones count as this.
const LATENCY_MAX_NS: u64 = 10_000_000_000;

/// A histogram of nanoseconds with three significant digits.
pub fn latency_histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3) {
        Ok(histogram) => histogram,
        Err(e) => unreachable!("the bounds are constant and valid: {e}"),
    }
}

impl Sink {
    /// Queue `queue` of a sink. With `latency` it records, once per burst, how long ago the first packet was stamped,
    /// by the clock the source stamps with, and sends the histogram when it is closed.
    pub fn new(tally: Arc<SinkTally>, queue: usize, latency: Option<(Instant, LatencyOut)>) -> Sink {
        let latency = latency.map(|(clock, out)| Latency { clock, histogram: latency_histogram(), out });
        Sink { tally, queue, latency }
    }
}

impl Queue for Sink {
    fn rx(&mut self, _: &mut Burst, _: usize, _: &mut Cache, _: &Drops) -> Moved {
        Moved::default()
    }

    fn tx_room(&mut self, _: &mut Cache) -> usize {
        nke_mbuf::BURST_MAX
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst, cache: &mut Cache, _: &Drops) -> Moved {
        if let Some(latency) = &mut self.latency
            && let Some(stamp) = burst.iter().next().map(|m| m.timestamp()).filter(|&t| t > 0)
        {
            let now = latency.clock.elapsed().as_nanos() as u64;
            latency.histogram.saturating_record(now.saturating_sub(stamp).max(1));
        }
        let moved = swallow(burst, cache);
        let counters = self.tally.0.of(self.queue);
        counters.packets.add(moved.packets);
        counters.bytes.add(moved.bytes);
        moved
    }

    fn flush(&mut self, _: &mut Cache) {}

    fn link(&self) -> Link {
        Link::Drained
    }

    fn close(self: Box<Self>, _: &mut Cache) {
        if let Some(latency) = self.latency {
            // Nobody waiting for it is fine.
            let _ = latency.out.send(latency.histogram);
        }
    }
}
