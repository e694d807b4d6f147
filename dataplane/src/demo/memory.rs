//! The demo over ports in memory: no privilege, no device.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use nke_mbuf::{BURST_MAX, Pool, PoolConfig, Region};

use super::report::{Conditions, Latency, LedgerLine, PoolLine, Reconf, Report};
use super::{cycle, register_builtin, unload};
use crate::control_handle::AttachSpec;
use crate::fault::Fault;
use crate::port::memory::{FrameSet, Sink, SinkTally, Source, SourceControl};
use crate::runtime::{Builder, Settings};

const FRAMES: usize = 8192;
const FLOWS: usize = 256;
const FRAME_BYTES: usize = 60;

/// What to show.
#[derive(Clone, Debug)]
pub struct MemoryDemo {
    /// How long filters come and go.
    pub duration: Duration,
    /// Cycles of attach and detach at most.
    pub cycles: u64,
    /// Further filters that stay attached meanwhile.
    pub filters: usize,
}

/// Runs the demo.
pub fn run(demo: &MemoryDemo) -> io::Result<Result<Report, Fault>> {
    let config = PoolConfig::default();
    let region = Region::heap(FRAMES * config.frame_size as usize);
    let pool = Pool::new(region, &config).map_err(io::Error::other)?;
    // The last core: the first one usually has the interrupts. The control thread is elsewhere, if there is another.
    let core = core_affinity::get_core_ids().and_then(|ids| ids.last().map(|c| c.id));
    let settings = Settings { cores: vec![core], ..Settings::default() };
    let mut builder = Builder::new(pool, settings);
    let clock = Instant::now();
    let source = Arc::new(SourceControl::default());
    let sink = Arc::new(SinkTally::new(1));
    let (latency_out, latency) = bounded(1);
    let a = builder.plain_interface("source", "memory", 0);
    let b = builder.plain_interface("sink", "memory", 0);
    let from = Source::new(FrameSet::udp(FLOWS, FRAME_BYTES, None), source.clone(), clock, true, 0);
    let from = builder.queue(a, 0, Box::new(from));
    let to = builder.queue(b, 0, Box::new(Sink::new(sink.clone(), 0, Some((clock, latency_out)))));
    builder.wire(from, to);
    let mut runtime = builder.start()?;
    let control = runtime.control();
    let shown = (|| {
        register_builtin(&control)?;
        for _ in 0..demo.filters {
            control.attach(AttachSpec::kind("count", "source"))?.wait(super::PATIENCE)?;
        }
        runtime.go();
        let (begin, offered_before) = (Instant::now(), source.offered.get());
        let cycles = cycle(&control, "source", begin + demo.duration, demo.cycles, || false)?;
        let seconds = begin.elapsed().as_secs_f64();
        let rate = (source.offered.get() - offered_before) as f64 / seconds;
        let unloaded = unload(&control, "count", "source", 3)?;
        source.stop();
        Ok((cycles, seconds, rate, unloaded))
    })();
    let ledger = control.shared().ledger.clone();
    // Workers end only after what they received is through: run to completion leaves nothing in between.
    let account = runtime.stop();
    let (cycles, seconds, rate, unloaded) = match shown {
        Ok(shown) => shown,
        Err(fault) => return Ok(Err(fault)),
    };
    let (offered, delivered) = (source.offered.get(), sink.packets());
    let lost = offered - delivered;
    let latency = latency.recv().map_err(io::Error::other)?;
    Ok(Ok(Report {
        conditions: Conditions {
            ports: "memory".into(),
            seconds,
            workers: 1,
            frame_bytes: FRAME_BYTES,
            flows: FLOWS,
            burst: BURST_MAX,
        },
        mpps: rate / 1e6,
        offered,
        delivered,
        lost,
        latency_ns: Latency::of(&latency),
        // No other reason for a loss exists here: all of it is charged to the changes.
        reconf: Reconf::of(cycles.count, lost, rate, &cycles.detach_ns),
        unload: unloaded,
        ledger: LedgerLine { charged: ledger.charged(), outstanding: account.outstanding },
        pool: PoolLine { capacity: account.capacity, free_after: account.free },
    }))
}
