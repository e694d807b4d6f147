//! Neighbour discovery packets (RFC 4861, RFC 6980): read, answered and built.
//!
//! What is received has its data at the IPv6 header; what is built are whole frames.

use std::net::Ipv6Addr;

use nke_mbuf::wire::{EtherAddr, EtherType, Ethernet, Icmp, Ipv6, Ndp, NdpOptions, Protocol, icmp};
use nke_mbuf::{Flags, Mbuf};

use super::event::{Event, Kind};

/// What makes sure that a packet was not forwarded (RFC 4861 section 3.1).
const HOP_LIMIT: u8 = 255;
/// With the one option that we send.
const PACKET_LEN: usize = Ipv6::HEADER_LEN + Ndp::LEN_WITH_ADDR;
/// Every node of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const REDIRECT: u8 = 137;

/// What a good packet holds.
enum Heard {
    Solicitation {
        src: Ipv6Addr,
        target: Ipv6Addr,
        mac: Option<EtherAddr>,
    },
    Advertisement {
        target: Ipv6Addr,
        mac: Option<EtherAddr>,
        solicited: bool,
        override_flag: bool,
        router: bool,
    },
    Other,
}

/// The group that `target` hears solicitations in (RFC 4291 section 2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Where a group of IPv6 is on Ethernet (RFC 2464 section 7).
pub fn group_mac(group: Ipv6Addr) -> EtherAddr {
    let [.., a, b, c, d] = group.octets();
    EtherAddr([0x33, 0x33, a, b, c, d])
}

/// Validates by RFC 4861 sections 6.1, 7.1 and 8.1.
///
/// The message follows the fixed header at once: fragments are forbidden (RFC 6980), and nobody sends other extension
/// headers here but to pass by guards that do not look behind them (RFC 7113).
fn read(packet: &Mbuf) -> Option<Heard> {
    let ip = Ipv6::new_checked(packet.data()).ok()?;
    if ip.hop_limit() != HOP_LIMIT || ip.next_header() != Protocol::ICMPV6 {
        return None;
    }
    let (src, dst) = (ip.src(), ip.dst());
    let message = Icmp::new_checked(ip.payload()).ok()?;
    // A stack beside us on a virtual wire leaves the checksum to hardware that is not there.
    let trusted =
        packet.flags().contains(Flags::CSUM_L4_GOOD) || packet.flags().contains(Flags::CSUM_L4_PARTIAL);
    if message.code() != 0 || src.is_multicast() || src.is_loopback() {
        return None;
    }
    if !trusted && !message.verify_checksum(Some(&ip.pseudo_header())) {
        return None;
    }
    let least = match message.icmp_type() {
        icmp::v6::NEIGHBOR_SOLICITATION => return solicitation(src, dst, ip.payload()),
        icmp::v6::NEIGHBOR_ADVERTISEMENT => return advertisement(src, dst, ip.payload()),
        icmp::v6::ROUTER_SOLICITATION => 8,
        icmp::v6::ROUTER_ADVERTISEMENT => 16,
        REDIRECT => 40,
        _ => return None,
    };
    let good = NdpOptions::new(ip.payload().get(least..)?).all(|option| option.is_ok());
    // Routers speak from their link-local address; a host that asks for one may have no address yet.
    let from_router = message.icmp_type() != icmp::v6::ROUTER_SOLICITATION;
    (good && (!from_router || src.is_unicast_link_local())).then_some(Heard::Other)
}

