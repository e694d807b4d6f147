//! What a demo or a reconfiguration bench found, as one object.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::report::UnloadReport;

/// The whole finding.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Under which conditions.
    pub conditions: Conditions,
    /// Million packets per second delivered while filters came and went.
    pub mpps: f64,
    /// Packets the source handed in.
    pub offered: u64,
    /// Packets that came out at the other end.
    pub delivered: u64,
    /// The difference.
    pub lost: u64,
    /// From source to sink.
    pub latency_ns: Latency,
    /// What the changes cost.
    pub reconf: Reconf,
    /// The last unload.
    pub unload: UnloadReport,
    /// The ledger at the end.
    pub ledger: LedgerLine,
    /// The pool at the end.
    pub pool: PoolLine,
}

/// Under which conditions figures were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// `memory`, or `veth` with the modes in use.
    pub ports: String,
    /// Seconds measured.
    pub seconds: f64,
    /// Workers, each on a core of its own.
    pub workers: usize,
    /// Bytes of a frame, without the frame check sequence.
    pub frame_bytes: usize,
    /// Different flows.
    pub flows: usize,
    /// Packets per burst at most.
    pub burst: usize,
}

/// Percentiles of a latency, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half of all are below.
    pub p50: u64,
    /// 99 of 100 are below.
    pub p99: u64,
    /// 999 of 1000 are below.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// How many were measured.
    pub samples: u64,
}

impl Latency {
    /// Reads the percentiles off a histogram.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            samples: histogram.len(),
        }
    }
}

/// What attaching and detaching under load cost.
#[derive(Clone, Debug, Serialize)]
pub struct Reconf {
    /// Cycles of attach and detach.
    pub cycles: u64,
    /// Packets lost by them.
    pub lost: u64,
    /// Effective blocked time: packets lost, divided by the rate offered, in microseconds.
    pub blocked_us: f64,
    /// Half of all detaches were done within this time, in microseconds.
    pub detach_p50_us: f64,
    /// 99 of 100 were.
    pub detach_p99_us: f64,
    /// All were.
    pub detach_max_us: f64,
}

impl Reconf {
    /// From the times of `cycles` detaches, `lost` packets and the rate offered per second.
    pub fn of(cycles: u64, lost: u64, rate: f64, detach_ns: &Histogram<u64>) -> Reconf {
        let us = |q: f64| detach_ns.value_at_quantile(q) as f64 / 1e3;
        Reconf {
            cycles,
            lost,
            blocked_us: if rate > 0.0 { lost as f64 / rate * 1e6 } else { 0.0 },
            detach_p50_us: us(0.5),
            detach_p99_us: us(0.99),
            detach_max_us: detach_ns.max() as f64 / 1e3,
        }
    }
}

/// The ledger at the end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LedgerLine {
    /// Entries ever made.
    pub charged: u64,
    /// Entries left.
    pub outstanding: usize,
}

/// The pool at the end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PoolLine {
    /// Frames there are.
    pub capacity: usize,
    /// Frames that are back.
    pub free_after: usize,
}

impl Report {
    /// Whether nothing was lost and nothing left behind.
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.reconf.lost == 0
            && self.ledger.outstanding == 0
            && self.pool.free_after == self.pool.capacity
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (c, l, r, u) = (&self.conditions, &self.latency_ns, &self.reconf, &self.unload);
        writeln!(
            f,
            "{:.1} s over {} ports: {} worker, {}-byte frames, {} flows, bursts of up to {}",
            c.seconds, c.ports, c.workers, c.frame_bytes, c.flows, c.burst
        )?;
        writeln!(
            f,
            "traffic   {:.2} Mpps   offered {}   delivered {}   lost {}",
            self.mpps, self.offered, self.delivered, self.lost
        )?;
        writeln!(
            f,
            "latency   p50 {} ns   p99 {} ns   p99.9 {} ns   max {} ns   ({} samples)",
            l.p50, l.p99, l.p999, l.max, l.samples
        )?;
        writeln!(
            f,
            "changes   {} attach/detach cycles under this load: {} packets lost, blocked for {:.1} us; detach p50 {:.1} us, p99 {:.1} us",
            r.cycles, r.lost, r.blocked_us, r.detach_p50_us, r.detach_p99_us
        )?;
        writeln!(
            f,
            "unload    {}: filters detached {}, mbufs returned {}, leaked {}, code unmapped {}, packets lost {}",
            u.name,
            u.filters_detached,
            u.mbufs_returned,
            u.leaked,
            if u.code_unmapped { "yes" } else { "no (built in)" },
            u.packets_lost
        )?;
        writeln!(
            f,
            "ledger    {} entries made, {} outstanding",
            self.ledger.charged, self.ledger.outstanding
        )?;
        write!(f, "pool      {} of {} frames free", self.pool.free_after, self.pool.capacity)
    }
}
