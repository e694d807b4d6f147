//! Where a packet goes: the hook before routing, the lookup of a burst at once, and what the route says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nke_filters::{AttachId, DropReason, Family, IpHook};
use nke_inet::fib::Found;
use nke_inet::icmp::{ErrorV4, ErrorV6};
use nke_mbuf::{BURST_MAX, Mbuf};

use super::stage::{Path, places};
use super::tables::Way;
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
        for place in places(mask) {
            if let Some(mbuf) = &self.burst.slots()[place] {
                self.inet.to4[place] = dst4(mbuf).to_bits();
            }
        }
    }

    /// As [`Path::ip`], for packets whose destinations were noted as they were checked.
    #[inline]
    pub(super) fn ip_noted(&mut self, family: Family, mut mask: u64, after: Option<AttachId>) {
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
        match family {
            Family::V4 => {
                // Places between them are looked up as well, in vain: that costs less than to leave them out.
                let end = 64 - mask.leading_zeros() as usize;
                let inet = &mut *self.inet;
                inet.tables.lookup4(&inet.to4[..end], &mut inet.way_of[..end]);
            }
            Family::V6 => self.lookup6(mask),
        }
        let mut forward = 0;
        for place in places(mask) {
            forward |= u64::from(self.inet.way_of[place].via().is_some()) << place;
        }
        let local = if forward == mask { 0 } else { self.other_ways(family, mask & !forward, &mut forward) };
        if local != 0 {
            self.local(family, local, after);
        }
        if forward != 0 {
            self.forward(family, forward, after);
        }
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

    /// Ways other than by one neighbour. Packets that go nowhere are dropped and answered. Returns the places of packets for
    /// this host, and adds those for others to `forward`.
    #[cold]
    fn other_ways(&mut self, family: Family, mask: u64, forward: &mut u64) -> u64 {
        let mut local = 0;
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
                Way::Via(_) | Way::Link(_) => *forward |= 1 << place,
                Way::Local => local |= 1 << place,
                _ if self.is_group(family, place) => local |= 1 << place,
                other => self.nowhere(family, place, other),
            }
        }
        local
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
