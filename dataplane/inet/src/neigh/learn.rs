//! What is heard: RFC 4861 section 7.2.5 and appendix C, RFC 826 "packet reception", RFC 5227 section 2.4.

use std::net::IpAddr;

use nke_mbuf::wire::EtherAddr;

use super::action::{Action, State};
use super::event::{Event, Kind};
use super::neighbors::{CONFLICTS, Neighbors};
use crate::icmp::limit::TOKEN;

/// What an answer says of an address.
#[derive(Clone, Copy)]
struct Claim {
    mac: Option<EtherAddr>,
    solicited: bool,
    override_flag: bool,
}

impl Neighbors {
    /// A worker heard something. `ours` says of an address on an interface that it is ours, by our link address there.
    pub fn event(
        &mut self,
        event: &Event,
        now_ms: u64,
        ours: impl Fn(u16, IpAddr) -> Option<EtherAddr>,
        out: &mut Vec<Action>,
    ) {
        let interface = event.interface;
        let (address, claim, asked) = match event.kind {
            Kind::Other => return,
            // Who asks whether he may take an address has none yet.
            Kind::Request { sender, .. } if sender.is_unspecified() => return,
            Kind::Request { sender, mac, target } => {
                (sender, Claim { mac, solicited: false, override_flag: true }, Some(target))
            }
            Kind::Answer { address, mac, solicited, override_flag, .. } => {
                (address, Claim { mac, solicited, override_flag }, None)
            }
        };
        if let Some(our_mac) = ours(interface, address) {
            if let Some(mac) = claim.mac.filter(|mac| *mac != our_mac) {
                self.conflict(interface, address, mac, now_ms, out);
            }
            return;
        }
        if self.mirrors_kernel() {
            return;
        }
        if let Some(id) = self.table.find(interface, address) {
            self.hear(id, claim, now_ms, out);
            return;
        }
        let for_us = asked.is_some_and(|target| ours(interface, target).is_some());
        let Some(mac) = claim.mac.filter(|_| for_us) else {
            self.stats.unknown += 1;
            return;
        };
        if self.table.free() <= self.table.capacity() / 2 {
            self.stats.refused_full += 1;
        } else if let Some(id) = self.create(interface, address, State::Stale, now_ms, out) {
            self.learn_mac(id, mac, now_ms, out);
            self.arm(id, now_ms + self.config.stale_ms);
        }
    }

    fn conflict(
        &mut self,
        interface: u16,
        address: IpAddr,
        mac: EtherAddr,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) {
        self.stats.conflicts += 1;
        self.conflicts.fill(now_ms, CONFLICTS, u64::from(CONFLICTS) * TOKEN);
        if self.conflicts.take() {
            out.push(Action::Conflict { interface, address, mac });
        }
    }

    /// A claim about an entry.
    fn hear(&mut self, id: u32, claim: Claim, now_ms: u64, out: &mut Vec<Action>) {
        let entry = self.table.at(id);
        let Some(state) = entry.state else { return };
        let awaited = match state {
            State::Incomplete | State::Probe => true,
            State::Failed => entry.refs > 0,
            _ => false,
        };
        // An answer proves that packets arrive there; one that nobody waits for proves nothing.
        let proof = claim.solicited && awaited;
        let other = claim.mac.filter(|mac| entry.mac != Some(*mac));
        let locked = !proof && now_ms < entry.heard_ms.saturating_add(self.config.lock_ms);
        match other {
            None if proof && state.has_mac() => self.confirm(id, now_ms),
            None => {}
            Some(_) if state == State::Static => self.stats.static_kept += 1,
            Some(mac) if !state.has_mac() => self.take(id, mac, proof, now_ms, out),
            // It has another one, and shall not lose it by this; but is that one right?
            Some(_) if !claim.override_flag => self.doubt_reachable(id, now_ms, out),
            Some(_) if locked => self.stats.locked += 1,
            Some(mac) => self.take(id, mac, proof, now_ms, out),
        }
    }

    fn doubt_reachable(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        if self.table.at(id).state == Some(State::Reachable) {
            self.enter(id, State::Stale, now_ms);
            self.settle(id, now_ms, out);
        }
    }

    /// The neighbour has this link address from now on.
    fn take(&mut self, id: u32, mac: EtherAddr, proof: bool, now_ms: u64, out: &mut Vec<Action>) {
        self.learn_mac(id, mac, now_ms, out);
        if proof {
            self.confirm(id, now_ms);
        } else {
            self.enter(id, State::Stale, now_ms);
            self.settle(id, now_ms, out);
        }
    }

    /// Notes the link address, and tells it if it is another one.
    pub(super) fn learn_mac(&mut self, id: u32, mac: EtherAddr, now_ms: u64, out: &mut Vec<Action>) {
        let entry = self.table.at_mut(id);
        let old = entry.mac.replace(mac);
        entry.heard_ms = now_ms;
        if old != Some(mac) {
            self.stats.changed += u64::from(old.is_some());
            out.push(Action::Reachable { id, interface: entry.interface, address: entry.address, mac });
        }
    }

    fn confirm(&mut self, id: u32, now_ms: u64) {
        self.stats.confirmed += 1;
        let entry = self.table.at_mut(id);
        entry.proven = true;
        entry.heard_ms = now_ms;
        self.enter(id, State::Reachable, now_ms);
        self.arm(id, now_ms + self.config.reachable_ms);
    }
}
