//! Reassembly of IP fragments (RFC 791, RFC 815, RFC 8200 section 4.5; RFC 5722, RFC 6946, RFC 7112, RFC 8900).
//!
//! One [`Reassembler`] belongs to one worker; [`Steering`] says which, by a keyed hash over what the fragments of a
//! datagram share. Fragments are kept as they came, in their frames, and a complete datagram is a chain of those
//! frames: no byte of payload is copied.
//!
//! # What a stranger can make it do
//!
//! Anybody can send fragments, from any address. So:
//! - memory is bounded in frames, since a fragment of 8 bytes costs a frame, and all of it is allocated at the start;
//! - no source holds more than its share; a source that wants more evicts its own oldest datagram;
//! - without room, the oldest datagram goes: what completes does so in milliseconds, what does not grows old;
//! - a fragment costs bounded work: a datagram has at most 64 fragments, and expiry goes on in small steps;
//! - two fragments that differ on one byte, or on the end, drop the datagram and all of it that is still to come.

mod config;
mod finish;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(missing_docs, clippy::missing_panics_doc)]
pub mod harness;
mod key;
pub(crate) mod list;
mod outcome;
pub(crate) mod piece;
mod shares;
mod table;
#[cfg(test)]
mod tests;

pub use config::{Config, FRAGMENTS_MAX};
pub(crate) use finish::next_header_field;
pub use key::{FragmentKey, Steering};
pub use outcome::{DropReason, Outcome, Problem, Stats};

use nke_mbuf::hash::{KeyedHash, scale};
use nke_mbuf::{Cache, Mbuf};

use list::NONE;
use piece::{Piece, Read};
use table::{Added, Place, Table};

/// Datagrams evicted for one fragment at most. One frees what a fragment needs unless it is a tombstone.
const EVICTIONS_MAX: usize = 16;

/// Puts fragments together.
pub struct Reassembler {
    config: Config,
    hash: KeyedHash,
    table: Table,
    stats: Stats,
}

impl Reassembler {
    /// Allocates all it will ever use. `key` is random.
    pub fn new(config: Config, key: [u64; 2]) -> Reassembler {
        let config = config.bounded();
        let table = Table::new(&config);
        Reassembler { config, hash: KeyedHash::new(key), table, stats: Stats::default() }
    }

    /// The bounds in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts since it was made.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Frames held now.
    pub fn frames_held(&self) -> usize {
        self.table.frames() as usize
    }

    /// Fragments held now.
    pub fn fragments_held(&self) -> usize {
        self.table.fragments() as usize
    }

    /// Datagrams under way, tombstones among them.
    pub fn datagrams(&self) -> usize {
        self.table.datagrams() as usize
    }

    /// Takes a packet whose data starts at the IP header. Version and lengths were checked, and the headers are
    /// contiguous; what lies behind the length in the header is cut off.
    pub fn input(&mut self, mut mbuf: Mbuf, now_ms: u64, cache: &mut Cache) -> Outcome {
        match piece::read(&mbuf) {
            Read::NotAFragment => Outcome::NotAFragment(mbuf),
            Read::Atomic { header_at } => {
                finish::atomic(&mut mbuf, header_at);
                self.stats.atomic += 1;
                Outcome::Whole(mbuf)
            }
            Read::Piece(piece) => {
                self.stats.fragments += 1;
                self.hold(&piece, mbuf, now_ms, cache)
            }
            Read::Bad(reason) => {
                self.stats.fragments += 1;
                self.refuse(mbuf, reason, cache)
            }
            Read::Problem(reason, problem) => {
                self.stats.fragments += 1;
                self.stats.dropped[reason as usize] += 1;
                Outcome::Answer(mbuf, reason, problem)
            }
        }
    }

    /// Removes datagrams whose time is over, `budget` of them at most; returns how many it removed. `first` gets the
    /// fragment at offset 0 of those that had it, as it came: the one about which ICMP "fragment reassembly time
    /// exceeded" is sent. Call it every few milliseconds.
    pub fn expire(
        &mut self,
        now_ms: u64,
        cache: &mut Cache,
        budget: usize,
        mut first: impl FnMut(Mbuf, &mut Cache),
    ) -> usize {
        for done in 0..budget {
            let Some(at) = self.table.expired(now_ms) else { return done };
            let mbuf = self.table.take_first(at);
            self.time_out(at, cache);
            if let Some(mbuf) = mbuf {
                first(mbuf, cache);
            }
        }
        budget
    }