fn solicitation(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Option<Heard> {
    let ndp = Ndp::new_checked(message).ok()?;
    let target = ndp.target();
    let mac = ndp.link_addr(Ndp::SOURCE_LINK_ADDR).ok()?;
    // From nobody: to the solicited-node group, and without a link address.
    let good_src = !src.is_unspecified() || dst == solicited_node(target) && mac.is_none();
    (is_one_host(target) && good_src && mac.is_none_or(EtherAddr::is_unicast))
        .then_some(Heard::Solicitation { src, target, mac })
}

fn advertisement(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Option<Heard> {
    let ndp = Ndp::new_checked(message).ok()?;
    let target = ndp.target();
    let mac = ndp.link_addr(Ndp::TARGET_LINK_ADDR).ok()?;
    let good = is_one_host(target)
        && !src.is_unspecified()
        && !(dst.is_multicast() && ndp.solicited())
        && mac.is_none_or(EtherAddr::is_unicast);
    let (solicited, override_flag, router) = (ndp.solicited(), ndp.override_flag(), ndp.router());
    good.then_some(Heard::Advertisement { target, mac, solicited, override_flag, router })
}

/// Whether a neighbour can have the address.
pub(super) fn is_one_host(addr: Ipv6Addr) -> bool {
    !addr.is_multicast() && !addr.is_unspecified() && !addr.is_loopback()
}

/// Reads a packet. `None` if it is no neighbour discovery, or does not hold.
pub fn parse_nd(packet: &Mbuf, interface: u16) -> Option<Event> {
    let kind = match read(packet)? {
        Heard::Solicitation { src, target, mac } => {
            Kind::Request { sender: src.into(), mac, target: target.into() }
        }
        Heard::Advertisement { target, mac, solicited, override_flag, router } => {
            Kind::Answer { address: target.into(), mac, solicited, override_flag, router }
        }
        Heard::Other => Kind::Other,
    };
    Some(Event { interface, kind })
}

/// Turns a solicitation for an address of ours into the advertisement, in place, and returns the link address to send
/// it to: the one that the sender gave, or all nodes when somebody asks whether he may take the address. `None` if it
/// wants no answer, or had no room for one; what lay behind its payload may be gone then, nothing else.
///
/// A unicast solicitation may leave its link address out (RFC 4861 section 4.3). It is not answered: its sender asks
/// again by multicast, with the address.
pub fn na_reply(packet: &mut Mbuf, mac: EtherAddr, ours: impl FnOnce(Ipv6Addr) -> bool) -> Option<EtherAddr> {
    let Heard::Solicitation { src, target, mac: asker } = read(packet)? else { return None };
    let (dst, to, solicited) =
        if src.is_unspecified() { (ALL_NODES, group_mac(ALL_NODES), false) } else { (src, asker?, true) };
    if src == target || !ours(target) {
        return None;
    }
    let asked_len = Ipv6::new_checked(packet.data()).ok()?.total_len();
    packet.trim(packet.len().saturating_sub(asked_len.min(PACKET_LEN)));
    packet.append(PACKET_LEN - packet.len())?;
    let message = Message::Advertisement { solicited };
    message.write(packet.data_mut(), target, dst, target, Some(mac));
    for done in [Flags::BCAST, Flags::MCAST, Flags::CSUM_L4_PARTIAL, Flags::CSUM_L4_GOOD] {
        packet.flags_mut().remove(done);
    }
    Some(to)
}

/// Builds a solicitation for `target` into an empty mbuf, as a whole frame: to the solicited-node group, or to the
/// neighbour `to` when only that one is to confirm. An unspecified `source` asks whether the address is free (RFC 4862
/// section 5.4.2). False, and the mbuf unchanged, if it has no room or is not empty.
pub fn neighbor_solicitation(
    mbuf: &mut Mbuf,
    our_mac: EtherAddr,
    source: Ipv6Addr,
    target: Ipv6Addr,
    to: Option<EtherAddr>,
) -> bool {
    let dst = if to.is_some() { target } else { solicited_node(target) };
    let given = (!source.is_unspecified()).then_some(our_mac);
    frame(mbuf, our_mac, to.unwrap_or(group_mac(dst)), given.is_some(), |packet| {
        Message::Solicitation.write(packet, source, dst, target, given);
    })
}

/// Builds the announcement that `address` is ours into an empty mbuf, as a whole frame to all nodes: after the address
/// was given to us, or its link address changed (RFC 4861 section 7.2.6). False as above.
pub fn unsolicited_na(mbuf: &mut Mbuf, our_mac: EtherAddr, address: Ipv6Addr) -> bool {
    frame(mbuf, our_mac, group_mac(ALL_NODES), true, |packet| {
        let message = Message::Advertisement { solicited: false };
        message.write(packet, address, ALL_NODES, address, Some(our_mac));
    })
}

/// Appends a frame and has its packet written.
fn frame(
    mbuf: &mut Mbuf,
    src: EtherAddr,
    dst: EtherAddr,
    with_option: bool,
    write: impl FnOnce(&mut [u8]),
) -> bool {
    let packet_len = if with_option { PACKET_LEN } else { Ipv6::HEADER_LEN + Ndp::HEADER_LEN };
    if !mbuf.is_empty() {
        return false;
    }
    let Some(bytes) = mbuf.append(Ethernet::HEADER_LEN + packet_len) else { return false };
    let Ok(mut ether) = Ethernet::init(bytes) else { return false };
    ether.set_dst(dst);
    ether.set_src(src);
    ether.set_ethertype(EtherType::IPV6);
    write(ether.payload_mut());
    mbuf.set_ethertype(EtherType::IPV6.0);
    true
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Solicitation,
    Advertisement { solicited: bool },
}

impl Message {
    /// Fills `packet`, which is as long as the message with its option, or without it where `mac` is `None`.
    fn write(
        self,
        packet: &mut [u8],
        src: Ipv6Addr,
        dst: Ipv6Addr,
        target: Ipv6Addr,
        mac: Option<EtherAddr>,
    ) {
        let Ok(mut ip) = Ipv6::init(packet) else { return };
        ip.set_next_header(Protocol::ICMPV6);
        ip.set_hop_limit(HOP_LIMIT);
        ip.set_src(src);
        ip.set_dst(dst);
        let pseudo = ip.pseudo_header();
        let Ok(mut ndp) = Ndp::init(ip.payload_mut(), self == Message::Solicitation) else { return };
        ndp.set_target(target);
        let mut option = Ndp::SOURCE_LINK_ADDR;
        if let Message::Advertisement { solicited } = self {
            // A router: NKE forwards, and a host that has us as its router would forget us without the flag.
            ndp.set_flags(true, solicited, true);
            option = Ndp::TARGET_LINK_ADDR;
        }
        if mac.is_some_and(|mac| ndp.set_link_addr(option, mac).is_err()) {
            return;
        }
        if let Ok(mut message) = Icmp::new_checked(ndp.into_inner()) {
            message.fill_checksum(Some(&pseudo));
        }
    }
}
