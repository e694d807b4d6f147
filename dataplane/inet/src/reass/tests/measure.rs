//! Costs per fragment. `cargo test --release -p nke-inet measure -- --ignored --nocapture --test-threads 1`

use super::*;
use std::time::Instant;

const ROUNDS: u32 = 400_000;

fn template(start: usize, end: usize, more: bool) -> Vec<u8> {
    Shape { more, ..piece(false, start, end) }.bytes()
}

/// A frame with these bytes, the last four of its source and its ident set.
fn fragment(cache: &mut Cache, bytes: &[u8], src: u32, ident: u16) -> Mbuf {
    let mut mbuf = cache.alloc().expect("a frame");
    let data = mbuf.append(bytes.len()).expect("room");
    data.copy_from_slice(bytes);
    data[12..16].copy_from_slice(&src.to_be_bytes());
    data[4..6].copy_from_slice(&ident.to_be_bytes());
    mbuf
}

#[test]
#[ignore = "a measurement"]
fn measure_two_fragments_in_order() {
    let (first, second) = (template(0, 24, true), template(24, 44, false));
    for live in [0u32, 1000] {
        let mut rig = Rig::new(Config { frames_max: 8192, datagrams_max: 8192, ..Config::default() });
        for n in 0..live {
            let mbuf = fragment(&mut rig.cache, &first, 0x0b00_0000 + n, 1);
            let _ = rig.reass.input(mbuf, 0, &mut rig.cache);
        }
        let mut run = |reassemble: bool| {
            let start = Instant::now();
            for n in 0..ROUNDS {
                let (src, ident) = (0x0a00_0000 + n % 977, n as u16);
                for bytes in [&first, &second] {
                    let mbuf = fragment(&mut rig.cache, bytes, src, ident);
                    if !reassemble {
                        rig.cache.free(std::hint::black_box(mbuf));
                    } else if let Outcome::Whole(whole) = rig.reass.input(mbuf, 0, &mut rig.cache) {
                        rig.cache.free(whole);
                    }
                }
            }
            start.elapsed().as_nanos() as f64 / f64::from(ROUNDS * 2)
        };
        for _ in 0..3 {
            let (source, all) = (run(false), run(true));
            println!("{live} others: {all:.1} ns per fragment, source alone {source:.1} ns");
        }
        assert_eq!(rig.reass.stats().datagrams, u64::from(ROUNDS) * 3);
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_a_flood_of_first_fragments() {
    let bytes = template(0, 24, true);
    let mut rig = Rig::new(Config::default());
    let mut src = 1u32;
    for part in 0..8 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            src = src.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mbuf = fragment(&mut rig.cache, &bytes, src, src as u16);
            let _ = rig.reass.input(mbuf, 0, &mut rig.cache);
        }
        let ns = start.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
        println!("part {part}: {ns:.1} ns per fragment, {} frames held", rig.reass.frames_held());
        assert!(rig.reass.frames_held() <= rig.reass.config().frames_max as usize);
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_44_fragments_in_order_and_in_reverse() {
    let shapes: Vec<_> =
        (0..44).map(|n| template(n * 1480, n * 1480 + if n == 43 { 400 } else { 1480 }, n < 43)).collect();
    for reverse in [false, true] {
        let mut rig = Rig::new(Config::default());
        let rounds = ROUNDS / 80;
        let start = Instant::now();
        for n in 0..rounds {
            for at in 0..44 {
                let bytes = &shapes[if reverse { 43 - at } else { at }];
                let mbuf = fragment(&mut rig.cache, bytes, n % 977, n as u16);
                if let Outcome::Whole(whole) = rig.reass.input(mbuf, 0, &mut rig.cache) {
                    rig.cache.free(whole);
                }
            }
        }
        let ns = start.elapsed().as_nanos() as f64 / f64::from(rounds * 44);
        assert_eq!(rig.reass.stats().datagrams, u64::from(rounds));
        println!("reverse {reverse}: {ns:.1} ns per fragment, its copy into the frame included");
    }
}
