//! `checksum`: completes or verifies the checksums of what an interface receives (RFC 768, RFC 9293 section 3.1, RFC 8200
//! section 8.1).
//!
//! A local stack leaves TCP and UDP checksums to its device, and puts the sum over the pseudo header into the field. A veth or a
//! tap has nobody to finish it, and nothing says that it was left. `fill` knows such a packet by that very number. A finished
//! checksum is the same number once in 65,536 packets: computed again it stays what it is, unless the packet was damaged on the
//! way, which this filter then hides.
//!
//! Arguments: `mode`: `fill` (default), `verify` (drop what is wrong, as `bad_checksum`) or `both`. Fragments, chains, and IPv6
//! with extension headers pass as they are: `unchecked` counts them.

use nke_mbuf::Mbuf;
use nke_mbuf::wire::checksum::{Checksum, PseudoHeader, checksum};
use nke_mbuf::wire::{Addrs, Fragment, Ipv6, Layers, Protocol};

use crate::{
    Args, AttachEnv, Batch, Counter, CreateError, Cx, DropReason, FilterKind, InterfaceFilter, PerWorker,
};

/// The kind.
pub struct ChecksumFilter;

impl FilterKind for ChecksumFilter {
    fn name(&self) -> &str {
        "checksum"
    }

    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        args.only(&["mode"])?;
        let (fill, verify) = match args.text("mode")?.unwrap_or("fill") {
            "fill" => (true, false),
            "verify" => (false, true),
            "both" => (true, true),
            other => {
                return Err(CreateError::new(
                    format!("`mode` is \"{other}\""),
                    "write mode = \"fill\", \"verify\" or \"both\"",
                ));
            }
        };
        let bad = env.host.drop_reason(env.owner, "bad_checksum");
        let bad = bad.map_err(|e| CreateError::new(e.to_string(), "detach filters with drop reasons"))?;
        let tally = PerWorker::new(env.workers, Tally::default);
        Ok(Box::new(Instance { fill, verify, bad, tally }))
    }
}

#[derive(Default)]
struct Tally {
    filled: Counter,
    bad: Counter,
    unchecked: Counter,
}

struct Instance {
    fill: bool,
    verify: bool,
    bad: DropReason,
    tally: PerWorker<Tally>,
}

/// Where a transport's checksum is, and what it covers.
struct Place {
    protocol: Protocol,
    /// The transport in the frame: its header, and the end of what the checksum covers.
    from: usize,
    to: usize,
    /// The field.
    field: usize,
    /// Sum over the pseudo header; of ICMP there is none.
    pseudo: Checksum,
}

impl Place {
    /// Of a whole packet that holds; `None` for what has no checksum, or whose cannot be seen from here.
    fn of(frame: &[u8], layers: &Layers) -> Option<Place> {
        let (l3, from) = (usize::from(layers.l3_offset), usize::from(layers.l4_offset));
        let mut to = layers.l3_end as usize;
        if from == 0 || layers.fragment != Fragment::Whole || layers.malformed.is_some() {
            return None;
        }
        let pseudo = match layers.addrs {
            Addrs::V4 { src, dst } => PseudoHeader::V4 { src, dst },
            // Behind a routing header the destination is not the one the checksum covers.
            Addrs::V6 { src, dst } if from - l3 == Ipv6::HEADER_LEN => PseudoHeader::V6 { src, dst },
            _ => return None,
        };
        let protocol = layers.protocol?;
        let offset = match protocol {
            Protocol::TCP => 16,
            Protocol::UDP => {
                let len = frame.get(from + 4..from + 6)?;
                to = to.min(from + usize::from(u16::from_be_bytes([len[0], len[1]])));
                6
            }
            Protocol::ICMP | Protocol::ICMPV6 => 2,
            _ => return None,
        };
        let pseudo = match protocol {
            Protocol::ICMP => Checksum::new(),
            _ => pseudo.sum(protocol, to.checked_sub(from)?),
        };
        (from + offset + 2 <= to).then_some(Place { protocol, from, to, field: from + offset, pseudo })
    }

    fn value(&self, frame: &[u8]) -> u16 {
        u16::from_be_bytes([frame[self.field], frame[self.field + 1]])
    }

    /// Whether the field holds what a stack leaves there for a device.
    fn is_left(&self, frame: &[u8]) -> bool {
        matches!(self.protocol, Protocol::TCP | Protocol::UDP) && self.value(frame) == self.pseudo.fold()
    }

