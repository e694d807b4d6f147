//! The classifier against the definition: the first rule, looking at each.

use proptest::prelude::*;

use self::generate::{Random, Style, key6, keys, oracle, rule6, rules};
use super::*;
use crate::builtin::acl::classify;

#[allow(dead_code, reason = "shared with the example")]
#[path = "../../../../examples/acl_bench/generate.rs"]
mod generate;

fn agree<A: Address>(rules: &[Rule<A>], keys: &[Key<A>]) {
    let classifier = Classifier::build(rules).unwrap();
    let mut answers = vec![7; keys.len()];
    classifier.classify_burst(keys, &mut answers);
    for (key, answer) in keys.iter().zip(answers) {
        let answer = (answer != MISS).then_some(answer as usize);
        assert_eq!(answer, oracle(rules, key), "{key:?} in {rules:?}");
        assert_eq!(answer, classifier.classify(key));
    }
}

/// Few networks, so that prefixes nest and repeat; addresses at their edges.
fn prefix() -> impl Strategy<Value = Span<u32>> {
    let crowded =
        prop_oneof![Just(0x0a00_0000u32), Just(0x0a00_0100), Just(0xc612_ffff), Just(0), Just(u32::MAX)];
    prop_oneof![
        2 => Just(Span::ANY),
        8 => (crowded, 0u32..=32, any::<u8>()).prop_map(|(a, len, low)| Span::prefix(a ^ u32::from(low & 3), len)),
        1 => (any::<u32>(), 0u32..=32).prop_map(|(a, len)| Span::prefix(a, len)),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Span::new(a.min(b), a.max(b))),
    ]
}

fn ports() -> impl Strategy<Value = Span<u16>> {
    let edge = prop_oneof![
        Just(0u16),
        Just(1),
        Just(79),
        Just(80),
        Just(1023),
        Just(1024),
        Just(65534),
        Just(65535)
    ];
    prop_oneof![
        2 => Just(Span::ALL),
        1 => edge.clone().prop_map(Span::one),
        1 => (edge.clone(), edge).prop_map(|(a, b)| Span::new(a.min(b), a.max(b))),
    ]
}

fn rule() -> impl Strategy<Value = Rule<u32>> {
    let protocol = prop_oneof![Just(None), Just(Some(0)), Just(Some(6)), Just(Some(17)), Just(Some(255))];
    let flags = prop_oneof![
        4 => Just(None),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(set, mask)| Some(FlagTest { set: set & mask, mask })),
    ];
    let rcvif = prop_oneof![4 => Just(None), 1 => (0u16..3).prop_map(Some)];
    (prefix(), prefix(), protocol, ports(), ports(), flags, rcvif).prop_map(
        |(src, dst, protocol, sport, dport, flags, rcvif)| {
            let rule = Rule { src, dst, protocol, sport, dport, flags, rcvif };
            if rule.needs_upper() && protocol.is_none() { Rule { protocol: Some(6), ..rule } } else { rule }
        },
    )
}

