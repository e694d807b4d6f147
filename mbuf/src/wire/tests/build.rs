//! Builds valid frames with the views, for round trips and as a start for damage.

use crate::wire::*;
use core::net::IpAddr;
use proptest::prelude::*;

/// A frame described by what [`Layers::parse`] should find in it.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) ether: [EtherAddr; 2],
    /// TCIs, the outer one first; two make a QinQ frame.
    pub(super) tags: Vec<u16>,
    pub(super) addrs: (IpAddr, IpAddr),
    /// IPv4: words of NOP options. IPv6: destination option headers.
    pub(super) extras: usize,
    pub(super) fragment: Fragment,
    pub(super) protocol: Protocol,
    pub(super) ports: (u16, u16),
    pub(super) payload: Vec<u8>,
    /// Bytes behind the IP packet.
    pub(super) padding: usize,
}

impl Recipe {
    /// Any recipe: IPv4 or IPv6, TCP, UDP, ICMP or something unknown.
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let addrs = prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(src, dst)| (src.into(), dst.into())),
            any::<([u8; 16], [u8; 16])>().prop_map(|(src, dst)| (src.into(), dst.into())),
        ];
        let fragment = prop_oneof![
            4 => Just(Fragment::Whole),
            1 => Just(Fragment::First),
            1 => Just(Fragment::Later),
        ];
        let protocol = prop_oneof![
            Just(Protocol::TCP),
            Just(Protocol::UDP),
            Just(Protocol::ICMP),
            Just(Protocol::ICMPV6),
            Just(Protocol::GRE),
        ];
        let ether = any::<[[u8; 6]; 2]>().prop_map(|ether| ether.map(EtherAddr));
        let tags = prop::collection::vec(any::<u16>(), 0..=VLANS);
        let payload = prop::collection::vec(any::<u8>(), 0..80);
        (ether, tags, addrs, 0..3usize, fragment, protocol, any::<(u16, u16)>(), payload, 0..20usize)
            .prop_map(|(ether, tags, addrs, extras, fragment, protocol, ports, payload, padding)| Self {
                ether,
                tags,
                addrs,
                extras,
                fragment,
                protocol,
                ports,
                payload,
                padding,
            })
    }

    /// The frame, with every checksum filled.
    pub(super) fn frame(&self) -> Vec<u8> {
        let (ethertype, packet) = match self.addrs {
            (IpAddr::V4(src), IpAddr::V4(dst)) => (EtherType::IPV4, self.ipv4(src, dst)),
            (IpAddr::V6(src), IpAddr::V6(dst)) => (EtherType::IPV6, self.ipv6(src, dst)),
            _ => panic!("a recipe has addresses of one kind"),
        };
        let mut frame = Ethernet::init(vec![0; Ethernet::HEADER_LEN]).unwrap();
        frame.set_dst(self.ether[0]);
        frame.set_src(self.ether[1]);
        let mut frame = frame.into_inner();
        for (index, tci) in self.tags.iter().enumerate() {
            let outer = index == 0 && self.tags.len() == VLANS;
            let tpid = if outer { EtherType::QINQ } else { EtherType::VLAN };
            let type_at = frame.len() - 2;
            frame[type_at..].copy_from_slice(&tpid.0.to_be_bytes());
            let mut tag = Vlan::init([0; 4]).unwrap();
            tag.set_tci(*tci);
            frame.extend(tag.into_inner());
        }
        let type_at = frame.len() - 2;
        frame[type_at..].copy_from_slice(&ethertype.0.to_be_bytes());
        frame.extend(packet);
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    fn ipv4(&self, src: core::net::Ipv4Addr, dst: core::net::Ipv4Addr) -> Vec<u8> {
        let upper = self.upper(&PseudoHeader::V4 { src, dst });
        let header_len = 20 + 4 * self.extras;
        let mut ip = Ipv4::init(vec![0; header_len + upper.len()]).unwrap();
        ip.set_header_len(header_len).unwrap();
        ip.options_mut().fill(Opt::NOP);
        ip.set_src(src);
        ip.set_dst(dst);
        ip.set_ttl(64);
        ip.set_protocol(self.protocol);
        match self.fragment {
            Fragment::Whole => ip.set_fragment(true, false, 0),
            Fragment::First => ip.set_fragment(false, true, 0),
            Fragment::Later => ip.set_fragment(false, false, 1480),
        }
        ip.payload_mut().copy_from_slice(&upper);
        ip.fill_checksum();
        ip.into_inner()
    }

    fn ipv6(&self, src: core::net::Ipv6Addr, dst: core::net::Ipv6Addr) -> Vec<u8> {
        let upper = self.upper(&PseudoHeader::V6 { src, dst });
        let mut kinds = vec![Protocol::DEST_OPTIONS; self.extras];
        if self.fragment != Fragment::Whole {
            kinds.push(Protocol::FRAGMENT);
        }
        kinds.push(self.protocol);
        let mut payload = Vec::new();
        for pair in kinds.windows(2) {
            let offset = match (pair[0], self.fragment) {
                (Protocol::FRAGMENT, Fragment::First) => [0, 1],
                (Protocol::FRAGMENT, _) => 1448u16.to_be_bytes(),
                _ => [1, 4], // a PadN option
            };
            payload.extend([pair[1].0, 0, offset[0], offset[1], 0, 0, 0, 0]);
        }
        payload.extend(upper);
        let mut ip = Ipv6::init(vec![0; 40 + payload.len()]).unwrap();
        ip.set_src(src);
        ip.set_dst(dst);
        ip.set_hop_limit(64);
        ip.set_next_header(kinds[0]);
        ip.payload_mut().copy_from_slice(&payload);
        ip.into_inner()
    }

    fn upper(&self, pseudo: &PseudoHeader) -> Vec<u8> {
        let sized = |header: usize| {
            let mut bytes = vec![0; header];
            bytes.extend(&self.payload);
            bytes
        };
        match self.protocol {
            Protocol::TCP => {
                let mut tcp = Tcp::init(sized(20)).unwrap();
                tcp.set_src_port(self.ports.0);
                tcp.set_dst_port(self.ports.1);
                tcp.set_flags(TcpFlags::ACK | TcpFlags::PSH);
                tcp.fill_checksum(pseudo);
                tcp.into_inner()
            }
            Protocol::UDP => {
                let mut udp = Udp::init(sized(8)).unwrap();
                udp.set_src_port(self.ports.0);
                udp.set_dst_port(self.ports.1);
                udp.fill_checksum(pseudo);
                udp.into_inner()
            }
            Protocol::ICMP | Protocol::ICMPV6 => {
                let mut icmp = Icmp::init(sized(8)).unwrap();
                icmp.set_echo(self.ports.0, self.ports.1);
                icmp.fill_checksum((self.protocol == Protocol::ICMPV6).then_some(pseudo));
                icmp.into_inner()
            }
            _ => self.payload.clone(),
        }
    }
}

const VLANS: usize = parse::VLAN_TAGS_MAX;
