//! The bucket against one written down the long way, buckets under many keys, and the filter on packets.

use std::sync::atomic::{AtomicU64, Ordering};

use nke_mbuf::wire::{Ipv4, Ipv6, Protocol};
use nke_mbuf::{Burst, Mbuf, Owner, Pool, PoolConfig, Region};
use proptest::prelude::*;

use super::bucket::Bucket;
use super::packet::{mark, tuple};
use super::*;
use crate::Removed;

/// A token bucket as in a textbook: tokens, and when they were last counted. In billionths of a bit, so that whatever a rate
/// is, a millisecond of it and a byte are whole.
struct Oracle {
    bits_per_s: u128,
    depth: u128,
    tokens: u128,
    last_ms: u64,
}

impl Oracle {
    fn new(bits_per_s: u64, burst_bytes: u64) -> Oracle {
        let depth = u128::from(burst_bytes) * 8_000_000_000;
        Oracle { bits_per_s: bits_per_s.into(), depth, tokens: depth, last_ms: 0 }
    }

    fn take(&mut self, now_ms: u64, len_bytes: usize) -> bool {
        let gained = u128::from(now_ms - self.last_ms) * self.bits_per_s * 1_000_000;
        self.tokens = (self.tokens + gained).min(self.depth);
        self.last_ms = now_ms;
        let cost = len_bytes as u128 * 8_000_000_000;
        let within = cost <= self.tokens;
        self.tokens -= if within { cost } else { 0 };
        within
    }
}

