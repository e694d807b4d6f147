//! Replays: which frames of a peer were taken already (the idea of RFC 4303 appendix A2 and RFC 6479, for several workers
//! without a lock).
//!
//! A window is a ring of words. A word has 16 bits, one for each of 16 consecutive packet numbers, and beside them, in
//! the same 64 bits, which 16 numbers these are: the session they belong to and the lap of the ring. To take a number is
//! one compare-and-swap of one word, so it succeeds once, whoever else tries. A word moves on to a later lap when the
//! first number of that comes, and then refuses all earlier ones.
//!
//! So a number is refused only if it was taken, or if one of at least [`WINDOW_MIN`] more was taken: whatever workers
//! and links reorder within that many frames passes.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Refusal;
use super::frame::{LANES_MAX, NUMBERS_MAX};

const WORDS: usize = 128;
const BITS: u64 = 16;
const LAP_BITS: u32 = 48 - BITS.ilog2() - WORDS.ilog2();
const GENERATION_BITS: u32 = 64 - LAP_BITS - BITS as u32;

/// Frames that may overtake a frame of their lane and leave it acceptable.
pub const WINDOW_MIN: u64 = WORDS as u64 * BITS - BITS;

const _: () = assert!(WINDOW_MIN >= 1024 && NUMBERS_MAX == 1 << 48 && GENERATION_BITS >= 8);

/// Whether generation `a` came after `b`: they are counted round.
fn after(a: u64, b: u64) -> bool {
    let ahead = a.wrapping_sub(b) & ((1 << GENERATION_BITS) - 1);
    ahead != 0 && ahead < 1 << (GENERATION_BITS - 1)
}

/// What is known of one sender.
pub(super) struct Peer {
    /// When its newest session began, and in the low 16 bits that session's generation.
    current: AtomicU64,
    lanes: Box<[Window]>,
}

impl Peer {
    pub(super) fn new() -> Peer {
        let lanes = (0..LANES_MAX).map(|_| Window::new()).collect();
        Peer { current: AtomicU64::new(0), lanes }
    }

    /// Whether a session that began at `start_ms` is older than one that was seen: nothing of it is taken any more.
    #[inline]
    pub(super) fn is_stale(&self, start_ms: u64) -> bool {
        start_ms < self.current.load(Ordering::Relaxed) >> 16
    }

    /// Takes an authenticated frame, once.
    #[inline]
    pub(super) fn take(&self, start_ms: u64, lane: u8, number: u64) -> Result<(), Refusal> {
        let generation = self.generation(start_ms).ok_or(Refusal::Stale)?;
        self.lanes[usize::from(lane) % LANES_MAX].take(generation, number)
    }

    /// The generation of the session, which replaces the one before if it is newer. `None` if it is older.
    #[inline]
    fn generation(&self, start_ms: u64) -> Option<u64> {
        loop {
            let current = self.current.load(Ordering::Relaxed);
            let generation = current & 0xffff;
            match start_ms.cmp(&(current >> 16)) {
                Less => return None,
                Equal => return Some(generation),
                Greater => {
                    let next = (generation + 1) & ((1 << GENERATION_BITS) - 1);
                    let word = start_ms << 16 | next;
                    // A word says by itself which session it is of: nothing else has to be seen in order.
                    let swap =
                        self.current.compare_exchange(current, word, Ordering::Relaxed, Ordering::Relaxed);
                    if swap.is_ok() {
                        self.lanes.iter().for_each(|window| window.sweep(next));
                        return Some(next);
                    }
                }
            }
        }
    }
}

struct Window([AtomicU64; WORDS]);

/// A word: generation, lap, and a bit for each number that was taken.
fn word(generation: u64, lap: u64, bits: u64) -> u64 {
    generation << (LAP_BITS + BITS as u32) | lap << BITS | bits
}

impl Window {
    fn new() -> Window {
        Window([const { AtomicU64::new(0) }; WORDS])
    }

