//! One pass over a frame: where each layer starts, and the fields that filters match on.
//!
//! [`Layers::parse`] never fails. A filter wants to decide about damaged frames too, so damage is a *finding*:
//! [`Layers::malformed`] names the first layer that did not hold, and every field from layers above it is absent.
//! The rules are those of the views, since the pass is made of them: a frame without a finding passes
//! `new_checked` at each layer. Options and checksums are not looked at.

use super::{
    Arp, EtherAddr, EtherType, Ethernet, Icmp, Ipv4, Ipv6, Protocol, Tcp, Udp, Vlan, VlanTag, WireError,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Tags that are followed: QinQ has two. A third is [`WireError::TooMany`], lest it hide an IP packet from filters.
pub const VLAN_TAGS_MAX: usize = 2;

/// A layer that a frame can be malformed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Ethernet header.
    Ethernet,
    /// A VLAN tag.
    Vlan,
    /// ARP packet.
    Arp,
    /// IPv4 header.
    Ipv4,
    /// IPv6 fixed header.
    Ipv6,
    /// IPv6 extension headers.
    Ipv6Ext,
    /// TCP header.
    Tcp,
    /// UDP header.
    Udp,
    /// ICMP or ICMPv6 header.
    Icmp,
}

impl Layer {
    fn malformed(self) -> impl Fn(WireError) -> Malformed {
        move |error| Malformed { layer: self, error }
    }
}

/// The first thing wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed {
    /// Where.
    pub layer: Layer,
    /// What.
    pub error: WireError,
}

/// Addresses of the network layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addrs {
    /// Not IP, not ARP, or malformed.
    #[default]
    None,
    /// ARP: the protocol addresses of sender and target.
    Arp {
        /// Sender.
        src: Ipv4Addr,
        /// Target.
        dst: Ipv4Addr,
    },
    /// IPv4.
    V4 {
        /// Source.
        src: Ipv4Addr,
        /// Destination.
        dst: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Source.
        src: Ipv6Addr,
        /// Destination.
        dst: Ipv6Addr,
    },
}

/// Ports of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source.
    pub src: u16,
    /// Destination.
    pub dst: u16,
}

/// Which piece of an IP packet the frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// All of it (RFC 6946 "atomic fragments" included), or the frame is not IP.
    #[default]
    Whole,
    /// The first piece: the upper header is in it, and more follows.
    First,
    /// A later piece: no upper header, no ports.
    Later,
}

/// What [`Layers::parse`] found. Offsets count from the start of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// Ethernet addresses, destination first as on the wire; zero if the frame is shorter than a header.
    pub ether: [EtherAddr; 2],
    /// Type behind all tags; 0 if a header before it is cut short.
    pub ethertype: EtherType,
    /// Tags, the outer one first; the first `vlan_count` count.
    pub vlans: [VlanTag; VLAN_TAGS_MAX],
    /// Number of tags.
    pub vlan_count: u8,
    /// Start of the network layer; 0 if there is none.
    pub l3_offset: u16,
    /// Start of the upper protocol; 0 if there is none (later fragments included).
    pub l4_offset: u16,
    /// End of the network layer's packet: Ethernet padding starts here. 0 unless IP.
    pub l3_end: u32,
    /// Upper protocol, if an IP header is there and holds.
    pub protocol: Option<Protocol>,
    /// Which piece of a packet it is.
    pub fragment: Fragment,
    /// Addresses of IP or ARP.
    pub addrs: Addrs,
    /// Ports, if TCP or UDP is there and holds.
    pub ports: Option<Ports>,
    /// What is wrong, if anything.
    pub malformed: Option<Malformed>,
}

impl Layers {
    /// Reads one Ethernet frame (without FCS). Never panics, never allocates, takes bounded time.
    #[inline]
    pub fn parse(frame: &[u8]) -> Self {
        let mut layers = Self::default();
        layers.malformed = layers.ethernet(frame).err();
        layers
    }

    /// Reads one IP packet without a link header. Offsets count from its start, so that [`l3`](Self::l3) finds nothing;
    /// Ethernet addresses are zero.
    #[inline]
    pub fn parse_ip(packet: &[u8]) -> Self {
        let mut layers = Self::default();
        layers.malformed = match packet.first().map(|first| first >> 4) {
            Some(4) => {
                layers.ethertype = EtherType::IPV4;
                layers.ipv4(packet)
            }
            Some(6) => {
                layers.ethertype = EtherType::IPV6;
                layers.ipv6(packet)
            }
            _ => Err(Layer::Ipv4.malformed()(WireError::Unsupported)),
        }
        .err();
        layers
    }

    /// Destination and source address of the Ethernet header.
    pub fn ether_dst(&self) -> EtherAddr {
        self.ether[0]
    }

    /// Source address of the Ethernet header.
    pub fn ether_src(&self) -> EtherAddr {
        self.ether[1]
    }

    /// The tags found, the outer one first.
    pub fn vlans(&self) -> &[VlanTag] {
        &self.vlans[..usize::from(self.vlan_count).min(VLAN_TAGS_MAX)]
    }

    /// 4 or 6, if an IP header is there and holds.
    pub fn ip_version(&self) -> Option<u8> {
        match self.addrs {
            Addrs::V4 { .. } => Some(4),
            Addrs::V6 { .. } => Some(6),
            Addrs::Arp { .. } | Addrs::None => None,
        }
    }

