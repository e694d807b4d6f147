//! Packets for this host: put together, shown to the input filters, and handed to their transport.

use std::net::IpAddr;

use nke_filters::{AttachId, Family, IpHook, Stage};
use nke_inet::icmp::{self, ErrorV4, ErrorV6};
use nke_inet::neigh;
use nke_inet::reass::{FragmentKey, Outcome};
use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Ipv4, Ipv6, Protocol};

use super::reasons;
use super::route::destination;
use super::stage::{Path, places};
use super::tables::Notice;
use crate::drop::*;

/// ICMPv6 messages of neighbour discovery (RFC 4861 section 4).
const ND: std::ops::RangeInclusive<u8> = 133..=137;

impl Path<'_> {
    /// Delivers the packets at the places of `mask`.
    #[cold]
    pub(super) fn local(&mut self, family: Family, mut mask: u64, after: Option<AttachId>) {
        self.trace_route(mask);
        mask = self.reassemble(family, mask);
        self.hook.trace(self.burst, mask, &Stage::Hook(IpHook::Input));
        mask = self.filters(family, IpHook::Input, mask, after);
        for place in places(mask) {
            if let Some(mbuf) = self.burst.take(place) {
                self.deliver(family, mbuf);
            }
        }
    }

    /// Replaces fragments by the datagrams they complete, at the place of the last one. Fragments that another worker puts
    /// together go there, and go on by [`Path::handed_over`].
    #[inline]
    pub(super) fn reassemble(&mut self, family: Family, mask: u64) -> u64 {
        let mut left = mask;
        for place in places(mask) {
            let Some(mbuf) = &self.burst.slots()[place] else { continue };
            if !is_fragment(family, mbuf) {
                continue;
            }
            let whole = self.burst.take(place).and_then(|mbuf| self.fragment(family, mbuf));
            if whole.is_none() {
                left &= !(1 << place);
            }
            self.burst.slots_mut()[place] = whole;
        }
        left
    }

    #[cold]
    fn fragment(&mut self, family: Family, mbuf: Mbuf) -> Option<Mbuf> {
        let tables = &self.inet.tables;
        if tables.handover.len() > 1
            && let Some(key) = FragmentKey::of(&mbuf)
        {
            let owner = tables.steering.worker(&key, tables.handover.len());
            if owner != self.hook.worker {
                if let Err(mbuf) = tables.handover[owner].push(mbuf) {
                    self.drop(mbuf, HANDOVER_FULL);
                }
                self.shared.nudge(owner);
                return None;
            }
        }
        self.put_together(family, mbuf)
    }

    /// Gives a fragment of ours to the reassembler; the datagram, if it is whole.
    fn put_together(&mut self, family: Family, mbuf: Mbuf) -> Option<Mbuf> {
        let now = self.hook.now_ms;
        let before = discarded(self.inet.reassembler.stats());
        let outcome = self.inet.reassembler.input(mbuf, now, self.hook.cache);
        let after = discarded(self.inet.reassembler.stats());
        let drops = &self.hook.status.drops;
        drops[FRAG_DISCARDED.index()].add(after.0 - before.0);
        drops[FRAG_TIMEOUT.index()].add(after.1 - before.1);
        self.hook.status.inet.fragment_frames.set(self.inet.reassembler.frames_held() as u64);
        match outcome {
            Outcome::NotAFragment(mbuf) => return Some(mbuf),
            Outcome::Held => (),
            Outcome::Whole(mbuf) => {
                self.hook.status.inet.reassembled.add(1);
                return Some(mbuf);
            }
            Outcome::Dropped(reason) => {
                self.hook.status.drops[reasons::of_fragment(reason).index()].add(1);
            }
            Outcome::Answer(mbuf, reason, problem) => {
                debug_assert_eq!(family, Family::V6, "only IPv6 wants these told");
                let (code, pointer) = (problem.code, problem.pointer);
                self.icmp_error_v6(&mbuf, ErrorV6::ParameterProblem { code, pointer });
                self.drop(mbuf, reasons::of_fragment(reason));
            }
        }
        None
    }

    /// Fragments that other workers left for us. What they complete goes on as if it had just been received.
    pub(crate) fn handed_over(&mut self, most: usize) -> bool {
        // Asked in every round: looking is cheaper than taking from an empty queue, which fences.
        if self.inet.tables.handover[self.hook.worker].is_empty() {
            return false;
        }
        for done in 0..most {
            let Some(mbuf) = self.inet.tables.handover[self.hook.worker].pop() else { return done > 0 };
            let family =
                if mbuf.data().first().is_some_and(|b| b >> 4 == 6) { Family::V6 } else { Family::V4 };
            let Some(whole) = self.put_together(family, mbuf) else { continue };
            let full = self.burst.push(whole);
            debug_assert!(full.is_ok(), "the burst is empty between steps");
            // The prerouting filters saw its fragments, unless they want datagrams whole.
            if self.snapshot.ip[family as usize].wants_whole {
                self.ip(family, 1, None);
            } else {
                self.routed(family, 1, None);
            }
            self.burst.compact();
            self.transmit_all();
        }
        true
    }

    /// About every millisecond: frees fragments whose rest did not come, sends or frees packets that waited for a neighbour.
    #[cold]
    pub(crate) fn housekeeping(&mut self) {
        const BUDGET: usize = 32;
        let now = self.hook.now_ms;
        let before = discarded(self.inet.reassembler.stats());
        let mut firsts = std::mem::take(&mut self.inet.firsts);
        self.inet.reassembler.expire(now, self.hook.cache, BUDGET, |first, _| {
            // As many as the budget has room; one that does not fit goes unanswered.
            drop(firsts.push(first));
        });
        let after = discarded(self.inet.reassembler.stats());
        self.hook.status.drops[FRAG_TIMEOUT.index()].add(after.1 - before.1);
        self.hook.status.inet.fragment_frames.set(self.inet.reassembler.frames_held() as u64);
        while let Some(first) = firsts.pop() {
            if first.data().first().is_some_and(|b| b >> 4 == 6) {
                self.icmp_error_v6(&first, ErrorV6::ReassemblyTimeExceeded);
            } else {
                self.icmp_error_v4(&first, ErrorV4::ReassemblyTimeExceeded);
            }
            self.hook.cache.free(first);
        }
        self.inet.firsts = firsts;
        self.poll_pending();
    }

    /// A whole datagram.
    fn deliver(&mut self, family: Family, mut mbuf: Mbuf) {
        let to = destination(family, &mbuf);
        let links = &self.snapshot.links;
        // Local, and nobody's address: the broadcast of one of our networks. Answers would amplify (RFC 1122 section 3.2.2).
        let broadcast = to.is_ipv4() && !to.is_multicast() && !links.iter().any(|link| link.has(to));
        let group = to.is_multicast() || matches!(to, IpAddr::V4(a) if a.is_broadcast());
        if group && !links.get(usize::from(mbuf.rcvif())).is_some_and(|link| link.is_member(to)) {
            return self.not_member(mbuf);
        }
        let Some((protocol, offset)) = transport(family, &mbuf) else {
            return self.drop(mbuf, IP_BAD_OPTION);
        };
        let group = group || broadcast;
        match (family, protocol) {
            (Family::V4, Protocol::ICMP) if broadcast => self.drop(mbuf, ICMP_IGNORED),
            (Family::V4, Protocol::ICMP) => self.icmp_v4(mbuf, offset),
            (Family::V6, Protocol::ICMPV6) => self.icmp_v6(mbuf, offset),
            (_, Protocol::UDP) if !group => {
                match family {
                    Family::V4 => self.icmp_error_v4(&mbuf, ErrorV4::PortUnreachable),
                    Family::V6 => self.icmp_error_v6(&mbuf, ErrorV6::PortUnreachable),
                }
                self.drop(mbuf, NO_TRANSPORT);
            }
            (Family::V4, _) if !group => {
                self.icmp_error_v4(&mbuf, ErrorV4::ProtocolUnreachable);
                self.drop(mbuf, NO_TRANSPORT);
            }
            (Family::V6, _) if !group && mbuf.pullup(offset.min(mbuf.len())) => {
                let pointer = next_header_at(mbuf.data(), offset) as u32;
                self.icmp_error_v6(&mbuf, ErrorV6::ParameterProblem { code: 1, pointer });
                self.drop(mbuf, NO_TRANSPORT);
            }
            _ => self.drop(mbuf, NO_TRANSPORT),
        }
    }

    fn icmp_v4(&mut self, mut mbuf: Mbuf, _: usize) {
        if icmp::echo_reply(&mut mbuf).is_err() {
            return self.drop(mbuf, ICMP_IGNORED);
        }
        self.hook.status.inet.delivered.add(1);
        self.originate(Family::V4, mbuf, None);
    }

    fn icmp_v6(&mut self, mut mbuf: Mbuf, offset: usize) {
        let mut kind = [0];
        if mbuf.copy_out(offset, &mut kind) && ND.contains(&kind[0]) {
            return self.neighbor_discovery(mbuf);
        }
        if icmp::echo_reply(&mut mbuf).is_err() {
            return self.drop(mbuf, ICMP_IGNORED);
        }
        self.hook.status.inet.delivered.add(1);
        self.originate(Family::V6, mbuf, None);
    }

    /// Answered here when it asks for an address of ours, and told to the control thread.
    fn neighbor_discovery(&mut self, mut mbuf: Mbuf) {
        self.hook.status.inet.neighbor_packets.add(1);
        let input = mbuf.rcvif();
        let Some(link) = self.snapshot.links.get(usize::from(input)) else {
            return self.drop(mbuf, NEIGHBOR_BAD);
        };
        let Some(event) = neigh::parse_nd(&mbuf, input) else { return self.drop(mbuf, NEIGHBOR_BAD) };
        if self.inet.tables.notices.push(Notice::Heard(event)).is_err() {
            self.hook.status.drops[NEIGHBOR_EVENTS.index()].add(1);
        }
        let (mac, ours) = (link.mac.into(), |address: std::net::Ipv6Addr| link.has(address.into()));
        match neigh::na_reply(&mut mbuf, mac, ours) {
            Some(to) => {
                self.hook.status.inet.neighbor_answers.add(1);
                self.send(mbuf, Family::V6, to.into(), input);
            }
            None => self.hook.cache.free(mbuf),
        }
    }
}

