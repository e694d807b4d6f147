//! What an expression means, the slow way: recursion over the tree, addresses as `IpAddr`, prefixes bit by bit, and
//! headers read through the views instead of [`Layers::parse`].

use crate::expr::ast::Ast;
use crate::expr::primitive::{Dir, Primitive};
use core::net::IpAddr;
use nke_mbuf::wire::*;

pub(super) fn matches(ast: &Ast, frame: &[u8]) -> bool {
    match ast {
        Ast::Test(primitive) => test(primitive, frame).unwrap_or(false),
        Ast::Not(inner) => !matches(inner, frame),
        Ast::All(parts) => parts.iter().all(|part| matches(part, frame)),
        Ast::Any(parts) => parts.iter().any(|part| matches(part, frame)),
    }
}

/// `None` where the frame has nothing to test, which is a mismatch.
fn test(primitive: &Primitive, frame: &[u8]) -> Option<bool> {
    let either = |dir: Dir, src: bool, dst: bool| match dir {
        Dir::Src => src,
        Dir::Dst => dst,
        Dir::Either => src || dst,
    };
    let in_net = |addr: IpAddr, net: IpAddr, len: u32| {
        let bits = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let (addr, net) = (bits(addr), bits(net));
        let bit = |bytes: &[u8], at: u32| bytes[at as usize / 8] >> (7 - at % 8) & 1;
        addr.len() == net.len() && (0..len).all(|at| bit(&addr, at) == bit(&net, at))
    };
    Some(match *primitive {
        Primitive::Ether(dir, addr) => {
            let ether = Ethernet::new_checked(frame).ok()?;
            either(dir, ether.src() == addr, ether.dst() == addr)
        }
        Primitive::EtherProto(ethertype) => tags(frame)?.1? == ethertype,
        Primitive::Vlan(None) => !tags(frame)?.0.is_empty(),
        Primitive::Vlan(Some(vid)) => tags(frame)?.0.contains(&vid),
        Primitive::Proto(protocol) => upper(frame)?.0 == protocol,
        Primitive::Icmp => upper(frame)?.0 == Protocol(1) && tags(frame)?.1? == EtherType::IPV4,
        Primitive::Icmp6 => upper(frame)?.0 == Protocol(58) && tags(frame)?.1? == EtherType::IPV6,
        Primitive::Net4 { dir, addr, mask } => {
            let (src, dst) = addresses(frame)?;
            let net = core::net::Ipv4Addr::from(addr).into();
            either(dir, in_net(src, net, mask.leading_ones()), in_net(dst, net, mask.leading_ones()))
        }
        Primitive::Net6 { dir, addr, mask } => {
            let (src, dst) = addresses(frame)?;
            let net = core::net::Ipv6Addr::from(addr).into();
            either(dir, in_net(src, net, mask.leading_ones()), in_net(dst, net, mask.leading_ones()))
        }
        Primitive::Port { dir, low, high } => {
            let ports = upper(frame)?.1?;
            either(dir, (low..=high).contains(&ports.0), (low..=high).contains(&ports.1))
        }
        Primitive::LenAtLeast(least) => frame.len() >= least as usize,
        Primitive::LenAtMost(most) => frame.len() <= most as usize,
        // These two are findings of the parser, which has an oracle of its own in nke-mbuf.
        Primitive::Fragment => Layers::parse(frame).fragment != Fragment::Whole,
        Primitive::Malformed => Layers::parse(frame).malformed.is_some(),
    })
}

/// VLAN IDs, and the type behind the tags unless they are cut short or too many.
fn tags(frame: &[u8]) -> Option<(Vec<u16>, Option<EtherType>)> {
    let mut ethertype = Ethernet::new_checked(frame).ok()?.ethertype();
    let mut vids = Vec::new();
    while ethertype.is_vlan() {
        match Vlan::new_checked(&frame[14 + 4 * vids.len()..]) {
            Ok(tag) if vids.len() < 2 => {
                vids.push(tag.vid());
                ethertype = tag.ethertype();
            }
            _ => return Some((vids, None)),
        }
    }
    Some((vids, Some(ethertype)))
}

fn l3(frame: &[u8]) -> Option<(EtherType, &[u8])> {
    let (vids, ethertype) = tags(frame)?;
    Some((ethertype?, &frame[14 + 4 * vids.len()..]))
}

fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (ethertype, bytes) = l3(frame)?;
    match ethertype {
        EtherType::IPV4 => Ipv4::new_checked(bytes).ok().map(|ip| (ip.src().into(), ip.dst().into())),
        EtherType::IPV6 => Ipv6::new_checked(bytes).ok().map(|ip| (ip.src().into(), ip.dst().into())),
        EtherType::ARP => {
            Arp::new_checked(bytes).ok().map(|arp| (arp.sender_ip().into(), arp.target_ip().into()))
        }
        _ => None,
    }
}

type Upper = (Protocol, Option<(u16, u16)>);

fn upper(frame: &[u8]) -> Option<Upper> {
    let (ethertype, bytes) = l3(frame)?;
    let (protocol, l4, first, more) = match ethertype {
        EtherType::IPV4 => {
            let ip = Ipv4::new_checked(bytes).ok()?;
            let l4 = bytes[ip.header_len()..ip.total_len()].to_vec();
            (ip.protocol(), l4, ip.fragment_offset() == 0, ip.more_fragments())
        }
        EtherType::IPV6 => {
            let ip = Ipv6::new_checked(bytes).ok()?;
            let walk = ip.extensions().ok()?;
            let fragment = walk.fragment.map_or((0, false), |fragment| (fragment.offset, fragment.more));
            (walk.protocol, ip.payload()[walk.offset..].to_vec(), fragment.0 == 0, fragment.1)
        }
        _ => return None,
    };
    let ports = match protocol {
        Protocol::TCP if first => Tcp::new_checked(&l4[..]).ok().map(|tcp| (tcp.src_port(), tcp.dst_port())),
        Protocol::UDP if first && more => {
            Udp::new_quoted(&l4[..]).ok().map(|udp| (udp.src_port(), udp.dst_port()))
        }
        Protocol::UDP if first => Udp::new_checked(&l4[..]).ok().map(|udp| (udp.src_port(), udp.dst_port())),
        _ => None,
    };
    Some((protocol, ports))
}
