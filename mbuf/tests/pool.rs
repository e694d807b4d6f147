//! The pool, mbufs, chains and tags, against simple oracles. Every test ends with the account of all frames.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use nke_mbuf::wire::Checksum;
use nke_mbuf::{
    Burst, Cache, Device, Owner, Pool, PoolConfig, PoolError, Region, TAG_BYTES_MAX, TagError, TagId,
};
use proptest::prelude::*;

fn pool(frames: usize) -> Pool {
    let config = PoolConfig::default();
    Pool::new(Region::heap(frames * config.frame_size as usize), &config).unwrap()
}

fn all_home(pool: &Pool) {
    assert_eq!(pool.census().of(Owner::FREE), pool.capacity());
}

#[test]
fn bad_configurations_are_refused() {
    let make =
        |frame_size, headroom, len| Pool::new(Region::heap(len), &PoolConfig { frame_size, headroom }).err();
    assert_eq!(make(1000, 128, 4096), Some(PoolError::FrameSize(1000)));
    assert_eq!(make(2048, 2000, 4096), Some(PoolError::Headroom(2000)));
    assert_eq!(make(2048, 128, 2047), Some(PoolError::FrameCount(0)));
    assert_eq!(make(2048, 128, 2048), None);
}

#[test]
fn exhaustion_is_an_outcome_and_recovers() {
    let pool = pool(100);
    let mut cache = Cache::new(&pool);
    let held: Vec<_> = std::iter::from_fn(|| cache.alloc()).collect();
    assert_eq!(held.len(), 100);
    assert!(cache.alloc().is_none());
    assert!(pool.alloc().is_none());
    assert_eq!(pool.exhausted(), 3);
    assert_eq!(pool.census().of(Owner::DATAPLANE), 100);
    drop(held);
    assert!(cache.alloc().is_some());
    all_home(&pool);
}

#[test]
fn a_pool_dropped_before_its_packets_leaves_them_valid() {
    let pool = pool(4);
    let mut mbuf = pool.alloc().unwrap();
    drop(pool);
    mbuf.append(4).unwrap().copy_from_slice(b"kept");
    assert_eq!(mbuf.data(), b"kept");
}

#[test]
fn frames_lent_to_a_device_come_back() {
    let pool = pool(8);
    let mut cache = Cache::new(&pool);
    let mut mbuf = cache.alloc().unwrap();
    mbuf.append(60).unwrap().fill(7);
    mbuf.tag_add(TagId(1), 0, 8).unwrap();
    let (addr, len) = mbuf.into_frame(Device(3));
    assert_eq!(len, 60);
    assert_eq!(pool.census().of(Owner::DEVICE), 1);
    assert_eq!(addr.0 % 4, 0);
    assert!(cache.lend(Device(4)).is_some());
    drop(cache);
    let back = |device| {
        // SAFETY: no device exists, and the addresses above are not used again.
        #[allow(unsafe_code)]
        unsafe {
            pool.take_back(Device(device))
        }
    };
    assert_eq!([back(3), back(3), back(4)], [1, 0, 1]);
    all_home(&pool);
}

#[test]
fn packets_of_two_pools_are_not_mixed() {
    let (one, other) = (pool(4), pool(4));
    let mut cache = Cache::new(&one);
    cache.free(other.alloc().unwrap());
    assert!(cache.is_empty(), "it went home instead");
    let mut head = one.alloc().unwrap();
    let tail = other.alloc().unwrap();
    assert!(one.owns(&head) && !one.owns(&tail));
    assert!(head.chain(tail).is_err());
    head.set_owner(Owner::DEVICE);
    assert_eq!(head.owner(), Owner::DATAPLANE, "who holds a packet is no device");
    drop(head);
    all_home(&one);
    all_home(&other);
}

#[test]
fn census_knows_who_holds_what_since_when() {
    let pool = pool(8);
    pool.set_clock_ms(77);
    let extension = Owner(20);
    let mut mbuf = pool.alloc().unwrap();
    mbuf.chain(pool.alloc().unwrap()).unwrap();
    for kind in 0..8 {
        mbuf.tag_add(TagId(1), kind, 16).unwrap();
    }
    mbuf.set_owner(extension);
    assert_eq!(pool.census().of(extension), 3, "two segments and a frame of tags");
    assert!(pool.holdings(extension, 10).iter().all(|h| h.since_ms == 77));
    assert_eq!(pool.holdings(extension, 2).len(), 2);
    drop(mbuf);
    all_home(&pool);
}

