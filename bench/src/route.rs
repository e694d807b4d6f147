//! `nke-bench route`: nanoseconds per packet of IPv4 forwarding by a full routing table, beside DPDK's l3fwd.

use std::fmt::Write;

use clap::Args;
use nke_dataplane::control_handle::AttachSpec;
use nke_filters::Family;
use serde_json::json;

use crate::noop::NoopIp;
use crate::peers::capture::Capture;
use crate::peers::hugepages::HugePages;
use crate::peers::l3fwd::{self, L3fwd, Lookup};
use crate::router_rig::{MAC, PATIENCE, RouterRig};
use crate::stats::{Error, Report, median, spread};
use crate::table::{Table, routed_frame};

#[derive(Args)]
pub struct Options {
    /// Interleaved rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds per case and round.
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Routes in the table, at most 131,000.
    #[arg(long, default_value_t = 100_000)]
    routes: usize,
    /// Core of the worker, and of l3fwd's.
    #[arg(long, default_value_t = 1)]
    pub core: usize,
    /// Packets per burst.
    #[arg(long, default_value_t = 64)]
    pub burst: usize,
    /// Leave DPDK's l3fwd out.
    #[arg(long)]
    pub no_peers: bool,
}

/// Destinations, each of another route.
pub const FLOWS: [usize; 3] = [1, 256, 65536];
const FILTERS: [usize; 4] = [0, 1, 4, 16];

/// What was found for one number of destinations, a value for each round.
#[derive(Default)]
struct Found {
    nke: [Vec<f64>; FILTERS.len()],
    l3fwd: Vec<f64>,
}

pub fn run(options: &Options) -> Result<Report, Error> {
    let l3fwd = if options.no_peers { None } else { L3fwd::build()? };
    let _pages = if l3fwd.is_some() { Some(HugePages::reserve(700)?) } else { None };
    let table = Table::new(options.routes);
    let rules = table.nets().fold(String::new(), |mut text, net| {
        let _ = writeln!(text, "R{net} 0");
        text
    });
    let mut found = FLOWS.map(|_| Found::default());
    for round in 0..options.rounds {
        for (flows, found) in FLOWS.iter().zip(&mut found) {
            measure(&table, *flows, options, &mut found.nke)?;
            if let Some(l3fwd) = &l3fwd {
                let frames = capture(&table, *flows)?;
                found.l3fwd.push(l3fwd.memory(Lookup::Lpm, &rules, frames, options.core)?);
            }
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    Ok(report(options, &found, l3fwd.is_some()))
}

/// The traffic as a file.
pub fn capture(table: &Table, flows: usize) -> Result<Capture, Error> {
    let destinations = table.destinations(flows);
    Capture::of(flows, |frame, flow| routed_frame(frame, flow, destinations[flow as usize], MAC))
}

fn measure(table: &Table, flows: usize, options: &Options, found: &mut [Vec<f64>]) -> Result<(), Error> {
    let rig = RouterRig::new(table, flows, options.core, options.burst)?;
    let mut attached = 0;
    for (filters, values) in FILTERS.iter().zip(found) {
        for _ in attached..*filters {
            let spec = AttachSpec::ip_instance("noop", Family::V4, Box::new(NoopIp));
            rig.control().attach(spec)?.wait(PATIENCE)?;
        }
        attached = *filters;
        values.push(rig.measure(options.seconds));
    }
    rig.finish()
}

fn report(options: &Options, found: &[Found], peer: bool) -> Report {
    let mut text = format!(
        "64-byte UDP frames (60 in the buffer), {} routes, one core, bursts of {}, median of {} interleaved rounds of {} s\n\
         {:>12}  {:<30} {:>8}  {:>13}  {:>14}\n",
        options.routes,
        options.burst,
        options.rounds,
        options.seconds,
        "destinations",
        "case",
        "ns/pkt",
        "min-max",
        "ns per filter"
    );
    let mut rows = Vec::new();
    for (flows, found) in FLOWS.iter().zip(found) {
        let bare = median(&found.nke[0]);
        let mut row = |case: String, values: &[f64], per_filter: String| {
            let ns = median(values);
            text += &format!("{flows:>12}  {case:<30} {ns:>8.2}  {:>13}  {per_filter:>14}\n", spread(values));
            rows.push(json!({ "destinations": flows, "case": case, "ns_per_packet": ns, "rounds": values }));
        };
        for (filters, values) in FILTERS.iter().zip(&found.nke) {
            let each = match *filters {
                0 => String::new(),
                n => format!("{:.3}", (median(values) - bare) / n as f64),
            };
            row(format!("nke, {filters} no-op IP filters"), values, each);
        }
        if peer {
            row("l3fwd lpm, net_pcap infinite_rx".into(), &found.l3fwd, String::new());
        }
    }
    for (flows, found) in FLOWS.iter().zip(found).filter(|_| peer) {
        let ratio = median(&found.l3fwd) / median(&found.nke[0]);
        text += &format!("{flows} destinations: l3fwd takes {ratio:.2} times as long per packet\n");
    }
    if !peer && !options.no_peers {
        text += &format!("{}\n", l3fwd::NOT_INSTALLED);
    }
    let json = json!({
        "burst": options.burst, "seconds": options.seconds, "routes": options.routes, "cases": rows,
    });
    Report { text, json, good: true }
}
