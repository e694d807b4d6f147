//! From a frame to a protocol: whose it is, and what is in it (KPI: `demux`).

use nke_filters::{Demux, DropReason, Family, IfIndex, ProtocolFamily, Stage};
use nke_inet::neigh;
use nke_mbuf::{Flags, Mbuf};

use super::check::{self, ETHER_LEN};
use super::link::{Handler, Link, Plumbed, Takes};
use super::mac::Mac;
use super::route::dst4;
use super::stage::{Path, places};
use super::tables::Notice;
use super::worker::InetWorker;
use crate::caught::caught;
use crate::drop::{IF_DOWN, NEIGHBOR_BAD, NEIGHBOR_EVENTS, NO_PROTOCOL, OTHER_HOST};

/// Places of the burst by protocol.
#[derive(Default)]
struct Demuxed {
    v4: u64,
    v6: u64,
    arp: u64,
    others: u64,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

impl Path<'_> {
    /// Takes the frames in the burst, which interface `input` received and its filters left. The burst is empty
    /// afterwards.
    #[inline]
    pub(crate) fn demux(&mut self, input: usize) {
        self.hook.trace(self.burst, u64::MAX, &Stage::Demux);
        let snapshot = self.snapshot;
        let link = &snapshot.links[input];
        if link.takes.is_empty() || !link.up {
            let reason = if link.up { NO_PROTOCOL } else { IF_DOWN };
            return self.drop_burst(reason);
        }
        let Demuxed { v4, v6, arp, others } =
            if link.ethernet { self.demux_ethernet(input, link) } else { self.demux_by_driver(input, link) };
        if v4 != 0 {
            if !link.ethernet {
                self.note_destinations(v4);
            }
            self.ip_noted(Family::V4, v4, None);
        }
        if v6 != 0 {
            self.ip_noted(Family::V6, v6, None);
        }
        if arp != 0 {
            self.arp(input, link, arp);
        }
        if others != 0 {
            self.others(input, link, others);
        }
        self.burst.compact();
        debug_assert!(self.burst.is_empty(), "every packet went somewhere");
        self.transmit_all();
    }

    /// Sorts the burst by protocol, and drops what is not for us or does not hold.
    #[inline]
    fn demux_ethernet(&mut self, input: usize, link: &Link) -> Demuxed {
        let (v4, others) = self.find_plain_v4(input, link);
        let mut found = Demuxed { v4, ..Demuxed::default() };
        if others != 0 {
            self.demux_others(link, others, &mut found);
        }
        found
    }

    /// The places of plain IPv4 for us, checked and with their destinations noted; and all other places.
    #[inline(always)]
    fn find_plain_v4(&mut self, input: usize, link: &Link) -> (u64, u64) {
        let InetWorker { tables, to4, .. } = &mut *self.inet;
        let (prefetch, us) = (tables.fib4().prefetches4(), link.mac);
        let takes_v4 = link.takes.has(Takes::INET);
        let (mut v4, mut others) = (0, 0);
        for ((place, slot), to) in self.burst.slots_mut().iter_mut().enumerate().zip(to4) {
            if let Some(mbuf) = slot {
                mbuf.set_rcvif(input as u16);
            }
            match slot.as_mut().filter(|_| takes_v4).and_then(|mbuf| plain_v4(mbuf, us)) {
                Some(destination) => {
                    prefetch(destination);
                    *to = destination;
                    v4 |= 1 << place;
                }
                None => others |= 1 << place,
            }
        }
        (v4, others)
    }

    /// Frames that are not plain IPv4 for us.
    fn demux_others(&mut self, link: &Link, mask: u64, found: &mut Demuxed) {
        for place in places(mask) {
            let Some(mbuf) = &mut self.burst.slots_mut()[place] else { continue };
            match classify(mbuf, link) {
                Ok(IPV4) => {
                    let to = dst4(mbuf).to_bits();
                    self.inet.to4[place] = to;
                    found.v4 |= 1 << place;
                }
                Ok(IPV6) => found.v6 |= 1 << place,
                Ok(ARP) => found.arp |= 1 << place,
                Ok(_) => found.others |= 1 << place,
                Err(reason) => self.drop_at(place, reason),
            }
        }
    }

