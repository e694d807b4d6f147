//! The demo over real AF_XDP: three network namespaces in a row, joined by veth pairs, NKE in the middle.
//!
//! ```text
//!   namespace gen          namespace nke             namespace sink
//!   generator ── g0 ═════ n0 ── wire ── n1 ═════ s0 ── counts, takes latency
//! ```
//!
//! The generator and the sink are XDP programs: the sink's latency includes everything from the generator's clock to the
//! sink's, both in the kernel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use af_xdp::Pages;
use af_xdp::program::{AttachMode, LiveSource, Rate, Sink};
use nke_mbuf::BURST_MAX;

use super::report::{Conditions, Latency, LedgerLine, PoolLine, Reconf, Report};
use super::{cycle, register_builtin, unload};
use crate::arena::Arena;
use crate::error::Error;
use crate::lab::{Lab, Veth};
use crate::netdev;
use crate::port::frames::udp_frame;
use crate::port::memory::latency_histogram;
use crate::port::xdp_open::{Opening, XdpOptions, open};
use crate::runtime::{Builder, LaneId, Runtime, Settings};
use crate::signals::Signals;

const FRAMES: u32 = 32768;
/// Entries of the rings: what the generator sends while a busy machine does something else.
const RING: u32 = 8192;
const FRAME_BYTES: usize = 60;
const FLOWS: usize = 256;
/// Packets per second: well below what veth in copy mode carries, so that a loss would be ours.
const RATE: u32 = 100_000;
/// Frames the generator sends at a time: it pays for kernel set-up each time, so not too few.
const CHUNK: u32 = RATE / 2;

/// What to show.
#[derive(Clone, Debug)]
pub struct VethDemo {
    /// How long filters come and go.
    pub duration: Duration,
    /// Cycles of attach and detach at most.
    pub cycles: u64,
}

fn lab_error(e: impl ToString) -> Error {
    Error::new("NKE-LAB-001", e.to_string())
}

/// Runs the demo. SIGINT and SIGTERM end it early, with everything removed.
pub fn run(demo: &VethDemo) -> Result<Report, Error> {
    let signals = Signals::block().map_err(lab_error)?;
    let mut lab = Lab::new().map_err(lab_error)?;
    let generator_ns = lab.netns("gen").map_err(lab_error)?;
    let nke_ns = lab.netns("nke").map_err(lab_error)?;
    let sink_ns = lab.netns("sink").map_err(lab_error)?;
    lab.veth((&generator_ns, "g0"), (&nke_ns, "n0"), Veth::default()).map_err(lab_error)?;
    lab.veth((&nke_ns, "n1"), (&sink_ns, "s0"), Veth::default()).map_err(lab_error)?;

    let arena = Arena::new(FRAMES, 2048, Pages::Auto)?;
    let (mut runtime, openings, modes) = build(&arena, &nke_ns)?;
    let sink = Sink::load_with_latency()?;
    let link =
        netdev::in_netns(Some(&sink_ns), || sink.attach("s0", AttachMode::Native)).map_err(lab_error)??;
    let control = runtime.control();
    register_builtin(&control)?;
    runtime.go();

    let (stop, offered) = (AtomicBool::new(false), AtomicU64::new(0));
    let shown = std::thread::scope(|scope| {
        let generator = scope.spawn(|| generate(&generator_ns, &stop, &offered));
        let begin = Instant::now();
        let ended = || signals.pending() || generator.is_finished();
        let shown = (|| {
            let cycles = cycle(&control, "n0", begin + demo.duration, demo.cycles, ended)?;
            let seconds = begin.elapsed().as_secs_f64();
            Ok::<_, Error>((cycles, seconds, unload(&control, "count", "n0", 3)?))
        })();
        stop.store(true, Ordering::Release);
        let generated = generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let traffic_seconds = begin.elapsed().as_secs_f64();
        generated.and(shown).map(|(cycles, seconds, unloaded)| (cycles, seconds, traffic_seconds, unloaded))
    });
    let offered = offered.load(Ordering::Acquire);
    let delivered = settle(&sink, offered)?;
    let mut latency = latency_histogram();
    for (ns, count) in sink.latencies()? {
        // The histogram's bounds cover every class of the sink.
        let _ = latency.record_n(ns, count);
    }
    drop(link);
    openings.iter().for_each(Opening::clear);
    let charged = control.shared().ledger.charged();
    let account = runtime.stop();
    drop(lab);
    let (cycles, seconds, traffic_seconds, unloaded) = shown?;
    let (lost, rate) = (offered - delivered.min(offered), offered as f64 / traffic_seconds);
    Ok(Report {
        conditions: Conditions {
            ports: format!("veth ({modes})"),
            seconds,
            workers: 1,
            frame_bytes: FRAME_BYTES,
            flows: FLOWS,
            burst: BURST_MAX,
        },
        mpps: delivered as f64 / traffic_seconds / 1e6,
        offered,
        delivered,
        lost,
        latency_ns: Latency::of(&latency),
        reconf: Reconf::of(cycles.count, lost, rate, &cycles.detach_ns),
        unload: unloaded,
        ledger: LedgerLine { charged, outstanding: account.outstanding },
        pool: PoolLine { capacity: account.capacity, free_after: account.free },
    })
}

