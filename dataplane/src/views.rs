//! Tables for users: arrays of flat objects, the same for text and JSON.

mod inet;
mod paths;

use std::net::IpAddr;

use nke_filters::{DropClass, HoldKind, IpHook};
use nke_mbuf::wire::Protocol;
use serde_json::{Value, json};

use crate::caught::caught;
use crate::control_handle::Point;
use crate::manager::Manager;
use crate::probes::traces;
use crate::report::Figures;
use crate::shared::Shared;
use crate::snapshot::{Attachment, Instance};

pub use paths::paths;

/// Which table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Interfaces with their counters.
    Interfaces,
    /// Attached filters in their order.
    Filters,
    /// Workers and what they do.
    Workers,
    /// Drop reasons that counted something, or are an extension's.
    Drops,
    /// Everything on the ledger, packets included.
    Ledger,
    /// The routes workers were given, at most [`ROWS_MAX`].
    Routes,
    /// Neighbours.
    Neighbors,
    /// Protocols attached to interfaces.
    Protocols,
    /// What each worker's IP layer did, and holds.
    Inet,
    /// How the kernel's tables are followed; no row if they are not.
    Kernel,
    /// The route workers take to an address.
    RouteTo(IpAddr),
    /// Fragments that wait for the rest, and what became of others.
    Reassembly,
    /// Flows that filters keep, at most [`ROWS_MAX`].
    Conntrack,
}

/// Rows of a table of routes or neighbours at most: the answer of the control socket is bounded. A row at the end says
/// how many there are in all.
pub const ROWS_MAX: usize = 10_000;

impl View {
    /// The table called `name`.
    pub fn named(name: &str) -> Option<View> {
        match name {
            "interfaces" => Some(View::Interfaces),
            "filters" => Some(View::Filters),
            "workers" => Some(View::Workers),
            "drops" => Some(View::Drops),
            "ledger" => Some(View::Ledger),
            "routes" => Some(View::Routes),
            "neighbors" => Some(View::Neighbors),
            "protocols" => Some(View::Protocols),
            "inet" => Some(View::Inet),
            "kernel" => Some(View::Kernel),
            "reassembly" => Some(View::Reassembly),
            "conntrack" => Some(View::Conntrack),
            _ => None,
        }
    }
}

/// The table, as it is now.
pub fn table(manager: &Manager, view: View) -> Value {
    let shared = &*manager.shared;
    match view {
        View::Interfaces => interfaces(manager),
        View::Filters => manager.attachments.iter().enumerate().map(|(i, a)| filter(shared, i, a)).collect(),
        View::Workers => (0..shared.workers.len()).map(|n| worker(manager, n)).collect(),
        View::Drops => drops(shared),
        View::Ledger => ledger(shared),
        View::Routes => inet::routes(manager),
        View::Neighbors => inet::neighbors(manager),
        View::Protocols => inet::protocols(manager),
        View::Inet => {
            let workers = (0..shared.workers.len()).map(|n| inet::worker(shared, n));
            let around = manager.doors.as_ref().map(inet::around_workers);
            workers.chain(around).collect()
        }
        View::Kernel => inet::kernel(manager),
        View::RouteTo(address) => inet::route_to(manager, address),
        View::Reassembly => (0..shared.workers.len()).map(|n| inet::reassembly(manager, n)).collect(),
        View::Conntrack => flows(manager),
    }
}

fn interfaces(manager: &Manager) -> Value {
    let shared = &*manager.shared;
    let addresses = |interface| {
        let all = manager.interfaces.addresses(interface).iter();
        all.map(|(address, len)| format!("{address}/{len}")).collect::<Vec<_>>().join(" ")
    };
    let row = |ifnet: &crate::ifnet::Ifnet| {
        let i = usize::from(ifnet.index.0);
        let identity = ifnet.identity();
        let sum = |f: fn(&crate::status::IfCounters) -> u64| -> u64 {
            shared.workers.iter().map(|w| f(&w.interfaces[i])).sum()
        };
        let (received, sent) =
            manager.doors.as_ref().map(|doors| doors.counts(ifnet.index.0)).unwrap_or_default();
        let mut row = json!({
            "index": i,
            "name": identity.params.name,
            "kind": identity.params.kind,
            "state": ifnet.state().name(),
            "mac": identity.params.lladdr.map_or(String::new(), |mac| mac.to_string()),
            "addresses": addresses(ifnet.index),
            "rx_packets": sum(|c| c.rx_packets.get()) + received.packets,
            "rx_bytes": sum(|c| c.rx_bytes.get()) + received.bytes,
            "tx_packets": sum(|c| c.tx_packets.get()) + sent.packets,
            "tx_bytes": sum(|c| c.tx_bytes.get()) + sent.bytes,
            "injected": sum(|c| c.injected.get()),
        });
        if let Some(doors) = manager.doors.as_ref().and_then(|doors| doors.describe(ifnet.index.0)) {
            row["shortcut"] = json!(doors);
        }
        for (name, value) in &identity.facts {
            row[*name] = json!(value);
        }
        for (name, value) in ifnet.figures() {
            row[name] = json!(value);
        }
        row
    };
    shared.interfaces.iter().map(row).collect()
}