    /// Frees everything held.
    pub fn flush(&mut self, cache: &mut Cache) {
        while let Some(at) = self.table.victim() {
            self.evict(at, cache);
        }
    }

    fn hold(&mut self, piece: &Piece, mbuf: Mbuf, now_ms: u64, cache: &mut Cache) -> Outcome {
        let bucket = scale(piece.key.hash(&self.hash), self.table.buckets());
        let mut found = self.table.find(&piece.key, bucket);
        if let Some(old) = found.filter(|at| self.table.is_over(*at, now_ms)) {
            self.time_out(old, cache);
            found = None;
        }
        let mut behind = NONE;
        if let Some(at) = found {
            if !self.table.is_open(at) {
                return self.refuse(mbuf, DropReason::Dead, cache);
            }
            behind = match self.table.place(at, piece.start, piece.len) {
                Place::Behind(behind) if self.table.agrees_on_end(at, behind, piece.more) => behind,
                Place::Behind(_) => return self.kill(at, mbuf, DropReason::BadEnd, cache),
                Place::Same(node) if self.is_duplicate(at, node, piece, &mbuf) => {
                    return self.refuse(mbuf, DropReason::Duplicate, cache);
                }
                Place::Same(_) | Place::Overlap => return self.kill(at, mbuf, DropReason::Overlap, cache),
            };
        }
        let Some(mbuf) = fit(mbuf, piece, cache) else {
            return self.count(DropReason::Memory);
        };
        let frames = mbuf.segment_count() as u32;
        let (held, held_frames) = found.map_or((0, 0), |at| self.table.held(at));
        let (max, all) = (u32::from(self.config.fragments_max), u32::from(FRAGMENTS_MAX));
        if held + 1 > max || held_frames + frames > all {
            return match found {
                Some(at) => self.kill(at, mbuf, DropReason::TooManyFragments, cache),
                None => self.refuse(mbuf, DropReason::TooManyFragments, cache),
            };
        }
        let bin = match found {
            Some(at) => self.table.bin_of(at),
            None => scale(piece.key.source_hash(&self.hash), self.table.shares().bins()) as u32,
        };
        if let Err(reason) = self.make_room(bin, found, frames, cache) {
            return self.refuse(mbuf, reason, cache);
        }
        let Some(at) = found.or_else(|| self.table.insert(&piece.key, bucket, bin, now_ms)) else {
            return self.refuse(mbuf, DropReason::Memory, cache);
        };
        let (start, len, ecn, is_last) = (piece.start, piece.len, piece.ecn, !piece.more);
        match self.table.add(at, behind, Added { mbuf, start, len, frames, ecn, is_last }) {
            Ok(true) => self.complete(at, cache),
            Ok(false) => Outcome::Held,
            Err(mbuf) => self.refuse(mbuf, DropReason::Memory, cache),
        }
    }

    /// Chains the fragments of a complete datagram and sets its header right.
    fn complete(&mut self, at: u32, cache: &mut Cache) -> Outcome {
        let ((payload_len, seen), (count, _)) = (self.table.summary(at), self.table.held(at));
        let chained = chain(self.table.drain(at), cache);
        self.table.release(at);
        let Some((mut whole, chained)) = chained else { return self.count(DropReason::BadHeader) };
        let header_len = whole.len().saturating_sub(payload_len);
        let result = chained.and_then(|()| finish::datagram(&mut whole, header_len, payload_len, seen));
        match result {
            Ok(()) => {
                self.stats.datagrams += 1;
                self.stats.reassembled += u64::from(count);
                Outcome::Whole(whole)
            }
            Err(reason) => {
                self.stats.killed += u64::from(count) - 1;
                self.refuse(whole, reason, cache)
            }
        }
    }