/// A wire between n0 and n1, on the last core.
fn build(arena: &Arena, netns: &str) -> Result<(Runtime, Vec<Opening>, String), Error> {
    let core = core_affinity::get_core_ids().and_then(|ids| ids.last().map(|c| c.id));
    let settings = Settings { cores: vec![core], ..Settings::default() };
    let mut builder = Builder::new(arena.pool.clone(), settings);
    let mut openings = Vec::new();
    let mut lanes: Vec<LaneId> = Vec::new();
    let mut modes = String::new();
    for (i, device) in ["n0", "n1"].into_iter().enumerate() {
        let options = XdpOptions {
            netns: Some(netns.to_owned()),
            rx_ring: RING,
            tx_ring: RING,
            ..XdpOptions::device(device)
        };
        let port = open(&options, arena, i as u16)?;
        let fact = |name| port.facts.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v);
        modes = format!("AF_XDP {}, XDP {}, {}", fact("bind"), fact("xdp"), fact("memory"));
        let opening = Opening::default();
        opening.set(port.hold, port.tallies);
        let interface = builder.interface(device, "af_xdp", 0, port.facts, opening.telemetry());
        lanes.extend(port.queues.into_iter().map(|q| builder.queue(interface, 0, Box::new(q))));
        openings.push(opening);
    }
    builder.wire(lanes[0], lanes[1]);
    let runtime = builder.start().map_err(|e| Error::new("NKE-RT-005", e.to_string()))?;
    Ok((runtime, openings, modes))
}

fn generate(netns: &str, stop: &AtomicBool, offered: &AtomicU64) -> Result<(), Error> {
    // The first core: the worker has the last one.
    if let Some(first) = core_affinity::get_core_ids().and_then(|ids| ids.first().copied()) {
        core_affinity::set_for_current(first);
    }
    netdev::enter_netns(netns).map_err(lab_error)?;
    let mut frame = [0; FRAME_BYTES];
    udp_frame(&mut frame, 0);
    let source = LiveSource::new("g0", &frame, FLOWS as u32)?;
    while !stop.load(Ordering::Acquire) {
        let report = source.run(CHUNK, 8, Rate::PerSecond(RATE))?;
        offered.fetch_add(report.sent, Ordering::AcqRel);
    }
    Ok(())
}

/// Waits until everything offered has arrived, or nothing more does; what arrived.
fn settle(sink: &Sink, offered: u64) -> Result<u64, Error> {
    const QUIET: Duration = Duration::from_millis(500);
    let (mut seen, mut since) = (sink.counters()?.packets, Instant::now());
    while seen < offered && since.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(5));
        let now = sink.counters()?.packets;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    Ok(seen)
}