#[test]
fn tags_by_the_contract() {
    let pool = pool(4);
    let mut m = pool.alloc().unwrap();
    let (a, b) = (TagId(1000), TagId(1001));
    assert!(m.tag_find(a, 0).is_none());
    m.tag_add(a, 0, 3).unwrap().copy_from_slice(b"abc");
    assert_eq!(m.tag_add(a, 0, 1), Err(TagError::Exists));
    assert_eq!(m.tag_add(TagId(0), 0, 1), Err(TagError::Invalid));
    assert_eq!(m.tag_add(b, 0, TAG_BYTES_MAX + 1), Err(TagError::Invalid));
    m.tag_add(b, 9, TAG_BYTES_MAX).unwrap().fill(5);
    assert_eq!(m.tag_find(a, 0), Some(&b"abc"[..]));
    assert_eq!(m.tag_find(b, 9).unwrap(), [5; TAG_BYTES_MAX]);
    assert!(m.tag_remove(a, 0));
    assert!(!m.tag_remove(a, 0));
    m.tag_find_mut(b, 9).unwrap()[0] = 6;
    assert_eq!(m.tag_find(b, 9).unwrap()[0], 6);
    let mut added = 0;
    let full = loop {
        match m.tag_add(a, added, TAG_BYTES_MAX) {
            Ok(_) => added += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(full, TagError::NoMemory);
    assert_eq!(added, 6, "2048 bytes of records of 264");
    drop(m);
    all_home(&pool);
}

#[test]
fn threads_exchange_packets_and_none_is_lost() {
    let pool = pool(1000);
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            let pool = pool.clone();
            scope.spawn(move || {
                let mut cache = Cache::new(&pool);
                let mut held = Vec::new();
                let mut x = seed + 1;
                for _ in 0..200_000 {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    match x >> 62 {
                        0 | 1 => {
                            if let Some(mut m) = cache.alloc() {
                                m.append(8).unwrap().copy_from_slice(&x.to_le_bytes());
                                held.push((x, m));
                            }
                        }
                        2 => drop(held.pop()),
                        _ => {
                            if let Some((x, m)) = held.pop() {
                                assert_eq!(m.data(), x.to_le_bytes(), "nobody else wrote to our frame");
                                cache.free(m);
                            }
                        }
                    }
                    if held.len() > 150 {
                        held.drain(..100).for_each(|(_, m)| cache.free(m));
                    }
                }
            });
        }
    });
    all_home(&pool);
    let mut n = 0;
    let mut cache = Cache::new(&pool);
    let all: Vec<_> = std::iter::from_fn(|| cache.alloc()).inspect(|_| n += 1).collect();
    assert_eq!(n, 1000);
    drop(all);
}

#[test]
fn burst_keeps_order_and_bounds() {
    let pool = pool(100);
    let mut burst = Burst::new();
    for i in 0..64u8 {
        let mut m = pool.alloc().unwrap();
        m.append(1).unwrap()[0] = i;
        burst.push(m).unwrap();
    }
    assert!(burst.push(pool.alloc().unwrap()).is_err());
    assert!(burst.take(3).is_some());
    assert!(burst.take(3).is_none());
    assert!(burst.take(64).is_none());
    burst.compact();
    assert_eq!(burst.len(), 63);
    let mut first = Vec::new();
    burst.take_first(4, |m| first.push(m.data()[0]));
    assert_eq!(first, [0, 1, 2, 4]);
    assert_eq!(burst.iter().next().unwrap().data(), [5]);
    assert_eq!(burst.pop().unwrap().data(), [63]);
    drop(burst);
    all_home(&pool);
}

#[derive(Clone, Debug)]
enum Op {
    Prepend(Vec<u8>),
    Append(Vec<u8>),
    Chain(Vec<u8>),
    Adj(usize),
    Trim(usize),
    Pullup(usize),
    Tag(u16, u8),
    Untag(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        bytes().prop_map(Op::Prepend),
        bytes().prop_map(Op::Append),
        bytes().prop_map(Op::Chain),
        (0usize..500).prop_map(Op::Adj),
        (0usize..500).prop_map(Op::Trim),
        (0usize..2100).prop_map(Op::Pullup),
        (0u16..5, any::<u8>()).prop_map(|(k, n)| Op::Tag(k, n)),
        (0u16..5).prop_map(Op::Untag),
    ]
}

