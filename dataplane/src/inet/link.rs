//! An interface as workers see it: part of the snapshot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nke_filters::{DemuxDesc, Hold, IfFlags, IfProtocol, IfnetDriver, ProtocolFamily};
use nke_mbuf::Owner;

use super::mac::Mac;

/// Which of the core's protocols an interface takes, and whether it has others.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Takes(u8);

impl Takes {
    /// IPv4.
    pub const INET: Takes = Takes(1);
    /// ARP.
    pub const ARP: Takes = Takes(2);
    /// IPv6.
    pub const INET6: Takes = Takes(4);
    /// Protocols of extensions.
    pub const OTHERS: Takes = Takes(8);

    /// Whether there are none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Whether `other` is among them.
    #[inline(always)]
    pub const fn has(self, other: Takes) -> bool {
        self.0 & other.0 != 0
    }
    /// Adds `other`.
    pub fn insert(&mut self, other: Takes) {
        self.0 |= other.0;
    }
}

/// Who gets the packets of a protocol.
pub enum Handler {
    /// The core's IPv4 and ARP.
    Inet,
    /// The core's IPv6.
    Inet6,
    /// An extension.
    Own(Box<dyn IfProtocol>),
}

/// A protocol attached to an interface.
pub struct Plumbed {
    /// Which one.
    pub family: ProtocolFamily,
    /// How its frames are found.
    pub demux: Vec<DemuxDesc>,
    /// Who gets them.
    pub handler: Handler,
    /// Who is charged.
    pub owner: Owner,
    /// Its line on the ledger.
    pub hold: Hold,
}

/// An interface as workers see it. The first fields are those the path reads for each packet.
#[derive(Clone)]
pub struct Link {
    /// Its link address.
    pub mac: Mac,
    /// Largest packet behind the link header, in bytes.
    pub mtu: u32,
    /// Whether frames have Ethernet's header.
    pub ethernet: bool,
    /// Whether it takes and sends packets.
    pub up: bool,
    /// Which protocols it takes.
    pub takes: Takes,
    /// The rest.
    pub more: Arc<LinkMore>,
}

/// What is not read for each packet.
#[derive(Clone, Default)]
pub struct LinkMore {
    /// Flags.
    pub flags: IfFlags,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Groups it is in.
    pub groups: Vec<IpAddr>,
    /// Protocols attached.
    pub protocols: Vec<Arc<Plumbed>>,
    /// What sends, for an interface without queues.
    pub driver: Option<Arc<dyn IfnetDriver>>,
    /// Who is charged for it.
    pub owner: Option<Owner>,
}

impl Default for Link {
    /// An interface that takes and sends nothing.
    fn default() -> Self {
        Link {
            mac: Mac::default(),
            mtu: 1500,
            ethernet: true,
            up: false,
            takes: Takes::default(),
            more: Arc::default(),
        }
    }
}

impl Link {
    /// Whether the address is this interface's.
    pub fn has(&self, address: IpAddr) -> bool {
        self.more.addresses.iter().any(|(a, _)| *a == address)
    }

    /// Whether neighbours have to be asked for their link addresses.
    #[inline]
    pub fn resolves(&self) -> bool {
        self.ethernet
            && !self.more.flags.any(IfFlags::NOARP.with(IfFlags::POINTOPOINT).with(IfFlags::LOOPBACK))
    }

    /// Its first IPv4 address.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.more.addresses.iter().find_map(|(a, _)| match a {
            IpAddr::V4(a) => Some(*a),
            IpAddr::V6(_) => None,
        })
    }

    /// The IPv6 address to talk to `to` from: link-local to link-local, any other to others (RFC 6724 rule 2).
    pub fn v6_for(&self, to: Ipv6Addr) -> Option<Ipv6Addr> {
        let local = to.is_unicast_link_local();
        self.more.addresses.iter().find_map(|(a, _)| match a {
            IpAddr::V6(a) if a.is_unicast_link_local() == local => Some(*a),
            _ => None,
        })
    }

    /// Whether packets to this group, or broadcast, are for us (RFC 1112; RFC 4291 section 2.8).
    pub fn is_member(&self, group: IpAddr) -> bool {
        match group {
            IpAddr::V4(a) if a.is_broadcast() => self.v4().is_some(),
            IpAddr::V4(a) if a == Ipv4Addr::new(224, 0, 0, 1) => self.v4().is_some(),
            IpAddr::V6(a) if a == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) => self.takes.has(Takes::INET6),
            IpAddr::V6(a) if is_solicited_node(a) => {
                let low = |a: Ipv6Addr| a.to_bits() & 0xff_ffff;
                self.more
                    .addresses
                    .iter()
                    .any(|(own, _)| matches!(own, IpAddr::V6(own) if low(*own) == low(a)))
            }
            group => self.more.groups.contains(&group),
        }
    }

    /// The protocol whose frames have this ethertype.
    pub fn protocol_of(&self, ethertype: u16) -> Option<&Arc<Plumbed>> {
        self.more.protocols.iter().find(|p| p.demux.contains(&DemuxDesc::EtherType(ethertype)))
    }

    /// The protocol of this family.
    pub fn protocol(&self, family: ProtocolFamily) -> Option<&Arc<Plumbed>> {
        self.more.protocols.iter().find(|p| p.family == family)
    }
}

/// ff02::1:ff00:0/104 (RFC 4291 section 2.7.1).
pub(super) fn is_solicited_node(a: Ipv6Addr) -> bool {
    a.to_bits() >> 24 == 0xff02_0000_0000_0000_0000_0001_ff00_0000 >> 24
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_follows_addresses() {
        let more = LinkMore {
            addresses: vec![("192.0.2.1".parse().unwrap(), 24), ("2001:db8::12:3456".parse().unwrap(), 64)],
            ..LinkMore::default()
        };
        let mut link = Link { more: Arc::new(more), ..Link::default() };
        link.takes.insert(Takes::INET6);
        for (group, member) in [
            ("255.255.255.255", true),
            ("224.0.0.1", true),
            ("224.0.0.5", false),
            ("ff02::1", true),
            ("ff02::1:ff12:3456", true),
            ("ff02::1:ff12:3457", false),
            ("ff02::2", false),
        ] {
            assert_eq!(link.is_member(group.parse().unwrap()), member, "{group}");
        }
    }
}