/// Packets at the edges of rules: each field is one below, at, or one above an end of a rule's span.
fn edges(rules: &[Rule<u32>], seeds: &[u64]) -> Vec<Key<u32>> {
    let mut random = Random(1);
    let mut of = |rules: &[Rule<u32>], seed: u64| {
        random.0 = seed | 1;
        let mut rule = || rules[random.below(rules.len())];
        let (a, b, c, d, e) = (rule(), rule(), rule(), rule(), rule());
        let end32 = |s: Span<u32>, r: u64| {
            let end = if r & 1 == 0 { s.first } else { s.last };
            end.wrapping_add((r >> 1) as u32 % 3).wrapping_sub(1)
        };
        let end16 = |s: Span<u16>, r: u64| {
            let end = if r & 1 == 0 { s.first } else { s.last };
            end.wrapping_add((r >> 1) as u16 % 3).wrapping_sub(1)
        };
        let r = random.next();
        Key {
            src: end32(a.src, r >> 8),
            dst: end32(if r & 1 == 0 { a.dst } else { b.dst }, r >> 16),
            sport: end16(c.sport, r >> 24),
            dport: end16(d.dport, r >> 32),
            protocol: e.protocol.unwrap_or(r as u8),
            upper: r >> 40 & 7 != 0,
            flags: (r >> 48) as u8,
            rcvif: (r >> 56) as u16 & 3,
        }
    };
    seeds.iter().map(|seed| of(rules, *seed)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn finds_the_first_rule(
        rules in proptest::collection::vec(rule(), 1..120),
        seeds in proptest::collection::vec(any::<u64>(), 150),
    ) {
        let keys = edges(&rules, &seeds);
        agree(&rules, &keys);
        let six: Vec<_> = rules.iter().map(rule6).collect();
        let keys: Vec<_> = keys.iter().map(|key| key6(&mut Random(9), key)).collect();
        agree(&six, &keys);
    }
}

#[test]
fn lists_like_real_ones() {
    let mut random = Random(5);
    for style in Style::ALL {
        let list = rules(&mut random, style, 10_000);
        let keys = keys(&mut random, &list, 3000);
        agree(&list, &keys);
        let six: Vec<_> = list.iter().map(rule6).collect();
        let keys: Vec<_> = keys.iter().take(1000).map(|key| key6(&mut random, key)).collect();
        agree(&six, &keys);
        let classifier = Classifier::build(&list).unwrap();
        let (len, longest) = (classifier.len_bytes(), classifier.parts[0].forest.longest());
        assert!(len < 16 << 20 && longest <= 64, "{style:?}: {len} bytes, {longest} in a list");
    }
}

#[test]
fn broad_rules_stay_within_the_budget() {
    // Each takes a large part of every field, which no cut separates.
    let mut random = Random(3);
    let mut half = |max: u64| {
        let (a, b) = (random.next() % (max / 2), max / 2 + random.next() % (max / 2));
        (a, b)
    };
    let list: Vec<_> = (0..4000)
        .map(|_| {
            let ((a, b), (c, d), (e, f), (g, h)) = (half(1 << 32), half(1 << 32), half(65536), half(65536));
            Rule {
                src: Span::new(a as u32, b as u32),
                dst: Span::new(c as u32, d as u32),
                sport: Span::new(e as u16, f as u16),
                dport: Span::new(g as u16, h as u16),
                protocol: Some(6),
                ..Rule::ANY
            }
        })
        .collect();
    let seeds: Vec<u64> = (0..500).map(|_| random.next()).collect();
    agree(&list, &edges(&list, &seeds));
    let len = Classifier::build(&list).unwrap().len_bytes();
    assert!(len < 16 << 20, "{len}");
}

#[test]
fn as_many_rules_as_are_allowed() {
    let of = |i: u32| Rule { src: Span::one(0x0a00_0000 + 2 * i), dst: Span::one(!i), ..Rule::ANY };
    let mut list: Vec<_> = (0..65536).map(of).collect();
    // Both hide a later one, from within another part.
    list[40_000] = Rule { src: Span::one(0x0a00_0000), ..Rule::ANY };
    list[50_000] = Rule { dst: Span::one(!60_000), ..Rule::ANY };
    let key = |i: u32, off: u32| Key {
        src: 0x0a00_0000 + 2 * i + off,
        dst: !i,
        sport: 0,
        dport: 0,
        protocol: 17,
        upper: true,
        flags: 0,
        rcvif: 0,
    };
    let keys = (0..65536).step_by(997).chain([32766, 32767, 60_000]).flat_map(|i| [key(i, 0), key(i, 1)]);
    agree(&list, &keys.collect::<Vec<_>>());
    agree(&list, &[Key { dst: 5, ..key(0, 0) }]);
    list.push(Rule::ANY);
    assert_eq!(Classifier::build(&list).err(), Some(BuildError::TooMany(65537)));
}

#[test]
fn rules_that_make_no_sense() {
    let port = Rule { dport: Span::one(80), ..Rule::<u32>::ANY };
    assert_eq!(Classifier::build(&[Rule::ANY, port]).err(), Some(BuildError::NoProtocol(1)));
    let reversed = Rule { src: Span::new(2, 1), ..Rule::<u32>::ANY };
    assert_eq!(Classifier::build(&[reversed]).err(), Some(BuildError::Reversed(0)));
    let none = Classifier::<u32>::build(&[]).unwrap();
    let key = Key { src: 1, dst: 2, sport: 0, dport: 0, protocol: 6, upper: true, flags: 0, rcvif: 0 };
    assert_eq!(none.classify(&key), None);
}

#[test]
fn a_later_fragment_has_no_ports() {
    let rules = [
        Rule { protocol: Some(17), dport: Span::new(0, 1000), ..Rule::<u32>::ANY },
        Rule { protocol: Some(6), flags: Some(FlagTest { set: 0, mask: 2 }), ..Rule::ANY },
        Rule { protocol: Some(17), ..Rule::ANY },
    ];
    let classifier = Classifier::build(&rules).unwrap();
    let key = Key { src: 1, dst: 2, sport: 0, dport: 0, protocol: 17, upper: true, flags: 0, rcvif: 0 };
    assert_eq!(classifier.classify(&key), Some(0));
    assert_eq!(classifier.classify(&Key { upper: false, ..key }), Some(2));
    assert_eq!(classifier.classify(&Key { protocol: 6, ..key }), Some(1));
    assert_eq!(classifier.classify(&Key { protocol: 6, upper: false, ..key }), None);
}
