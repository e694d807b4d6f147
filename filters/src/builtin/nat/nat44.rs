//! Translation of IPv4: which end of a packet becomes what.
//!
//! ```text
//!   prerouting   to an outside address       from inside as well: both ends (hairpin)
//!                                             else: the destination, by session, forward or mapping
//!   output       from inside, not to inside   the source, by session; the first packet makes one
//! ```
//!
//! The path is one lookup of a session by what the packet says. Only packets from inside make sessions: what comes from
//! outside without one goes through a mapping, if a forward or the filtering allows it, and leaves nothing behind, so a
//! stranger can neither fill the table nor keep a mapping alive (RFC 4787 section 4.3).

use std::net::Ipv4Addr;

use nke_mbuf::wire::{Protocol, TcpFlags};
use nke_mbuf::{BURST_MAX, Mbuf};

use super::args::{Config, Endpoint};
use super::error;
use super::mappings::{Mapping, Mappings, NoMapping};
use super::ranges::Ranges;
use super::rewrite::{self, End, is_pending, rewrite};
use super::tally::{Tally, Why};
use crate::flow::packet::{self, Role, V4, key_v4};
use crate::flow::{Direction, Ends, Flows, Found, Refusal, State};
use crate::{Batch, DropReason, FlowEntry};

/// A session: side 0 is the packets from inside as the inside host sends them, side 1 those from outside as they arrive.
pub(super) type Session = Found<2, 2>;

/// The translator. Works without a dataplane, so that it can be tested.
pub(super) struct Nat44 {
    pub(super) inside: Ranges,
    /// The pool, and the addresses of forwards.
    pub(super) outside: Ranges,
    pub(super) sessions: Flows<2, 2>,
    pub(super) mappings: Mappings,
    mss_max: Option<u16>,
}

/// Where a packet from outside goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inbound {
    /// To this inside endpoint.
    To(Endpoint),
    /// Nobody inside uses the endpoint: it is the host's own business.
    NotOurs,
    /// The filtering does not let it in.
    Filtered,
}

/// Packets of a batch that wait for their lookup.
struct Work {
    packets: [(u8, V4); BURST_MAX],
    buckets: [u32; BURST_MAX],
    len: usize,
}

impl Work {
    #[inline(always)]
    fn new() -> Work {
        Work { packets: [Default::default(); BURST_MAX], buckets: [0; BURST_MAX], len: 0 }
    }

    #[inline(always)]
    fn push(&mut self, place: usize, packet: V4, bucket: u32) {
        if let (Some(slot), Some(at)) = (self.packets.get_mut(self.len), self.buckets.get_mut(self.len)) {
            *slot = (place as u8, packet);
            *at = bucket;
            self.len += 1;
        }
    }
}

impl Nat44 {
    pub(super) fn new(config: &Config) -> Option<Nat44> {
        Some(Nat44 {
            inside: config.inside.clone(),
            outside: config.pool.with(config.forwards.iter().map(|forward| forward.outside.0)),
            sessions: Flows::new(config.flows, config.timeouts),
            mappings: Mappings::new(config)?,
            mss_max: config.mss_max,
        })
    }

    /// Ends what timed out. For the control thread.
    pub(super) fn age(&self, now_s: u32) {
        self.sessions.age(now_s, |session| self.gone(session));
        self.mappings.tidy();
    }

    /// A session has ended.
    fn gone(&self, session: &Session) {
        self.mappings.release(session.value as u32, Some((session.value >> 32) as u32));
    }

    /// Packets as they came: those for an outside address.
    pub(super) fn prerouting(
        &self,
        batch: &mut Batch<'_>,
        tally: &Tally,
        reasons: &[DropReason; Why::COUNT],
    ) {
        let mut work = Work::new();
        for place in batch.places() {
            let Some(mbuf) = batch.get_mut(place) else { continue };
            // What cannot be read is not for a host inside; the stack will say what is wrong with it.
            let Some(packet) = read(mbuf).filter(|packet| self.outside.contains(packet.dst)) else {
                continue;
            };
            if packet.upper.role == Role::Error {
                error::prerouting(self, mbuf, &packet, tally);
            } else if self.inside.contains(packet.src) {
                if let Err(why) = self.hairpin(mbuf, &packet, tally) {
                    batch.drop(place, reasons[why as usize]);
                }
            } else {
                work.push(place, packet, self.sessions.table().bucket(&packet.key()));
            }
        }
        self.sessions.table().warm(&work.buckets[..work.len]);
        for (at, (place, packet)) in work.packets[..work.len].iter().enumerate() {
            let place = usize::from(*place);
            match self.inbound(packet, work.buckets[at]) {
                Inbound::To(to) => {
                    if let Some(mbuf) = batch.get_mut(place) {
                        self.write(mbuf, packet, End::Dst, to);
                        tally.inbound.add(1);
                    }
                }
                Inbound::NotOurs => {}
                Inbound::Filtered => {
                    tally.filtered.add(1);
                    batch.drop(place, reasons[Why::Filtered as usize]);
                }
            }
        }
    }

