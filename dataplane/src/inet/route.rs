//! Where a packet goes: the hook before routing, the lookup of a burst at once, and what the route says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nke_filters::{AttachId, DropReason, Family, IpHook};
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
    #[inline]
    pub(super) fn ip(&mut self, family: Family, mut mask: u64, after: Option<AttachId>) {
        if self.snapshot.ip[family as usize].wants_whole {
            mask = self.reassemble(family, mask);
        }
        mask = self.filters(family, IpHook::Prerouting, mask, after);
        if mask != 0 {
            self.routed(family, mask, after);
        }
    }

    /// The same, behind the prerouting hook.
    #[inline]
    pub(super) fn routed(&mut self, family: Family, mask: u64, after: Option<AttachId>) {
        let (local, forward) = self.route(family, mask);
        if local != 0 {
            self.local(family, local, after);
        }
        if forward != 0 {
            self.forward(family, forward, after);
        }
    }

    /// Looks the packets' destinations up; their ways stand beside the burst afterwards. Packets that go nowhere are
    /// dropped and answered. Returns the places of packets for this host, and of those for others.
    #[inline]
    fn route(&mut self, family: Family, mask: u64) -> (u64, u64) {
        let mut at = [0u8; BURST_MAX];
        let mut count = 0;
        match family {
            Family::V4 => {
                let mut destinations = [0u32; BURST_MAX];
                for place in places(mask) {
                    let Some(mbuf) = &self.burst.slots()[place] else { continue };
                    destinations[count] = dst4(mbuf).to_bits();
                    at[count] = place as u8;
                    count += 1;
                }
                self.inet.tables.lookup4(&destinations[..count], &mut self.inet.ways);
            }
            Family::V6 => {
                let mut destinations = [0u128; BURST_MAX];
                for place in places(mask) {
                    let Some(mbuf) = &self.burst.slots()[place] else { continue };
                    destinations[count] = dst6(mbuf).to_bits();
                    at[count] = place as u8;
                    count += 1;
                }
                self.inet.tables.lookup6(&destinations[..count], &mut self.inet.ways);
            }
        }
        let (mut local, mut forward) = (0, 0);
        for (i, &place) in at[..count].iter().enumerate() {
            let place = usize::from(place);
            let mut way = self.inet.ways[i];
            if let Way::Several(group) = way {
                way = match &self.burst.slots()[place] {
                    Some(mbuf) => self.inet.tables.choose(group, family, mbuf),
                    None => continue,
                };
            }
            self.inet.way_of[place] = way;
            match way {
                Way::Via(_) | Way::Link(_) => forward |= 1 << place,
                Way::Local => local |= 1 << place,
                other => {
                    if self.is_group(family, place) {
                        local |= 1 << place;
                    } else {
                        self.nowhere(family, place, other);
                    }
                }
            }
        }
        (local, forward)
    }

    /// The way to one destination, for a packet that is made here.
    pub(super) fn way_to(&mut self, family: Family, mbuf: &Mbuf) -> Way {
        match family {
            Family::V4 => self.inet.tables.lookup4(&[dst4(mbuf).to_bits()], &mut self.inet.ways),
            Family::V6 => self.inet.tables.lookup6(&[dst6(mbuf).to_bits()], &mut self.inet.ways),
        }
        match self.inet.ways[0] {
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
