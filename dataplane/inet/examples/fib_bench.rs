//! Nanoseconds per lookup and updates per second of the routing tables, over 100,000 routes.
//!
//!     cargo run --release -p nke-inet --example fib_bench
#![allow(clippy::unwrap_used, reason = "an example")]

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use nke_inet::fib::{Address, Fib, Found, Prefix, Trie, Way};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

const ROUTES: usize = 100_000;

/// Lengths in the shares they have in the tables of the internet, roughly.
fn len4(random: &mut Random) -> u8 {
    let more = (random.next() >> 40) as u8;
    match random.next() >> 32 & 0xff {
        0..=140 => 24,
        141..=200 => 20 + more % 4,
        201..=235 => 16 + more % 4,
        236..=248 => 9 + more % 7,
        _ => 25 + more % 8,
    }
}

fn len6(random: &mut Random) -> u8 {
    let more = (random.next() >> 40) as u8;
    match random.next() >> 32 & 0xff {
        0..=118 => 48,
        119..=160 => 32,
        161..=220 => 36 + more % 12,
        221..=250 => 29 + more % 3,
        _ => 64,
    }
}

fn fill<A: Address>(
    fib: &mut Fib<A>,
    random: &mut Random,
    len: fn(&mut Random) -> u8,
    word: fn(u64, u64) -> u128,
) -> Vec<Prefix<A>> {
    let mut routes = Vec::new();
    while fib.len() < ROUTES {
        let prefix = Prefix::of(A::from_word(word(random.next(), random.next())), len(random));
        if fib.get(prefix).is_none() {
            fib.insert(prefix, Way::Via(random.next() as u32 & 0xff)).unwrap();
            routes.push(prefix);
        }
    }
    routes
}

/// The best of five, per item.
fn ns(count: usize, mut pass: impl FnMut()) -> f64 {
    let rounds = (4 << 20) / count;
    let once = |_| {
        let begin = Instant::now();
        (0..rounds).for_each(|_| pass());
        begin.elapsed().as_nanos() as f64 / (rounds * count) as f64
    };
    (0..5).map(once).fold(f64::INFINITY, f64::min)
}

fn lookups<T: Copy>(
    what: &str,
    trie: &Trie,
    all: &[T],
    burst: fn(&Trie, &[T], &mut [Found]),
    one: fn(&Trie, T) -> Way,
) {
    for count in [1, 256, 65536] {
        let chosen: Vec<T> = all[..count].iter().copied().cycle().take(count.max(64)).collect();
        let mut ways = [Found::default(); 64];
        let bursts = ns(chosen.len(), || {
            for chunk in chosen.chunks(64) {
                burst(trie, black_box(chunk), &mut ways);
                black_box(&ways);
            }
        });
        let scalar = ns(chosen.len(), || {
            for address in &chosen {
                black_box(one(trie, black_box(*address)));
            }
        });
        println!(
            "{what}, {count:>5} destinations: {bursts:5.2} ns in bursts of 64, {scalar:5.2} ns one by one"
        );
    }
}

/// As a router does it: all are asked for while their packets are checked, then looked up.
fn burst4(trie: &Trie, addresses: &[u32], found: &mut [Found]) {
    addresses.iter().copied().for_each(trie.prefetches4());
    found.iter_mut().zip(addresses.iter().copied().map(trie.lookups4())).for_each(|(to, way)| *to = way);
}

fn updates<A: Address>(what: &str, fib: &mut Fib<A>, routes: &[Prefix<A>]) {
    let begin = Instant::now();
    for prefix in routes {
        let way = fib.remove(*prefix).unwrap();
        fib.insert(*prefix, way).unwrap();
        let retired = fib.take_retired();
        fib.reclaim(retired);
    }
    let rate = routes.len() as f64 * 2.0 / begin.elapsed().as_secs_f64();
    println!("{what}: {:.2} million updates per second, {} routes", rate / 1e6, fib.len());
}

fn main() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut fib = Fib::<Ipv4Addr>::new(65536);
    let unicast = |a: u64, _| u128::from(0x0100_0000 + a as u32 % 0xdf00_0000) << 96;
    let routes = fill(&mut fib, &mut random, len4, unicast);
    let near: Vec<u32> = (0..65536).map(|i| 0xc612_0000 | i).collect();
    let far = routes.iter().map(|p| p.address().to_bits() | random.next() as u32 & 0xff);
    let far: Vec<u32> = far.take(65536).collect();
    let trie = fib.trie().clone();
    let one4 = |trie: &Trie, address| trie.lookup4(address).way();
    lookups("IPv4 in 198.18.0.0/16", &trie, &near, burst4, one4);
    lookups("IPv4 over the routes ", &trie, &far, burst4, one4);
    updates("IPv4", &mut fib, &routes);

    let mut fib = Fib::<Ipv6Addr>::new(1 << 20);
    let global =
        |a: u64, b: u64| 0x2001u128 << 112 | u128::from(a as u32 & 0x3ff) << 96 | u128::from(b) << 32;
    let routes = fill(&mut fib, &mut random, len6, global);
    let far = routes.iter().map(|p| p.address().to_bits() | u128::from(random.next() as u32));
    let far: Vec<u128> = far.take(65536).collect();
    let trie = fib.trie().clone();
    lookups("IPv6 over the routes ", &trie, &far, Trie::lookup6_burst, Trie::lookup6);
    println!("IPv6: {} nodes of 1 KiB in use", (1 << 20) - fib.nodes_free());
    updates("IPv6", &mut fib, &routes);
}
