//! `nke-bench`: what NKE costs, beside what a user would otherwise run, in the same interleaved run.

mod acl;
mod memory_rig;
mod noop;
mod peers;
mod pipeline;
mod reconf;
mod route;
mod router_rig;
mod stats;
mod table;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of NKE and its peers.
#[derive(Parser)]
#[command(name = "nke-bench", version)]
struct Cli {
    /// One JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Cost per packet in memory: source, filter stage, sink; beside DPDK's testpmd on the pcap vdev.
    Pipeline(pipeline::Options),
    /// Cost per packet of IPv4 forwarding in memory, by a full routing table; beside DPDK's l3fwd.
    Route(route::Options),
    /// The same with a list of rules at the forward hook.
    Acl(acl::Options),
    /// Throughput and latency over veth, beside DPDK's testpmd on AF_XDP and the kernel's bridge (root).
    Wire(wire::Options),
    /// The same as a router of IPv4, beside the kernel's own forwarding, and testpmd, which only carries frames (root).
    Router(wire::RouterOptions),
    /// Attach and detach under load: packets lost, blocked time, detach latency.
    Reconf(reconf::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.scenario {
        Scenario::Pipeline(options) => pipeline::run(options),
        Scenario::Route(options) => route::run(options),
        Scenario::Acl(options) => acl::run(options),
        Scenario::Wire(options) => wire::run(options),
        Scenario::Router(options) => wire::run_router(options),
        Scenario::Reconf(options) => reconf::run(options),
    };
    match result {
        Ok(report) => {
            if cli.json {
                println!("{:#}", report.json);
            } else {
                print!("{}", report.text);
            }
            if report.good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("nke-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
