//! One test on one frame. Addresses and ranges are kept in the form in which they compare fastest.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use nke_mbuf::wire::{Addrs, EtherAddr, EtherType, Fragment, Layer, Layers, Ports, Protocol};

/// Which of two addresses or ports a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dir {
    Src,
    Dst,
    Either,
}

impl Dir {
    #[inline]
    fn test<A>(self, src: A, dst: A, matches: impl Fn(A) -> bool) -> bool {
        match self {
            Self::Src => matches(src),
            Self::Dst => matches(dst),
            Self::Either => matches(src) || matches(dst),
        }
    }

    /// The word in front of the primitive, with its blank.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Src => "src ",
            Self::Dst => "dst ",
            Self::Either => "",
        }
    }
}

/// A test. Spellings that mean the same are the same value: `tcp` and `proto 6`, `host A` and `net A/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Primitive {
    Ether(Dir, EtherAddr),
    EtherProto(EtherType),
    Vlan(Option<u16>),
    Proto(Protocol),
    Icmp,
    Icmp6,
    /// `addr` has no bits outside `mask`.
    Net4 {
        dir: Dir,
        addr: u32,
        mask: u32,
    },
    /// `addr` has no bits outside `mask`.
    Net6 {
        dir: Dir,
        addr: u128,
        mask: u128,
    },
    /// Both ends included.
    Port {
        dir: Dir,
        low: u16,
        high: u16,
    },
    LenAtLeast(u32),
    LenAtMost(u32),
    Fragment,
    Malformed,
}

impl Primitive {
    #[inline]
    pub(super) fn matches(&self, layers: &Layers, len_bytes: usize) -> bool {
        match *self {
            // A frame without an Ethernet header reads as all zeros; it shall not match a zero address.
            Self::Ether(dir, addr) => {
                has_ether(layers) && dir.test(layers.ether_src(), layers.ether_dst(), |found| found == addr)
            }
            Self::EtherProto(ethertype) => {
                layers.ethertype == ethertype && (layers.l3_offset != 0 || ethertype.0 != 0)
            }
            Self::Vlan(None) => layers.vlan_count > 0,
            Self::Vlan(Some(vid)) => layers.vlans().iter().any(|tag| tag.vid() == vid),
            Self::Proto(protocol) => layers.protocol == Some(protocol),
            Self::Icmp => layers.protocol == Some(Protocol::ICMP) && layers.ip_version() == Some(4),
            Self::Icmp6 => layers.protocol == Some(Protocol::ICMPV6) && layers.ip_version() == Some(6),
            Self::Net4 { dir, addr, mask } => match layers.addrs {
                Addrs::V4 { src, dst } | Addrs::Arp { src, dst } => {
                    dir.test(src, dst, |found| found.to_bits() & mask == addr)
                }
                _ => false,
            },
            Self::Net6 { dir, addr, mask } => match layers.addrs {
                Addrs::V6 { src, dst } => dir.test(src, dst, |found| found.to_bits() & mask == addr),
                _ => false,
            },
            Self::Port { dir, low, high } => match layers.ports {
                Some(Ports { src, dst }) => dir.test(src, dst, |found| low <= found && found <= high),
                None => false,
            },
            Self::LenAtLeast(least) => len_bytes >= least as usize,
            Self::LenAtMost(most) => len_bytes <= most as usize,
            Self::Fragment => layers.fragment != Fragment::Whole,
            Self::Malformed => layers.malformed.is_some(),
        }
    }
}

/// Tags come behind the addresses, so even a frame that ends in its tags has them.
fn has_ether(layers: &Layers) -> bool {
    layers.malformed.is_none_or(|malformed| malformed.layer != Layer::Ethernet)
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ether(Dir::Either, addr) => write!(f, "ether host {addr}"),
            Self::Ether(dir, addr) => write!(f, "ether {}{addr}", dir.prefix()),
            Self::EtherProto(EtherType::ARP) => f.write_str("arp"),
            Self::EtherProto(EtherType::IPV4) => f.write_str("ip"),
            Self::EtherProto(EtherType::IPV6) => f.write_str("ip6"),
            Self::EtherProto(EtherType(number)) => write!(f, "ether proto {number:#06x}"),
            Self::Vlan(None) => f.write_str("vlan"),
            Self::Vlan(Some(vid)) => write!(f, "vlan {vid}"),
            Self::Proto(Protocol::TCP) => f.write_str("tcp"),
            Self::Proto(Protocol::UDP) => f.write_str("udp"),
            Self::Proto(Protocol(number)) => write!(f, "proto {number}"),
            Self::Icmp => f.write_str("icmp"),
            Self::Icmp6 => f.write_str("icmp6"),
            Self::Net4 { dir, addr, mask } => {
                let addr = Ipv4Addr::from_bits(addr);
                match mask.count_ones() {
                    32 => write!(f, "{}host {addr}", dir.prefix()),
                    len => write!(f, "{}net {addr}/{len}", dir.prefix()),
                }
            }
            Self::Net6 { dir, addr, mask } => {
                let addr = Ipv6Addr::from_bits(addr);
                match mask.count_ones() {
                    128 => write!(f, "{}host {addr}", dir.prefix()),
                    len => write!(f, "{}net {addr}/{len}", dir.prefix()),
                }
            }
            Self::Port { dir, low, high } if low == high => write!(f, "{}port {low}", dir.prefix()),
            Self::Port { dir, low, high } => write!(f, "{}portrange {low}-{high}", dir.prefix()),
            Self::LenAtLeast(least) => write!(f, "len >= {least}"),
            Self::LenAtMost(most) => write!(f, "len <= {most}"),
            Self::Fragment => f.write_str("fragment"),
            Self::Malformed => f.write_str("malformed"),
        }
    }
}
