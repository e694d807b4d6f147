//! The tracker of one family.

use std::marker::PhantomData;

use nke_mbuf::wire::{Ethernet, Icmp, Protocol, TcpFlags};
use nke_mbuf::{BURST_MAX, Mbuf};

use super::packet::Tracked;
use super::policy::{Origin, Policy};
use crate::flow::packet::{self, Role};
use crate::flow::{Direction, Ends, Flows, Found, Refusal, State, Timeouts};
use crate::{Batch, Counter, DropReason, FlowEntry};

/// Why a packet is dropped. With the policy `track` nothing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// It belongs to no flow and may not open one.
    Untracked,
    /// It can belong to no flow: a fragment, a header cut short, a segment of no connection, an answer to nothing.
    Invalid,
    /// It may open a flow, and the table has no room.
    TableFull,
}

impl Why {
    pub(super) const NAMES: [&str; 3] = ["untracked", "invalid", "table_full"];
}

/// Packets, of one worker.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) tracked: Counter,
    pub(super) related: Counter,
    pub(super) untracked: Counter,
    pub(super) invalid: Counter,
}

/// Flows of packets of kind `P`.
pub(super) struct Engine<P, const W: usize> {
    pub(super) flows: Flows<W, 1>,
    policy: Policy,
    packets: PhantomData<fn(P)>,
}

impl<P: Tracked<W>, const W: usize> Engine<P, W> {
    pub(super) fn new(flows: usize, timeouts: Timeouts, policy: Policy) -> Engine<P, W> {
        Engine { flows: Flows::new(flows, timeouts), policy, packets: PhantomData }
    }

    /// Up to `most` flows.
    pub(super) fn entries(&self, most: usize) -> Vec<FlowEntry> {
        self.flows.entries(most, |found| {
            let key = &found.keys[0];
            let [low, high] = P::ends(key);
            let upper_opened = State(found.life.flags()).direction(true) == Direction::Original;
            let (src, dst) = if upper_opened { (high, low) } else { (low, high) };
            Ends { protocol: key[W - 1] as u8, src, dst, translated: None }
        })
    }

    /// Tracks the packets of a batch.
    pub(super) fn run(
        &self,
        batch: &mut Batch<'_>,
        origin: Origin,
        tally: &Tally,
        reasons: &[DropReason; 3],
    ) {
        let mut packets: [Option<(P, [u64; W], bool)>; BURST_MAX] = [None; BURST_MAX];
        let (mut buckets, mut count) = ([0; BURST_MAX], 0);
        for place in batch.places() {
            let Some(mbuf) = batch.get_mut(place) else { continue };
            packet::pullup(mbuf, P::HEADERS_MAX);
            if let Ok(packet) = P::read(mbuf.data()) {
                let (key, from_upper) = packet.key();
                packets[place] = Some((packet, key, from_upper));
                buckets[count] = self.flows.table().bucket(&key);
                count += 1;
            }
        }
        self.flows.table().warm(&buckets[..count]);
        let mut buckets = buckets.into_iter();
        for place in batch.places() {
            let Some(mbuf) = batch.get(place) else { continue };
            let outcome = match &packets[place] {
                None => Err(Why::Invalid),
                Some((packet, key, from_upper)) => {
                    let bucket = buckets.next().unwrap_or(0);
                    self.judge(mbuf, packet, (key, *from_upper), bucket, origin, tally)
                }
            };
            let Err(why) = outcome else { continue };
            match why {
                Why::Untracked => tally.untracked.add(1),
                Why::Invalid => tally.invalid.add(1),
                Why::TableFull => {}
            }
            if self.policy.stateful {
                batch.drop(place, reasons[why as usize]);
            }
        }
    }

