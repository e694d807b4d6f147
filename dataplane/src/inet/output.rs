//! Out of the layer: the output hook, fragmentation, the neighbour, the link.

use std::net::IpAddr;

use nke_filters::{AttachId, Family, IpHook, Stage, Target};
use nke_inet::finalize::{PENDING, finalize};
use nke_inet::fragment::{FragError, fragment_v4, fragment_v6};
use nke_inet::icmp::{ErrorV4, ErrorV6};
use nke_mbuf::{Burst, Flags, Mbuf};

use super::check::ETHER_LEN;
use super::mac::Mac;
use super::pending::NextHop;
use super::reasons;
use super::route::destination;
use super::stage::{Path, places};
use super::tables::{Adjacency, Way};
use crate::drop::{CHECKSUM_PENDING, FRAG_TOO_MANY, IF_DOWN, LOOPED, NEIGHBOR_UNRESOLVED, NO_ROUTE, TOO_BIG};

/// A burst of so many packets by one interface is sent as it is; fewer wait for others to go with.
const WORTH_A_CALL: usize = 8;

impl Path<'_> {
    /// Sends the packets at the places of `mask` on their ways, which stand beside the burst.
    #[inline]
    pub(super) fn ip_output(&mut self, family: Family, mut mask: u64, after: Option<AttachId>) {
        self.hook.trace(self.burst, mask, &Stage::Hook(IpHook::Output));
        mask = self.filters(family, IpHook::Output, mask, after);
        let (framed, out) = self.frame_in_place(family, mask);
        let whole = u64::MAX.checked_shr(64 - self.burst.len() as u32).unwrap_or(0);
        if framed == whole
            && self.burst.len() >= WORTH_A_CALL
            && let Some(lane) = self.inet.lane_of(usize::from(out))
        {
            // What is staged came before.
            if !self.inet.staged[lane].is_empty() {
                self.transmit_staged(lane);
            }
            return self.output_lane(lane);
        }
        // One by one, in order: flows stay as they came.
        for place in places(mask) {
            let Some(mbuf) = self.burst.take(place) else { continue };
            if framed >> place & 1 == 1 {
                self.stage(mbuf, out);
                continue;
            }
            let found = self.inet.way_of[place];
            match found.via().map(|id| (id, self.inet.tables.adjacency(id))) {
                Some((_, Some(Adjacency { mac, out }))) => self.fit(mbuf, family, mac, out),
                Some((id, None)) => self.unresolved(mbuf, family, id),
                None => match found.way() {
                    Way::Link(out) => self.on_link(mbuf, family, out),
                    // Only packets with a way out get here.
                    _ => self.drop(mbuf, NO_ROUTE),
                },
            }
        }
    }

    /// Puts link headers before the packets that go out by the same interface as the first of `mask`, as long as nothing
    /// is special about them. Returns their places and the interface.
    #[inline]
    fn frame_in_place(&mut self, family: Family, mask: u64) -> (u64, u16) {
        let inet = &*self.inet;
        let adjacencies = inet.tables.adjacencies();
        let adjacency = |place: usize| inet.way_of[place].via().and_then(&adjacencies);
        let first = places(mask).next().and_then(adjacency);
        let Some(out) = first.map(|adjacency| adjacency.out) else { return (0, 0) };
        let Some(link) = self.snapshot.links.get(usize::from(out)).filter(|link| link.ethernet) else {
            return (0, 0);
        };
        let ethertype = match family {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        };
        let (from, mtu) = (link.mac, link.mtu as usize);
        let slots = self.burst.slots_mut();
        let mut framed = 0;
        for place in places(mask) {
            let Some(mbuf) = &mut slots[place] else { continue };
            let Some(to) = adjacency(place).filter(|to| to.out == out) else { continue };
            if mbuf.len() > mtu || mbuf.flags().0 & PENDING != 0 {
                continue;
            }
            let Some(header) = mbuf.prepend(ETHER_LEN).and_then(|bytes| bytes.first_chunk_mut()) else {
                continue;
            };
            to.mac.write_header(header, from, ethertype);
            framed |= 1 << place;
        }
        (framed, out)
    }

    /// Sends a packet made here. It is routed, and seen by output filters; with `after`, by those behind that one.
    pub(super) fn originate(&mut self, family: Family, mbuf: Mbuf, after: Option<AttachId>) {
        let way = self.way_to(family, &mbuf);
        if way == Way::Local {
            return self.loop_back(mbuf);
        }
        if !matches!(way, Way::Via(_) | Way::Link(_)) {
            // Made here: nobody is told.
            return self.drop(mbuf, NO_ROUTE);
        }
        // The burst may be in use by the step that calls: one of its own, then.
        let mut own = std::mem::take(&mut self.inet.spare);
        std::mem::swap(self.burst, &mut own);
        let full = self.burst.push(mbuf);
        debug_assert!(full.is_ok(), "the spare burst is empty");
        let kept = self.inet.way_of[0];
        self.inet.way_of[0] = way.into();
        self.hook.status.inet.originated.add(1);
        self.trace_route(1);
        self.ip_output(family, 1, after);
        self.inet.way_of[0] = kept;
        self.burst.compact();
        std::mem::swap(self.burst, &mut own);
        self.inet.spare = own;
    }

    /// A packet made here for an address of ours: received, in the next step of this round.
    #[cold]
    fn loop_back(&mut self, mut mbuf: Mbuf) {
        mbuf.flags_mut().insert(Flags::LOOP);
        // A reference to an output filter says nothing about input.
        if let Err(refused) = self.hook.requeue.push(Target::IpInput(None), mbuf) {
            self.drop(refused.into_mbuf(), LOOPED);
        }
    }

    /// The neighbour a route names has not answered yet.
    #[cold]
    fn unresolved(&mut self, mbuf: Mbuf, family: Family, id: u32) {
        match self.inet.tables.neighbor(id) {
            Some((out, address)) => self.hold(mbuf, family, NextHop { out, address, id: Some(id) }),
            None => self.drop(mbuf, NEIGHBOR_UNRESOLVED),
        }
    }

    /// The destination itself is on the link.
    #[cold]
    fn on_link(&mut self, mbuf: Mbuf, family: Family, out: u16) {
        let snapshot = self.snapshot;
        let Some(link) = snapshot.links.get(usize::from(out)).filter(|link| link.up) else {
            return self.drop(mbuf, IF_DOWN);
        };
        let address = destination(family, &mbuf);
        match address {
            _ if !link.resolves() => self.fit(mbuf, family, Mac::default(), out),
            // RFC 1112 section 6.4, RFC 2464 section 7.
            IpAddr::V4(group) if group.is_multicast() => {
                let [_, b, c, d] = group.octets();
                self.fit(mbuf, family, Mac::from([0x01, 0x00, 0x5e, b & 0x7f, c, d]), out);
            }
            IpAddr::V6(group) if group.is_multicast() => {
                let [.., a, b, c, d] = group.octets();
                self.fit(mbuf, family, Mac::from([0x33, 0x33, a, b, c, d]), out);
            }
            IpAddr::V4(all) if all.is_broadcast() => self.fit(mbuf, family, Mac::from([0xff; 6]), out),
            _ => self.hold(mbuf, family, NextHop { out, address, id: None }),
        }
    }

    /// Sends the packet, cut to what the link takes.
    #[inline]
    pub(super) fn fit(&mut self, mbuf: Mbuf, family: Family, to: Mac, out: u16) {
        // A neighbour may be told of before the snapshot that has its interface, and after.
        let Some(link) = self.snapshot.links.get(usize::from(out)) else { return self.drop(mbuf, IF_DOWN) };
        let mtu = link.mtu as usize;
        if mbuf.len() <= mtu && mbuf.flags().0 & PENDING == 0 {
            return self.send(mbuf, family, to, out);
        }
        self.unfit(mbuf, family, to, out, mtu);
    }

    /// A packet whose checksums are still to be computed, or that is too big.
    #[cold]
    fn unfit(&mut self, mut mbuf: Mbuf, family: Family, to: Mac, out: u16, mtu: usize) {
        if !finalize(&mut mbuf) {
            return self.drop(mbuf, CHECKSUM_PENDING);
        }
        if mbuf.len() <= mtu {
            return self.send(mbuf, family, to, out);
        }
        self.too_big(mbuf, family, to, out, mtu);
    }

    fn too_big(&mut self, mbuf: Mbuf, family: Family, to: Mac, out: u16, mtu: usize) {
        let (mut pieces, mut over) = (Burst::new(), 0);
        let cache = &mut *self.hook.cache;
        // More than a burst: a small MTU, and a datagram of tens of kilobytes. The rest goes home as it is dropped.
        let emit = |piece| over += u64::from(pieces.push(piece).is_err());
        let outcome = match family {
            Family::V4 => fragment_v4(mbuf, mtu, cache, emit),
            // Routers do not fragment: only what we put together, or made, may be cut.
            Family::V6 if mbuf.is_contiguous() => Err((mbuf, FragError::NeedFrag(mtu))),
            Family::V6 => {
                let ident = self.inet.next_ident();
                fragment_v6(mbuf, mtu, ident, cache, emit)
            }
        };
        self.hook.status.drops[FRAG_TOO_MANY.index()].add(over);
        self.hook.status.inet.fragments_made.add(pieces.len() as u64);
        pieces.take_first(usize::MAX, |piece| self.send(piece, family, to, out));
        let Err((mbuf, error)) = outcome else { return };
        if let FragError::NeedFrag(mtu) = error {
            match family {
                Family::V4 => self.icmp_error_v4(&mbuf, ErrorV4::FragmentationNeeded { mtu: mtu as u16 }),
                Family::V6 => self.icmp_error_v6(&mbuf, ErrorV6::PacketTooBig { mtu: mtu as u32 }),
            }
            return self.drop(mbuf, TOO_BIG);
        }
        self.drop(mbuf, reasons::of_fragmenting(error));
    }
}