proptest! {
    #[test]
    fn exactly_a_token_bucket(
        bits_per_s in prop_oneof![1u64..67_000_000, (1u64..50_000_000).prop_map(|n| n * 8000)],
        more_burst in 0u64..100_000,
        arrivals in prop::collection::vec((prop_oneof![Just(0u64), 0u64..20, 0u64..100_000], 14usize..9000), 1..300),
        start_ms in 0u64..1 << 33,
    ) {
        let burst = (bits_per_s / 4000 + 1).max(1522) + more_burst;
        let rate = Rate::parse(&format!("{bits_per_s}bit"), Some(&burst.to_string())).unwrap();
        let (bucket, mut oracle) = (Bucket::default(), Oracle::new(bits_per_s, burst));
        let mut now_ms = start_ms;
        for (gap_ms, len) in arrivals {
            now_ms += gap_ms;
            prop_assert_eq!(bucket.take(&rate, rate.at(now_ms), rate.cost(len)), oracle.take(now_ms, len));
        }
    }

    /// Whatever becomes of checksums and congestion bits elsewhere, marking leaves them right.
    #[test]
    fn marking_keeps_the_rest(mut bytes in prop::collection::vec(any::<u8>(), 60..80), dscp in 0u8..64, v6 in any::<bool>()) {
        bytes[0] = if v6 { bytes[0] & 15 | 0x60 } else { 0x46 };
        bytes[2..4].copy_from_slice(&60u16.to_be_bytes());
        if !v6 {
            Ipv4::new_quoted(&mut bytes[..]).unwrap().fill_checksum();
        }
        let before = bytes.clone();
        mark(&mut bytes, dscp);
        prop_assert_eq!(packet::dscp(&bytes), Some(dscp));
        if v6 {
            let (old, new) = (Ipv6::new_quoted(&before).unwrap(), Ipv6::new_quoted(&bytes).unwrap());
            prop_assert_eq!(old.traffic_class() & 3, new.traffic_class() & 3);
            prop_assert_eq!(old.flow_label(), new.flow_label());
            prop_assert_eq!(&before[4..], &bytes[4..]);
        } else {
            let (old, new) = (Ipv4::new_quoted(&before).unwrap(), Ipv4::new_quoted(&bytes).unwrap());
            prop_assert!(new.verify_checksum() && old.ecn() == new.ecn());
            prop_assert_eq!(&before[12..], &bytes[12..]);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let known = tuple(&bytes).is_some();
        mark(&mut bytes, 63);
        prop_assert!(!known || packet::dscp(&bytes) == Some(63));
    }
}

#[test]
fn packets_per_second() {
    let rate = Rate::parse("3kpps", Some("10")).unwrap();
    let bucket = Bucket::default();
    let taken = |now_ms| (0..100).filter(|_| bucket.take(&rate, rate.at(now_ms), rate.cost(1500))).count();
    assert_eq!([taken(1000), taken(1001), taken(1002), taken(5000)], [10, 3, 3, 10]);
    let slow = Rate::parse("1pps", None).unwrap();
    let bucket = Bucket::default();
    // Sixteen at once, then one each second.
    let taken = (0..10_000).filter(|ms| bucket.take(&slow, slow.at(*ms), slow.cost(60))).count();
    assert_eq!(taken, 16 + 9);
}

#[test]
fn time_goes_round() {
    let rate = Rate::parse("1mbit", Some("2000")).unwrap();
    let bucket = Bucket::default();
    for quarter in 1..12u64 {
        let at = quarter.wrapping_mul(1 << 62).wrapping_sub(5);
        assert!(bucket.take(&rate, at, rate.cost(2000)) && !bucket.take(&rate, at, 1), "{quarter}");
        assert!(bucket.take(&rate, at.wrapping_add(rate.cost(1500)), rate.cost(1500)), "{quarter}");
    }
}

/// Several workers, each with a clock up to two milliseconds behind, share a bucket.
#[test]
fn threads_stay_within_the_bound() {
    const LEN: usize = 1000;
    const TO_MS: u64 = 2000;
    let rate = Rate::parse("100mbit", Some("50000")).unwrap();
    let (bucket, clock) = (Bucket::default(), AtomicU64::new(0));
    let taken: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u64)
            .map(|worker| {
                let (bucket, clock) = (&bucket, &clock);
                scope.spawn(move || {
                    let mut taken = 0;
                    loop {
                        let now_ms = clock.load(Ordering::Relaxed);
                        if now_ms >= TO_MS {
                            return taken;
                        }
                        for _ in 0..20 {
                            let at = rate.at(now_ms.saturating_sub(worker % 3));
                            taken += u64::from(bucket.take(&rate, at, rate.cost(LEN)));
                        }
                        if worker == 0 {
                            clock.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    // 12,500 bytes per millisecond; worker 0 alone takes all there is in each, so both bounds are tight.
    let bytes = taken * LEN as u64;
    assert!(bytes <= 50_000 + 12_500 * (TO_MS - 1), "{bytes}");
    assert!(bytes > 49_000 + 12_500 * (TO_MS - 1), "{bytes}");
}

#[test]
fn an_active_key_keeps_its_place() {
    let rate = Rate::parse("8mbit", Some("10000")).unwrap();
    let buckets = Buckets::new(rate, Per::Flow, 8);
    // One set: eight keys pay for ten milliseconds each.
    for key in 0..8u64 {
        let bucket = buckets.find(key << 1, rate.at(100)).unwrap();
        assert!(bucket.take(&rate, rate.at(100), rate.cost(10_000)));
    }
    for stranger in 100..200u64 {
        assert!(buckets.find(stranger << 1, rate.at(109)).is_none());
    }
    let bucket = buckets.find(3 << 1, rate.at(109)).unwrap();
    assert!(
        !bucket.take(&rate, rate.at(109), rate.cost(9_001))
            && bucket.take(&rate, rate.at(109), rate.cost(9_000))
    );
    // Once they are full again their places are free for others; the one still paying stays.
    let strangers = (100..200u64).filter(|key| {
        let bucket = buckets.find(key << 1, rate.at(110));
        bucket.is_some_and(|bucket| bucket.take(&rate, rate.at(110), rate.cost(100)))
    });
    assert_eq!(strangers.count(), 7);
    assert!(!buckets.find(3 << 1, rate.at(110)).unwrap().take(&rate, rate.at(110), rate.cost(2001)));
}

fn udp(src: u8, port: u8, dscp: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut ip = Ipv4::init(&mut bytes[..]).unwrap();
    ip.set_protocol(Protocol::UDP);
    ip.set_dscp(dscp);
    ip.set_src([10, 0, 0, src].into());
    ip.set_dst([10, 0, 1, src].into());
    ip.payload_mut()[..2].copy_from_slice(&[0, port]);
    ip.fill_checksum();
    bytes
}

#[test]
fn what_is_apart_and_what_is_not() {
    let rate = Rate::parse("1pps", Some("1")).unwrap();
    let judged = |per, packets: &[&[u8]]| {
        let buckets = Buckets::new(rate, per, 4096);
        packets.iter().map(|p| buckets.judge(1, p.len(), Some(p)).within).collect::<Vec<_>>()
    };
    let (a, b, c, d) = (udp(1, 1, 0, 40), udp(1, 2, 0, 40), udp(2, 1, 0, 40), udp(3, 3, 10, 40));
    assert_eq!(judged(Per::All, &[&a, &d]), [true, false]);
    assert_eq!(judged(Per::Flow, &[&a, &b, &c, &a, &b]), [true, true, true, false, false]);
    assert_eq!(judged(Per::Source, &[&a, &b, &c]), [true, false, true]);
    assert_eq!(judged(Per::Destination, &[&a, &b, &c]), [true, false, true]);
    assert_eq!(judged(Per::Dscp, &[&a, &c, &d, &d]), [true, false, true, false]);
    // The first fragment has ports, the others have not: one flow. And what is no IP is one thing, apart from all flows.
    let fragment = |offset: u8, port| {
        let mut bytes = udp(1, port, 0, 40);
        (bytes[6], bytes[7]) = (0x20, offset);
        bytes
    };
    assert_eq!(
        judged(Per::Flow, &[&a, &fragment(0, 1), &fragment(2, 9), &[0; 40], &[1; 9]]),
        [true, true, false, true, false]
    );
    // An IPv6 address is never an IPv4 one.
    let mut v6 = vec![0; 48];
    Ipv6::init(&mut v6[..]).unwrap().set_src(u128::from(u32::from_be_bytes([10, 0, 0, 1])).into());
    assert_eq!(judged(Per::Source, &[&a, &v6, &v6]), [true, true, false]);
}

fn args(pairs: &[(&str, &str)]) -> Args {
    Args(pairs.iter().map(|(k, v)| ((*k).into(), ArgValue::Text((*v).into()))).collect())
}

#[test]
fn mistakes_are_explained() {
    let cause = |pairs: &[(&str, &str)]| {
        Instance::new(&args(pairs), Layer::Ip, 1, DropReason::from_index(1)).err().unwrap().cause
    };
    assert!(cause(&[]).contains("needs a rate"));
    for rate in ["10", "mbit", "10mbps", "1.5mbit", "-1bit", "99999999999999999999bit", ""] {
        assert!(cause(&[("rate", rate)]).contains("is not a rate"), "{rate}");
    }
    for rate in ["0bit", "401gbit", "18446744073gbit", "2000mpps"] {
        assert!(cause(&[("rate", rate)]).contains("out of range"), "{rate}");
    }
    assert!(cause(&[("rate", "100000001bit")]).contains("too fine"));
    for burst in ["", "k", "1521", "4295m", "12x", "18446744073709551615k"] {
        assert!(cause(&[("rate", "1mbit"), ("burst", burst)]).contains("bytes from 1522"), "{burst}");
    }
    assert!(cause(&[("rate", "1gbit"), ("burst", "100k")]).contains("bytes from 250000"));
    assert!(cause(&[("rate", "1mbit"), ("match", "udp")]).contains("unknown argument `match`"));
    assert!(cause(&[("rate", "1mbit"), ("per", "user")]).contains("`per`"));
    assert!(cause(&[("rate", "1mbit"), ("action", "mark")]).contains("mark with"));
    assert!(cause(&[("rate", "1mbit"), ("dscp", "8")]).contains("nothing is marked"));
    assert!(cause(&[("rate", "1mbit"), ("action", "shape")]).contains("`action`"));
}

fn burst_of(pool: &Pool, frames: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new();
    for bytes in frames {
        let mut mbuf: Mbuf = pool.alloc().unwrap();
        mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
        burst.push(mbuf).unwrap();
    }
    burst
}

#[test]
fn the_filter_drops_marks_and_counts() {
    let pool = Pool::new(Region::heap(2048 * 64), &PoolConfig::default()).unwrap();
    let frame = |port| {
        let mut bytes = vec![0; 14];
        bytes[12] = 8;
        bytes.extend(udp(1, port, 0, 46));
        bytes
    };
    let frames = [frame(1), frame(2), vec![0xff; 60], frame(3)];
    let reason = DropReason::from_index(9);
    let expr = Expr::parse("udp").unwrap();
    let given = args(&[("rate", "1pps"), ("burst", "1"), ("match", "udp")]);
    let link = Instance::new(&given, Layer::Link(Some(expr)), 2, reason).unwrap();
    let mut removed = Removed::default();
    let mut burst = burst_of(&pool, &frames);
    link.run(Direction::Input, 0, 1, &mut Batch::new(&mut burst, 0b1111, &mut removed, Owner(20)));
    let dropped = std::iter::from_fn(|| removed.pop()).map(|(_, why)| why).collect::<Vec<_>>();
    assert_eq!(dropped, [reason, reason]);
    burst.compact();
    assert_eq!(burst.iter().map(|m| m.data().to_vec()).collect::<Vec<_>>(), [frame(1), vec![0xff; 60]]);
    // The other direction has a bucket of its own, and another worker counts for itself.
    link.run(Direction::Output, 1, 1, &mut Batch::new(&mut burst, 0b11, &mut removed, Owner(20)));
    assert!(removed.pop().is_none());
    assert_eq!(
        link.figures()[..4],
        [("within_packets", 2), ("within_bytes", 120), ("exceeded_packets", 2), ("exceeded_bytes", 120)]
    );

    let given = args(&[("rate", "1pps"), ("burst", "1"), ("action", "mark"), ("dscp", "8")]);
    let marking = Instance::new(&given, Layer::Link(None), 1, reason).unwrap();
    let mut burst = burst_of(&pool, &frames);
    marking.run(Direction::Input, 0, 1, &mut Batch::new(&mut burst, 0b1111, &mut removed, Owner(20)));
    let codes = burst
        .iter()
        .map(|m| Ipv4::new_checked(&m.data()[14..]).ok().map(|ip| (ip.dscp(), ip.verify_checksum())));
    assert_eq!(codes.collect::<Vec<_>>(), [Some((0, true)), Some((8, true)), None, Some((8, true))]);
    assert_eq!(burst.iter().nth(2).unwrap().data(), [0xff; 60]);

    let given = args(&[("rate", "1pps"), ("burst", "1"), ("action", "mark"), ("dscp", "46")]);
    let ip = Instance::new(&given, Layer::Ip, 1, reason).unwrap();
    let mut burst = burst_of(&pool, &[udp(1, 1, 0, 40), udp(1, 1, 0, 40)]);
    ip.run(Direction::Output, 0, 1, &mut Batch::new(&mut burst, 0b11, &mut removed, Owner(20)));
    let codes = burst.iter().map(|m| Ipv4::new_checked(m.data()).unwrap().dscp()).collect::<Vec<_>>();
    assert_eq!(codes, [0, 46]);
}