proptest! {
    /// A packet behaves as the byte vector it stands for, and its tags as a map.
    #[test]
    fn packet_equals_its_oracle(ops in prop::collection::vec(op(), 1..60)) {
        let pool = pool(80);
        let mut cache = Cache::new(&pool);
        {
            let mut m = cache.alloc().unwrap();
            let mut bytes: Vec<u8> = Vec::new();
            let mut tags = std::collections::BTreeMap::new();
            for op in ops {
                match op {
                    Op::Prepend(b) => if let Some(front) = m.prepend(b.len()) {
                        front.copy_from_slice(&b);
                        bytes.splice(0..0, b);
                    },
                    Op::Append(b) => if let Some(back) = m.append(b.len()) {
                        back.copy_from_slice(&b);
                        bytes.extend(b);
                    },
                    Op::Chain(b) => if let Some(mut tail) = cache.alloc() {
                        tail.append(b.len()).unwrap().copy_from_slice(&b);
                        if m.chain(tail).is_ok() {
                            bytes.extend(b);
                        }
                    },
                    Op::Adj(n) => {
                        m.adj(n);
                        bytes.drain(..n.min(bytes.len()));
                    }
                    Op::Trim(n) => {
                        m.trim(n);
                        bytes.truncate(bytes.len().saturating_sub(n));
                    }
                    Op::Pullup(n) => {
                        let done = m.pullup(n);
                        prop_assert_eq!(done, n <= bytes.len() && n <= 2048 || n <= m.data().len());
                        prop_assert!(!done || m.data().len() >= n);
                    }
                    Op::Tag(kind, len) => match m.tag_add(TagId(7), kind, usize::from(len)) {
                        Ok(data) => {
                            data.fill(len);
                            prop_assert!(tags.insert(kind, len).is_none());
                        }
                        Err(TagError::Exists) => prop_assert!(tags.contains_key(&kind)),
                        Err(TagError::NoMemory) => (),
                        Err(TagError::Invalid) => prop_assert!(false),
                    },
                    Op::Untag(kind) => prop_assert_eq!(m.tag_remove(TagId(7), kind), tags.remove(&kind).is_some()),
                }
                prop_assert_eq!(m.len(), bytes.len());
                prop_assert_eq!(m.segments().flatten().copied().collect::<Vec<_>>(), bytes.clone());
                for (kind, len) in &tags {
                    prop_assert_eq!(m.tag_find(TagId(7), *kind).unwrap(), vec![*len; usize::from(*len)]);
                }
            }
            let mut out = vec![0; bytes.len()];
            prop_assert!(m.copy_out(0, &mut out));
            prop_assert_eq!(&out, &bytes);
            if let Some(copy) = m.dup(&mut cache) {
                prop_assert_eq!(copy.segments().flatten().copied().collect::<Vec<_>>(), bytes);
                cache.free(copy);
            }
        }
        drop(cache);
        all_home(&pool);
    }
}

#[test]
fn many_packets_are_chained_in_one_walk() {
    let pool = pool(70);
    let mut cache = Cache::new(&pool);
    let mut packet = |byte: u8| {
        let mut mbuf = cache.alloc().unwrap();
        mbuf.append(3).unwrap().fill(byte);
        mbuf
    };
    let mut pair = packet(1);
    pair.chain(packet(2)).unwrap();
    let mut whole = packet(0);
    let tails = std::iter::once(pair).chain((3..64).map(&mut packet)).collect::<Vec<_>>();
    whole.chain_all(tails).unwrap();
    assert_eq!((whole.segment_count(), whole.len()), (64, 192));
    let bytes: Vec<u8> = whole.segments().flatten().copied().collect();
    assert_eq!(bytes, (0..64).flat_map(|byte| [byte; 3]).collect::<Vec<u8>>());
    // One more does not fit; it comes back, and the chain is as it was.
    let refused = whole.chain_all([packet(99), packet(98)]).unwrap_err();
    assert_eq!((refused.data(), whole.len()), (&[99; 3][..], 192));
    drop((whole, refused));
    drop(cache);
    all_home(&pool);
}

