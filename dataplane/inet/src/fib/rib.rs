//! The part of a table that only the control thread has: the routes, and how a change gets into the trie.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::prefix::{Address, Prefix, mask};
use super::trie::{Entry, NODE_BITS, NODE_LEN, ROOT_BITS, Trie};
use super::way::Way;

/// The trie has no node left for a route; the table is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// Nodes there are.
    pub nodes: u32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the routing table is full: all its {} blocks for longer prefixes are in use", self.nodes)
    }
}

impl std::error::Error for Full {}

/// Nodes unhooked from the trie, which lookups under way may still be in.
#[derive(Debug, Default)]
#[must_use = "hand it to `Fib::reclaim` after a grace period; else its nodes are lost"]
pub struct Retired(Vec<u32>);

impl Retired {
    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A table as the control thread sees it.
pub struct Fib<A> {
    trie: Arc<Trie>,
    /// By length of the prefix.
    routes: Vec<HashMap<A, Way>>,
    free: Vec<u32>,
    retired: Vec<u32>,
    nodes: u32,
    len: usize,
    _address: PhantomData<A>,
}

/// Which entries a change concerns, and what they become.
struct Change {
    word: u128,
    len: u8,
    to: Entry,
    /// Entries answering for prefixes of these ranks are overwritten.
    ranks: std::ops::RangeInclusive<u32>,
}

impl<A: Address> Fib<A> {
    /// Without routes, with room for `nodes` nodes: of IPv4 a route longer than /24 needs one unless another one in its
    /// /24 has it already; of IPv6 one for every 8 bits beyond 24 that no other route shares.
    ///
    /// # Panics
    /// When `nodes` is 0 or above 2^23 - 1.
    pub fn new(nodes: u32) -> Fib<A> {
        Fib {
            trie: Arc::new(Trie::new(nodes)),
            routes: (0..=A::BITS).map(|_| HashMap::new()).collect(),
            free: (0..nodes).rev().collect(),
            retired: Vec::new(),
            nodes,
            len: 0,
            _address: PhantomData,
        }
    }

    /// What workers look up in.
    pub fn trie(&self) -> &Arc<Trie> {
        &self.trie
    }

    /// Routes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nodes that are free now.
    pub fn nodes_free(&self) -> usize {
        self.free.len()
    }

    /// The route of exactly this prefix.
    pub fn get(&self, prefix: Prefix<A>) -> Option<Way> {
        self.routes[usize::from(prefix.len())].get(&prefix.address()).copied()
    }

