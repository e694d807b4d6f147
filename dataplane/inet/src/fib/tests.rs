//! Against a list of routes that is gone through one by one.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The same in the plainest form.
#[derive(Default)]
struct Oracle<A>(Vec<(Prefix<A>, Way)>);

impl<A: Address> Oracle<A> {
    fn insert(&mut self, prefix: Prefix<A>, way: Way) -> Option<Way> {
        let old = self.remove(prefix);
        self.0.push((prefix, way));
        old
    }
    fn remove(&mut self, prefix: Prefix<A>) -> Option<Way> {
        let at = self.0.iter().position(|(p, _)| *p == prefix)?;
        Some(self.0.swap_remove(at).1)
    }
    fn lookup(&self, address: A) -> Way {
        let fits = self.0.iter().filter(|(p, _)| p.contains(address));
        fits.max_by_key(|(p, _)| p.len()).map_or(Way::None, |(_, way)| *way)
    }
}

/// Adds (with a way) or removes (without) the prefix of `len` bits around an address.
type Step = (u128, u8, Option<u32>);

/// Addresses near each other, so that prefixes nest.
fn steps(bits: u8) -> impl Strategy<Value = Vec<Step>> {
    let near = (0u128..4, 0u128..4, 0u128..3, any::<u8>()).prop_map(move |(a, b, c, d)| {
        let word = 0x20u128 << 120 | a << 104 | b << 96 | c << 40;
        word | u128::from(d) << (128 - u32::from(bits).min(64))
    });
    vec((near, 0..=bits, proptest::option::weighted(0.7, 0u32..9)), 1..60)
}

fn run<A: Address>(steps: &[Step], lookup: impl Fn(&Trie, A) -> Way) {
    let mut fib = Fib::<A>::new(4096);
    let mut oracle = Oracle(Vec::new());
    for (word, len, way) in steps {
        let prefix = Prefix::of(A::from_word(*word), *len);
        match way {
            Some(number) => {
                assert_eq!(
                    fib.insert(prefix, Way::Via(*number)),
                    Ok(oracle.insert(prefix, Way::Via(*number)))
                );
            }
            None => assert_eq!(fib.remove(prefix), oracle.remove(prefix)),
        }
        assert_eq!(fib.len(), oracle.0.len());
        let retired = fib.take_retired();
        fib.reclaim(retired);
    }
    for (word, len, _) in steps {
        let low = if A::BITS == 32 { 96 } else { 0 };
        for nearby in [0, 1u128 << low, 0x100u128 << low, u128::MAX >> len.min(&127)] {
            for word in [*word, word ^ nearby, word | nearby] {
                let address = A::from_word(word);
                assert_eq!(lookup(fib.trie(), address), oracle.lookup(address), "{address}");
            }
        }
    }
    oracle.0.sort_unstable_by_key(|(prefix, _)| *prefix);
    assert_eq!(fib.routes(), oracle.0);
    for (prefix, way) in oracle.0 {
        assert_eq!(fib.remove(prefix), Some(way));
    }
    let retired = fib.take_retired();
    fib.reclaim(retired);
    assert_eq!((fib.nodes_free(), fib.is_empty()), (4096, true), "without routes every node is free");
}

/// Memory of a test, which it keeps a share of.
struct Elsewhere(Arc<[memory::Words; 2]>);

