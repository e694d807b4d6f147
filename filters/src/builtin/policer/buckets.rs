//! Which bucket a packet is judged by.
//!
//! `per = flow | source | destination` finds one in a table of fixed size by a keyed hash: eight places are tried, those of
//! one set. A key that is not there gets a free place, or one whose bucket is full: a full bucket remembers nothing, so
//! whoever had it loses nothing, and whoever is still paying for what he sent cannot be pushed out. When all eight are
//! in use the key shares one bucket with all others that find no place; it is counted.
//!
//! Two keys of one 64-bit hash would share a bucket. While workers hand a place from one key to another, each of them may
//! charge one packet to the wrong one of the two.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::bucket::{Bucket, Rate};
use super::packet::{dscp, tuple};

const WAYS: usize = 8;

/// What has a bucket of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Per {
    /// Nothing: one bucket for everything.
    All,
    /// Addresses, protocol and ports, one way.
    Flow,
    /// The source address.
    Source,
    /// The destination address.
    Destination,
    /// The differentiated services code point.
    Dscp,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// It is within the rate, and paid for.
    pub within: bool,
    /// The table had no place for its key.
    pub excess_key: bool,
}

/// The buckets of one direction.
pub struct Buckets {
    rate: Rate,
    per: Per,
    /// For everything with [`Per::All`], else for keys without a place.
    common: CachePadded<Bucket>,
    /// For what is not IP, or does not hold.
    other: CachePadded<Bucket>,
    codes: Box<[CachePadded<Bucket>]>,
    sets: Box<[Set]>,
    keyed: RandomState,
}

/// Eight places, in two cache lines.
#[derive(Default)]
#[repr(align(64))]
struct Set([Place; WAYS]);

#[derive(Default)]
struct Place {
    /// The hash of the key; 0 when there is none.
    key: AtomicU64,
    bucket: Bucket,
}

impl Buckets {
    /// Full buckets, with places for at least `keys` keys where `per` asks for them (16 bytes each).
    pub fn new(rate: Rate, per: Per, keys: usize) -> Buckets {
        let (codes, sets) = match per {
            Per::All => (0, 0),
            Per::Dscp => (64, 0),
            Per::Flow | Per::Source | Per::Destination => (0, keys.div_ceil(WAYS).max(1)),
        };
        Buckets {
            rate,
            per,
            common: CachePadded::default(),
            other: CachePadded::default(),
            codes: (0..codes).map(|_| CachePadded::default()).collect(),
            sets: (0..sets).map(|_| Set::default()).collect(),
            keyed: RandomState::new(),
        }
    }

    /// Judges a packet of `len_bytes`. `ip` is what of it is at hand from the IP header on, if it is IP.
    #[inline]
    pub fn judge(&self, now_ms: u64, len_bytes: usize, ip: Option<&[u8]>) -> Judgement {
        let at = self.rate.at(now_ms);
        let bucket = match self.per {
            Per::All => Some(&*self.common),
            Per::Dscp => match ip.and_then(dscp).and_then(|code| self.codes.get(usize::from(code))) {
                Some(bucket) => Some(&**bucket),
                None => Some(&*self.other),
            },
            Per::Flow | Per::Source | Per::Destination => match ip.and_then(|ip| self.hash(ip)) {
                Some(hash) => self.find(hash, at),
                None => Some(&*self.other),
            },
        };
        let within = bucket.unwrap_or(&self.common).take(&self.rate, at, self.rate.cost(len_bytes));
        Judgement { within, excess_key: bucket.is_none() }
    }

    #[inline]
    fn hash(&self, ip: &[u8]) -> Option<u64> {
        let tuple = tuple(ip)?;
        Some(match self.per {
            Per::Source => self.keyed.hash_one((tuple.src, tuple.rest >> 56)),
            Per::Destination => self.keyed.hash_one((tuple.dst, tuple.rest >> 56)),
            _ => self.keyed.hash_one(tuple),
        })
    }

    /// The bucket of the key with this hash; `None` when there is no place for it.
    #[inline]
    pub(super) fn find(&self, hash: u64, at: u64) -> Option<&Bucket> {
        let set = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        let places = &self.sets.get(set)?.0;
        let key = hash | 1;
        if let Some(known) = places.iter().find(|place| place.key.load(Ordering::Relaxed) == key) {
            return Some(&known.bucket);
        }
        // A bucket that was never used is full as well.
        let place = places.iter().find(|place| {
            let had = place.key.load(Ordering::Relaxed);
            let swap = || place.key.compare_exchange(had, key, Ordering::Relaxed, Ordering::Relaxed);
            place.bucket.is_full(at) && swap().is_ok()
        })?;
        Some(&place.bucket)
    }
}