    /// Evicts until `frames` more fit, of this source and in all. An error if the datagram they are for had to go.
    #[inline]
    fn make_room(
        &mut self,
        bin: u32,
        datagram: Option<u32>,
        frames: u32,
        cache: &mut Cache,
    ) -> Result<(), DropReason> {
        for _ in 0..EVICTIONS_MAX {
            let (victim, reason) = if self.table.shares().units(bin) + frames > self.config.per_source_frames
            {
                (self.table.shares().oldest(bin), DropReason::PerSource)
            } else if self.table.frames() + frames > self.config.frames_max
                || datagram.is_none() && self.table.is_full()
            {
                (self.table.victim(), DropReason::Memory)
            } else {
                return Ok(());
            };
            let victim = victim.ok_or(reason)?;
            self.evict(victim, cache);
            if datagram == Some(victim) {
                return Err(reason);
            }
        }
        Err(DropReason::Memory)
    }

    #[cold]
    fn is_duplicate(&self, at: u32, node: u32, piece: &Piece, mbuf: &Mbuf) -> bool {
        let Some((held, len)) = self.table.node(node) else { return false };
        // The fragment at offset 0 is held with its headers.
        self.table.ends_at(at, piece.end()) != piece.more
            && same_bytes((held, held.len() - len), (mbuf, piece.header_len), len)
    }

    #[cold]
    fn evict(&mut self, at: u32, cache: &mut Cache) {
        self.stats.evicted += u64::from(self.table.held(at).0);
        self.table.drain(at).for_each(|mbuf| cache.free(mbuf));
        self.table.release(at);
    }

    #[cold]
    fn time_out(&mut self, at: u32, cache: &mut Cache) {
        self.stats.timed_out += u64::from(self.table.held(at).0);
        self.stats.timeouts += u64::from(self.table.is_open(at));
        self.table.drain(at).for_each(|mbuf| cache.free(mbuf));
        self.table.release(at);
    }

    #[cold]
    fn kill(&mut self, at: u32, mbuf: Mbuf, reason: DropReason, cache: &mut Cache) -> Outcome {
        self.stats.killed += u64::from(self.table.held(at).0);
        self.table.drain(at).for_each(|mbuf| cache.free(mbuf));
        self.table.entomb(at);
        self.refuse(mbuf, reason, cache)
    }

    #[cold]
    fn refuse(&mut self, mbuf: Mbuf, reason: DropReason, cache: &mut Cache) -> Outcome {
        cache.free(mbuf);
        self.count(reason)
    }

    fn count(&mut self, reason: DropReason) -> Outcome {
        self.stats.dropped[reason as usize] += 1;
        Outcome::Dropped(reason)
    }
}

/// The fragment as it is held: in frames of our own pool, which the bounds are about, without padding behind it and
/// (but for the one at offset 0, whose headers become the datagram's) without headers.
#[inline]
fn fit(mut mbuf: Mbuf, piece: &Piece, cache: &mut Cache) -> Option<Mbuf> {
    if !cache.pool().owns(&mbuf) {
        let copy = mbuf.dup(cache);
        cache.free(mbuf);
        mbuf = copy?;
    }
    let surplus = mbuf.len() - (piece.header_len + piece.len);
    if surplus > 0 {
        mbuf.trim(surplus);
    }
    if piece.start > 0 {
        mbuf.adj(piece.header_len);
        mbuf.clear_tags();
        while mbuf.data().is_empty() {
            let (empty, rest) = mbuf.split_first();
            cache.free(empty);
            mbuf = rest?;
        }
    }
    Some(mbuf)
}

/// The packets in one chain, and whether all went in; those that did not are freed.
#[inline]
fn chain(mut parts: impl Iterator<Item = Mbuf>, cache: &mut Cache) -> Option<(Mbuf, Result<(), DropReason>)> {
    let mut whole = parts.next()?;
    let result = whole.chain_all(&mut parts).map_err(|mbuf| {
        cache.free(mbuf);
        DropReason::TooManyFragments
    });
    parts.for_each(|mbuf| cache.free(mbuf));
    Some((whole, result))
}

/// Whether `len` bytes of two packets, each from an offset of its own, are the same.
fn same_bytes((a, a_at): (&Mbuf, usize), (b, b_at): (&Mbuf, usize), len: usize) -> bool {
    let (mut left, mut right) = ([0; 256], [0; 256]);
    (0..len).step_by(left.len()).all(|at| {
        let n = (len - at).min(left.len());
        a.copy_out(a_at + at, &mut left[..n])
            && b.copy_out(b_at + at, &mut right[..n])
            && left[..n] == right[..n]
    })
}