    fn fill(&self, frame: &mut [u8]) {
        frame[self.field..self.field + 2].fill(0);
        let value = self.pseudo.add_bytes(&frame[self.from..self.to]).finish_for(self.protocol);
        frame[self.field..self.field + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn holds(&self, frame: &[u8]) -> bool {
        // A UDP packet may have none.
        (self.protocol == Protocol::UDP && self.value(frame) == 0)
            || self.pseudo.add_bytes(&frame[self.from..self.to]).is_valid()
    }
}

impl Instance {
    fn packet(&self, mbuf: &mut Mbuf, tally: &Tally) -> Result<(), DropReason> {
        if !mbuf.is_contiguous() {
            tally.unchecked.add(1);
            return Ok(());
        }
        let frame = mbuf.data_mut();
        let layers = Layers::parse(frame);
        let damaged = |()| {
            tally.bad.add(1);
            self.bad
        };
        if self.verify && matches!(layers.addrs, Addrs::V4 { .. }) {
            let header = frame.get(layers.l3_offset.into()..).unwrap_or_default();
            let len = header.first().map_or(0, |b| usize::from(b & 15) * 4);
            header.get(..len).filter(|h| checksum(h) == 0).map(drop).ok_or(()).map_err(damaged)?;
        }
        let Some(place) = Place::of(frame, &layers) else {
            tally.unchecked.add(u64::from(layers.ip_version().is_some()));
            return Ok(());
        };
        if self.fill && place.is_left(frame) {
            place.fill(frame);
            tally.filled.add(1);
        } else if self.verify && !place.holds(frame) {
            return Err(damaged(()));
        }
        Ok(())
    }
}

impl InterfaceFilter for Instance {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let tally = self.tally.of(cx.worker);
        batch.each(|mbuf| self.packet(mbuf, tally));
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let sum = |f: fn(&Tally) -> &Counter| self.tally.iter().map(|t| f(t).get()).sum();
        vec![("filled", sum(|t| &t.filled)), ("bad", sum(|t| &t.bad)), ("unchecked", sum(|t| &t.unchecked))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::testing::{Packet, mbuf, pool, udp6};
    use nke_mbuf::Pool;
    use nke_mbuf::wire::TcpFlags;
    use proptest::prelude::*;

    fn instance(fill: bool, verify: bool) -> Instance {
        let tally = PerWorker::new(1, Tally::default);
        Instance { fill, verify, bad: DropReason::from_index(0), tally }
    }

    fn framed(packet: &[u8], tagged: bool) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(if tagged { &[0x81, 0, 0, 7][..] } else { &[] });
        frame.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
        frame.extend(packet);
        // Padding, which no checksum covers.
        frame.resize(frame.len().max(60), 0xee);
        frame
    }

    /// What becomes of a frame; `None` when it is dropped.
    fn pass(filter: &Instance, pool: &Pool, frame: &[u8]) -> Option<Vec<u8>> {
        let mut mbuf = mbuf(pool, frame);
        filter.packet(&mut mbuf, filter.tally.of(0)).ok().map(|()| mbuf.data().to_vec())
    }

    /// Intact packets.
    fn packets(payload: &[u8]) -> Vec<Vec<u8>> {
        let with = |packet| Packet { payload: payload.to_vec(), ..packet }.bytes();
        vec![
            with(Packet::udp("192.0.2.1:7", "198.51.100.9:9")),
            with(Packet::tcp("192.0.2.1:7", "198.51.100.9:80", TcpFlags::ACK)),
            with(Packet::echo("192.0.2.1:0", "198.51.100.9:0", 5)),
            udp6(("2001:db8::1", 7), ("2001:db8::2", 9), payload),
        ]
    }

    /// The frame as a stack leaves it to its device; `None` when its protocol is not left.
    fn left(frame: &[u8]) -> Option<Vec<u8>> {
        let place = Place::of(frame, &Layers::parse(frame)).unwrap();
        let mut left = frame.to_vec();
        left[place.field..place.field + 2].copy_from_slice(&place.pseudo.fold().to_be_bytes());
        matches!(place.protocol, Protocol::TCP | Protocol::UDP).then_some(left)
    }

    proptest! {
        #[test]
        fn what_was_left_is_filled_and_what_is_damaged_found(
            payload in prop::collection::vec(any::<u8>(), 0..1400),
            tagged in any::<bool>(),
            bit in any::<prop::sample::Index>(),
        ) {
            let pool = pool();
            let (fill, verify, both) = (instance(true, false), instance(false, true), instance(true, true));
            for packet in packets(&payload) {
                let good = framed(&packet, tagged);
                for filter in [&fill, &verify, &both] {
                    prop_assert_eq!(pass(filter, &pool, &good), Some(good.clone()), "what is right stays");
                }
                if let Some(left) = left(&good) {
                    for filter in [&fill, &both] {
                        prop_assert_eq!(pass(filter, &pool, &left), Some(good.clone()));
                    }
                }
                // One flipped bit of the payload is always seen.
                if !payload.is_empty() {
                    let mut bad = good.clone();
                    let payload_at = if tagged { 18 } else { 14 } + packet.len() - payload.len();
                    bad[payload_at + bit.index(payload.len())] ^= 1;
                    prop_assert_eq!(pass(&verify, &pool, &bad), None);
                    // Unless its checksum happens to be what a stack leaves: then `fill` hides the damage.
                    let hidden = Place::of(&bad, &Layers::parse(&bad)).unwrap().is_left(&bad);
                    prop_assert_eq!(pass(&fill, &pool, &bad) == Some(bad), !hidden);
                }
            }
            prop_assert_eq!((fill.figures()[1].1, fill.figures()[2].1), (0, 0));
        }

        #[test]
        fn any_bytes_do_no_harm(frame in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
            let mut frame = frame;
            if frame.len() > 15 {
                frame[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
            }
            let pool = pool();
            if let Some(after) = pass(&instance(true, true), &pool, &frame) {
                let changed = frame.iter().zip(&after).filter(|(a, b)| a != b).count();
                prop_assert!(changed <= 2 && after.len() == frame.len(), "nothing but a checksum");
            }
        }
    }

    /// By chance it is one packet in 65,536: seldom enough for the random test above not to meet it.
    #[test]
    fn a_checksum_that_looks_left_stays_and_hides_damage() {
        let (pool, filter) = (pool(), instance(true, true));
        for packet in 0..4 {
            let good = framed(&packets(&[0; 8])[packet], false);
            let place = Place::of(&good, &Layers::parse(&good)).unwrap();
            let Some(left) = left(&good) else { continue };
            let mut zeroed = left.clone();
            zeroed[place.field..place.field + 2].fill(0);
            let rest = Checksum::new().add_bytes(&zeroed[place.from..place.to]).finish();
            // A last word with which all adds up: it makes good the rest, the pseudo header, and the same sum in the field.
            let not_pseudo = !place.pseudo.fold();
            let word = Checksum::new().add_u16(rest).add_u16(not_pseudo).add_u16(not_pseudo).fold();
            let mut looks = left;
            looks[place.to - 2..place.to].copy_from_slice(&word.to_be_bytes());
            assert!(place.is_left(&looks) && place.holds(&looks));
            assert_eq!(pass(&filter, &pool, &looks), Some(looks.clone()), "computed again it is the same");
            let mut bad = looks;
            bad[place.to - 3] ^= 1;
            assert!(!place.holds(&bad));
            let after = pass(&filter, &pool, &bad).expect("taken for one that was left");
            assert!(place.holds(&after));
        }
        assert_eq!(filter.figures()[1], ("bad", 0));
    }

    #[test]
    fn the_header_of_ipv4_is_verified_too_and_none_is_none() {
        let (pool, filter) = (pool(), instance(false, true));
        let mut frame =
            framed(&Packet { unsummed: true, ..Packet::udp("192.0.2.1:7", "192.0.2.2:9") }.bytes(), false);
        assert!(pass(&filter, &pool, &frame).is_some(), "UDP without a checksum");
        frame[22] ^= 1;
        assert_eq!(pass(&filter, &pool, &frame), None);
        assert_eq!(filter.figures(), [("filled", 0), ("bad", 1), ("unchecked", 0)]);
    }

    #[test]
    fn a_fragment_passes_and_is_counted() {
        let (pool, filter) = (pool(), instance(true, true));
        let mut packet = Packet::udp("192.0.2.1:7", "192.0.2.2:9").bytes();
        packet[6] = 0x20;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let frame = framed(&packet, false);
        assert_eq!(pass(&filter, &pool, &frame), Some(frame));
        assert_eq!(filter.figures(), [("filled", 0), ("bad", 0), ("unchecked", 1)]);
    }
}