    /// All routes, ordered by address, shorter ones first.
    pub fn routes(&self) -> Vec<(Prefix<A>, Way)> {
        let of = |(len, routes): (usize, &HashMap<A, Way>)| {
            routes.iter().map(|(a, way)| (Prefix::of(*a, len as u8), *way)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.routes.iter().enumerate().flat_map(of).collect();
        all.sort_unstable_by_key(|(prefix, _)| *prefix);
        all
    }

    /// Adds a route, or replaces the one of the same prefix; what it was.
    pub fn insert(&mut self, prefix: Prefix<A>, way: Way) -> Result<Option<Way>, Full> {
        let old = self.get(prefix);
        if old == Some(way) {
            return Ok(old);
        }
        let (word, len) = (prefix.address().to_word(), prefix.len());
        if old.is_none() && self.nodes_missing(word, len) > self.free.len() {
            return Err(Full { nodes: self.nodes });
        }
        let rank = u32::from(len) + 1;
        self.apply(&Change { word, len, to: Entry::answer(way, len), ranks: 0..=rank });
        self.routes[usize::from(len)].insert(prefix.address(), way);
        self.len += usize::from(old.is_none());
        Ok(old)
    }

    /// Removes a route; what it was. Its addresses fall back to the next shorter prefix.
    pub fn remove(&mut self, prefix: Prefix<A>) -> Option<Way> {
        let (word, len) = (prefix.address().to_word(), prefix.len());
        let old = self.routes[usize::from(len)].remove(&prefix.address())?;
        self.len -= 1;
        let cover = (0..len).rev().find_map(|shorter| {
            let routes = &self.routes[usize::from(shorter)];
            let way = if routes.is_empty() { None } else { routes.get(&A::from_word(word & mask(shorter))) };
            way.map(|way| Entry::answer(*way, shorter))
        });
        let rank = u32::from(len) + 1;
        self.apply(&Change { word, len, to: cover.unwrap_or_default(), ranks: rank..=rank });
        self.collapse(word, len);
        Some(old)
    }

    /// What was unhooked since the last call, to be given to [`Fib::reclaim`] after a grace period.
    pub fn take_retired(&mut self) -> Retired {
        Retired(std::mem::take(&mut self.retired))
    }

    /// Makes retired nodes free again. Every worker has passed a quiescent state since they were taken.
    pub fn reclaim(&mut self, retired: Retired) {
        self.free.extend(retired.0);
    }

    /// Where `word` is in the table whose entries stand for `end` bits.
    fn index(word: u128, begin: u8, end: u8) -> usize {
        ((word << begin) >> (128 - (end - begin))) as usize
    }

    /// Nodes that a route to this prefix needs beyond those there are.
    fn nodes_missing(&self, word: u128, len: u8) -> usize {
        let (mut node, mut begin, mut end) = (None, 0, ROOT_BITS);
        while len > end {
            match self.trie.get(node, Self::index(word, begin, end)).to_node() {
                Some(next) => node = Some(next),
                None => return usize::from((len - end).div_ceil(NODE_BITS)),
            }
            (begin, end) = (end, end + NODE_BITS);
        }
        0
    }

    fn apply(&mut self, change: &Change) {
        let (mut node, mut begin, mut end) = (None, 0, ROOT_BITS);
        while change.len > end {
            let index = Self::index(change.word, begin, end);
            let entry = self.trie.get(node, index);
            let next = match entry.to_node() {
                Some(next) => next,
                None => {
                    // There is one: it was looked for before.
                    let Some(next) = self.free.pop() else { return };
                    for i in 0..NODE_LEN {
                        self.trie.set(Some(next), i, entry);
                    }
                    self.trie.set(node, index, Entry::node(next));
                    next
                }
            };
            (node, begin, end) = (Some(next), end, end + NODE_BITS);
        }
        let first = Self::index(change.word, begin, end);
        for index in first..first + (1 << (end - change.len)) {
            self.overlay(node, index, change);
        }
    }

    /// Changes an entry and everything below it.
    fn overlay(&self, node: Option<u32>, index: usize, change: &Change) {
        let entry = self.trie.get(node, index);
        if let Some(below) = entry.to_node() {
            (0..NODE_LEN).for_each(|i| self.overlay(Some(below), i, change));
        } else if change.ranks.contains(&entry.rank()) {
            self.trie.set(node, index, change.to);
        }
    }

    /// Unhooks nodes on the way to a removed prefix that have one answer only by now, from the lowest up.
    fn collapse(&mut self, word: u128, len: u8) {
        let mut path: Vec<(Option<u32>, usize, u32, u8)> = Vec::new();
        let (mut node, mut begin, mut end) = (None, 0, ROOT_BITS);
        while len > end {
            let index = Self::index(word, begin, end);
            let Some(next) = self.trie.get(node, index).to_node() else { break };
            path.push((node, index, next, end));
            (node, begin, end) = (Some(next), end, end + NODE_BITS);
        }
        while let Some((parent, index, node, end)) = path.pop() {
            let first = self.trie.get(Some(node), 0);
            // An answer for a prefix that ends inside the node stays there.
            let inside = first.to_node().is_some() || first.rank() > u32::from(end) + 1;
            if inside || (1..NODE_LEN).any(|i| self.trie.get(Some(node), i) != first) {
                return;
            }
            self.trie.set(parent, index, first);
            self.retired.push(node);
        }
    }
}