impl Twin for Elsewhere {
    fn root(&self) -> &[AtomicU32] {
        &self.0[0]
    }
    fn nodes(&self) -> &[AtomicU32] {
        &self.0[1]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_twin_is_the_same_word_for_word(steps in steps(32)) {
        const NODES: u32 = 256;
        let memory = || Arc::new([memory::Words::zeroed(1 << 24), memory::Words::zeroed(NODES as usize * 256)]);
        let (twin, mut fib) = (memory(), Fib::<Ipv4Addr>::new(NODES));
        prop_assert!(Fib::<Ipv4Addr>::new(NODES + 1).trie().join(Box::new(Elsewhere(twin.clone()))).is_err(), "of another size");
        prop_assert!(fib.trie().join(Box::new(Elsewhere(twin.clone()))).is_ok());
        prop_assert!(fib.trie().join(Box::new(Elsewhere(memory()))).is_err(), "a second one");
        for (word, len, way) in &steps {
            let prefix = Prefix::of(Ipv4Addr::from_word(*word), *len);
            match way {
                Some(number) => _ = fib.insert(prefix, Way::Via(*number)),
                None => _ = fib.remove(prefix),
            }
        }
        let entry = |words: &[AtomicU32], at: usize| words[at].load(Ordering::Relaxed);
        let (root, nodes) = (&*twin[0], &*twin[1]);
        prop_assert!((0..1 << 24).all(|i| entry(root, i) == fib.trie().get(None, i).0));
        for node in 0..NODES {
            prop_assert!((0..256).all(|i| entry(nodes, node as usize * 256 + i) == fib.trie().get(Some(node), i).0));
        }
        // As programs elsewhere read it.
        for (word, ..) in &steps {
            let address = (*word >> 96) as u32;
            let mut found = entry(root, (address >> 8) as usize);
            if found >> 31 == 1 {
                found = entry(nodes, (found & 0x7f_ffff) as usize * 256 + (address & 255) as usize);
            }
            let via = (found >> 20 & 7 == 1).then_some(found & 0xf_ffff);
            prop_assert_eq!(via, fib.trie().lookup4(address).via());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ipv4_answers_like_the_list(steps in steps(32)) {
        run::<Ipv4Addr>(&steps, |trie, address| {
            trie.prefetches4()(address.to_bits());
            trie.lookup4(address.to_bits()).way()
        });
    }

    #[test]
    fn ipv6_answers_like_the_list(steps in steps(128)) {
        run::<Ipv6Addr>(&steps, |trie, address| {
            let mut ways = [Found::default(); 18];
            let mut addresses = [address.to_bits(); 18];
            addresses[0] = 0;
            trie.lookup6_burst(&addresses, &mut ways);
            let scalar = trie.lookup6(address.to_bits());
            assert_eq!(ways.map(Found::way)[1..], [scalar; 17]);
            assert_eq!(ways[1].via(), matches!(scalar, Way::Via(_)).then_some(scalar.to_bits() & Way::NUMBER_MAX));
            scalar
        });
    }
}

fn p4(text: &str) -> Prefix<Ipv4Addr> {
    text.parse().unwrap()
}

#[test]
fn a_full_table_stays_as_it_was() {
    let mut fib = Fib::<Ipv4Addr>::new(2);
    fib.insert(p4("10.0.0.0/8"), Way::Via(1)).unwrap();
    fib.insert(p4("10.0.0.1/32"), Way::Via(2)).unwrap();
    fib.insert(p4("10.0.1.0/25"), Way::Via(3)).unwrap();
    let before = fib.routes();
    assert_eq!(fib.insert(p4("10.0.2.0/25"), Way::Via(4)), Err(Full { nodes: 2 }));
    assert_eq!(fib.routes(), before);
    assert_eq!(fib.trie().lookup4(Ipv4Addr::new(10, 0, 2, 1).to_bits()).way(), Way::Via(1));
    // In a /24 that has its node already, and for shorter ones, there is room.
    fib.insert(p4("10.0.1.128/26"), Way::Via(5)).unwrap();
    fib.insert(p4("10.0.2.0/24"), Way::Via(6)).unwrap();
    // A node is used again after the grace period, and not before.
    fib.remove(p4("10.0.0.1/32"));
    let retired = fib.take_retired();
    assert_eq!(fib.insert(p4("10.0.3.0/25"), Way::Via(7)), Err(Full { nodes: 2 }));
    fib.reclaim(retired);
    fib.insert(p4("10.0.3.0/25"), Way::Via(7)).unwrap();
}

#[test]
fn readers_see_the_old_answer_or_the_new_one() {
    let mut fib = Fib::<Ipv4Addr>::new(64);
    let trie = fib.trie().clone();
    fib.insert(p4("10.0.0.0/8"), Way::Via(1)).unwrap();
    let address = Ipv4Addr::new(10, 1, 2, 3).to_bits();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0u64; 4];
            while !stop.load(Ordering::Relaxed) {
                match trie.lookup4(address).way() {
                    Way::Via(n @ 1..=3) => seen[n as usize] += 1,
                    other => panic!("{other:?} was never an answer"),
                }
            }
            seen
        });
        for _ in 0..3000 {
            fib.insert(p4("10.1.0.0/16"), Way::Via(2)).unwrap();
            fib.insert(p4("10.1.2.3/32"), Way::Via(3)).unwrap();
            fib.remove(p4("10.1.2.3/32"));
            fib.remove(p4("10.1.0.0/16"));
            // Not reclaimed: the reader never says that it is quiescent. There are enough for a while.
            if fib.nodes_free() == 0 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn prefixes_are_read_and_written() {
    for text in ["0.0.0.0/0", "198.51.100.0/24", "192.0.2.1/32"] {
        assert_eq!(p4(text).to_string(), text);
    }
    let err = |text: &str| text.parse::<Prefix<Ipv4Addr>>().unwrap_err();
    assert_eq!(err("10.0.0.1/24"), PrefixError::HostBits);
    assert_eq!(err("10.0.0.0/33"), PrefixError::TooLong);
    for text in ["10.0.0.0", "10.0.0.0/", "10.0.0.0/024", "10.0.0.0/+8", "x/8", "10.0.0.0/256"] {
        assert_eq!(err(text), PrefixError::Malformed, "{text}");
    }
    assert_eq!("2001:db8::/32".parse::<Prefix<Ipv6Addr>>().unwrap().len(), 32);
}

#[test]
fn ways_fit_their_bits() {
    let all = [
        Way::None,
        Way::Via(0),
        Way::Via(Way::NUMBER_MAX),
        Way::Link(u16::MAX),
        Way::Local,
        Way::Blackhole,
        Way::Unreachable,
        Way::Prohibit,
        Way::Several(Way::NUMBER_MAX),
    ];
    for way in all {
        assert_eq!(Way::from_bits(way.to_bits() | 0xff80_0000), way);
    }
}

#[test]
fn groups_share_by_weight_and_move_no_flow_without_need() {
    let groups = Groups::new(2);
    let count = |ways: &[Way]| (0..256).filter(|flow| ways.contains(&groups.choose(1, *flow))).count();
    let [a, b, c] = [Way::Via(1), Way::Via(2), Way::Link(3)];
    groups.set(1, &[(a, 1), (b, 1), (c, 2)]);
    assert_eq!([count(&[a]), count(&[b]), count(&[c])], [64, 64, 128]);
    let before: Vec<_> = (0..256).map(|flow| groups.choose(1, flow)).collect();
    groups.set(1, &[(a, 1), (c, 1)]);
    let kept = (0..256).filter(|flow| before[*flow as usize] == groups.choose(1, *flow)).count();
    assert_eq!([count(&[a]), count(&[b]), count(&[c])], [128, 0, 128]);
    assert_eq!(kept, 64 + 128, "flows of those that stay stay");
    groups.set(1, &[]);
    assert_eq!(groups.choose(1, 7), Way::None);
    assert_eq!(groups.choose(9, 7), Way::None);
    groups.set(9, &[(a, 1)]);
}
