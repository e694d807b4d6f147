//! What a follower tells.

use std::net::IpAddr;

/// What happened to something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// It was not there before.
    Added,
    /// It was there, and is now as told.
    Changed,
    /// It is gone; told is what it was.
    Removed,
}

/// Kinds of things that are followed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Network devices.
    Links,
    /// Addresses of this host.
    Addresses,
    /// Routes.
    Routes,
    /// Neighbours.
    Neighbors,
}

/// A difference between what was told before and what the kernel has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Of a network device.
    Link(Event, Link),
    /// Of an address of this host.
    Address(Event, Address),
    /// Of the best route of a prefix in a table.
    Route(Event, Route),
    /// Of a neighbour.
    Neighbor(Event, Neighbor),
    /// There are more of them than the configured maximum: some are not told. Told once (of routes, once of each family),
    /// until there was room again and all were asked for anew.
    TooMany(Kind, usize),
}

/// A network device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its number, which stays the same when the name changes.
    pub ifindex: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// Bytes of a packet without its link header.
    pub mtu_bytes: u32,
    /// `IFF_*` of `netdevice(7)`.
    pub flags: u32,
    /// Kind of hardware, `ARPHRD_*`: 1 for Ethernet.
    pub hardware: u16,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
}

impl Link {
    /// Whether it is switched on.
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Whether it is switched on and can carry packets.
    pub fn is_running(&self) -> bool {
        self.is_up() && self.flags & libc::IFF_RUNNING as u32 != 0
    }
}

/// An address of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The device that has it.
    pub ifindex: u32,
    /// The address.
    pub addr: IpAddr,
    /// Bits of its network, or of the peer's.
    pub prefix_len: u8,
    /// The address at the other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// `IFA_F_*`.
    pub flags: u32,
}

impl Address {
    /// Whether it is not to be used, for now or for good: duplicate address detection (RFC 4862) runs or has failed.
    pub fn is_tentative(&self) -> bool {
        self.flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0
            && self.flags & libc::IFA_F_OPTIMISTIC == 0
    }
}

/// What becomes of packets of a route; `RTN_*` of `rtnetlink(7)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RouteKind {
    /// They go to a next hop.
    Unicast,
    /// They are for this host.
    Local,
    /// They are for all hosts of a link.
    Broadcast,
    /// They are for this host, as for others that have the address.
    Anycast,
    /// They are for a group of hosts.
    Multicast,
    /// They are dropped in silence.
    Blackhole,
    /// They are dropped, and the sender is told: unreachable.
    Unreachable,
    /// They are dropped, and the sender is told: prohibited.
    Prohibit,
    /// They are routed by the next rule, as if this table had no route.
    Throw,
    /// Something only the kernel can do with them: an encapsulation, or a next hop object it does not describe.
    Unsupported,
}

impl RouteKind {
    /// Whether its packets go nowhere: such a route has no next hops.
    pub fn is_reject(self) -> bool {
        use RouteKind::{Blackhole, Prohibit, Throw, Unreachable};
        matches!(self, Blackhole | Unreachable | Prohibit | Throw)
    }
}

/// Where packets of a route go next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NextHop {
    /// The device they leave by.
    pub ifindex: u32,
    /// The router, of either family (RFC 5549); `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// Its share among several: at least 1.
    pub weight: u16,
}

/// The best route of a prefix in a table: the one of lowest priority number that has a next hop alive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The routing table it is in.
    pub table: u32,
    /// First address of the prefix; it also says the family.
    pub dst: IpAddr,
    /// Bits of the prefix.
    pub prefix_len: u8,
    /// What becomes of its packets.
    pub kind: RouteKind,
    /// Its metric.
    pub priority: u32,
    /// Who made it, `RTPROT_*`: 2 the kernel, 3 somebody at boot or by hand, 4 an administrator, 9 a router's advertisement.
    pub protocol: u8,
    /// Where its packets go, in order of device and address; several are equal but for weight. Dead ones are left out.
    pub next_hops: Vec<NextHop>,
}

/// A host or router on a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbor {
    /// The device it is reached by.
    pub ifindex: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its Ethernet address, when known.
    pub mac: Option<[u8; 6]>,
    /// `NUD_*` of `rtnetlink(7)`.
    pub state: u16,
}

impl Neighbor {
    /// Whether packets may be sent to its Ethernet address now.
    pub fn is_valid(&self) -> bool {
        let valid = libc::NUD_REACHABLE
            | libc::NUD_STALE
            | libc::NUD_DELAY
            | libc::NUD_PROBE
            | libc::NUD_PERMANENT
            | libc::NUD_NOARP;
        self.mac.is_some() && self.state & valid != 0
    }
}
