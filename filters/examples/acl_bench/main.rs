//! Nanoseconds per lookup of the classifier of `acl`, time to build it and memory it takes.
//!
//!     cargo run --release -p nke-filters --example acl_bench
//!     cargo run --release -p nke-filters --example acl_bench -- --write-l3fwd-acl FILE [RULES]
//!
//! With `--write-l3fwd-acl`, writes the rules of the style `Acl` in the format of DPDK's l3fwd-acl instead, so that both
//! can be measured with the same list.
#![allow(clippy::unwrap_used, reason = "an example")]

mod generate;

use std::fmt::Write;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use classify::{Address, Classifier, Key, MISS, Rule, Span};
use generate::{Random, Style, key6, keys, oracle, rule6, rules, unmatched};
use nke_filters::builtin::acl::classify;

/// Nanoseconds per key, the best of seven passes.
fn ns<A: Address>(classifier: &Classifier<A>, keys: &[Key<A>]) -> f64 {
    let mut answers = [0; 64];
    let rounds = (1 << 19) / keys.len();
    let mut once = || {
        let begin = Instant::now();
        for _ in 0..rounds {
            for burst in keys.chunks(64) {
                classifier.classify_burst(black_box(burst), &mut answers);
                black_box(&answers);
            }
        }
        begin.elapsed().as_nanos() as f64 / (rounds * keys.len()) as f64
    };
    (0..7).map(|_| once()).fold(f64::INFINITY, f64::min)
}

fn measure<A: Address>(what: &str, rules: &[Rule<A>], keys: &[Key<A>]) {
    let begin = Instant::now();
    let classifier = Classifier::build(rules).unwrap();
    let build_ms = begin.elapsed().as_secs_f64() * 1e3;
    let mut answer = [MISS];
    let mut hits = 0;
    for key in keys.iter().take(2000) {
        classifier.classify_burst(std::slice::from_ref(key), &mut answer);
        hits += u32::from(answer[0] != MISS);
        assert_eq!((answer[0] != MISS).then_some(answer[0] as usize), oracle(rules, key));
    }
    print!("{what:24} {:>6} rules:", rules.len());
    for flows in [1, 256, 65536] {
        // A burst is full whatever the number of flows.
        let chosen: Vec<_> = keys[..flows].iter().copied().cycle().take(flows.max(64)).collect();
        print!(" {:6.2}", ns(&classifier, &chosen));
    }
    let (kib, share) = (classifier.len_bytes() / 1024, hits / 20);
    println!(" ns with 1, 256, 65536 flows; built in {build_ms:.1} ms, {kib} KiB, {share} % match");
}

/// Lines of l3fwd-acl: `@` drops, `R` forwards to a port; the last one forwards what no other matches.
fn l3fwd_acl(rules: &[Rule<u32>]) -> String {
    let prefix = |s: Span<u32>| format!("{}/{}", Ipv4Addr::from(s.first), (s.first ^ s.last).leading_zeros());
    let mut text = String::new();
    for rule in rules {
        let (proto, mask) = rule.protocol.map_or((0, 0), |p| (p, 0xff));
        let (s, d) = (rule.sport, rule.dport);
        let (src, dst) = (prefix(rule.src), prefix(rule.dst));
        let ports = format!("{} : {} {} : {}", s.first, s.last, d.first, d.last);
        writeln!(text, "@{src} {dst} {ports} 0x{proto:02x}/0x{mask:02x}").unwrap();
    }
    text + "R0.0.0.0/0 0.0.0.0/0 0 : 65535 0 : 65535 0x00/0x00 0\n"
}

fn main() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, file, rest @ ..] = &*args
        && flag == "--write-l3fwd-acl"
    {
        let count = rest.first().map_or(1000, |n| n.parse().unwrap());
        std::fs::write(file, l3fwd_acl(&rules(&mut random, Style::Acl, count))).unwrap();
        return;
    }
    for style in Style::ALL {
        for count in [10, 100, 1000, 10_000] {
            let list = rules(&mut random, style, count);
            let packets = keys(&mut random, &list, 65536);
            measure(&format!("IPv4 {style:?}"), &list, &packets);
            let six: Vec<_> = list.iter().map(rule6).collect();
            let packets: Vec<_> = packets.iter().map(|key| key6(&mut random, key)).collect();
            measure(&format!("IPv6 {style:?}"), &six, &packets);
        }
    }
    for count in [100, 1000, 10_000] {
        let (list, packets) = unmatched(&mut random, count, 65536);
        measure("IPv4, only the last", &list, &packets);
    }
    let list = rules(&mut random, Style::Acl, 65536);
    let packets = keys(&mut random, &list, 65536);
    measure("IPv4 Acl", &list, &packets);
}
