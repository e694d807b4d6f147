//! Sends what the table of neighbours asks for: ARP requests and neighbour solicitations, made by the control thread and
//! injected like any other frame.

use std::net::IpAddr;

use nke_filters::{Direction, IfIndex};
use nke_inet::neigh::{arp_request, neighbor_solicitation};

use super::control::Send;
use crate::shared::Shared;

/// Carries one out. Without a frame, or with the interface's queue full, it is lost: the next one is a second away.
pub(crate) fn send(shared: &Shared, send: Send) {
    let Send::Solicit { interface, mac, source, target, to } = send else {
        // Nobody follows the kernel's tables.
        return;
    };
    let Some(ifnet) = shared.interfaces.get(IfIndex(interface)) else { return };
    let Some(mut mbuf) = shared.pool.alloc() else { return };
    let made = match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => arp_request(&mut mbuf, mac, source, target, to),
        (IpAddr::V6(source), IpAddr::V6(target)) => neighbor_solicitation(&mut mbuf, mac, source, target, to),
        _ => false,
    };
    if made && ifnet.injected(Direction::Output).push(mbuf).is_ok() {
        shared.nudge(ifnet.worker());
    }
}