    #[inline(always)]
    fn judge(
        &self,
        mbuf: &Mbuf,
        packet: &P,
        (key, from_upper): (&[u64; W], bool),
        bucket: u32,
        origin: Origin,
        tally: &Tally,
    ) -> Result<(), Why> {
        let upper = packet.upper();
        if matches!(upper.role, Role::Error | Role::Message) {
            return self.other(mbuf, packet, origin, tally);
        }
        let Some(found) = self.find(bucket, key, from_upper, upper.tcp) else {
            return self.open(mbuf, packet, (key, from_upper), origin, tally);
        };
        self.flows.touch(&found, State(found.life.flags()).direction(from_upper), upper.tcp);
        tally.tracked.add(1);
        Ok(())
    }

    /// The flow with this key. A connection that ended is none for a SYN of its other end: that one opens a new one.
    #[inline(always)]
    fn find(&self, bucket: u32, key: &[u64; W], from_upper: bool, tcp: TcpFlags) -> Option<Found<W, 1>> {
        let found = self.flows.find_in(bucket, key, |_| ())?;
        let state = State(found.life.flags());
        let anew = state.is_closing()
            && state.opens(tcp)
            && state.direction(from_upper) == crate::flow::Direction::Reply;
        if anew && self.flows.end(&found, |_| ()) { None } else { Some(found) }
    }

    #[cold]
    #[inline(never)]
    fn open(
        &self,
        mbuf: &Mbuf,
        packet: &P,
        (key, from_upper): (&[u64; W], bool),
        origin: Origin,
        tally: &Tally,
    ) -> Result<(), Why> {
        let upper = packet.upper();
        let fits = match upper.role {
            Role::Answer => false,
            _ if Protocol(upper.protocol) == Protocol::TCP => {
                let (syn, ack, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST);
                let opens = upper.tcp.contains(syn) && !upper.tcp.contains(ack);
                !upper.tcp.contains(rst) && (opens || self.policy.loose)
            }
            _ => true,
        };
        if !fits {
            return Err(Why::Invalid);
        }
        if !self.may_open(mbuf, packet, origin) {
            return Err(Why::Untracked);
        }
        let state = State::opened(upper.protocol).by_upper(from_upper);
        let state = state.after(state.direction(from_upper), upper.tcp);
        match self.flows.open(&[*key], 0, state, |_| ()) {
            Ok(_) => {}
            // Another worker opened it, perhaps from the other end.
            Err(Refusal::Exists(_)) => {
                if let Some(found) = self.flows.table().find(key) {
                    self.flows.touch(&found, State(found.life.flags()).direction(from_upper), upper.tcp);
                }
            }
            Err(Refusal::Full | Refusal::Busy) => return Err(Why::TableFull),
        }
        tally.tracked.add(1);
        Ok(())
    }

    /// ICMP that is no query: an error belongs to the flow it quotes, the rest to none.
    #[cold]
    fn other(&self, mbuf: &Mbuf, packet: &P, origin: Origin, tally: &Tally) -> Result<(), Why> {
        let upper = packet.upper();
        if upper.role == Role::Error {
            let quoted = mbuf.data().get(upper.offset + Icmp::HEADER_LEN..).unwrap_or(&[]);
            let quoted = P::read_quoted(quoted).map_err(|_| Why::Invalid)?;
            let known = self.flows.table().find(&quoted.key().0).is_some();
            tally.related.add(u64::from(known));
            return if known { Ok(()) } else { Err(Why::Untracked) };
        }
        // Neighbours and group members: without them there is no link to filter on.
        let of_link = Protocol(upper.protocol) == Protocol::ICMPV6
            && matches!(mbuf.data().get(upper.offset), Some(130..=137 | 143));
        if of_link || self.may_open(mbuf, packet, origin) { Ok(()) } else { Err(Why::Untracked) }
    }

    fn may_open(&self, mbuf: &Mbuf, packet: &P, origin: Origin) -> bool {
        let len_bytes = mbuf.len() + Ethernet::HEADER_LEN;
        self.policy.may_open(origin, mbuf.rcvif(), || packet.layers(), len_bytes)
    }
}
