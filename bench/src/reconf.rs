//! `nke-bench reconf`: filters attached and detached, or routes changed, under full load.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nke_dataplane::demo::{self, MemoryDemo, VethDemo};
use nke_dataplane::inet::{Request, RouteChange};
use serde_json::json;

use crate::router_rig::{PATIENCE, RouterRig, hop};
use crate::stats::{Error, Report};
use crate::table::Table;

#[derive(Args)]
pub struct Options {
    /// What changes; routes only in memory.
    #[arg(long, value_enum, default_value_t = What::Filters)]
    what: What,
    /// Route updates per second; 0 is as fast as possible.
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
    /// Seconds of route updates.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Cycles of attach and detach.
    #[arg(long, default_value_t = 10_000)]
    cycles: u64,
    /// Where packets come from and go to; veth needs root.
    #[arg(long, value_enum, default_value_t = Ports::Memory)]
    ports: Ports,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Filters,
    Routes,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ports {
    Memory,
    Veth,
}

/// Cycles that take longer are a failure of their own.
const TIME_MAX: Duration = Duration::from_secs(600);

pub fn run(options: &Options) -> Result<Report, Error> {
    if let What::Routes = options.what {
        return routes(options);
    }
    let (duration, cycles) = (TIME_MAX, options.cycles);
    let report = match options.ports {
        Ports::Memory => demo::run_memory(&MemoryDemo { duration, cycles, filters: 1 })??,
        Ports::Veth => demo::run_veth(&VethDemo { duration, cycles })?,
    };
    let good = report.is_clean() && report.reconf.cycles == options.cycles;
    Ok(Report { text: format!("{report}\n"), json: serde_json::to_value(&report)?, good })
}

const ROUTES: usize = 100_000;
/// Destinations the load goes to: routes of theirs are among those that change.
const FLOWS: usize = 65536;
/// Changes of one request.
const BATCH: usize = 500;

/// Each route is sent by another next hop, one after the other and over again, while packets go by them.
fn routes(options: &Options) -> Result<Report, Error> {
    let table = Table::new(ROUTES);
    let nets: Vec<_> = table.nets().collect();
    let core = core_affinity::get_core_ids().and_then(|ids| ids.last().map(|c| c.id)).unwrap_or(0);
    let rig = RouterRig::new(&table, FLOWS, core, 64)?;
    let control = rig.control();
    let calm = rig.measure(0.5);
    let (begin, before) = (Instant::now(), rig.arrived());
    let mut updates = 0usize;
    while begin.elapsed().as_secs_f64() < options.seconds {
        let batch = (updates..updates + BATCH).map(|n| {
            let (lap, i) = (n / ROUTES + 1, n % ROUTES);
            RouteChange { net: nets[i], to: Some(hop(i + lap)) }
        });
        control.inet(Request::Routes(batch.collect()))?.wait(PATIENCE)?;
        updates += BATCH;
        if options.rate > 0 {
            let due = Duration::from_secs_f64(updates as f64 / f64::from(options.rate));
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    let took = begin.elapsed();
    let pps = (rig.arrived() - before) as f64 / took.as_secs_f64();
    let rate = updates as f64 / took.as_secs_f64();
    let (offered, lost) = rig.stop()?;
    let text = format!(
        "{updates} routes of {ROUTES} changed in {:.1} s, {rate:.0} per second, under {:.1} Mpps to {FLOWS} destinations \
         ({:.1} without changes)\n{offered} packets offered, {lost} lost\n",
        took.as_secs_f64(),
        pps / 1e6,
        1e3 / calm,
    );
    let json = json!({
        "routes": ROUTES, "updates": updates, "updates_per_second": rate, "load_pps": pps, "calm_pps": 1e9 / calm,
        "offered": offered, "lost": lost,
    });
    Ok(Report { text, json, good: lost == 0 && (rate >= 0.95 * f64::from(options.rate)) })
}