    /// Source address of IP, sender of ARP.
    pub fn src(&self) -> Option<IpAddr> {
        match self.addrs {
            Addrs::V4 { src, .. } | Addrs::Arp { src, .. } => Some(src.into()),
            Addrs::V6 { src, .. } => Some(src.into()),
            Addrs::None => None,
        }
    }

    /// Destination address of IP, target of ARP.
    pub fn dst(&self) -> Option<IpAddr> {
        match self.addrs {
            Addrs::V4 { dst, .. } | Addrs::Arp { dst, .. } => Some(dst.into()),
            Addrs::V6 { dst, .. } => Some(dst.into()),
            Addrs::None => None,
        }
    }

    /// The IP packet in the frame that was parsed, padding cut off.
    pub fn l3<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        self.slice(frame, self.l3_offset)
    }

    /// The upper protocol's header and payload in the frame that was parsed.
    pub fn l4<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        self.slice(frame, self.l4_offset)
    }

    fn slice<'a>(&self, frame: &'a [u8], from: u16) -> Option<&'a [u8]> {
        if from == 0 { None } else { frame.get(usize::from(from)..self.l3_end as usize) }
    }

    fn ethernet(&mut self, frame: &[u8]) -> Result<(), Malformed> {
        let ether = Ethernet::new_checked(frame).map_err(Layer::Ethernet.malformed())?;
        self.ether = [ether.dst(), ether.src()];
        let mut offset = Ethernet::HEADER_LEN;
        let mut ethertype = ether.ethertype();
        while ethertype.is_vlan() {
            let malformed = Layer::Vlan.malformed();
            let slot = self.vlans.get_mut(usize::from(self.vlan_count));
            let slot = slot.ok_or(malformed(WireError::TooMany))?;
            let tag = Vlan::new_checked(&frame[offset..]).map_err(malformed)?;
            *slot = VlanTag { tpid: ethertype, tci: tag.tci() };
            self.vlan_count += 1;
            ethertype = tag.ethertype();
            offset += Vlan::HEADER_LEN;
        }
        self.ethertype = ethertype;
        self.l3_offset = offset as u16; // at most 14 + 2 * 4
        let l3 = &frame[offset..];
        match ethertype {
            EtherType::IPV4 => self.ipv4(l3),
            EtherType::IPV6 => self.ipv6(l3),
            EtherType::ARP => self.arp(l3),
            _ => Ok(()),
        }
    }

    fn arp(&mut self, l3: &[u8]) -> Result<(), Malformed> {
        match Arp::new_checked(l3) {
            Ok(arp) => self.addrs = Addrs::Arp { src: arp.sender_ip(), dst: arp.target_ip() },
            Err(WireError::Unsupported) => {} // ARP for other address kinds is strange, not broken
            Err(error) => return Err(Layer::Arp.malformed()(error)),
        }
        Ok(())
    }

    fn ipv4(&mut self, l3: &[u8]) -> Result<(), Malformed> {
        let ip = Ipv4::new_checked(l3).map_err(Layer::Ipv4.malformed())?;
        self.addrs = Addrs::V4 { src: ip.src(), dst: ip.dst() };
        self.l3_end = u32::from(self.l3_offset) + ip.total_len() as u32;
        self.fragment = match (ip.fragment_offset(), ip.more_fragments()) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        };
        self.upper(ip.protocol(), Protocol::ICMP, ip.header_len(), ip.payload())
    }

    fn ipv6(&mut self, l3: &[u8]) -> Result<(), Malformed> {
        let ip = Ipv6::new_checked(l3).map_err(Layer::Ipv6.malformed())?;
        self.addrs = Addrs::V6 { src: ip.src(), dst: ip.dst() };
        self.l3_end = u32::from(self.l3_offset) + ip.total_len() as u32;
        let walk = ip.extensions().map_err(Layer::Ipv6Ext.malformed())?;
        self.fragment = match walk.fragment {
            Some(fragment) if fragment.offset > 0 => Fragment::Later,
            Some(fragment) if fragment.more => Fragment::First,
            _ => Fragment::Whole,
        };
        let upper = ip.payload().get(walk.offset..).unwrap_or(&[]);
        self.upper(walk.protocol, Protocol::ICMPV6, Ipv6::HEADER_LEN + walk.offset, upper)
    }

    /// `icmp` is the number of the ICMP that belongs to this IP version; the other one is just bytes.
    fn upper(
        &mut self,
        protocol: Protocol,
        icmp: Protocol,
        header_len: usize,
        l4: &[u8],
    ) -> Result<(), Malformed> {
        self.protocol = Some(protocol);
        if self.fragment == Fragment::Later {
            return Ok(());
        }
        self.l4_offset = self.l3_offset + header_len as u16; // at most 22 + 40 + EXT_BYTES_MAX
        match protocol {
            Protocol::TCP => {
                let tcp = Tcp::new_checked(l4).map_err(Layer::Tcp.malformed())?;
                self.ports = Some(Ports { src: tcp.src_port(), dst: tcp.dst_port() });
            }
            Protocol::UDP => {
                // The first fragment of a datagram is shorter than the datagram says.
                let cut_short = self.fragment == Fragment::First;
                let udp = if cut_short { Udp::new_quoted(l4) } else { Udp::new_checked(l4) };
                let udp = udp.map_err(Layer::Udp.malformed())?;
                self.ports = Some(Ports { src: udp.src_port(), dst: udp.dst_port() });
            }
            _ if protocol == icmp => {
                Icmp::new_checked(l4).map_err(Layer::Icmp.malformed())?;
            }
            _ => {}
        }
        Ok(())
    }
}