    /// Frames only the driver can read.
    #[cold]
    fn demux_by_driver(&mut self, input: usize, link: &Link) -> Demuxed {
        let mut found = Demuxed::default();
        let Some(driver) = &link.more.driver else { return found };
        for place in 0..self.burst.len() {
            let Some(mbuf) = &mut self.burst.slots_mut()[place] else { continue };
            mbuf.set_rcvif(input as u16);
            let outcome = match caught(|| driver.demux(mbuf)).unwrap_or(Demux::Unknown) {
                Demux::Unknown => Err(NO_PROTOCOL),
                Demux::Protocol(family, at) => match (family, link.protocol(family).map(|p| &p.handler)) {
                    (ProtocolFamily::INET, Some(Handler::Inet)) => {
                        check::v4(mbuf, usize::from(at)).map(|()| IPV4)
                    }
                    (ProtocolFamily::INET6, Some(Handler::Inet6)) => {
                        check::v6(mbuf, usize::from(at)).map(|()| IPV6)
                    }
                    (_, Some(_)) => Ok(0),
                    (_, None) => Err(NO_PROTOCOL),
                },
            };
            match outcome {
                Ok(IPV4) => found.v4 |= 1 << place,
                Ok(IPV6) => found.v6 |= 1 << place,
                Ok(_) => found.others |= 1 << place,
                Err(reason) => self.drop_at(place, reason),
            }
        }
        found
    }

    /// Hands frames to the protocols of extensions.
    #[cold]
    fn others(&mut self, input: usize, link: &Link, mut mask: u64) {
        for protocol in &link.more.protocols {
            if let Handler::Own(handler) = &protocol.handler {
                let mine = self.frames_of(link, protocol, mask);
                if mine != 0 {
                    let interface = IfIndex(input as u16);
                    let gone =
                        self.hook.extension(interface, protocol.owner, self.burst, mine, |cx, batch| {
                            handler.input(cx, batch);
                        });
                    mask &= !gone;
                }
            }
        }
        for place in places(mask) {
            self.drop_at(place, NO_PROTOCOL);
        }
    }

    fn frames_of(&self, link: &Link, protocol: &Plumbed, mask: u64) -> u64 {
        places(mask).fold(0, |mine, place| {
            let belongs = self.burst.slots()[place].as_ref().is_some_and(|mbuf| {
                if link.ethernet {
                    protocol.demux.contains(&nke_filters::DemuxDesc::EtherType(mbuf.ethertype()))
                } else {
                    let found = caught(|| link.more.driver.as_ref().map(|d| d.demux(mbuf)));
                    matches!(found, Some(Some(Demux::Protocol(family, _))) if family == protocol.family)
                }
            });
            mine | u64::from(belongs) << place
        })
    }

    /// ARP: answered here when it asks for an address of ours, and told to the control thread.
    #[cold]
    fn arp(&mut self, input: usize, link: &Link, mask: u64) {
        for place in places(mask) {
            let Some(mut mbuf) = self.burst.take(place) else { continue };
            self.hook.status.inet.neighbor_packets.add(1);
            let Some(event) = neigh::parse_arp(&mbuf, input as u16) else {
                self.drop(mbuf, NEIGHBOR_BAD);
                continue;
            };
            if self.inet.tables.notices.push(Notice::Heard(event)).is_err() {
                self.hook.status.drops[NEIGHBOR_EVENTS.index()].add(1);
            }
            if neigh::arp_reply(&mut mbuf, link.mac.into(), |address| link.has(address.into())) {
                self.hook.status.inet.neighbor_answers.add(1);
                self.stage(mbuf, input as u16);
            } else {
                self.hook.cache.free(mbuf);
            }
        }
    }
}

/// The destination of a plain IPv4 packet in a frame for station `us`; see [`check::plain_v4`].
#[inline(always)]
fn plain_v4(mbuf: &mut Mbuf, us: Mac) -> Option<u32> {
    let header = *mbuf.data().first_chunk::<{ ETHER_LEN + 20 }>()?;
    let (ether, ip) = (header.first_chunk()?, header.last_chunk()?);
    if Mac::destination(ether) != us || ether[12..] != IPV4.to_be_bytes() {
        return None;
    }
    check::plain_v4(mbuf, ip)
}

/// The ethertype of a frame that we take; of IP the packet was checked, and data starts at its header.
fn classify(mbuf: &mut Mbuf, link: &Link) -> Result<u16, DropReason> {
    let Some(header) = mbuf.data().first_chunk::<ETHER_LEN>() else { return Err(NO_PROTOCOL) };
    let to = Mac::destination(header);
    let ethertype = u16::from_be_bytes([header[12], header[13]]);
    if to != link.mac {
        if !to.is_group() {
            return Err(OTHER_HOST);
        }
        mbuf.flags_mut().insert(if to.is_broadcast() { Flags::BCAST } else { Flags::MCAST });
    }
    match ethertype {
        IPV4 if link.takes.has(Takes::INET) => check::v4(mbuf, ETHER_LEN)?,
        IPV6 if link.takes.has(Takes::INET6) => check::v6(mbuf, ETHER_LEN)?,
        ARP if link.takes.has(Takes::ARP) => (),
        other => {
            // Only those of extensions are left; the core's own are not theirs to take twice.
            if !link.takes.has(Takes::OTHERS) || link.protocol_of(other).is_none() {
                return Err(NO_PROTOCOL);
            }
            mbuf.set_ethertype(other);
            return Ok(0);
        }
    }
    Ok(ethertype)
}
