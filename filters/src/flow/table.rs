//! The table: records in chains, found by one or two keys each.
//!
//! ```text
//!   hash(key) ──▶ heads: version | link ──▶ record ──▶ record ─▶ end        a link names a record and one of its sides
//! ```
//!
//! One word for each bucket and one cache line for each record: a lookup misses the cache twice. There are twice as many
//! buckets as keys, so a chain rarely has a second record, and the table can be filled to the last one.
//!
//! **Readers** never write and never wait. They walk the chain; a hit is proven by the record itself (see
//! [`super::record`]). A record that ends while a reader stands on it may lead the reader into another chain: a miss
//! therefore counts only if the head word, version included, is what it was, else the walk is done again.
//!
//! **Who adds or removes** holds the low bit of the version for a few stores. Who finds it taken tries [`TRIES`] times and
//! then gives up: a flow is refused (counted), or a record that ended stays in its chain as an *orphan* until the control
//! thread takes it out. So no worker ever waits for one that was preempted.
//!
//! Two keys are entered and checked for their absence under the locks of both buckets: no key is ever there twice.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use nke_mbuf::hash::{KeyedHash, scale};

use super::record::{DYING, FREE, Found, Life, ORPHAN, Record};
use crate::random_key;

/// Tries for a bucket that another worker is changing.
const TRIES: usize = 512;
/// Walks of a chain that changes meanwhile.
const WALKS: usize = 32;
/// Records of a chain looked at. With a keyed hash and half a record for each bucket, this many never meet.
const CHAIN_MAX: usize = 64;

/// The head word: version in the high half, its low bit the lock; link in the low half.
const LOCKED: u64 = 1 << 32;

/// Why a record was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TableError {
    /// The key of this side is there already.
    Exists(usize),
    /// Every record is in use.
    Full,
    /// Others were changing the same bucket all the time.
    Busy,
}

/// Records with `S` keys of `W` words each.
pub(crate) struct Table<const W: usize, const S: usize> {
    hash: KeyedHash,
    heads: Box<[AtomicU64]>,
    records: Box<[Record]>,
    /// Stack of free records: a link (of side 0) in the low half, a count of changes in the high one.
    free: AtomicU64,
    used: AtomicU32,
    orphans: AtomicU32,
}

impl<const W: usize, const S: usize> Table<W, S> {
    /// A table for `capacity` records.
    pub(crate) fn new(capacity: usize) -> Table<W, S> {
        const { assert!(W * S <= 5 && S <= 2 && S > 0) };
        let buckets = capacity * S * 2;
        let table = Table {
            hash: KeyedHash::new(random_key()),
            heads: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            records: (0..capacity).map(|_| Record::new()).collect(),
            free: AtomicU64::new(0),
            used: AtomicU32::new(capacity as u32),
            orphans: AtomicU32::new(0),
        };
        (0..capacity as u32).rev().for_each(|index| table.push_free(index));
        table
    }

    pub(crate) fn capacity(&self) -> usize {
        self.records.len()
    }

    /// Records in use.
    pub(crate) fn len(&self) -> usize {
        self.used.load(Ordering::Relaxed) as usize
    }

    /// The hash key of this table, for what else strangers must not foresee.
    pub(crate) fn hash(&self) -> &KeyedHash {
        &self.hash
    }

    /// Bucket of `key`, for [`Table::warm`] and [`Table::find_in`].
    #[inline(always)]
    pub(crate) fn bucket(&self, key: &[u64; W]) -> u32 {
        scale(self.hash.words(*key), self.heads.len()) as u32
    }

    /// Brings what lookups in these buckets will read into the cache, all at once instead of one after the other.
    #[inline]
    pub(crate) fn warm(&self, buckets: &[u32]) {
        let mut links = [0; nke_mbuf::BURST_MAX];
        for (link, bucket) in links.iter_mut().zip(buckets) {
            *link = self.heads[*bucket as usize].load(Ordering::Relaxed) as u32;
        }
        let records = links[..buckets.len().min(links.len())].iter().filter(|link| **link != 0);
        let lives = records.map(|link| self.records[(*link as usize - 1) >> 1].life(Ordering::Relaxed).0);
        std::hint::black_box(lives.fold(0, |all, life| all ^ life));
    }

    /// The record with this key.
    #[inline(always)]
    pub(crate) fn find(&self, key: &[u64; W]) -> Option<Found<W, S>> {
        self.find_in(self.bucket(key), key)
    }

