//! The part of a table that workers read.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::memory::{Words, prefetch};
use super::way::{Found, WAY_BITS, Way};

/// Bits of the root's index.
pub(super) const ROOT_BITS: u8 = 24;
/// Bits of a node's index.
pub(super) const NODE_BITS: u8 = 8;
pub(super) const NODE_LEN: usize = 1 << NODE_BITS;

/// An entry: whether it leads to a node; how long the prefix is that it answers for; the node's number, or the way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Entry(pub(super) u32);

const TO_NODE: u32 = 1 << 31;
const PAYLOAD: u32 = (1 << WAY_BITS) - 1;

impl Entry {
    /// Nodes are numbered below this.
    pub(super) const NODES_MAX: u32 = PAYLOAD;

    pub(super) fn node(number: u32) -> Entry {
        Entry(TO_NODE | number)
    }

    /// The answer of a prefix of `len` bits. No route at all is zero.
    pub(super) fn answer(way: Way, len: u8) -> Entry {
        Entry((u32::from(len) + 1) << WAY_BITS | way.to_bits())
    }

    #[inline(always)]
    pub(super) fn to_node(self) -> Option<u32> {
        (self.0 & TO_NODE != 0).then_some(self.0 & PAYLOAD)
    }

    #[inline(always)]
    pub(super) fn way(self) -> Way {
        Way::from_bits(self.0)
    }

    /// Length of the prefix it answers for, plus one; 0 for no route.
    pub(super) fn rank(self) -> u32 {
        self.0 >> WAY_BITS & 0xff
    }
}

const _: () = assert!(WAY_BITS == 23, "1 bit for nodes, 8 for 0 to 129");

/// A table as workers see it.
pub struct Trie {
    root: Words,
    nodes: Words,
    twin: OnceLock<Box<dyn Twin>>,
}

/// Memory elsewhere, all zero at first, in which every entry stands as it does here: for programs in the kernel. An entry
/// with bit 31 set leads to the node with the number in its low 23 bits; of any other the low 23 bits are
/// [`Way::to_bits`].
pub trait Twin: Send + Sync {
    /// 2^24 entries.
    fn root(&self) -> &[AtomicU32];
    /// 256 entries for each node there is room for.
    fn nodes(&self) -> &[AtomicU32];
}

/// Bits 31 to 8 of an IPv4 address.
#[inline(always)]
fn root_of(word: u32) -> usize {
    (word >> 8) as usize
}

impl Trie {
    /// Without routes, with room for `nodes` nodes.
    pub(super) fn new(nodes: u32) -> Trie {
        assert!((1..=Entry::NODES_MAX).contains(&nodes), "a trie has 1 to 2^23 - 1 nodes");
        let nodes = Words::zeroed(nodes as usize * NODE_LEN);
        Trie { root: Words::zeroed(1 << ROOT_BITS), nodes, twin: OnceLock::new() }
    }

    /// Has every entry that is set from now on stand in `twin`, too. Before the first route, and once.
    ///
    /// # Errors
    /// The twin, if there is one already, or it is not as large as this.
    pub fn join(&self, twin: Box<dyn Twin>) -> Result<(), Box<dyn Twin>> {
        if (twin.root().len(), twin.nodes().len()) != (self.root.len(), self.nodes.len()) {
            return Err(twin);
        }
        self.twin.set(twin)
    }

    /// Entry `index` of the root, or of a node.
    #[inline(always)]
    pub(super) fn get(&self, node: Option<u32>, index: usize) -> Entry {
        Entry(match node {
            None => self.root[index].load(Acquire),
            Some(node) => self.nodes[node as usize * NODE_LEN + index].load(Acquire),
        })
    }

    pub(super) fn set(&self, node: Option<u32>, index: usize, entry: Entry) {
        let at = node.map(|node| node as usize * NODE_LEN + index);
        match at {
            None => self.root[index].store(entry.0, Release),
            Some(at) => self.nodes[at].store(entry.0, Release),
        }
        if let Some(twin) = self.twin.get() {
            match at {
                None => twin.root()[index].store(entry.0, Release),
                Some(at) => twin.nodes()[at].store(entry.0, Release),
            }
        }
    }

    /// What is found for an IPv4 address.
    pub fn lookup4(&self, address: u32) -> Found {
        self.lookups4()(address)
    }

    /// Lookups of IPv4 addresses, one after the other: as [`Trie::lookup4`], with what they have in common done once.
    #[inline(always)]
    pub fn lookups4(&self) -> impl Fn(u32) -> Found {
        let (root, nodes) = (&*self.root, &*self.nodes);
        |address| {
            let entry = Entry(root[root_of(address)].load(Acquire));
            Found(match entry.to_node() {
                None => entry.0,
                Some(node) => nodes[node as usize * NODE_LEN + (address & 0xff) as usize].load(Acquire),
            })
        }
    }

    /// Asks the processor to fetch what a lookup of an IPv4 address reads first: when all of a burst's are asked for before
    /// the first is looked up, their misses overlap. A hint.
    #[inline(always)]
    pub fn prefetches4(&self) -> impl Fn(u32) {
        let root = &*self.root;
        |address| prefetch(root, root_of(address))
    }

    /// The way of an IPv6 address, or of any that is written from the left of the word.
    #[inline]
    pub fn lookup6(&self, address: u128) -> Way {
        let mut entry = Entry(self.root[(address >> (128 - ROOT_BITS)) as usize].load(Acquire));
        let mut rest = address << ROOT_BITS;
        while let Some(node) = entry.to_node() {
            let index = (rest >> (128 - NODE_BITS)) as usize;
            entry = Entry(self.nodes[node as usize * NODE_LEN + index].load(Acquire));
            rest <<= NODE_BITS;
        }
        entry.way()
    }

    /// The ways of several IPv6 addresses, level by level for all of them, so that misses overlap.
    #[inline]
    pub fn lookup6_burst(&self, addresses: &[u128], answers: &mut [Found]) {
        const STEP: usize = 16;
        for (addresses, answers) in addresses.chunks(STEP).zip(answers.chunks_mut(STEP)) {
            let mut found = [Entry(0); STEP];
            let found = &mut found[..addresses.len()];
            for (entry, address) in found.iter_mut().zip(addresses) {
                *entry = Entry(self.root[(address >> (128 - ROOT_BITS)) as usize].load(Acquire));
            }
            let mut shift = 128 - ROOT_BITS - NODE_BITS;
            while found.iter().fold(0, |any, entry| any | entry.0) & TO_NODE != 0 {
                for (entry, address) in found.iter_mut().zip(addresses) {
                    if let Some(node) = entry.to_node() {
                        let index = (address >> shift) as usize & (NODE_LEN - 1);
                        *entry = Entry(self.nodes[node as usize * NODE_LEN + index].load(Acquire));
                    }
                }
                shift = shift.wrapping_sub(NODE_BITS) & 127;
            }
            for (answer, entry) in answers.iter_mut().zip(found.iter()) {
                *answer = Found(entry.0);
            }
        }
    }
}
