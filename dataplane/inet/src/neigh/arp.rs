//! ARP packets (RFC 826, RFC 5227): read, answered and built. Whole frames, with the Ethernet header.

use std::net::{IpAddr, Ipv4Addr};

use nke_mbuf::wire::{Arp, ArpOp, EtherAddr, EtherType, Ethernet};
use nke_mbuf::{Flags, Mbuf};

use super::event::{Event, Kind};
use crate::icmp::is_one_host_v4;

const FRAME_LEN: usize = Ethernet::HEADER_LEN + Arp::HEADER_LEN;

/// What a good ARP packet holds.
struct Heard {
    op: ArpOp,
    mac: EtherAddr,
    sender: Ipv4Addr,
    target: Ipv4Addr,
    /// By its Ethernet header to us alone.
    unicast: bool,
}

/// `None` unless it is ARP for IPv4 over Ethernet, of a sender that could be one, in the first frame of the mbuf.
fn read(frame: &Mbuf) -> Option<Heard> {
    // Others' unicast is seen where an interface is promiscuous: it is none of ours.
    if frame.flags().contains(Flags::PROMISC) {
        return None;
    }
    let ether = Ethernet::new_checked(frame.data()).ok()?;
    let arp = Arp::new_checked(ether.payload()).ok().filter(|_| ether.ethertype() == EtherType::ARP)?;
    let heard = Heard {
        op: arp.op(),
        mac: arp.sender_hw(),
        sender: arp.sender_ip(),
        target: arp.target_ip(),
        unicast: !ether.dst().is_multicast(),
    };
    let (probe, request) = (heard.sender.is_unspecified(), heard.op == ArpOp::REQUEST);
    let good = (request || heard.op == ArpOp::REPLY)
        && heard.mac.is_unicast()
        && heard.mac == ether.src()
        && (is_one_host_v4(heard.sender, false) || probe && request)
        && (is_one_host_v4(heard.target, false) || !request);
    good.then_some(heard)
}

/// Reads a frame. `None` if it is not ARP, or not good: other hardware or protocol, a length or operation that is not
/// known, a sender that is a group or not the sender of the frame, addresses that no host can have.
pub fn parse_arp(frame: &Mbuf, interface: u16) -> Option<Event> {
    let heard = read(frame)?;
    let announced = heard.sender == heard.target;
    let mac = Some(heard.mac);
    let kind = if heard.op == ArpOp::REQUEST && !announced {
        Kind::Request { sender: heard.sender.into(), mac, target: IpAddr::V4(heard.target) }
    } else {
        let solicited = heard.op == ArpOp::REPLY && heard.unicast && !announced;
        Kind::Answer { address: heard.sender.into(), mac, solicited, override_flag: true, router: false }
    };
    Some(Event { interface, kind })
}

/// Turns a request for an address of ours into the reply, in place, from `mac`; a probe too (RFC 5227 section 2.1.1).
/// False, and the frame unchanged, if it wants no answer.
pub fn arp_reply(frame: &mut Mbuf, mac: EtherAddr, ours: impl FnOnce(Ipv4Addr) -> bool) -> bool {
    let Some(heard) = read(frame) else { return false };
    if heard.op != ArpOp::REQUEST || heard.sender == heard.target || !ours(heard.target) {
        return false;
    }
    let reply = Packet {
        op: ArpOp::REPLY,
        mac,
        sender: heard.target,
        to: heard.mac,
        target_hw: heard.mac,
        target: heard.sender,
    };
    reply.write(&mut frame.data_mut()[..FRAME_LEN]);
    frame.trim(frame.len() - FRAME_LEN); // the padding is the asker's
    frame.flags_mut().remove(Flags(Flags::BCAST.0 | Flags::MCAST.0));
    true
}

/// Builds a request for `target_ip` into an empty mbuf, as a whole frame: by broadcast, or to the neighbour `to` when
/// only that one is to confirm. A `sender_ip` of 0.0.0.0 makes it a probe, one equal to `target_ip` an announcement
/// (RFC 5227 sections 2.1.1 and 2.3). False, and the mbuf unchanged, if it has no room or is not empty.
pub fn arp_request(
    mbuf: &mut Mbuf,
    our_mac: EtherAddr,
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
    to: Option<EtherAddr>,
) -> bool {
    let request = Packet {
        op: ArpOp::REQUEST,
        mac: our_mac,
        sender: sender_ip,
        to: to.unwrap_or(EtherAddr::BROADCAST),
        target_hw: EtherAddr::default(),
        target: target_ip,
    };
    if !mbuf.is_empty() {
        return false;
    }
    let Some(bytes) = mbuf.append(FRAME_LEN) else { return false };
    request.write(bytes);
    mbuf.set_ethertype(EtherType::ARP.0);
    true
}

/// A packet to be written.
struct Packet {
    op: ArpOp,
    mac: EtherAddr,
    sender: Ipv4Addr,
    /// Who gets the frame.
    to: EtherAddr,
    target_hw: EtherAddr,
    target: Ipv4Addr,
}

impl Packet {
    /// `bytes` is [`FRAME_LEN`] long; shorter ones stay as they are.
    fn write(&self, bytes: &mut [u8]) {
        let Ok(mut ether) = Ethernet::init(bytes) else { return };
        ether.set_dst(self.to);
        ether.set_src(self.mac);
        ether.set_ethertype(EtherType::ARP);
        let Ok(mut arp) = Arp::init(ether.payload_mut()) else { return };
        arp.set_op(self.op);
        arp.set_sender(self.mac, self.sender);
        arp.set_target(self.target_hw, self.target);
    }
}
