//! Messages about routes: RTM_NEWROUTE, RTM_DELROUTE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{address_of, bits, is_ip, number};
use crate::change::{NextHop, RouteKind};
use crate::wire::{Attributes, Malformed, Message, u16_at, u32_at};

// Not in libc (linux/rtnetlink.h).
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;
const RTNH_F_DEAD: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
const RTPROT_RA: u8 = 9;

/// What routes are looked up by: they compete if it is the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct RouteKey {
    pub table: u32,
    pub dst: IpAddr,
    pub prefix_len: u8,
}

/// A next hop of a route in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hop {
    pub to: NextHop,
    /// Its link is down; the kernel keeps it for when the link is up again.
    pub dead: bool,
}

/// One of the kernel's routes of a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub priority: u32,
    pub kind: RouteKind,
    pub protocol: u8,
    pub scope: u8,
    pub source: Option<IpAddr>,
    /// Number of its next hop object; 0: none.
    pub object: u32,
    /// Digest of its metrics (MTU and the like), which are not told but make it another route.
    pub metrics: u64,
    pub hops: Vec<Hop>,
    /// The dump that it was last seen in.
    pub generation: u32,
}

impl Record {
    /// Whether it is the same route of the kernel; whether hops are dead changes.
    pub fn is_same(&self, other: &Record) -> bool {
        let named = |r: &Record| (r.priority, r.kind, r.protocol, r.scope, r.source, r.object, r.metrics);
        let hops = self.hops.iter().map(|hop| hop.to);
        named(self) == named(other) && hops.eq(other.hops.iter().map(|hop| hop.to))
    }

    /// Whether IPv6 joins it with others of its kind and priority to one route of several legs: those with a router, that
    /// were not learned from an advertisement and have no next hop object.
    pub fn is_leg(&self) -> bool {
        self.kind == RouteKind::Unicast
            && self.object == 0
            && !matches!(self.protocol, RTPROT_KERNEL | RTPROT_RA)
            && !self.hops.is_empty()
            && self.hops.iter().all(|hop| hop.to.via.is_some())
    }

    /// Whether the kernel sends packets by it.
    pub fn is_alive(&self) -> bool {
        self.kind != RouteKind::Unicast || self.hops.iter().any(|hop| !hop.dead)
    }
}

/// What a message says about a route.
pub(crate) enum RouteMessage {
    /// A route.
    Route(RouteKey, Record),
    /// A route by type of service or source, which is not followed.
    Selective,
    /// Of another family, or an entry of a cache.
    Other,
}

pub(crate) fn route(message: &Message<'_>) -> Result<RouteMessage, Malformed> {
    // rtmsg: family, dst length, src length, tos, table, protocol, scope, type, flags (4).
    let (fixed, attributes) = message.split(12)?;
    let [family, prefix_len, src_len, tos, table, protocol, scope, kind] = fixed[..8] else {
        return Err(Malformed("its body is short"));
    };
    let flags = u32_at(fixed, 8).unwrap_or_default();
    if !is_ip(family) || flags & libc::RTM_F_CLONED != 0 {
        return Ok(RouteMessage::Other);
    }
    let v4 = i32::from(family) == libc::AF_INET;
    let mut key = RouteKey { table: table.into(), dst: unspecified(v4), prefix_len };
    let mut record = Record {
        priority: 0,
        kind: kind_of(kind).unwrap_or(RouteKind::Unsupported),
        protocol,
        scope,
        source: None,
        object: 0,
        metrics: 0,
        hops: Vec::new(),
        generation: 0,
    };
    let (mut dst, mut several, mut encap) = (None, None, false);
    let mut hop = NextHop { ifindex: 0, via: None, weight: 1 };
    for attribute in attributes {
        match attribute? {
            (libc::RTA_DST, value) => dst = Some(address_of(family, value)?),
            (libc::RTA_TABLE, value) => key.table = number(value)?,
            (libc::RTA_PRIORITY, value) => record.priority = number(value)?,
            (libc::RTA_OIF, value) => hop.ifindex = number(value)?,
            (libc::RTA_GATEWAY, value) => hop.via = Some(address_of(family, value)?),
            (RTA_VIA, value) => hop.via = Some(via(value)?),
            (libc::RTA_MULTIPATH, value) => several = Some(value),
            // IPv6 forgets it without notice when the address goes.
            (libc::RTA_PREFSRC, value) if v4 => record.source = Some(address_of(family, value)?),
            (libc::RTA_METRICS, value) => record.metrics = digest(value),
            (RTA_ENCAP, _) => encap = true,
            (RTA_NH_ID, value) => record.object = number(value)?,
            _ => {}
        }
    }
    if prefix_len > bits(key.dst) || src_len > bits(key.dst) {
        return Err(Malformed("a prefix is longer than an address"));
    }
    if tos != 0 || src_len != 0 {
        return Ok(RouteMessage::Selective);
    }
    match dst {
        Some(dst) if has_host_bits(dst, prefix_len) => return Err(Malformed("bits behind a prefix are set")),
        Some(dst) => key.dst = dst,
        None if prefix_len > 0 => return Err(Malformed("a route without its destination")),
        None => {}
    }
    if let Some(several) = several {
        encap |= hops(family, several, &mut record.hops)?;
    } else if hop.ifindex != 0 || hop.via.is_some() {
        record.hops.push(Hop { to: hop, dead: flags as u8 & RTNH_F_DEAD != 0 });
    }
    // IPv6 has no order among the legs, and begins with any of them.
    if !v4 {
        record.hops.sort_by_key(|hop| hop.to);
    }
    // With the sysctl nexthop_compat_mode off, the kernel names the object and no more.
    if encap || record.kind == RouteKind::Unicast && record.hops.is_empty() {
        record.kind = RouteKind::Unsupported;
    }
    Ok(RouteMessage::Route(key, record))
}

