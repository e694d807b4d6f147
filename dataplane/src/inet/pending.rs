//! Packets that wait for the link address of their next hop (RFC 1122 section 2.3.2.2, RFC 4861 section 7.2.2): a few for
//! each neighbour, for a bounded time, for a bounded number of neighbours.

use std::net::IpAddr;

use nke_filters::Family;
use nke_inet::icmp::{ErrorV4, ErrorV6};
use nke_mbuf::Mbuf;

use super::stage::Path;
use super::tables::{Adjacency, Notice, Way};
use crate::drop::{NEIGHBOR_QUEUE, NEIGHBOR_UNRESOLVED};

/// Neighbours that packets of one worker may wait for.
const NEIGHBORS: usize = 128;
/// Packets for each of them.
const PACKETS: usize = 3;
/// Three requests, a second apart.
const TIMEOUT_MS: u64 = 3_000;

struct Waiting {
    family: Family,
    next_hop: NextHop,
    since_ms: u64,
    packets: [Option<Mbuf>; PACKETS],
}

/// The neighbour a packet is to be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NextHop {
    /// The interface it is at.
    pub(super) out: u16,
    /// Its address.
    pub(super) address: IpAddr,
    /// Its number, if a route names it.
    pub(super) id: Option<u32>,
}

/// One worker's.
pub(super) struct Pending(Vec<Waiting>);

impl Pending {
    pub(super) fn new() -> Pending {
        Pending(Vec::with_capacity(NEIGHBORS))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn packets(&self) -> usize {
        self.0.iter().map(|w| w.packets.iter().flatten().count()).sum()
    }

    /// Every packet, at the end.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Mbuf> + '_ {
        self.0.drain(..).flat_map(|w| w.packets.into_iter().flatten())
    }
}

impl Path<'_> {
    /// Keeps a packet until its neighbour is resolved, and has that done.
    #[cold]
    pub(super) fn hold(&mut self, mbuf: Mbuf, family: Family, next_hop: NextHop) {
        let pending = &mut self.inet.pending.0;
        let at = match pending.iter().position(|w| w.next_hop == next_hop) {
            Some(at) => at,
            None if pending.len() == NEIGHBORS => return self.drop(mbuf, NEIGHBOR_QUEUE),
            None => {
                let since_ms = self.hook.now_ms;
                pending.push(Waiting { family, next_hop, since_ms, packets: [const { None }; PACKETS] });
                let NextHop { out: interface, address, .. } = next_hop;
                // A full queue means that the control thread is behind; the packets time out, and the next ones ask again.
                let _ = self.inet.tables.notices.push(Notice::Wanted { interface, address });
                pending.len() - 1
            }
        };
        let packets = &mut pending[at].packets;
        if packets[PACKETS - 1].is_some() {
            // RFC 1122 wants the latest kept; the oldest one goes.
            packets.rotate_left(1);
            if let Some(oldest) = packets[PACKETS - 1].take() {
                self.hook.drop(oldest, NEIGHBOR_QUEUE);
            }
        }
        if let Some(slot) = packets.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(mbuf);
        }
        self.count_pending();
    }

    fn count_pending(&self) {
        self.hook.status.inet.neighbor_waiting.set(self.inet.pending.packets() as u64);
    }

    /// Sends what waits for neighbours that were resolved meanwhile; drops, and answers, what waited for too long.
    #[cold]
    pub(super) fn poll_pending(&mut self) {
        if self.inet.pending.is_empty() {
            return;
        }
        // Answers may have to wait in turn: they do so in the other list.
        std::mem::swap(&mut self.inet.pending, &mut self.inet.pending_spare);
        let mut at = 0;
        while let Some(waiting) = self.inet.pending_spare.0.get(at) {
            let resolved = self.resolved(waiting.next_hop);
            let late = self.hook.now_ms.saturating_sub(waiting.since_ms) >= TIMEOUT_MS;
            if resolved.is_none() && !late {
                at += 1;
                continue;
            }
            let gone = self.inet.pending_spare.0.swap_remove(at);
            match resolved {
                Some(Adjacency { mac, out }) => {
                    gone.packets.into_iter().flatten().for_each(|mbuf| self.fit(mbuf, gone.family, mac, out));
                }
                None => self.give_up(gone),
            }
        }
        std::mem::swap(&mut self.inet.pending, &mut self.inet.pending_spare);
        while let Some(waiting) = self.inet.pending_spare.0.pop() {
            waiting
                .packets
                .into_iter()
                .flatten()
                .for_each(|mbuf| self.hold(mbuf, waiting.family, waiting.next_hop));
        }
        self.count_pending();
    }

    /// The first packet is answered, all are dropped.
    fn give_up(&mut self, waiting: Waiting) {
        for (i, mbuf) in waiting.packets.into_iter().flatten().enumerate() {
            match waiting.family {
                _ if i > 0 => (),
                Family::V4 => self.icmp_error_v4(&mbuf, ErrorV4::HostUnreachable),
                Family::V6 => self.icmp_error_v6(&mbuf, ErrorV6::AddressUnreachable),
            }
            self.drop(mbuf, NEIGHBOR_UNRESOLVED);
        }
    }

    /// Where packets to this neighbour go, if that is known by now.
    fn resolved(&self, next_hop: NextHop) -> Option<Adjacency> {
        let tables = &self.inet.tables;
        if let Some(id) = next_hop.id {
            return tables.adjacency(id);
        }
        // A neighbour that was resolved has a route of its own.
        match tables.lookup(next_hop.address) {
            Way::Via(id) if tables.neighbor(id) == Some((next_hop.out, next_hop.address)) => {
                tables.adjacency(id)
            }
            _ => None,
        }
    }
}