/// Fragments that were held and went without completing anything: for room or another's fault, and by time.
fn discarded(stats: &nke_inet::reass::Stats) -> (u64, u64) {
    (stats.killed + stats.evicted, stats.timed_out)
}

#[inline(always)]
fn is_fragment(family: Family, mbuf: &Mbuf) -> bool {
    match family {
        Family::V4 => mbuf.data().get(6..8).is_some_and(|b| b[0] & 0x3f != 0 || b[1] != 0),
        // Fragment headers come behind others, too; the reassembler finds them.
        Family::V6 => mbuf.data().get(6).is_some_and(|next| matches!(next, 0 | 43 | 44 | 60)),
    }
}

/// The transport protocol, and where it begins; `None` if the headers before it do not hold.
fn transport(family: Family, mbuf: &Mbuf) -> Option<(Protocol, usize)> {
    match family {
        Family::V4 => Ipv4::new_quoted(mbuf.data()).ok().map(|ip| (ip.protocol(), ip.header_len())),
        Family::V6 => {
            let walk = Ipv6::new_quoted(mbuf.data()).ok()?.extensions().ok()?;
            Some((walk.protocol, Ipv6::HEADER_LEN + walk.offset))
        }
    }
}

/// Where the byte stands that names the header at `offset`.
fn next_header_at(data: &[u8], offset: usize) -> usize {
    let (mut field, mut at) = (6, Ipv6::HEADER_LEN);
    while at < offset {
        let Some(len) = data.get(at + 1) else { break };
        field = at;
        at += (usize::from(*len) + 1) * 8;
    }
    field
}
