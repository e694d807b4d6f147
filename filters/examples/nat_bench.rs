//! Nanoseconds per packet of `nat` and `conntrack`, out and back, over some numbers of flows.
//!
//!     cargo run --release -p nke-filters --example nat_bench
//!
//! Each flow has packets of its own, in bursts of 32; packets are 60 bytes and in cache as far as they fit, so what is
//! measured is the translation and the misses of its tables. Before each pass the packets are written anew, outside the
//! time.
#![allow(clippy::unwrap_used, reason = "an example")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nke_filters::builtin::{Conntrack, Nat};
use nke_filters::*;
use nke_mbuf::wire::{Ipv4, Protocol, Udp};
use nke_mbuf::{Burst, Cache, Mbuf, Owner, Pool, PoolConfig, Region};

const BURST: usize = 32;
/// Packets in the air at once: few, so that they stay in the cache and the tables are what misses.
const AIR: usize = 8 * BURST;

type End = (u32, u16);

fn datagram(src: End, dst: End) -> [u8; 60] {
    let mut ip = Ipv4::init([0; 60]).unwrap();
    ip.set_src(Ipv4Addr::from_bits(src.0));
    ip.set_dst(Ipv4Addr::from_bits(dst.0));
    ip.set_ttl(64);
    ip.set_protocol(Protocol::UDP);
    ip.fill_checksum();
    let pseudo = ip.pseudo_header();
    let mut udp = Udp::init(ip.payload_mut()).unwrap();
    udp.set_src_port(src.1);
    udp.set_dst_port(dst.1);
    udp.fill_checksum(&pseudo);
    ip.into_inner()
}

fn args(given: &[(&str, &str)]) -> Args {
    let given = given.iter().map(|(name, text)| ((*name).into(), ArgValue::Text((*text).into())));
    Args(given.collect())
}

fn nat(to: &str) -> Box<dyn IpFilter> {
    let given = args(&[("inside", "10.0.0.0/8"), ("to", to), ("flows", "131072")]);
    Nat::instance(Family::V4, 1, &given, |_| Ok(DropReason::from_index(0))).unwrap()
}

fn conntrack() -> Box<dyn IpFilter> {
    let given = args(&[("flows", "131072")]);
    Conntrack::instance(Family::V4, 1, &given, |_| Ok(DropReason::from_index(0)), |_| None).unwrap()
}

struct Bench {
    filter: Box<dyn IpFilter>,
    cache: Cache,
    air: Vec<Mbuf>,
    removed: Removed,
    requeue: Requeue,
}

impl Bench {
    fn new(filter: Box<dyn IpFilter>) -> Bench {
        let pool = Pool::new(Region::heap(2048 * 1024), &PoolConfig::default()).unwrap();
        let mut cache = Cache::new(&pool);
        let air = (0..AIR).map(|_| cache.alloc().unwrap()).map(|mut mbuf| {
            mbuf.append(60).unwrap();
            mbuf
        });
        Bench { air: air.collect(), filter, cache, removed: Removed::default(), requeue: Requeue::default() }
    }

    /// Time for all `packets`, through `hook`; `after` sees each one.
    fn pass(
        &mut self,
        hook: IpHook,
        packets: impl Iterator<Item = [u8; 60]>,
        mut after: impl FnMut(&[u8]),
    ) -> Duration {
        let mut packets = packets.peekable();
        let mut spent = Duration::ZERO;
        while packets.peek().is_some() {
            let mut bursts: Vec<Burst> = (0..AIR / BURST).map(|_| Burst::new()).collect();
            let mut flying = 0;
            'fill: for burst in &mut bursts {
                for _ in 0..BURST {
                    let Some(bytes) = packets.next() else { break 'fill };
                    let mut mbuf = self.air.pop().unwrap();
                    mbuf.data_mut().copy_from_slice(&bytes);
                    burst.push(mbuf).unwrap();
                    flying += 1;
                }
            }
            let env = CallEnv {
                interface: IfIndex::NONE,
                attachment: AttachId(1),
                cookie: Cookie(0),
                worker: 0,
                now_ms: 0,
                owner: Owner::FIRST_EXTENSION,
            };
            let mut cx = Cx::new(env, &mut self.cache, &mut self.requeue);
            let begin = Instant::now();
            for burst in bursts.iter_mut().filter(|burst| !burst.is_empty()) {
                let selected = u64::MAX >> (64 - burst.len());
                let mut batch = Batch::new(burst, selected, &mut self.removed, Owner::FIRST_EXTENSION);
                match hook {
                    IpHook::Prerouting => self.filter.prerouting(&mut cx, &mut batch),
                    IpHook::Forward => self.filter.forward(&mut cx, &mut batch),
                    _ => self.filter.output(&mut cx, &mut batch),
                }
            }
            spent += begin.elapsed();
            for mbuf in bursts
                .iter_mut()
                .flat_map(|burst| std::iter::from_fn(|| burst.pop()).collect::<Vec<_>>().into_iter().rev())
            {
                after(mbuf.data());
                self.air.push(mbuf);
                flying -= 1;
            }
            assert_eq!(flying, 0, "nothing is dropped");
        }
        spent
    }

    /// The best of five, in nanoseconds per packet.
    fn best(&mut self, hook: IpHook, packets: &[[u8; 60]]) -> f64 {
        let rounds = (1 << 17) / packets.len().max(1) + 1;
        let count = (rounds * packets.len()) as f64;
        let once = |_| {
            let all = packets.iter().copied().cycle().take(rounds * packets.len());
            self.pass(hook, all, |_| ()).as_nanos() as f64 / count
        };
        (0..5).map(once).fold(f64::INFINITY, f64::min)
    }
}

/// Flow `i`, in an order without pattern, for which inside hosts and ports stand at random.
fn ends(i: u32) -> (End, End) {
    let mixed = i.wrapping_mul(0x9e37_79b1);
    ((0x0a00_0000 | mixed >> 16 << 4, 1024 + (mixed as u16 >> 1)), (0xc612_0000 | i & 0xffff, 53))
}

fn main() {
    for flows in [1u32, 256, 65_536] {
        let out: Vec<_> = (0..flows).map(ends).map(|(src, dst)| datagram(src, dst)).collect();
        let to = if flows > 10_000 { "203.0.113.0-203.0.113.3" } else { "203.0.113.1" };
        let mut bench = Bench::new(nat(to));
        let mut back = Vec::new();
        let opened = bench.pass(IpHook::Output, out.iter().copied(), |bytes| {
            let ip = Ipv4::new_checked(bytes).unwrap();
            let port = |at| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            back.push(datagram((ip.dst().to_bits(), port(22)), (ip.src().to_bits(), port(20))));
        });
        let opened = opened.as_nanos() as f64 / f64::from(flows);
        let (sent, got) = (bench.best(IpHook::Output, &out), bench.best(IpHook::Prerouting, &back));
        println!(
            "nat,       {flows:>5} flows: {sent:5.1} ns out, {got:5.1} ns back, {opened:5.0} ns to open"
        );

        let mut tracker = Bench::new(conntrack());
        tracker.pass(IpHook::Forward, out.iter().copied(), |_| ());
        println!("conntrack, {flows:>5} flows: {:5.1} ns", tracker.best(IpHook::Forward, &out));
    }
}
