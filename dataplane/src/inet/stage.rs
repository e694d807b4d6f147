//! A burst on its way through a worker: the worker's parts, borrowed for one round.

use nke_filters::{
    AttachId, Direction, DropReason, Family, IfIndex, IpHook, LinkDest, ProtocolFamily, Refused, Target,
};
use nke_mbuf::{Burst, Mbuf};

use super::link::Link;
use super::mac::Mac;
use super::worker::InetWorker;
use crate::caught::caught;
use crate::drop::{HANDOVER_FULL, IF_DOWN, LOOPED, NO_ROOM};
use crate::pfil::Hook;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::worker::Lane;

/// Everything a step may need. Packets are in the slots of `burst`; in the IP layer a mask says which of them a step works
/// on, and the others keep their places.
pub(crate) struct Path<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) hook: Hook<'a>,
    pub(crate) lanes: &'a mut Vec<Lane>,
    pub(crate) burst: &'a mut Burst,
    pub(crate) inet: &'a mut InetWorker,
    pub(crate) shared: &'a Shared,
}

/// The places of a mask.
pub(super) fn places(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (place < 64).then_some(place as usize)
    })
}

impl Path<'_> {
    /// Drops the packet at `place`.
    #[inline]
    pub(super) fn drop_at(&mut self, place: usize, reason: DropReason) {
        if let Some(mbuf) = self.burst.take(place) {
            self.drop(mbuf, reason);
        }
    }

    /// Drops a packet. Not inlined: the loops of the steps keep their registers.
    #[cold]
    #[inline(never)]
    pub(crate) fn drop(&mut self, mbuf: Mbuf, reason: DropReason) {
        self.hook.drop(mbuf, reason);
    }

    /// Runs the filters of a hook over the places in `mask`; returns those that still have a packet. With `after`, filters
    /// attached since that one, and that one, are left out.
    #[inline]
    pub(super) fn filters(
        &mut self,
        family: Family,
        hook: IpHook,
        mask: u64,
        after: Option<AttachId>,
    ) -> u64 {
        let mut chain = self.snapshot.ip[family as usize].at(hook);
        if chain.is_empty() {
            return mask;
        }
        if let Some(after) = after {
            // Newest first, and numbers are given out in order.
            let behind = chain.iter().position(|a| a.id.0 < after.0).unwrap_or(chain.len());
            chain = &chain[behind..];
        }
        self.hook.run_ip(chain, hook, self.burst, mask)
    }

    /// Puts the link header of interface `out` before an IP packet and stages it for its lane.
    #[inline]
    pub(super) fn send(&mut self, mut mbuf: Mbuf, family: Family, to: Mac, out: u16) {
        let snapshot = self.snapshot;
        let Some(link) = snapshot.links.get(usize::from(out)) else { return self.drop(mbuf, NO_ROOM) };
        if !link.ethernet {
            return self.send_by_driver(mbuf, family, link, out);
        }
        let Some(header) = mbuf.prepend(14).and_then(|bytes| bytes.first_chunk_mut()) else {
            return self.drop(mbuf, NO_ROOM);
        };
        let ethertype = match family {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        };
        to.write_header(header, link.mac, ethertype);
        self.stage(mbuf, out);
    }

    /// A link whose frames only its driver knows.
    #[cold]
    fn send_by_driver(&mut self, mut mbuf: Mbuf, family: Family, link: &Link, out: u16) {
        let family = match family {
            Family::V4 => ProtocolFamily::INET,
            Family::V6 => ProtocolFamily::INET6,
        };
        let framed = link.more.driver.as_ref().is_some_and(|driver| {
            let framer = || driver.framer(&mut mbuf, family, LinkDest::OtherEnd);
            caught(framer).unwrap_or(false)
        });
        if framed { self.stage(mbuf, out) } else { self.drop(mbuf, NO_ROOM) }
    }

    /// Stages a whole frame for interface `out`: for its lane here, its driver, or the worker that has a lane of it.
    #[inline]
    pub(super) fn stage(&mut self, mbuf: Mbuf, out: u16) {
        let Some(lane) = self.inet.lane_of(usize::from(out)) else { return self.stage_elsewhere(mbuf, out) };
        if self.inet.staged[lane].room() == 0 {
            self.transmit_staged(lane);
        }
        let full = self.inet.staged[lane].push(mbuf);
        debug_assert!(full.is_ok(), "the lane took its burst, or dropped it");
    }

    #[cold]
    fn stage_elsewhere(&mut self, mbuf: Mbuf, out: u16) {
        let Some(link) = self.snapshot.links.get(usize::from(out)) else { return self.drop(mbuf, IF_DOWN) };
        if link.more.driver.is_some() {
            return match self.hook.requeue.push(Target::Output(IfIndex(out)), mbuf) {
                Ok(()) => (),
                Err(refused) => {
                    let reason = if matches!(refused, Refused::Loop(_)) { LOOPED } else { HANDOVER_FULL };
                    self.drop(refused.into_mbuf(), reason);
                }
            };
        }
        // Its queues are other workers': one of them sends it.
        let Some(ifnet) = self.shared.interfaces.get(IfIndex(out)) else { return self.drop(mbuf, IF_DOWN) };
        if let Err(mbuf) = ifnet.injected(Direction::Output).push(mbuf) {
            return self.drop(mbuf, HANDOVER_FULL);
        }
        self.shared.nudge(ifnet.worker());
    }

    /// Interface output for what is staged for a lane.
    pub(super) fn transmit_staged(&mut self, lane: usize) {
        // The burst at hand may be in use: the lane's changes places with it.
        std::mem::swap(self.burst, &mut self.inet.staged[lane]);
        self.output_lane(lane);
        std::mem::swap(self.burst, &mut self.inet.staged[lane]);
    }

    /// Interface output for everything staged.
    #[inline]
    pub(crate) fn transmit_all(&mut self) {
        for lane in 0..self.inet.staged.len() {
            if !self.inet.staged[lane].is_empty() {
                self.transmit_staged(lane);
            }
        }
    }
}