    /// [`Table::find`] when the bucket is known.
    #[inline(always)]
    pub(crate) fn find_in(&self, bucket: u32, key: &[u64; W]) -> Option<Found<W, S>> {
        let head = &self.heads[bucket as usize];
        for _ in 0..WALKS {
            let before = head.load(Ordering::Acquire);
            if let Some(found) = self.walk(before as u32, key) {
                return Some(found);
            }
            fence(Ordering::Acquire);
            if head.load(Ordering::Relaxed) == before {
                return None;
            }
        }
        None
    }

    #[inline(always)]
    fn walk(&self, mut link: u32, key: &[u64; W]) -> Option<Found<W, S>> {
        for _ in 0..CHAIN_MAX {
            let (index, side) = split(link)?;
            let record = &self.records[index as usize];
            if let Some(found) = record.read(index, side, Some(key)) {
                return Some(found);
            }
            link = record.links[side].load(Ordering::Acquire);
        }
        None
    }

    /// The flow in record `index`, if it has one.
    pub(crate) fn at(&self, index: u32) -> Option<Found<W, S>> {
        self.records.get(index as usize)?.read(index, 0, None)
    }

    /// Changes the life word of a flow that was found. Fails with the word it has now if somebody was faster; that may
    /// be another flow's.
    #[inline(always)]
    pub(crate) fn update(&self, index: u32, from: Life, to: Life) -> Result<(), Life> {
        self.records[index as usize].swap(from, to)
    }

    /// Whether `life` is a later word of the flow that `found` is.
    pub(crate) fn is_same(found: &Found<W, S>, life: Life) -> bool {
        life.is_live() && life.generation() == found.life.generation()
    }

    /// Adds a record. Its keys are there for all or for nobody.
    pub(crate) fn insert(
        &self,
        keys: &[[u64; W]; S],
        value: u64,
        flags: u16,
        low: u32,
    ) -> Result<Found<W, S>, TableError> {
        let index = self.pop_free().ok_or(TableError::Full)?;
        self.records[index as usize].fill(keys, value);
        let outcome = self.link(index, keys, flags, low);
        match outcome {
            Ok(life) => Ok(Found { index, side: 0, life, keys: *keys, value }),
            Err(error) => {
                self.push_free(index);
                Err(error)
            }
        }
    }

    fn link(&self, index: u32, keys: &[[u64; W]; S], flags: u16, low: u32) -> Result<Life, TableError> {
        let buckets: [u32; S] = std::array::from_fn(|side| self.bucket(&keys[side]));
        // In the order of their numbers, so that two workers do not each hold what the other one wants.
        let (first, second) = (buckets[0].min(buckets[S - 1]), buckets[0].max(buckets[S - 1]));
        let first_head = self.lock(first).ok_or(TableError::Busy)?;
        let second_head = match first == second {
            true => first_head,
            false => match self.lock(second) {
                Some(head) => head,
                None => {
                    self.unlock(first, first_head, first_head as u32);
                    return Err(TableError::Busy);
                }
            },
        };
        let mut links = [first_head as u32, second_head as u32];
        let present = (0..S).find(|side| {
            let head = links[usize::from(buckets[*side] != first)];
            self.walk(head, &keys[*side]).is_some()
        });
        let outcome = match present {
            Some(side) => Err(TableError::Exists(side)),
            None => {
                let record = &self.records[index as usize];
                for side in 0..S {
                    let head = &mut links[usize::from(buckets[side] != first)];
                    record.links[side].store(*head, Ordering::Release);
                    *head = join(index, side);
                }
                Ok(record.publish(flags, low))
            }
        };
        if first != second {
            self.unlock(second, second_head, links[1]);
        }
        self.unlock(first, first_head, links[0]);
        outcome
    }

    /// Ends a flow if its life word still is `life`: true for the one caller that did it. The record is free again when
    /// its chains could be locked; else [`Table::adopt`] frees it later.
    pub(crate) fn remove(&self, index: u32, life: Life) -> bool {
        let record = &self.records[index as usize];
        if record.swap(life, life.with_kind(DYING)).is_err() {
            return false;
        }
        self.bury(index);
        true
    }

    /// Takes a dying record, which is the caller's alone, out of its chains and frees it; or leaves it an orphan.
    fn bury(&self, index: u32) {
        let record = &self.records[index as usize];
        let life = record.life(Ordering::Relaxed);
        if (0..S).all(|side| self.unlink(index, side)) {
            record.life.store(life.with_kind(FREE).0, Ordering::Release);
            self.push_free(index);
        } else {
            self.orphans.fetch_add(1, Ordering::Relaxed);
            record.life.store(life.with_kind(ORPHAN).0, Ordering::Release);
        }
    }

