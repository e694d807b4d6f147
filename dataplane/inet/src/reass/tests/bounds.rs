//! Memory, time and shares.

use super::*;

fn small() -> Config {
    Config { datagrams_max: 40, frames_max: 32, per_source_frames: 8, fragments_max: 8, ..Config::default() }
}

#[test]
fn time_is_over_after_30_and_60_seconds() {
    let mut rig = Rig::new(Config::default());
    let _ = rig.send(&piece(false, 0, 8), 1000);
    let _ = rig.send(&piece(true, 0, 8), 1000);
    let _ = rig.send(&piece(false, 800, 808), 2000);
    let _ = rig.send(&Shape { ident: 8, ..piece(false, 8, 16) }, 1000);
    let mut expire = |now_ms, budget| {
        let mut firsts = Vec::new();
        let done = rig.reass.expire(now_ms, &mut rig.cache, budget, |mbuf, cache| {
            firsts.push(harness::bytes(&mbuf));
            cache.free(mbuf);
        });
        (done, firsts)
    };
    assert_eq!(expire(30_999, 9), (0, vec![]));
    // The one whose first fragment came is answered with it, as it was; the other in silence.
    assert_eq!(expire(31_000, 1), (1, vec![piece(false, 0, 8).bytes()]));
    assert_eq!(expire(31_000, 9), (1, vec![]));
    assert_eq!(expire(60_999, 9), (0, vec![]));
    assert_eq!(expire(61_000, 9), (1, vec![piece(true, 0, 8).bytes()]));
    assert_eq!((rig.reass.stats().timeouts, rig.reass.stats().timed_out), (3, 4));
    assert_eq!(rig.reass.frames_held(), 0);
    rig.all_home();
}

#[test]
fn a_late_fragment_does_not_join_what_is_over() {
    let mut rig = Rig::new(Config::default());
    let _ = rig.send(&piece(false, 0, 8), 0);
    assert!(matches!(rig.send(&last(piece(false, 8, 16)), 30_000), Outcome::Held));
    assert_eq!((rig.reass.fragments_held(), rig.reass.stats().timed_out), (1, 1));
    rig.all_home();
}

#[test]
fn a_source_that_wants_more_evicts_its_own() {
    let mut rig = Rig::new(small());
    let victim = Shape { src: 9, ..piece(false, 0, 8) };
    let _ = rig.send(&victim, 0);
    for ident in 0..100 {
        assert!(matches!(rig.send(&Shape { ident, ..piece(false, 0, 8) }, 1), Outcome::Held));
        assert!(rig.reass.frames_held() <= 9);
    }
    assert_eq!(rig.reass.stats().evicted, 92);
    assert!(matches!(rig.send(&last(Shape { src: 9, ..piece(false, 8, 16) }), 2), Outcome::Whole(_)));
    rig.all_home();
}

#[test]
fn a_datagram_larger_than_the_rest_of_the_share_pushes_out_older_ones_of_its_source_only() {
    let mut rig = Rig::new(small());
    let _ = rig.send(&Shape { ident: 1, ..piece(false, 0, 8) }, 0);
    for n in 0..7 {
        assert!(matches!(rig.send(&piece(false, n * 8, n * 8 + 8), 1), Outcome::Held));
    }
    // The share is full; the next one evicts ident 1 and completes.
    assert!(matches!(rig.send(&last(piece(false, 56, 60)), 1), Outcome::Whole(_)));
    assert_eq!((rig.reass.stats().evicted, rig.reass.frames_held()), (1, 0));
    rig.all_home();
}

#[test]
fn too_many_fragments_kill_the_datagram() {
    for v6 in [false, true] {
        let mut rig = Rig::new(small());
        for n in 0..8 {
            assert!(matches!(rig.send(&piece(v6, n * 16, n * 16 + 8), 0), Outcome::Held));
        }
        assert_eq!(rig.reason(&piece(v6, 8, 16), 0), Some(DropReason::TooManyFragments));
        assert_eq!((rig.reass.frames_held(), rig.reass.datagrams()), (0, 1));
        rig.all_home();
    }
}

#[test]
fn a_flood_from_ever_new_sources_does_not_stop_a_sender_of_large_datagrams() {
    let mut rig = Rig::new(Config { frames_max: 64, per_source_frames: 32, datagrams_max: 64, ..small() });
    let mut flood = 0u32;
    for ident in 0..200 {
        for n in 0..8 {
            let shape = Shape { ident, ..piece(false, n * 8, n * 8 + 8) };
            let outcome = rig.send(&if n == 7 { last(shape) } else { shape }, 1);
            assert_eq!(matches!(outcome, Outcome::Whole(_)), n == 7, "{outcome:?}");
            // Between any two of its fragments, others come from addresses nobody has seen.
            for _ in 0..4 {
                flood += 1;
                let mut bytes = piece(false, 0, 8).bytes();
                bytes[12..16].copy_from_slice(&flood.to_be_bytes());
                assert!(matches!(rig.send_bytes(&bytes, 1), Outcome::Held));
                assert!(rig.reass.frames_held() <= 64);
            }
        }
    }
    assert_eq!(rig.reass.stats().datagrams, 200);
    rig.all_home();
}

#[test]
fn tombstones_are_bounded_and_charged_to_their_source() {
    let mut rig = Rig::new(Config { per_source_frames: 8, ..small() });
    for ident in 0..1000 {
        let _ = rig.send(&Shape { ident, ..piece(false, 0, 16) }, 0);
        assert_eq!(rig.reason(&Shape { ident, ..piece(false, 8, 24) }, 0), Some(DropReason::Overlap));
        assert!(rig.reass.datagrams() <= 8);
        assert_eq!(rig.reass.frames_held(), 0);
    }
    rig.all_home();
}

#[test]
fn frames_of_another_pool_are_copied_into_ours() {
    let mut rig = Rig::new(Config::default());
    let other = harness::pool(4, 2048);
    let mut cache = Cache::new(&other);
    let foreign = mbuf(&piece(false, 0, 8).bytes(), 1600, &mut cache).unwrap();
    assert!(matches!(rig.reass.input(foreign, 0, &mut rig.cache), Outcome::Held));
    drop(cache);
    assert_eq!(other.census().of(Owner::FREE), 4);
    assert!(matches!(rig.send(&last(piece(false, 8, 9)), 0), Outcome::Whole(_)));
    rig.all_home();
}

#[test]
fn bounds_are_put_where_they_make_sense() {
    let config = Config {
        datagrams_max: 0,
        frames_max: 0,
        per_source_frames: u32::MAX,
        fragments_max: 999,
        timeout_v4_ms: 0,
        timeout_v6_ms: 0,
    };
    let reass = Reassembler::new(config, [0, 0]);
    let config = reass.config();
    assert_eq!((config.datagrams_max, config.frames_max), (1, 64));
    assert_eq!((config.per_source_frames, config.fragments_max), (64, FRAGMENTS_MAX));
    assert_eq!(Config::within(4 << 20, 2048).frames_max, 2048);
}