    /// Packets that leave: those from inside.
    pub(super) fn output(&self, batch: &mut Batch<'_>, tally: &Tally, reasons: &[DropReason; Why::COUNT]) {
        let mut work = Work::new();
        for place in batch.places() {
            let Some(mbuf) = batch.get_mut(place) else { continue };
            packet::pullup(mbuf, V4::HEADERS_MAX);
            match V4::read(mbuf.data()) {
                Ok(packet) if packet.upper.role == Role::Error => {
                    error::output(self, mbuf, &packet, tally);
                }
                Ok(packet) if self.leaves(packet.src, packet.dst) => {
                    work.push(place, packet, self.sessions.table().bucket(&packet.key()));
                }
                Ok(_) => {}
                Err(_) if leaves_unread(mbuf, |src, dst| self.leaves(src, dst)) => {
                    tally.invalid.add(1);
                    batch.drop(place, reasons[Why::Invalid as usize]);
                }
                Err(_) => {}
            }
        }
        self.sessions.table().warm(&work.buckets[..work.len]);
        for (at, (place, packet)) in work.packets[..work.len].iter().enumerate() {
            let place = usize::from(*place);
            match self.outbound(packet, work.buckets[at]) {
                Ok(from) => {
                    if let Some(mbuf) = batch.get_mut(place) {
                        self.write(mbuf, packet, End::Src, from);
                        tally.outbound.add(1);
                    }
                }
                Err(why) => {
                    tally.refused(why);
                    batch.drop(place, reasons[why as usize]);
                }
            }
        }
    }

    /// From inside to somewhere that is not. Multicast and broadcast stay on their link; what is still for an outside
    /// address is for an endpoint that nobody uses.
    #[inline(always)]
    fn leaves(&self, src: u32, dst: u32) -> bool {
        let unicast = dst < 0xe000_0000;
        self.inside.contains(src) && unicast && !self.inside.contains(dst) && !self.outside.contains(dst)
    }

    #[inline(always)]
    fn write(&self, mbuf: &mut Mbuf, packet: &V4, end: End, to: Endpoint) {
        let pending = is_pending(mbuf);
        rewrite(mbuf.data_mut(), &packet.upper, end, to, pending);
        if let Some(max) = self.mss_max
            && packet.upper.tcp.contains(TcpFlags::SYN)
        {
            rewrite::clamp_mss(mbuf.data_mut(), &packet.upper, max, pending);
        }
    }

    /// What becomes of the source of a packet from inside.
    #[inline(always)]
    pub(super) fn outbound(&self, packet: &V4, bucket: u32) -> Result<Endpoint, Why> {
        match self.sessions.find_in(bucket, &packet.key(), |session| self.gone(session)) {
            Some(session) => {
                self.sessions.touch(&session, Direction::Original, packet.upper.tcp);
                Ok(outside_of(&session))
            }
            None => self.open(packet),
        }
    }

    /// The first packet of a session from inside.
    #[cold]
    #[inline(never)]
    fn open(&self, packet: &V4) -> Result<Endpoint, Why> {
        let upper = &packet.upper;
        let inside = (packet.src, upper.src_port);
        let opens = match Protocol(upper.protocol) {
            Protocol::TCP => !upper.tcp.contains(TcpFlags::RST),
            Protocol::ICMP => upper.role == Role::Query,
            _ => true,
        };
        if !opens {
            let forward = self.mappings.by_inside(upper.protocol, inside).filter(|mapping| mapping.for_ever);
            return forward.map(|mapping| mapping.outside).ok_or(Why::Invalid);
        }
        let mapping = self.mappings.hold(upper.protocol, inside)?;
        if mapping.for_ever {
            return Ok(mapping.outside);
        }
        self.open_with(packet, &mapping)
    }

    /// Up to `most` sessions.
    pub(super) fn entries(&self, most: usize) -> Vec<FlowEntry> {
        let end = |(address, port): Endpoint| (Ipv4Addr::from_bits(address).into(), port);
        self.sessions.entries(most, |session| {
            let [addresses, ports] = session.keys[0];
            Ends {
                protocol: ports as u8,
                src: end(inside_of(session)),
                dst: end((addresses as u32, (ports >> 16) as u16)),
                translated: Some(end(outside_of(session))),
            }
        })
    }