/// Where a filter is attached: name of the interface, or `ip` or `ip6`.
pub fn point(shared: &Shared, a: &Attachment) -> String {
    match &a.filter {
        Instance::Interface(_) => shared.interfaces[usize::from(a.interface.0)].name(),
        Instance::Ip(family, ..) => family.name().to_owned(),
        Instance::Probe(_) => Point::Path.name().to_owned(),
    }
}

fn directions(a: &Attachment) -> String {
    match &a.filter {
        Instance::Interface(_) => a.directions.name().into(),
        Instance::Ip(_, hooks, _) => {
            let names: Vec<_> = IpHook::ALL.iter().filter(|h| hooks.has(**h)).map(|h| h.name()).collect();
            names.join("+")
        }
        Instance::Probe(_) => if traces(a) { "stages" } else { "drops" }.into(),
    }
}

/// What an instance counts itself.
pub fn figures(a: &Attachment) -> Figures {
    // An extension's code: a panic there must not end the control thread.
    caught(|| a.filter.figures()).unwrap_or_default().into_iter().collect()
}

fn filter(shared: &Shared, place: usize, a: &Attachment) -> Value {
    let sum = |f: fn(&crate::snapshot::FilterStats) -> u64| -> u64 { a.stats.iter().map(|s| f(s)).sum() };
    let figures = figures(a);
    let figures: Vec<_> = figures.iter().map(|(name, n)| format!("{name}={n}")).collect();
    json!({
        "id": a.id.0,
        "place": place,
        "kind": a.kind,
        "interface": point(shared, a),
        "direction": directions(a),
        "protocol": a.protocol.map_or("all".into(), |p| format!("{p:#06x}")),
        "cookie": a.cookie.0,
        "packets": sum(|s| s.packets.get()),
        "dropped": sum(|s| s.dropped.get()),
        "consumed": sum(|s| s.consumed.get()),
        "panics": sum(|s| s.panics.get()),
        "figures": figures.join(" "),
    })
}

fn flows(manager: &Manager) -> Value {
    let mut rows = Vec::new();
    for a in &manager.attachments {
        // An extension's code, as above.
        let room = ROWS_MAX - rows.len().min(ROWS_MAX);
        let flows = caught(|| a.filter.flows(room)).unwrap_or_default();
        let end = |(address, port): (IpAddr, u16)| match address {
            IpAddr::V4(a) => format!("{a}:{port}"),
            IpAddr::V6(a) => format!("[{a}]:{port}"),
        };
        rows.extend(flows.into_iter().take(room).map(|flow| {
            json!({
                "filter": a.id.0,
                "kind": a.kind,
                "protocol": Protocol(flow.protocol).to_string(),
                "src": end(flow.src),
                "dst": end(flow.dst),
                "translated": flow.translated.map_or(String::new(), end),
                "state": flow.state,
                "idle_s": flow.idle_s,
                "timeout_s": flow.timeout_s,
            })
        }));
    }
    if rows.len() >= ROWS_MAX {
        rows.push(json!({ "kind": "...", "state": "`nke show filters` says how many there are" }));
    }
    Value::Array(rows)
}

fn worker(manager: &Manager, number: usize) -> Value {
    let status = &manager.shared.workers[number];
    let stall = manager.watchdog.stall(number);
    let in_filter = stall.map_or_else(String::new, |s| match &s.kind {
        Some(kind) => format!("{} ({kind})", s.filter),
        None => String::new(),
    });
    let loops = status.loops.get();
    json!({
        "worker": number,
        "core": manager.shared.cores.get(number).copied().flatten(),
        "state": if stall.is_some() { "stalled" } else { status.state().name() },
        "stalled_ms": stall.map_or(0, |s| s.since.elapsed().as_millis() as u64),
        "in_filter": in_filter,
        "loops": loops,
        "busy_percent": (status.busy_loops.get() * 100).checked_div(loops).unwrap_or(0),
        "sleeps": status.sleeps.get(),
        "rx_packets": status.interfaces.iter().map(|c| c.rx_packets.get()).sum::<u64>(),
        "tx_packets": status.interfaces.iter().map(|c| c.tx_packets.get()).sum::<u64>(),
        "drops": status.drops.iter().map(|c| c.get()).sum::<u64>(),
    })
}

fn drops(shared: &Shared) -> Value {
    let rows = shared.drops().into_iter();
    rows.filter(|(_, class, n)| *n > 0 || *class == DropClass::Policy)
        .map(|(name, class, n)| json!({ "reason": name, "class": class.name(), "packets": n }))
        .collect()
}

fn ledger(shared: &Shared) -> Value {
    let mut rows: Vec<_> = shared
        .ledger
        .entries(None)
        .into_iter()
        .map(|e| {
            json!({
                "owner": shared.owner_name(e.owner),
                "kind": e.kind.name(),
                "name": e.name,
                "count": 1,
                "age_ms": e.since.elapsed().as_millis() as u64,
                "made_at": format!("{}:{}", e.made_at.file(), e.made_at.line()),
            })
        })
        .collect();
    rows.extend(shared.pool.census().iter().map(|(owner, frames)| {
        json!({
            "owner": shared.owner_name(owner),
            "kind": HoldKind::Mbuf.name(),
            "name": "frames",
            "count": frames,
            "age_ms": Value::Null,
            "made_at": "",
        })
    }));
    Value::Array(rows)
}
