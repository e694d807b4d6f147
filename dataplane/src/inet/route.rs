//! Where a packet goes: the hook before routing, the lookup of a burst at once, and what the route says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nke_filters::{AttachId, DropReason, Family, IfIndex, IpHook, NextHop, Stage};
use nke_inet::fib::Found;
use nke_inet::icmp::{ErrorV4, ErrorV6};
use nke_mbuf::{BURST_MAX, Mbuf};

use super::forward::hop;
use super::stage::{Path, places};
use super::tables::Way;
use super::worker::InetWorker;
use crate::drop::{BLACKHOLE, NO_ROUTE, NOT_MEMBER, PROHIBITED};

/// Destination of an IPv4 packet, whose header is contiguous.
#[inline(always)]
pub(super) fn dst4(mbuf: &Mbuf) -> Ipv4Addr {
    match mbuf.data().get(16..).and_then(<[u8]>::first_chunk::<4>) {
        Some(bytes) => Ipv4Addr::from(*bytes),
        None => Ipv4Addr::UNSPECIFIED,
    }
}

/// Destination of an IPv6 packet, whose header is contiguous.
#[inline(always)]
pub(super) fn dst6(mbuf: &Mbuf) -> Ipv6Addr {
    match mbuf.data().get(24..).and_then(<[u8]>::first_chunk::<16>) {
        Some(bytes) => Ipv6Addr::from(*bytes),
        None => Ipv6Addr::UNSPECIFIED,
    }
}

/// Destination of a packet of either version.
pub(super) fn destination(family: Family, mbuf: &Mbuf) -> IpAddr {
    match family {
        Family::V4 => dst4(mbuf).into(),
        Family::V6 => dst6(mbuf).into(),
    }
}

