//! `nke-bench acl`: nanoseconds per packet of IPv4 forwarding with a list of rules at the forward hook, beside DPDK's l3fwd
//! with the same rules.
//!
//! No rule matches the traffic, so that the whole list counts; each is about a network the traffic goes to. l3fwd's list finds
//! the way as well (one route behind the rules), NKE looks up its full routing table.

use std::fmt::Write;

use clap::Args;
use nke_dataplane::control_handle::AttachSpec;
use nke_filters::builtin::Acl;
use nke_filters::{ArgValue, Args as FilterArgs};
use serde_json::json;

use crate::peers::hugepages::HugePages;
use crate::peers::l3fwd::{self, L3fwd, Lookup};
use crate::route::{FLOWS, capture};
use crate::router_rig::{PATIENCE, RouterRig};
use crate::stats::{Error, Report, median, spread};
use crate::table::{Dice, Table};

#[derive(Args)]
pub struct Options {
    /// Interleaved rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per case and round.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Core of the worker, and of l3fwd's.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Leave DPDK's l3fwd out.
    #[arg(long)]
    no_peers: bool,
}

const RULES: [usize; 4] = [10, 100, 1000, 10_000];
const ROUTES: usize = 100_000;

/// The same rules for all.
pub struct Lists {
    nke: String,
    l3fwd: String,
    /// A chain of nftables at the kernel's forward hook.
    pub nft: String,
}

/// Ports rules are about: first and last. The traffic's is 9, by UDP.
const PORTS: [(u16, u16); 5] = [(80, 80), (443, 443), (53, 53), (1024, 1999), (8000, 8100)];

impl Lists {
    pub fn new(count: usize, table: &Table) -> Lists {
        let mut dice = Dice(3);
        let (mut nke, mut l3fwd) = (String::new(), String::new());
        let mut nft =
            "table ip f {\nchain forward {\ntype filter hook forward priority 0; policy accept;\n".to_owned();
        let destinations = table.destinations(65536);
        for _ in 0..count {
            let mut of = |all: &[u8]| all[dice.below(all.len() as u32) as usize];
            let (from_len, to_len) = (of(&[16, 20, 24, 28]), of(&[16, 24, 32]));
            let net = |address: u32, len: u8| {
                format!("{}/{len}", std::net::Ipv4Addr::from(address & (u32::MAX << (32 - len))))
            };
            // Half of the rules are for the network the traffic is from.
            let from = match dice.below(2) {
                0 => 0xc612_0000 | dice.below(1 << 16),
                _ => (11 + dice.below(180)) << 24 | dice.below(1 << 24),
            };
            let to = destinations[dice.below(destinations.len() as u32) as usize].to_bits();
            let (from, to) = (net(from, from_len), net(to, to_len));
            let (protocol, number) = [("tcp", 6), ("udp", 17)][dice.below(2) as usize];
            let (low, high) = PORTS[dice.below(PORTS.len() as u32) as usize];
            let _ = writeln!(nke, "deny {protocol} from {from} to {to} port {low}-{high}");
            let _ = writeln!(nft, "ip saddr {from} ip daddr {to} {protocol} dport {low}-{high} drop");
            let _ = writeln!(l3fwd, "@{from} {to} 0 : 65535 {low} : {high} 0x{number:02x}/0xff");
        }
        nke += "permit any\n";
        l3fwd += "R0.0.0.0/0 0.0.0.0/0 0 : 65535 0 : 65535 0x00/0x00 0\n";
        nft += "}\n}\n";
        Lists { nke, l3fwd, nft }
    }
}

impl Lists {
    /// NKE's, to be attached at the forward hook.
    pub fn spec(&self) -> AttachSpec {
        let args = [("rule", self.nke.as_str()), ("hook", "forward")];
        let args = args.map(|(name, text)| (name.to_owned(), ArgValue::Text(text.to_owned())));
        AttachSpec { args: FilterArgs(args.into()), ..AttachSpec::kind("acl", "ip") }
    }
}

/// One line of the result, a value for each round.
struct Row {
    flows: usize,
    rules: usize,
    nke: Vec<f64>,
    l3fwd: Vec<f64>,
}

pub fn run(options: &Options) -> Result<Report, Error> {
    let l3fwd = if options.no_peers { None } else { L3fwd::build()? };
    let _pages = if l3fwd.is_some() { Some(HugePages::reserve(700)?) } else { None };
    let table = Table::new(ROUTES);
    let lists = RULES.map(|rules| Lists::new(rules, &table));
    let rows = FLOWS.into_iter().flat_map(|flows| RULES.map(|rules| (flows, rules)));
    let mut rows: Vec<Row> =
        rows.map(|(flows, rules)| Row { flows, rules, nke: vec![], l3fwd: vec![] }).collect();
    for round in 0..options.rounds {
        for rows in rows.chunks_mut(RULES.len()) {
            let rig = RouterRig::new(&table, rows[0].flows, options.core, 64)?;
            let control = rig.control();
            control.register_ip(std::sync::Arc::new(Acl))?.wait(PATIENCE)?;
            for (row, lists) in rows.iter_mut().zip(&lists) {
                let id = control.attach(lists.spec())?.wait(PATIENCE)?;
                row.nke.push(rig.measure(options.seconds));
                control.detach(id)?.wait(PATIENCE)?;
                if let Some(l3fwd) = &l3fwd {
                    let frames = capture(&table, row.flows)?;
                    row.l3fwd.push(l3fwd.memory(Lookup::Acl, &lists.l3fwd, frames, options.core)?);
                }
            }
            rig.finish()?;
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    Ok(report(options, &rows, l3fwd.is_some()))
}

fn report(options: &Options, rows: &[Row], peer: bool) -> Report {
    let mut text = format!(
        "64-byte UDP frames (60 in the buffer), {ROUTES} routes, one core, median of {} interleaved rounds of {} s\n\
         {:>12}  {:>6}  {:>10}  {:>13}  {:>12}  {:>13}  {:>11}\n",
        options.rounds,
        options.seconds,
        "destinations",
        "rules",
        "nke ns/pkt",
        "min-max",
        "l3fwd ns/pkt",
        "min-max",
        "l3fwd / nke"
    );
    let mut found = Vec::new();
    for row in rows {
        let (nke, l3fwd) = (median(&row.nke), median(&row.l3fwd));
        text += &format!("{:>12}  {:>6}  {nke:>10.2}  {:>13}", row.flows, row.rules, spread(&row.nke));
        if peer {
            text += &format!("  {l3fwd:>12.2}  {:>13}  {:>11.2}", spread(&row.l3fwd), l3fwd / nke);
        }
        text.push('\n');
        found.push(json!({
            "destinations": row.flows, "rules": row.rules, "nke_ns_per_packet": nke, "nke_rounds": row.nke,
            "l3fwd_ns_per_packet": peer.then_some(l3fwd), "l3fwd_rounds": row.l3fwd,
        }));
    }
    if !peer && !options.no_peers {
        text += &format!("{}\n", l3fwd::NOT_INSTALLED);
    }
    Report { text, json: json!({ "seconds": options.seconds, "routes": ROUTES, "cases": found }), good: true }
}