    #[inline]
    fn take(&self, generation: u64, number: u64) -> Result<(), Refusal> {
        let block = number / BITS;
        let (slot, lap) = (&self.0[block as usize % WORDS], block / WORDS as u64);
        let bit = 1 << (number % BITS);
        let taken = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            let (of, at) = (old >> (LAP_BITS + BITS as u32), old >> BITS & ((1 << LAP_BITS) - 1));
            if of == generation && at == lap {
                return (old & bit == 0).then_some(old | bit);
            }
            let later = if of == generation { at > lap } else { after(of, generation) };
            (!later).then_some(word(generation, lap, bit))
        });
        taken.map(drop).map_err(|_| Refusal::Replay)
    }

    /// Marks every word as of `generation`, and empty, unless it is already. Without this a word that no frame touches
    /// would, after half a round of generations, be thought of as a later one.
    #[cold]
    fn sweep(&self, generation: u64) {
        for slot in &self.0 {
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                after(generation, old >> (LAP_BITS + BITS as u32)).then_some(word(generation, 0, 0))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn what_is_late_passes_and_what_is_too_late_does_not() {
        let peer = Peer::new();
        assert_eq!(peer.take(7, 0, WINDOW_MIN), Ok(()));
        assert_eq!(peer.take(7, 0, 0), Ok(()));
        assert_eq!(peer.take(7, 0, 0), Err(Refusal::Replay));
        assert_eq!(peer.take(7, 1, 0), Ok(()), "another lane");
        assert_eq!(peer.take(7, 0, NUMBERS_MAX - 1), Ok(()));
        assert_eq!(
            peer.take(7, 0, (NUMBERS_MAX - 1) % (WORDS as u64 * BITS)),
            Err(Refusal::Replay),
            "lapped"
        );
    }

    #[test]
    fn a_newer_session_ends_the_older_ones_on_every_lane() {
        let peer = Peer::new();
        assert_eq!(peer.take(7, 0, 1 << 40), Ok(()));
        assert_eq!(peer.take(9, 1, 0), Ok(()));
        assert!(peer.is_stale(7) && !peer.is_stale(9));
        assert_eq!(peer.take(7, 2, 5), Err(Refusal::Stale));
        assert_eq!(peer.take(9, 0, 0), Ok(()), "the window of the old session is gone");
    }

    #[test]
    fn generations_go_round() {
        let peer = Peer::new();
        for start_ms in 1..=3 << GENERATION_BITS {
            assert_eq!(peer.take(start_ms, 0, start_ms % 3), Ok(()));
            assert_eq!(peer.take(start_ms, 0, start_ms % 3), Err(Refusal::Replay));
            if start_ms == (1 << (GENERATION_BITS - 1)) + 1 {
                assert_eq!(
                    peer.take(start_ms, 31, 99),
                    Ok(()),
                    "a word that no frame touched for half a round"
                );
            }
        }
    }

    #[test]
    fn threads_take_every_number_once() {
        let (peer, taken) = (Peer::new(), AtomicUsize::new(0));
        const N: u64 = 50_000;
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (peer, taken) = (&peer, &taken);
                scope.spawn(move || {
                    // Sessions change under way, and numbers come slightly out of order.
                    for i in 0..N {
                        let number = (i ^ thread) % (N / 2);
                        if peer.take(1 + i / (N / 2), 3, number).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // Threads that are behind lose frames; nothing is taken twice.
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken <= N as usize && taken > 0, "{taken}");
    }

    proptest! {
        /// Against a set of what was taken: never twice, and never refused within the window.
        #[test]
        fn as_a_set(steps in prop::collection::vec((0u64..3, 0u64..5000), 1..400), far in any::<bool>()) {
            let peer = Peer::new();
            let (mut session, mut taken, mut top) = (1, HashSet::new(), 0);
            for (newer, at) in steps {
                if newer == 2 && at % 50 == 0 {
                    (session, taken, top) = (session + 1, HashSet::new(), 0);
                }
                let number = if far { at << 20 | at } else { at };
                let fits = !taken.contains(&number) && number + WINDOW_MIN >= top;
                let took = peer.take(session, 0, number);
                if fits {
                    prop_assert_eq!(took, Ok(()), "{} below {}", number, top);
                }
                if took.is_ok() {
                    prop_assert!(taken.insert(number));
                    top = top.max(number);
                }
            }
        }
    }
}
