//! One record: a cache line that any number of workers read while another one may be replacing it.
//!
//! Whether a record holds a flow, and which one of those it held over time, is in one word, its [`Life`]. Readers take
//! it before and after they copy the rest; when the generation is the same and the record was live both times, what
//! they copied belongs together (a sequence lock, Boehm 2012). Every change of a live record is a compare-and-swap of
//! that word, so a change meant for the flow that was there before cannot hit the one that is there now.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// State, generation, flags and time of a record, in one word:
///
/// ```text
///   bits  0..32  low: seconds or a count of references, as the table's user likes
///   bits 32..44  flags of the user
///   bits 44..46  what the record is: FREE, LIVE, DYING, ORPHAN
///   bits 46..64  generation: one more each time the record is used again
/// ```
///
/// A reader is fooled only if a record is used again 2^18 times between two of its loads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life(pub(super) u64);

const KIND_AT: u32 = 44;
const GENERATION_AT: u32 = 46;
const FLAGS: u64 = 0xfff;

/// Not in use: in the free list, or in the hands of who is about to fill it.
pub(super) const FREE: u64 = 0;
/// Holds a flow.
pub(super) const LIVE: u64 = 1;
/// Ended; who ended it is taking it out of its chains.
pub(super) const DYING: u64 = 2;
/// Ended, but still in its chains: left to the control thread.
pub(super) const ORPHAN: u64 = 3;

impl Life {
    /// What the user keeps in the low half.
    #[inline(always)]
    pub(crate) fn low(self) -> u32 {
        self.0 as u32
    }

    /// What the user keeps in the twelve flags.
    #[inline(always)]
    pub(crate) fn flags(self) -> u16 {
        (self.0 >> 32 & FLAGS) as u16
    }

    /// The same flow with another low half.
    #[inline(always)]
    #[must_use]
    pub(crate) fn with_low(self, low: u32) -> Life {
        Life(self.0 >> 32 << 32 | u64::from(low))
    }

    /// The same flow with other flags.
    #[inline(always)]
    #[must_use]
    pub(crate) fn with_flags(self, flags: u16) -> Life {
        Life(self.0 & !(FLAGS << 32) | (u64::from(flags) & FLAGS) << 32)
    }

    #[inline(always)]
    pub(super) fn kind(self) -> u64 {
        self.0 >> KIND_AT & 3
    }

    #[inline(always)]
    pub(super) fn is_live(self) -> bool {
        self.kind() == LIVE
    }

    #[inline(always)]
    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_AT
    }

    pub(super) fn with_kind(self, kind: u64) -> Life {
        Life(self.0 & !(3 << KIND_AT) | kind << KIND_AT)
    }

    /// Free, and of the next generation.
    pub(super) fn renewed(self) -> Life {
        Life(self.generation().wrapping_add(1) << GENERATION_AT)
    }
}

/// A flow as it was found: a consistent copy of its record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<const W: usize, const S: usize> {
    /// Number of the record.
    pub(crate) index: u32,
    /// By which of its keys it was found.
    pub(crate) side: usize,
    /// Its life word.
    pub(crate) life: Life,
    /// All its keys.
    pub(crate) keys: [[u64; W]; S],
    /// What its user put in when it was made.
    pub(crate) value: u64,
}

/// Words for keys: two keys of two words or one of five.
const KEY_WORDS: usize = 5;

#[repr(C, align(64))]
pub(super) struct Record {
    pub(super) life: AtomicU64,
    keys: [AtomicU64; KEY_WORDS],
    value: AtomicU64,
    /// The next record in the chain of each side; the first one also links the free list.
    pub(super) links: [AtomicU32; 2],
}

const _: () = assert!(size_of::<Record>() == 64);

impl Record {
    pub(super) const fn new() -> Record {
        Record {
            life: AtomicU64::new(0),
            keys: [const { AtomicU64::new(0) }; KEY_WORDS],
            value: AtomicU64::new(0),
            links: [const { AtomicU32::new(0) }; 2],
        }
    }

    #[inline(always)]
    pub(super) fn life(&self, order: Ordering) -> Life {
        Life(self.life.load(order))
    }

    /// Writes a record that nobody else may write; readers that still have its number find it not live.
    pub(super) fn fill<const W: usize, const S: usize>(&self, keys: &[[u64; W]; S], value: u64) {
        let life = self.life(Ordering::Relaxed).renewed();
        self.life.store(life.0, Ordering::Relaxed);
        // What follows must not be seen by who has not seen the new generation.
        fence(Ordering::Release);
        for (at, word) in keys.iter().flatten().enumerate() {
            self.keys[at].store(*word, Ordering::Relaxed);
        }
        self.value.store(value, Ordering::Relaxed);
    }

    /// Makes what [`Record::fill`] wrote live.
    pub(super) fn publish(&self, flags: u16, low: u32) -> Life {
        let life = self.life(Ordering::Relaxed).with_kind(LIVE).with_flags(flags).with_low(low);
        self.life.store(life.0, Ordering::Release);
        life
    }

    #[inline(always)]
    pub(super) fn key<const W: usize>(&self, side: usize) -> [u64; W] {
        std::array::from_fn(|i| self.keys[side * W + i].load(Ordering::Relaxed))
    }

    /// The flow in this record, if it has one; with `key`, only if its key of that side is this one.
    #[inline(always)]
    pub(super) fn read<const W: usize, const S: usize>(
        &self,
        index: u32,
        side: usize,
        key: Option<&[u64; W]>,
    ) -> Option<Found<W, S>> {
        let before = self.life(Ordering::Acquire);
        if !before.is_live() || key.is_some_and(|key| self.key::<W>(side) != *key) {
            return None;
        }
        let keys = std::array::from_fn(|side| self.key::<W>(side));
        let value = self.value.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let life = self.life(Ordering::Relaxed);
        let same = life.is_live() && life.generation() == before.generation();
        same.then_some(Found { index, side, life, keys, value })
    }

    /// Replaces the life word if it still is `from`.
    #[inline(always)]
    pub(super) fn swap(&self, from: Life, to: Life) -> Result<(), Life> {
        match self.life.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => Err(Life(found)),
        }
    }
}