impl Path<'_> {
    /// Takes the checked packets at the places of `mask`. All leave the burst.
    pub(super) fn ip(&mut self, family: Family, mask: u64, after: Option<AttachId>) {
        if family == Family::V4 {
            self.note_destinations(mask);
        }
        self.ip_noted(family, mask, after);
    }

    /// Notes where the IPv4 packets at the places of `mask` go to, for [`Path::ip_noted`].
    #[cold]
    pub(super) fn note_destinations(&mut self, mask: u64) {
        let prefetch = self.inet.tables.fib4().prefetches4();
        for place in places(mask) {
            if let Some(mbuf) = &self.burst.slots()[place] {
                let to = dst4(mbuf).to_bits();
                prefetch(to);
                self.inet.to4[place] = to;
            }
        }
    }

    /// As [`Path::ip`], for packets whose destinations were noted as they were checked.
    #[inline]
    pub(super) fn ip_noted(&mut self, family: Family, mut mask: u64, after: Option<AttachId>) {
        self.hook.trace(self.burst, mask, &Stage::Hook(IpHook::Prerouting));
        let chains = &self.snapshot.ip[family as usize];
        if chains.wants_whole || !chains.at(IpHook::Prerouting).is_empty() {
            if chains.wants_whole {
                mask = self.reassemble(family, mask);
            }
            mask = self.filters(family, IpHook::Prerouting, mask, after);
            // Filters may have changed them.
            if family == Family::V4 {
                self.note_destinations(mask);
            }
        }
        if mask != 0 {
            self.routed_noted(family, mask, after);
        }
    }

    /// As [`Path::ip`], behind the prerouting hook.
    pub(super) fn routed(&mut self, family: Family, mask: u64, after: Option<AttachId>) {
        if family == Family::V4 {
            self.note_destinations(mask);
        }
        self.routed_noted(family, mask, after);
    }

    /// Looks the noted destinations up and sends each packet on its way.
    #[inline]
    fn routed_noted(&mut self, family: Family, mask: u64, after: Option<AttachId>) {
        if family == Family::V6 {
            self.lookup6(mask);
        }
        let mut forward = self.via_neighbors(family, mask);
        if forward != mask {
            let (local, others) = self.other_ways(family, mask & !forward);
            if local != 0 {
                self.local(family, local, after);
            }
            forward |= self.take_hop(family, others);
        }
        if forward != 0 {
            self.forward(family, forward, after);
        }
    }

    /// The nearly only case: takes a hop off packets that a neighbour is the way of, and that have one left. Returns their
    /// places; nothing was done to the others, but that their ways are noted. A call for a burst: in a function of its own the
    /// loop has the registers to itself.
    #[inline(never)]
    fn via_neighbors(&mut self, family: Family, mask: u64) -> u64 {
        let InetWorker { tables, to4, way_of, .. } = &mut *self.inet;
        let (lookup, slots) = (tables.fib4().lookups4(), self.burst.slots_mut());
        let mut forward = 0;
        for place in places(mask) {
            if family == Family::V4 {
                way_of[place] = lookup(to4[place]);
            }
            if way_of[place].via().is_some()
                && let Some(mbuf) = &mut slots[place]
                && hop(family, mbuf).is_ok()
            {
                forward |= 1 << place;
            }
        }
        forward
    }

    /// Tells probes where the packets at the places of `mask` go.
    #[inline(always)]
    pub(super) fn trace_route(&mut self, mask: u64) {
        if self.hook.probes.trace() {
            self.tell_route(mask);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_route(&mut self, mask: u64) {
        let (tables, ways) = (&self.inet.tables, &self.inet.way_of);
        let next_hop = |place: usize| match ways[place].way() {
            Way::Local => NextHop::Local,
            Way::Link(out) => NextHop::Link(IfIndex(out)),
            Way::Via(id) => tables
                .neighbor(id)
                .map_or(NextHop::Unknown, |(out, address)| NextHop::Via(address, IfIndex(out))),
            // Groups are delivered here whatever the table says.
            _ => NextHop::Local,
        };
        self.hook.tell_passing(self.burst, mask, |place| Stage::Route(next_hop(place)));
    }

    fn lookup6(&mut self, mask: u64) {
        let (mut destinations, mut found) = ([0u128; BURST_MAX], [Found::default(); BURST_MAX]);
        let mut count = 0;
        for place in places(mask) {
            let Some(mbuf) = &self.burst.slots()[place] else { continue };
            destinations[count] = dst6(mbuf).to_bits();
            count += 1;
        }
        self.inet.tables.lookup6(&destinations[..count], &mut found);
        for (place, found) in places(mask).zip(found) {
            self.inet.way_of[place] = found;
        }
    }

    /// Everything else. Packets that go nowhere are dropped and answered. Returns the places of packets for this host, and of
    /// those for others, which have all their hops yet.
    #[cold]
    fn other_ways(&mut self, family: Family, mask: u64) -> (u64, u64) {
        let (mut local, mut forward) = (0, 0);
        for place in places(mask) {
            let mut way = self.inet.way_of[place].way();
            if let Way::Several(group) = way {
                way = match &self.burst.slots()[place] {
                    Some(mbuf) => self.inet.tables.choose(group, family, mbuf),
                    None => continue,
                };
                self.inet.way_of[place] = way.into();
            }
            match way {
                Way::Via(_) | Way::Link(_) => forward |= 1 << place,
                Way::Local => local |= 1 << place,
                _ if self.is_group(family, place) => local |= 1 << place,
                other => self.nowhere(family, place, other),
            }
        }
        (local, forward)
    }

    /// The way to one destination, for a packet that is made here.
    pub(super) fn way_to(&self, family: Family, mbuf: &Mbuf) -> Way {
        match self.inet.tables.lookup(destination(family, mbuf)) {
            Way::Several(group) => self.inet.tables.choose(group, family, mbuf),
            way => way,
        }
    }

    /// Groups need no route: who is in them is decided where they are delivered.
    #[cold]
    fn is_group(&self, family: Family, place: usize) -> bool {
        self.burst.slots()[place].as_ref().is_some_and(|mbuf| match destination(family, mbuf) {
            IpAddr::V4(dst) => dst.is_multicast() || dst.is_broadcast(),
            IpAddr::V6(dst) => dst.is_multicast(),
        })
    }

    #[cold]
    fn nowhere(&mut self, family: Family, place: usize, way: Way) {
        let Some(mbuf) = self.burst.take(place) else { return };
        let (reason, v4, v6): (DropReason, _, _) = match way {
            Way::Blackhole => return self.drop(mbuf, BLACKHOLE),
            Way::Prohibit => (PROHIBITED, ErrorV4::AdminProhibited, ErrorV6::AdminProhibited),
            Way::Unreachable => (PROHIBITED, ErrorV4::HostUnreachable, ErrorV6::AddressUnreachable),
            _ => (NO_ROUTE, ErrorV4::NetUnreachable, ErrorV6::NoRoute),
        };
        match family {
            Family::V4 => self.icmp_error_v4(&mbuf, v4),
            Family::V6 => self.icmp_error_v6(&mbuf, v6),
        }
        self.drop(mbuf, reason);
    }

    /// A packet for a group nobody here is in.
    pub(super) fn not_member(&mut self, mbuf: Mbuf) {
        self.drop(mbuf, NOT_MEMBER);
    }
}
