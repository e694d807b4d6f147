//! What was told of links, addresses and neighbours: a bounded map that knows which dump saw an entry last.

use std::collections::HashMap;
use std::hash::Hash;

use crate::change::Event;

/// A maximum, and whether it was reached.
#[derive(Debug)]
pub(super) struct Limit {
    pub max: usize,
    /// Something was refused, and since then no dump fitted in.
    full: bool,
    /// Something was refused since the last dump began.
    refused: bool,
}

impl Limit {
    pub fn new(max: usize) -> Limit {
        Limit { max, full: false, refused: false }
    }

    /// Refuses something; whether this is news.
    pub fn refuse(&mut self) -> bool {
        self.refused = true;
        !std::mem::replace(&mut self.full, true)
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    /// A dump begins.
    pub fn begin(&mut self) {
        self.refused = false;
    }

    /// A dump is over and what it did not see is removed, which leaves `len`. Whether to dump again, as what was refused
    /// has room now.
    pub fn finish(&mut self, len: usize) -> bool {
        self.full = self.refused;
        self.refused && len < self.max
    }

    /// Whether so much was removed that it is worth to ask for what was refused.
    pub fn has_room(&self, len: usize) -> bool {
        self.full && len <= self.max - self.max / 8 && len < self.max
    }
}

/// What became of an entry.
pub(super) enum Put {
    Told(Event),
    Same,
    Refused,
}

pub(super) struct Mirror<K, V> {
    /// With the generation, the number of the dump that it was last seen in.
    known: HashMap<K, (V, u32)>,
    pub limit: Limit,
}

impl<K: Eq + Hash, V: PartialEq> Mirror<K, V> {
    pub fn new(max: usize) -> Mirror<K, V> {
        Mirror { known: HashMap::new(), limit: Limit::new(max) }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.known.values().map(|(value, _)| value)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key).map(|(value, _)| value)
    }

    pub fn put(&mut self, key: K, value: V, generation: u32) -> Put {
        if let Some(known) = self.known.get_mut(&key) {
            known.1 = generation;
            if known.0 == value {
                return Put::Same;
            }
            known.0 = value;
            return Put::Told(Event::Changed);
        }
        if self.known.len() >= self.limit.max {
            return Put::Refused;
        }
        self.known.insert(key, (value, generation));
        Put::Told(Event::Added)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.known.remove(key).map(|(value, _)| value)
    }

    /// Removes what the dump of this generation did not see. Whether to dump again.
    pub fn sweep(&mut self, generation: u32, mut gone: impl FnMut(V)) -> bool {
        self.known.extract_if(|_, (_, seen)| *seen != generation).for_each(|(_, (value, _))| gone(value));
        self.limit.finish(self.known.len())
    }
}
