//! `nke-bench pipeline`: nanoseconds per packet of source, filter stage, wire and sink on one core.

use std::time::{Duration, Instant};

use clap::Args;
use nke_dataplane::control_handle::AttachSpec;
use nke_dataplane::snapshot::Directions;
use nke_filters::InterfaceFilter;
use serde_json::json;

use crate::memory_rig::Rig;
use crate::noop::{Look, Noop};
use crate::peers::{hugepages::HugePages, testpmd};
use crate::stats::{Error, Report, median, spread};

#[derive(Args)]
pub struct Options {
    /// Interleaved rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per case and round.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Core of the worker, and of testpmd's.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Packets per burst.
    #[arg(long, default_value_t = 64)]
    burst: usize,
    /// Leave DPDK's testpmd out.
    #[arg(long)]
    no_peers: bool,
}

const FLOWS: [usize; 3] = [1, 256, 65536];

/// One line of the result.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    /// So many no-op filters.
    Noop(usize),
    /// So many filters that look at every packet.
    Look(usize),
    /// DPDK's testpmd, io.
    Testpmd,
}

impl Case {
    fn name(self) -> String {
        match self {
            Case::Noop(n) => format!("nke, {n} no-op filters"),
            Case::Look(n) => format!("nke, {n} filters that look"),
            Case::Testpmd => "testpmd io, net_pcap infinite_rx".into(),
        }
    }
}

pub fn run(options: &Options) -> Result<Report, Error> {
    let mut cases: Vec<Case> = [0, 1, 4, 16].map(Case::Noop).to_vec();
    cases.push(Case::Look(16));
    let peer = !options.no_peers && testpmd::installed();
    let _pages = if peer { Some(HugePages::reserve(700)?) } else { None };
    if peer {
        cases.push(Case::Testpmd);
    }
    let mut found: Vec<(usize, Case, Vec<f64>)> =
        FLOWS.iter().flat_map(|f| cases.iter().map(|c| (*f, *c, Vec::new()))).collect();
    for round in 0..options.rounds {
        for (flows, case, values) in &mut found {
            values.push(measure(*flows, *case, options)?);
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    Ok(report(options, &found, peer))
}

fn measure(flows: usize, case: Case, options: &Options) -> Result<f64, Error> {
    let seconds = Duration::from_secs_f64(options.seconds);
    let (count, look) = match case {
        Case::Testpmd => return testpmd::memory(flows, options.core),
        Case::Noop(n) => (n, false),
        Case::Look(n) => (n, true),
    };
    let mut rig = Rig::new(flows, Some(options.core), options.burst)?;
    let control = rig.runtime.control();
    for _ in 0..count {
        let filter: Box<dyn InterfaceFilter> = if look { Box::new(Look) } else { Box::new(Noop) };
        let spec = AttachSpec { directions: Directions::INPUT, ..AttachSpec::instance("noop", "a", filter) };
        control.attach(spec)?.wait(Duration::from_secs(5))?;
    }
    rig.runtime.go();
    std::thread::sleep(Duration::from_millis(50));
    let (begin, before) = (Instant::now(), rig.sink.packets());
    std::thread::sleep(seconds);
    let (took, packets) = (begin.elapsed(), rig.sink.packets() - before);
    rig.source.stop();
    let account = rig.runtime.stop();
    if account.free != account.capacity || rig.source.offered.get() != rig.sink.packets() {
        return Err(format!("packets were lost: {account:?}").into());
    }
    Ok(took.as_nanos() as f64 / packets as f64)
}

fn report(options: &Options, found: &[(usize, Case, Vec<f64>)], peer: bool) -> Report {
    let of = |flows: usize, case: Case| {
        found.iter().find(|(f, c, _)| *f == flows && *c == case).map_or(f64::NAN, |(.., v)| median(v))
    };
    let mut text = format!(
        "64-byte UDP frames (60 in the buffer), one core, bursts of {}, median of {} interleaved rounds of {} s\n",
        options.burst, options.rounds, options.seconds
    );
    text += &format!(
        "{:>6}  {:<34} {:>8}  {:>13}  {:>14}\n",
        "flows", "case", "ns/pkt", "min-max", "ns per filter"
    );
    for (flows, case, values) in found {
        let per_filter = match case {
            Case::Noop(n) | Case::Look(n) if *n > 0 => {
                format!("{:.3}", (median(values) - of(*flows, Case::Noop(0))) / *n as f64)
            }
            _ => String::new(),
        };
        let (name, ns) = (case.name(), median(values));
        text += &format!("{flows:>6}  {name:<34} {ns:>8.2}  {:>13}  {per_filter:>14}\n", spread(values));
    }
    for flows in FLOWS.iter().filter(|_| peer) {
        let ratio = of(*flows, Case::Testpmd) / of(*flows, Case::Noop(0));
        text += &format!("{flows} flows: testpmd takes {ratio:.2} times as long per packet\n");
    }
    if !peer && !options.no_peers {
        text += testpmd::NOT_INSTALLED;
        text.push('\n');
    }
    let rows: Vec<_> = found
        .iter()
        .map(|(flows, case, values)| json!({ "flows": flows, "case": case.name(), "ns_per_packet": median(values), "rounds": values }))
        .collect();
    Report {
        text,
        json: json!({ "burst": options.burst, "seconds": options.seconds, "cases": rows }),
        good: true,
    }
}