    /// True if the record is not in the chain of this side any more.
    fn unlink(&self, index: u32, side: usize) -> bool {
        let record = &self.records[index as usize];
        let bucket = self.bucket(&record.key::<W>(side));
        let Some(head) = self.lock(bucket) else { return false };
        let (mine, next) = (join(index, side), record.links[side].load(Ordering::Relaxed));
        let mut link = head as u32;
        if link == mine {
            self.unlock(bucket, head, next);
            return true;
        }
        // The chain is locked: it has an end, and no record of it is another chain's.
        while let Some((at, at_side)) = split(link) {
            let place = &self.records[at as usize].links[at_side];
            link = place.load(Ordering::Relaxed);
            if link == mine {
                place.store(next, Ordering::Release);
                break;
            }
        }
        self.unlock(bucket, head, head as u32);
        true
    }

    /// Frees an orphan. For the control thread: whether there was one at `index`.
    pub(crate) fn adopt(&self, index: u32) -> bool {
        let record = &self.records[index as usize];
        let life = record.life(Ordering::Acquire);
        if life.kind() != ORPHAN || record.swap(life, life.with_kind(DYING)).is_err() {
            return false;
        }
        self.orphans.fetch_sub(1, Ordering::Relaxed);
        self.bury(index);
        true
    }

    /// Frees all orphans, if there are any. For the control thread.
    pub(crate) fn adopt_all(&self) {
        if self.orphans.load(Ordering::Relaxed) != 0 {
            (0..self.records.len() as u32).for_each(|index| {
                self.adopt(index);
            });
        }
    }

    fn lock(&self, bucket: u32) -> Option<u64> {
        let word = &self.heads[bucket as usize];
        for _ in 0..TRIES {
            let head = word.load(Ordering::Relaxed);
            let free = head & LOCKED == 0;
            if free
                && word
                    .compare_exchange_weak(head, head | LOCKED, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                return Some(head);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// `head` is what [`Table::lock`] gave; the version goes on, the chain begins with `link`.
    fn unlock(&self, bucket: u32, head: u64, link: u32) {
        let version = (head >> 32).wrapping_add(2) << 32;
        self.heads[bucket as usize].store(version | u64::from(link), Ordering::Release);
    }

    fn push_free(&self, index: u32) {
        let link = &self.records[index as usize].links[0];
        let mut top = self.free.load(Ordering::Relaxed);
        loop {
            link.store(top as u32, Ordering::Release);
            let new = (top >> 32).wrapping_add(1) << 32 | u64::from(join(index, 0));
            match self.free.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(found) => top = found,
            }
        }
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    fn pop_free(&self) -> Option<u32> {
        let mut top = self.free.load(Ordering::Acquire);
        loop {
            let (index, _) = split(top as u32)?;
            // Another worker may have taken this record meanwhile; the count of changes then makes the swap fail.
            let next = self.records[index as usize].links[0].load(Ordering::Acquire);
            let new = (top >> 32).wrapping_add(1) << 32 | u64::from(next);
            match self.free.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.used.fetch_add(1, Ordering::Relaxed);
                    return Some(index);
                }
                Err(found) => top = found,
            }
        }
    }

    /// What must hold when nobody else is at work: every live record is found by each of its keys, no other one is in a
    /// chain, and the rest is free.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        use super::record::LIVE;
        let mut linked = vec![[false; 2]; self.records.len()];
        for (bucket, head) in self.heads.iter().enumerate() {
            let head = head.load(Ordering::Relaxed);
            assert_eq!(head & LOCKED, 0);
            let mut link = head as u32;
            while let Some((index, side)) = split(link) {
                let record = &self.records[index as usize];
                assert!(!std::mem::replace(&mut linked[index as usize][side], true), "in two chains");
                assert!(matches!(record.life(Ordering::Relaxed).kind(), LIVE | ORPHAN));
                assert_eq!(self.bucket(&record.key::<W>(side)) as usize, bucket);
                link = record.links[side].load(Ordering::Relaxed);
            }
        }
        let mut live = 0;
        for (index, linked) in linked.iter().enumerate() {
            let is = linked[0];
            live += usize::from(is);
            assert!(linked[..S].iter().all(|l| *l == is), "in one chain of two");
            assert_eq!(is, self.records[index].life(Ordering::Relaxed).kind() != FREE);
        }
        let (mut free, mut at) = (0, self.free.load(Ordering::Relaxed) as u32);
        while let Some((index, _)) = split(at) {
            free += 1;
            at = self.records[index as usize].links[0].load(Ordering::Relaxed);
        }
        assert_eq!((live, live + free), (self.len(), self.records.len()));
    }
}

#[inline(always)]
fn join(index: u32, side: usize) -> u32 {
    (index << 1 | side as u32) + 1
}

#[inline(always)]
fn split(link: u32) -> Option<(u32, usize)> {
    let link = link.checked_sub(1)?;
    Some((link >> 1, (link & 1) as usize))
}
