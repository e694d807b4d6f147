//! The ways that packets took, as a probe tells them, for users.

use nke_filters::{AttachId, IfIndex, NextHop, PathReport, Stage};
use serde_json::{Value, json};

use super::inet::name_of;
use crate::caught::caught;
use crate::manager::Manager;
use crate::snapshot::{Attachment, Instance};

/// Ways that are shown at most; those that the most packets took.
const PATHS_MAX: usize = 200;

/// An array of ways, each with its `packets`, an `example`, and its `stages`; those with a name and `ns` since the one before.
pub fn paths(manager: &Manager, probe: &Attachment) -> Value {
    let Instance::Probe(probe) = &probe.filter else { return json!([]) };
    let all = caught(|| probe.paths()).unwrap_or_default();
    let stage = |(stage, ns): &(Stage, u64)| json!({ "stage": name(manager, *stage), "ns": ns });
    let row = |path: &PathReport| {
        json!({
            "packets": path.packets,
            "example": describe(path),
            "stages": path.stages.iter().map(stage).collect::<Vec<_>>(),
        })
    };
    all.iter().take(PATHS_MAX).map(row).collect()
}

fn name(manager: &Manager, stage: Stage) -> String {
    let interface = |IfIndex(i)| name_of(&manager.shared, i);
    match stage {
        Stage::Input(i) => format!("input {}", interface(i)),
        Stage::Filter(id) => format!("filter {}", filter(manager, id)),
        Stage::Demux => "demux".into(),
        Stage::Hook(hook) => format!("ip {}", hook.name()),
        Stage::Route(NextHop::Local) => "route: local".into(),
        Stage::Route(NextHop::Via(address, i)) => format!("route: via {address} on {}", interface(i)),
        Stage::Route(NextHop::Link(i)) => format!("route: on link {}", interface(i)),
        Stage::Route(NextHop::Unknown) => "route: gone".into(),
        Stage::Output(i) => format!("output {}", interface(i)),
        Stage::Transmit(i) => format!("transmit {}", interface(i)),
        Stage::Drop(reason) => format!("drop {}", manager.shared.reasons.name(reason)),
    }
}

fn filter(manager: &Manager, id: AttachId) -> String {
    match manager.attachments.iter().find(|a| a.id == id) {
        Some(a) => format!("{id} ({})", a.kind),
        None => id.to_string(),
    }
}

/// A packet in a line.
fn describe(path: &PathReport) -> String {
    let (layers, len) = (&path.example, path.example_len);
    let protocol = layers.protocol.unwrap_or_default();
    match (layers.src(), layers.dst(), layers.ports) {
        (Some(src), Some(dst), _) if layers.ip_version().is_none() => {
            format!("arp {src} > {dst}, {len} bytes")
        }
        (Some(src), Some(dst), Some(ports)) => {
            format!("{protocol} {src} port {} > {dst} port {}, {len} bytes", ports.src, ports.dst)
        }
        (Some(src), Some(dst), None) => format!("{protocol} {src} > {dst}, {len} bytes"),
        _ => format!(
            "{} > {} type {:#06x}, {len} bytes",
            layers.ether_src(),
            layers.ether_dst(),
            layers.ethertype.0
        ),
    }
}