fn unspecified(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn has_host_bits(dst: IpAddr, len: u8) -> bool {
    match dst {
        IpAddr::V4(dst) => dst.to_bits().checked_shl(len.into()).unwrap_or(0) != 0,
        IpAddr::V6(dst) => dst.to_bits().checked_shl(len.into()).unwrap_or(0) != 0,
    }
}

fn kind_of(kind: u8) -> Option<RouteKind> {
    Some(match kind {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_LOCAL => RouteKind::Local,
        libc::RTN_BROADCAST => RouteKind::Broadcast,
        libc::RTN_ANYCAST => RouteKind::Anycast,
        libc::RTN_MULTICAST => RouteKind::Multicast,
        libc::RTN_BLACKHOLE => RouteKind::Blackhole,
        libc::RTN_UNREACHABLE => RouteKind::Unreachable,
        libc::RTN_PROHIBIT => RouteKind::Prohibit,
        libc::RTN_THROW => RouteKind::Throw,
        _ => return None,
    })
}

/// A router of any family: `AF_*` (2) and its address.
fn via(value: &[u8]) -> Result<IpAddr, Malformed> {
    let family = u16_at(value, 0).ok_or(Malformed("a router is short"))?;
    address_of(u8::try_from(family).unwrap_or_default(), value.get(2..).unwrap_or_default())
}

/// The next hops of RTA_MULTIPATH; tells whether there is an encapsulation among them.
fn hops(family: u8, mut bytes: &[u8], into: &mut Vec<Hop>) -> Result<bool, Malformed> {
    let mut encap = false;
    while !bytes.is_empty() {
        // rtnexthop: length (2), flags, weight less one, ifindex (4); then attributes.
        let wrong = Malformed("a next hop's length is wrong");
        let len = usize::from(u16_at(bytes, 0).ok_or(wrong)?);
        let hop = bytes.get(..len).filter(|hop| hop.len() >= 8).ok_or(wrong)?;
        let mut to =
            NextHop { ifindex: u32_at(hop, 4).unwrap_or_default(), via: None, weight: u16::from(hop[3]) + 1 };
        for attribute in Attributes(&hop[8..]) {
            match attribute? {
                (libc::RTA_GATEWAY, value) => to.via = Some(address_of(family, value)?),
                (RTA_VIA, value) => to.via = Some(via(value)?),
                (RTA_ENCAP, _) => encap = true,
                _ => {}
            }
        }
        into.push(Hop { to, dead: hop[2] & RTNH_F_DEAD != 0 });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(encap)
}

/// FNV-1a: tells the few sets of metrics on one prefix apart.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}
