mod bounds;
mod measure;
mod rules;

use super::harness::{Shape, mbuf, pool};
use super::*;
use nke_mbuf::{Owner, Pool};
use proptest::prelude::*;

/// A reassembler with a pool of its own.
struct Rig {
    pool: Pool,
    cache: Cache,
    reass: Reassembler,
}

impl Rig {
    fn new(config: Config) -> Rig {
        let pool = pool(config.frames_max as usize + 64, 2048);
        let cache = Cache::new(&pool);
        Rig { pool, cache, reass: Reassembler::new(config, [0x0123_4567, 0x89ab_cdef]) }
    }

    fn send(&mut self, shape: &Shape, now_ms: u64) -> Outcome {
        self.send_bytes(&shape.bytes(), now_ms)
    }

    fn send_bytes(&mut self, bytes: &[u8], now_ms: u64) -> Outcome {
        let mbuf = mbuf(bytes, 1600, &mut self.cache).expect("a frame");
        self.reass.input(mbuf, now_ms, &mut self.cache)
    }

    /// The reason, if it was dropped (or is to be answered).
    fn reason(&mut self, shape: &Shape, now_ms: u64) -> Option<DropReason> {
        match self.send(shape, now_ms) {
            Outcome::Dropped(reason) | Outcome::Answer(_, reason, _) => Some(reason),
            _ => None,
        }
    }

    fn all_home(mut self) {
        self.reass.flush(&mut self.cache);
        drop(self.cache);
        assert_eq!(self.pool.census().of(Owner::FREE), self.pool.capacity());
    }
}

/// Bytes `start..end` of a datagram whose byte at `n` is `n` with its high half added; more follows unless told.
fn piece(v6: bool, start: usize, end: usize) -> Shape {
    let payload = (start..end).map(|n| (n + (n >> 8)) as u8).collect();
    Shape { v6, src: 1, ident: 7, start, more: true, options: 0, ecn: 0, payload }
}

fn last(shape: Shape) -> Shape {
    Shape { more: false, ..shape }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_script_keeps_the_account(data in prop::collection::vec(any::<u8>(), 0..600)) {
        harness::harness(&data);
    }

    /// Scripts of few datagrams and small offsets, in which many complete.
    #[test]
    fn likely_scripts_keep_the_account(
        steps in prop::collection::vec((0u8..12, 0u8..4, 0u8..4, prop::sample::select(vec![6u8, 14, 22]), 0u8..8), 0..120)
    ) {
        let data: Vec<u8> =
            steps.iter().flat_map(|(what, who, at, len, flags)| [*what, *who, *at, *len, 0x40 | flags, 1]).collect();
        harness::harness(&data);
    }
}
