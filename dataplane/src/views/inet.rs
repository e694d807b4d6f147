//! Tables of the IP layer.

use std::net::IpAddr;

use nke_filters::IfIndex;
use serde_json::{Value, json};

use super::ROWS_MAX;
use crate::inet::Handler;
use crate::manager::Manager;
use crate::shared::Shared;
use crate::shortcut::Doors;

/// What an interface is called.
pub(super) fn name_of(shared: &Shared, interface: u16) -> String {
    shared.interfaces.get(IfIndex(interface)).map_or_else(|| format!("interface {interface}"), |i| i.name())
}

/// The routes workers were given, ordered by destination.
pub(super) fn routes(manager: &Manager) -> Value {
    let all = manager.interfaces.inet.show_routes(|interface| name_of(&manager.shared, interface), ROWS_MAX);
    let total = manager.interfaces.inet.routes();
    let rows = all.iter().map(
        |(net, source, to)| json!({ "destination": net.to_string(), "source": source.name(), "to": to }),
    );
    let more = (total > all.len())
        .then(|| json!({ "destination": "...", "source": "", "to": format!("{total} routes in all") }));
    rows.chain(more).collect()
}

/// The route to an address, and what workers find for it: the same, but for the moment of a change.
pub(super) fn route_to(manager: &Manager, address: IpAddr) -> Value {
    let inet = &manager.interfaces.inet;
    let (route, found) = inet.show_route_to(address, |interface| name_of(&manager.shared, interface));
    let (net, source, to) = match route {
        Some((net, source, to)) => (net.to_string(), source.name(), to),
        None => (String::new(), "none", "nowhere".into()),
    };
    json!([{ "address": address.to_string(), "destination": net, "source": source, "to": to, "workers_find": found }])
}

/// What a worker's reassembly holds and did.
pub(super) fn reassembly(manager: &Manager, number: usize) -> Value {
    let status = &manager.shared.workers[number];
    let limit = &manager.interfaces.inet.settings().reassembly;
    let mut row = json!({
        "worker": number,
        "frames_held": status.inet.fragment_frames.get(),
        "frames_max": limit.frames_max,
        "of_one_source_max": limit.per_source_frames,
        "datagrams_max": limit.datagrams_max,
        "reassembled": status.inet.reassembled.get(),
    });
    for (index, (name, _)) in manager.shared.reasons.all().into_iter().enumerate() {
        if name.starts_with("frag_") {
            row[name] = json!(status.drops[index].get());
        }
    }
    row
}

/// The table of neighbours.
pub(super) fn neighbors(manager: &Manager) -> Value {
    let mut all: Vec<_> = manager.interfaces.inet.neighbors().entries(manager.now_ms()).collect();
    all.sort_unstable_by_key(|e| (e.interface, e.address));
    let rows = all.iter().take(ROWS_MAX).map(|e| {
        json!({
            "interface": name_of(&manager.shared, e.interface),
            "address": e.address.to_string(),
            "mac": e.mac.map_or(String::new(), |mac| mac.to_string()),
            "state": e.state.name(),
            "routes": e.references,
            "age_ms": e.age_ms,
        })
    });
    let more = (all.len() > ROWS_MAX)
        .then(|| json!({ "interface": "...", "address": format!("{} neighbours in all", all.len()) }));
    rows.chain(more).collect()
}

/// The protocols attached to interfaces.
pub(super) fn protocols(manager: &Manager) -> Value {
    let links = manager.interfaces.links.iter().enumerate();
    let rows = links.flat_map(|(i, link)| link.more.protocols.iter().map(move |protocol| (i, protocol)));
    rows.map(|(i, protocol)| {
        json!({
            "interface": name_of(&manager.shared, i as u16),
            "protocol": protocol.family.name(),
            "owner": manager.shared.owner_name(protocol.owner),
            "handler": match protocol.handler {
                Handler::Inet => "IPv4",
                Handler::Inet6 => "IPv6",
                Handler::Own(_) => "extension",
            },
        })
    })
    .collect()
}

/// What a worker's IP layer did.
pub(super) fn worker(shared: &Shared, number: usize) -> Value {
    let counters = &shared.workers[number].inet;
    json!({
        "worker": number,
        "forwarded": counters.forwarded.get(),
        "delivered": counters.delivered.get(),
        "originated": counters.originated.get(),
        "reassembled": counters.reassembled.get(),
        "fragments_made": counters.fragments_made.get(),
        "fragment_frames": counters.fragment_frames.get(),
        "icmp_errors": counters.icmp_errors.get(),
        "icmp_suppressed": counters.icmp_suppressed.get(),
        "neighbor_packets": counters.neighbor_packets.get(),
        "neighbor_answers": counters.neighbor_answers.get(),
        "neighbor_waiting": counters.neighbor_waiting.get(),
    })
}

/// What went past them.
pub(super) fn around_workers(doors: &Doors) -> Value {
    json!({ "worker": "shortcut", "forwarded": doors.forwarded() })
}

/// How the kernel's tables are followed.
pub(super) fn kernel(manager: &Manager) -> Value {
    let row = |exchange: &std::sync::Arc<crate::mirror::Exchange>| -> Value {
        let figures = exchange.figures.all().into_iter();
        figures.map(|(name, value)| (name.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
    };
    manager.exchange.iter().map(row).collect()
}