    fn open_with(&self, packet: &V4, mapping: &Mapping) -> Result<Endpoint, Why> {
        let protocol = packet.upper.protocol;
        let permit = self.mappings.permit(protocol, mapping.outside, packet.dst);
        let permit = permit.inspect_err(|_| self.mappings.release(mapping.index, None))?;
        let remote = (packet.dst, packet.upper.dst_port);
        let keys = [packet.key(), key_v4(protocol, remote, mapping.outside)];
        let value = u64::from(permit) << 32 | u64::from(mapping.index);
        let state = State::opened(protocol).after(Direction::Original, packet.upper.tcp);
        let refusal = match self.sessions.open(&keys, value, state, |session| self.gone(session)) {
            Ok(_) => return Ok(mapping.outside),
            Err(refusal) => refusal,
        };
        self.mappings.release(mapping.index, Some(permit));
        match refusal {
            // Another worker opened the same session.
            Refusal::Exists(0) => {
                self.sessions.table().find(&keys[0]).map(|session| outside_of(&session)).ok_or(Why::Busy)
            }
            Refusal::Exists(_) | Refusal::Busy => Err(Why::Busy),
            Refusal::Full => Err(Why::TableFull),
        }
    }

    /// Where a packet for an outside address goes.
    #[inline(always)]
    pub(super) fn inbound(&self, packet: &V4, bucket: u32) -> Inbound {
        match self.sessions.find_in(bucket, &packet.key(), |session| self.gone(session)) {
            Some(session) if session.side == 1 => {
                self.sessions.touch(&session, Direction::Reply, packet.upper.tcp);
                Inbound::To(inside_of(&session))
            }
            _ => self.unsolicited(packet),
        }
    }

    /// A packet from outside without a session.
    #[cold]
    #[inline(never)]
    fn unsolicited(&self, packet: &V4) -> Inbound {
        let (protocol, outside) = (packet.upper.protocol, (packet.dst, packet.upper.dst_port));
        if matches!(packet.upper.role, Role::Query | Role::Message) {
            return Inbound::NotOurs;
        }
        match self.mappings.by_outside(protocol, outside) {
            None => Inbound::NotOurs,
            Some(mapping)
                if mapping.for_ever || self.mappings.is_permitted(protocol, outside, packet.src) =>
            {
                Inbound::To(mapping.inside)
            }
            Some(_) => Inbound::Filtered,
        }
    }

    /// From an inside host to the outside address of one (RFC 4787 REQ-9): the receiver sees the sender's outside
    /// endpoint. A packet for an endpoint that nobody uses is the host's own business.
    fn hairpin(&self, mbuf: &mut Mbuf, packet: &V4, tally: &Tally) -> Result<(), Why> {
        let (protocol, outside) = (packet.upper.protocol, (packet.dst, packet.upper.dst_port));
        if packet.upper.role != Role::Data || self.mappings.by_outside(protocol, outside).is_none() {
            return Ok(());
        }
        let refuse = |why| {
            tally.refused(why);
            Err(why)
        };
        let table = self.sessions.table();
        let from = match self.outbound(packet, table.bucket(&packet.key())) {
            Ok(from) => from,
            Err(why) => return refuse(why),
        };
        let mut seen = *packet;
        (seen.src, seen.upper.src_port) = from;
        match self.inbound(&seen, table.bucket(&seen.key())) {
            Inbound::To(to) => {
                self.write(mbuf, packet, End::Src, from);
                self.write(mbuf, packet, End::Dst, to);
                tally.hairpin.add(1);
                Ok(())
            }
            Inbound::NotOurs => Ok(()),
            Inbound::Filtered => refuse(Why::Filtered),
        }
    }
}

/// Headers of a packet, if they hold.
#[inline(always)]
fn read(mbuf: &mut Mbuf) -> Option<V4> {
    packet::pullup(mbuf, V4::HEADERS_MAX);
    V4::read(mbuf.data()).ok()
}

/// For a packet whose upper header does not hold.
#[cold]
fn leaves_unread(mbuf: &Mbuf, leaves: impl Fn(u32, u32) -> bool) -> bool {
    nke_mbuf::wire::Ipv4::new_quoted(mbuf.data())
        .is_ok_and(|ip| leaves(ip.src().to_bits(), ip.dst().to_bits()))
}

/// The outside endpoint of a session: the destination of what comes from outside.
#[inline(always)]
pub(super) fn outside_of(session: &Session) -> Endpoint {
    (session.keys[1][0] as u32, (session.keys[1][1] >> 16) as u16)
}

/// The inside endpoint of a session: the source of what comes from inside.
#[inline(always)]
pub(super) fn inside_of(session: &Session) -> Endpoint {
    ((session.keys[0][0] >> 32) as u32, (session.keys[0][1] >> 32) as u16)
}

impl From<NoMapping> for Why {
    fn from(no: NoMapping) -> Why {
        match no {
            NoMapping::NoPort => Why::NoPort,
            NoMapping::Full => Why::TableFull,
            NoMapping::Busy => Why::Busy,
        }
    }
}
