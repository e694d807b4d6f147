//! What `cipher` and `policer` cost per packet, on one core, packets in its cache.
//!
//!     cargo run --release -p nke-filters --example cipher_bench
//!
//! Each figure is the best of many rounds: on a shared machine the others measure the neighbours.

use std::hint::black_box;
use std::time::Instant;

use nke_filters::CreateError;
use nke_filters::builtin::cipher::{Channel, PresharedKey};
use nke_filters::builtin::policer::{Buckets, Per, Rate};
use nke_mbuf::{Mbuf, Pool, PoolConfig, Region};

const ROUNDS: usize = 1000;
const BURST: usize = 64;

/// Nanoseconds per packet of one round.
fn timed(packets: usize, round: impl FnOnce()) -> f64 {
    let start = Instant::now();
    round();
    start.elapsed().as_nanos() as f64 / packets as f64
}

/// A UDP packet of flow `flow` over IPv4, in an Ethernet frame of `len` bytes.
fn frame(pool: &Pool, len: usize, flow: u16) -> Option<Mbuf> {
    let mut mbuf = pool.alloc()?;
    let bytes = mbuf.append(len)?;
    bytes.fill(0);
    bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    bytes[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
    bytes[23] = 17;
    bytes[34..36].copy_from_slice(&flow.to_be_bytes());
    Some(mbuf)
}

/// Best of sealing and of opening. A frame that is opened is sealed again in the next round.
fn cipher(pool: &Pool, len: usize) -> Result<(f64, f64), CreateError> {
    let (a, b) = (Channel::new(PresharedKey::new([7; 32]), 0)?, Channel::new(PresharedKey::new([7; 32]), 1)?);
    let (Some(mut sealing), Some(mut opening)) = (a.lane(0), b.lane(0)) else {
        return Err(CreateError::new("a new channel has no lane", "mend the channel"));
    };
    let mut packets: Vec<Mbuf> = (0..BURST).filter_map(|_| frame(pool, len, 1)).collect();
    let mut best = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (mut sealed, mut opened) = (0, 0);
        let seal = timed(BURST, || {
            sealed = packets.iter_mut().filter_map(|packet| sealing.seal(&a, packet).ok()).count();
        });
        let open = timed(BURST, || {
            opened = packets.iter_mut().filter_map(|packet| opening.open(&b, 1, packet).ok()).count();
        });
        assert_eq!((sealed, opened), (BURST, BURST));
        best = (best.0.min(seal), best.1.min(open));
    }
    Ok(best)
}

fn policer(pool: &Pool, per: Per, flows: u16) -> Result<f64, CreateError> {
    let buckets = Buckets::new(Rate::parse("100gbit", None)?, per, 65536);
    let packets: Vec<Mbuf> = (0..flows).filter_map(|flow| frame(pool, 64, flow)).collect();
    let rounds = (1..=ROUNDS as u64).map(|now_ms| {
        timed(packets.len(), || {
            for packet in &packets {
                black_box(buckets.judge(now_ms, packet.len(), packet.data().get(14..)));
            }
        })
    });
    Ok(rounds.fold(f64::INFINITY, f64::min))
}

fn main() -> Result<(), CreateError> {
    let pool = Pool::new(Region::heap(2048 * 4096), &PoolConfig::default())
        .map_err(|e| CreateError::new(e.to_string(), "change the pool in this example"))?;
    println!("AES-256-GCM, bursts of {BURST}, ns per packet");
    for len in [64, 512, 1500] {
        let (seal, open) = cipher(&pool, len)?;
        println!("  {len:>4} bytes   seal {seal:>7.1}   open {open:>7.1}");
    }
    println!("policer, 64 bytes, ns per packet");
    for (name, per, flows) in [
        ("all", Per::All, 64),
        ("dscp", Per::Dscp, 64),
        ("source", Per::Source, 64),
        ("flow, 64 flows", Per::Flow, 64),
        ("flow, 2048 flows", Per::Flow, 2048),
    ] {
        println!("  {name:<18} {:>6.1}", policer(&pool, per, flows)?);
    }
    Ok(())
}
