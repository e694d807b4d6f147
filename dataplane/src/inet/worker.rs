//! What one worker keeps for the IP layer.

use std::sync::Arc;

use nke_filters::IFNETS_MAX;
use nke_inet::fib::Found;
use nke_inet::icmp::RateLimiter;
use nke_inet::reass::Reassembler;
use nke_mbuf::{BURST_MAX, Burst, Cache};

use super::pending::Pending;
use super::tables::Tables;
use crate::worker::Lane;

/// No lane of this worker.
const NO_LANE: u16 = u16::MAX;

/// One worker's share of the layer. All of it is allocated before the worker starts.
pub struct InetWorker {
    pub(super) tables: Arc<Tables>,
    pub(super) reassembler: Reassembler,
    pub(super) limiter: RateLimiter,
    pub(super) pending: Pending,
    pub(super) pending_spare: Pending,
    /// Destination of the IPv4 packet at each place of the burst, for its lookup.
    pub(super) to4: [u32; BURST_MAX],
    /// The way of the packet at each place of the burst.
    pub(super) way_of: [Found; BURST_MAX],
    /// For packets made while the burst is in use.
    pub(super) spare: Burst,
    /// First fragments of datagrams whose time is over.
    pub(super) firsts: Burst,
    /// Framed packets for each lane, until there is a burst of them or the round ends.
    pub(super) staged: Vec<Burst>,
    lane_of: Box<[u16; IFNETS_MAX]>,
    next_ident: u32,
    housekeeping_ms: u64,
}

impl InetWorker {
    /// For a worker with these lanes. `key` is random.
    pub fn new(tables: Arc<Tables>, lanes: &[Lane], key: [u64; 2]) -> InetWorker {
        let mut lane_of = Box::new([NO_LANE; IFNETS_MAX]);
        for (i, lane) in lanes.iter().enumerate().rev() {
            lane_of[lane.interface] = i as u16;
        }
        InetWorker {
            reassembler: Reassembler::new(tables.settings.reassembly.clone(), key),
            limiter: RateLimiter::new(tables.settings.icmp, [key[1], key[0]]),
            pending: Pending::new(),
            pending_spare: Pending::new(),
            to4: [0; BURST_MAX],
            way_of: [Found::default(); BURST_MAX],
            spare: Burst::new(),
            firsts: Burst::new(),
            staged: lanes.iter().map(|_| Burst::new()).collect(),
            lane_of,
            next_ident: key[0] as u32,
            housekeeping_ms: 0,
            tables,
        }
    }

    /// This worker's first lane of an interface.
    #[inline(always)]
    pub(crate) fn lane_of(&self, interface: usize) -> Option<usize> {
        let lane = *self.lane_of.get(interface)?;
        (lane != NO_LANE).then_some(usize::from(lane))
    }

    /// An identification for a datagram that is cut here. It counts up by a step that depends on the number, which is
    /// enough for uniqueness; who sees one of them does not learn how many were sent to others (RFC 7739 section 5.1 wants
    /// no more of a router, which cuts only what was cut before).
    pub(super) fn next_ident(&mut self) -> u32 {
        self.next_ident = self.next_ident.wrapping_mul(0x915f_77f5).wrapping_add(0x6a09_e667);
        self.next_ident
    }

    /// Whether a millisecond has passed since it last said so.
    #[inline(always)]
    pub(crate) fn is_due(&mut self, now_ms: u64) -> bool {
        let due = now_ms != self.housekeeping_ms;
        self.housekeeping_ms = now_ms;
        due
    }

    /// Gives every packet back.
    pub(crate) fn close(&mut self, cache: &mut Cache) {
        self.reassembler.flush(cache);
        self.pending.drain().for_each(|mbuf| cache.free(mbuf));
        for burst in &mut self.staged {
            cache.free_burst(burst);
        }
        let worker_queues = self.tables.handover.iter().flat_map(|q| std::iter::from_fn(|| q.pop()));
        worker_queues.for_each(|mbuf| cache.free(mbuf));
        let injected = self.tables.injected.iter().flat_map(|q| std::iter::from_fn(|| q.pop()));
        injected.for_each(|(_, mbuf)| cache.free(mbuf));
    }
}