#[test]
fn a_burst_is_made_as_it_is_filled() {
    let pool = pool(80);
    let mut cache = Cache::new(&pool);
    let mut burst = Burst::new();
    let mut n = 0;
    let mut fill = |room: &mut [u8]| {
        n += 1;
        room[..n].fill(n as u8);
        n
    };
    assert_eq!(cache.alloc_burst(&mut burst, 3, 7, &mut fill), 3);
    assert_eq!(cache.alloc_burst(&mut burst, 100, 8, &mut fill), 61, "a burst has 64 places");
    for (i, mbuf) in burst.iter().enumerate() {
        assert_eq!((mbuf.data(), mbuf.len()), (&vec![i as u8 + 1; i + 1][..], i + 1));
        assert_eq!((mbuf.timestamp(), mbuf.rcvif(), mbuf.flags().0), (if i < 3 { 7 } else { 8 }, 0, 0));
        assert!(mbuf.headroom() >= 128);
    }
    let mut more = Burst::new();
    assert_eq!(cache.alloc_burst(&mut more, 64, 0, |_| usize::MAX), 16, "there are 80 frames");
    assert!(
        more.iter().all(|mbuf| mbuf.len() > 1514 && mbuf.headroom() + mbuf.len() <= 2048),
        "cut to the room"
    );
    cache.free_burst(&mut burst);
    cache.free_burst(&mut more);
    all_home(&pool);
}

#[test]
fn a_fill_that_panics_leaves_what_was_made_before() {
    let pool = pool(64);
    let mut cache = Cache::new(&pool);
    let mut burst = Burst::new();
    let mut left = 5;
    let panicking = std::panic::AssertUnwindSafe(|| {
        cache.alloc_burst(&mut burst, 64, 0, |_| {
            left -= 1;
            assert_ne!(left, 0, "that is what the test is about");
            60
        })
    });
    assert!(std::panic::catch_unwind(panicking).is_err());
    assert_eq!(burst.len(), 4);
    assert_eq!(pool.census().of(Owner::DATAPLANE), 4);
    let held: Vec<_> = std::iter::from_fn(|| cache.alloc()).collect();
    assert_eq!(held.len(), 60, "no frame is in two places, and none is lost");
    drop(held);
    cache.free_burst(&mut burst);
    all_home(&pool);
}

#[test]
fn a_chain_reads_as_its_bytes() {
    let pool = pool(8);
    let bytes: Vec<u8> = (0..61).collect();
    let mut spare = [0; 50];
    for cut in 1..bytes.len() {
        let mut mbuf = pool.alloc().unwrap();
        mbuf.append(cut).unwrap().copy_from_slice(&bytes[..cut]);
        assert_eq!(mbuf.in_one_piece(&mut []), &bytes[..cut], "no copy is needed");
        let mut tail = pool.alloc().unwrap();
        tail.append(bytes.len() - cut).unwrap().copy_from_slice(&bytes[cut..]);
        mbuf.chain(tail).unwrap();
        assert_eq!(mbuf.in_one_piece(&mut spare), &bytes[..50], "as much as there is room for");
        for from in [0, 1, 30, 61, 70] {
            let expect = Checksum::new().add_u16(7).add_bytes(bytes.get(from..).unwrap_or_default());
            assert_eq!(mbuf.sum_from(from, Checksum::new().add_u16(7)).fold(), expect.fold());
        }
    }
    all_home(&pool);
}

#[test]
fn where_packets_start_does_not_depend_on_addresses() {
    let starts = || -> Vec<_> {
        let pool = pool(16);
        let mut cache = Cache::new(&pool);
        let mut all: Vec<_> = std::iter::from_fn(|| cache.alloc()).collect();
        // By their frames: the cache hands them out in an order of its own.
        all.sort_by_key(|mbuf| mbuf.data().as_ptr().addr());
        all.iter().map(|mbuf| mbuf.headroom() - 128).collect()
    };
    let expect = [0, 0, 64, 64, 128, 128, 192, 192].repeat(2);
    // Headers at many places of the heap.
    let held: Vec<_> = (1..40).map(|n| (starts(), vec![0u8; n * 88])).collect();
    assert!(held.iter().all(|(starts, _)| *starts == expect), "{:?}", held[0].0);
    let alone = pool(1);
    assert_eq!(alone.alloc().unwrap().headroom(), 128);
}
