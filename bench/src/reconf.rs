//! `nke-bench reconf`: filters attached and detached under full load.

use std::time::Duration;

use clap::{Args, ValueEnum};
use nke_dataplane::demo::{self, MemoryDemo, VethDemo};

use crate::stats::{Error, Report};

#[derive(Args)]
pub struct Options {
    /// Cycles of attach and detach.
    #[arg(long, default_value_t = 10_000)]
    cycles: u64,
    /// Where packets come from and go to; veth needs root.
    #[arg(long, value_enum, default_value_t = Ports::Memory)]
    ports: Ports,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ports {
    Memory,
    Veth,
}

/// Cycles that take longer are a failure of their own.
const TIME_MAX: Duration = Duration::from_secs(600);

pub fn run(options: &Options) -> Result<Report, Error> {
    let (duration, cycles) = (TIME_MAX, options.cycles);
    let report = match options.ports {
        Ports::Memory => demo::run_memory(&MemoryDemo { duration, cycles, filters: 1 })??,
        Ports::Veth => demo::run_veth(&VethDemo { duration, cycles })?,
    };
    let good = report.is_clean() && report.reconf.cycles == options.cycles;
    Ok(Report { text: format!("{report}\n"), json: serde_json::to_value(&report)?, good })
}
