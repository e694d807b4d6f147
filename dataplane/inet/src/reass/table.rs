//! The memory of a reassembler, allocated once: datagrams under way, their fragments, and who sent them.
//!
//! ```text
//!   buckets ──▶ entries (a datagram each) ──▶ nodes (a fragment each, in order of offset) ──▶ mbufs
//!                  │  │
//!                  │  └──── shares: those of each source, oldest first
//!                  └─────── ages: all of an IP version, oldest first
//! ```

use nke_mbuf::Mbuf;

use super::list::{Link, Linked, List, NONE};
use super::shares::Shares;
use super::{Config, FragmentKey};

/// A datagram whose last fragment has not come.
const NO_END: u32 = u32::MAX;

pub(super) struct Entry {
    key: FragmentKey,
    born_ms: u64,
    bucket: u32,
    bin: u32,
    /// In the same bucket, or in the list of free entries.
    next: u32,
    age: Link,
    by_source: Link,
    first: u32,
    last: u32,
    have: u32,
    end: u32,
    frames: u16,
    fragments: u16,
    ecn: u8,
    /// False for a tombstone: fragments of this datagram are dropped until it times out.
    open: bool,
}

struct Node {
    mbuf: Option<Mbuf>,
    start: u16,
    len: u16,
    /// The fragment behind it, or the next free node.
    next: u32,
}

/// Where a fragment belongs among those that are there.
pub(super) enum Place {
    /// Behind this node; `NONE` is the front.
    Behind(u32),
    /// It covers the same bytes as this node.
    Same(u32),
    Overlap,
}

pub(super) struct Table {
    entries: Box<[Entry]>,
    nodes: Box<[Node]>,
    buckets: Box<[u32]>,
    shares: Shares,
    /// Oldest first; IPv4, IPv6.
    ages: [List; 2],
    timeout_ms: [u64; 2],
    free_entry: u32,
    free_node: u32,
    frames: u32,
    fragments: u32,
    datagrams: u32,
}

struct ByAge<'a>(&'a mut [Entry]);
impl Linked for ByAge<'_> {
    #[inline]
    fn link(&mut self, at: u32) -> &mut Link {
        &mut self.0[at as usize].age
    }
}

struct BySource<'a>(&'a mut [Entry]);
impl Linked for BySource<'_> {
    #[inline]
    fn link(&mut self, at: u32) -> &mut Link {
        &mut self.0[at as usize].by_source
    }
}

impl Table {
    /// `config` is within its bounds.
    pub(super) fn new(config: &Config) -> Table {
        let (entries, nodes) = (config.datagrams_max, config.frames_max);
        let next = |at: u32, count: u32| if at + 1 < count { at + 1 } else { NONE };
        let entry = |at| Entry {
            key: FragmentKey::v4(0.into(), 0.into(), 0, Default::default()),
            born_ms: 0,
            bucket: 0,
            bin: 0,
            next: next(at, entries),
            age: Link::UNLINKED,
            by_source: Link::UNLINKED,
            first: NONE,
            last: NONE,
            have: 0,
            end: NO_END,
            frames: 0,
            fragments: 0,
            ecn: 0,
            open: false,
        };
        Table {
            entries: (0..entries).map(entry).collect(),
            nodes: (0..nodes)
                .map(|at| Node { mbuf: None, start: 0, len: 0, next: next(at, nodes) })
                .collect(),
            buckets: vec![NONE; (entries as usize * 2).next_power_of_two()].into(),
            shares: Shares::new(entries, entries + nodes, config.per_source_frames / 2),
            ages: [List::EMPTY; 2],
            timeout_ms: [config.timeout_v4_ms, config.timeout_v6_ms],
            free_entry: 0,
            free_node: 0,
            frames: 0,
            fragments: 0,
            datagrams: 0,
        }
    }

    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Frames held.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// Fragments held.
    pub(super) fn fragments(&self) -> u32 {
        self.fragments
    }

    /// Entries in use, tombstones among them.
    pub(super) fn datagrams(&self) -> u32 {
        self.datagrams
    }

    pub(super) fn is_full(&self) -> bool {
        self.free_entry == NONE
    }

    pub(super) fn bin_of(&self, at: u32) -> u32 {
        self.entries[at as usize].bin
    }

    pub(super) fn is_open(&self, at: u32) -> bool {
        self.entries[at as usize].open
    }

    /// Fragments held of a datagram, and their frames.
    pub(super) fn held(&self, at: u32) -> (u32, u32) {
        let entry = &self.entries[at as usize];
        (entry.fragments.into(), entry.frames.into())
    }

    pub(super) fn is_over(&self, at: u32, now_ms: u64) -> bool {
        let entry = &self.entries[at as usize];
        now_ms.saturating_sub(entry.born_ms) >= self.timeout_ms[usize::from(entry.key.is_v6())]
    }

    #[inline]
    pub(super) fn find(&self, key: &FragmentKey, bucket: usize) -> Option<u32> {
        let mut at = self.buckets[bucket];
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.key == *key {
                return Some(at);
            }
            at = entry.next;
        }
        None
    }

    /// A new datagram without fragments. The table is not full.
    pub(super) fn insert(&mut self, key: &FragmentKey, bucket: usize, bin: u32, now_ms: u64) -> Option<u32> {
        let at = self.free_entry;
        let entry = self.entries.get_mut(at as usize)?;
        self.free_entry = entry.next;
        *entry = Entry {
            key: *key,
            born_ms: now_ms,
            bucket: bucket as u32,
            bin,
            next: self.buckets[bucket],
            age: Link::UNLINKED,
            by_source: Link::UNLINKED,
            first: NONE,
            last: NONE,
            have: 0,
            end: NO_END,
            frames: 0,
            fragments: 0,
            ecn: 0,
            open: true,
        };
        self.buckets[bucket] = at;
        self.ages[usize::from(key.is_v6())].push_back(&mut ByAge(&mut self.entries), at);
        self.shares.datagrams(bin).push_back(&mut BySource(&mut self.entries), at);
        self.datagrams += 1;
        Some(at)
    }

    /// Where `len` bytes from `start` belong. In order is the common case, and is found without a walk.
    #[inline]
    pub(super) fn place(&self, at: u32, start: usize, len: usize) -> Place {
        let entry = &self.entries[at as usize];
        match self.nodes.get(entry.last as usize) {
            None => return Place::Behind(NONE),
            Some(last) if start >= last.end() => return Place::Behind(entry.last),
            Some(_) => {}
        }
        let (mut behind, mut next) = (NONE, entry.first);
        while next != NONE {
            let node = &self.nodes[next as usize];
            if start + len <= usize::from(node.start) {
                break;
            }
            if start < node.end() {
                let same = start == usize::from(node.start) && len == usize::from(node.len);
                return if same { Place::Same(next) } else { Place::Overlap };
            }
            behind = next;
            next = node.next;
        }
        Place::Behind(behind)
    }

    /// Whether a fragment agrees with what is known of the datagram's end. `behind` is where it belongs.
    pub(super) fn agrees_on_end(&self, at: u32, behind: u32, more: bool) -> bool {
        let entry = &self.entries[at as usize];
        match (entry.end != NO_END, more) {
            // The last fragment is there: nothing belongs behind it, and no second one anywhere.
            (true, true) => behind != entry.last,
            (true, false) => false,
            (false, true) => true,
            (false, false) => behind == entry.last,
        }
    }

    /// Whether the datagram is known to end at `end`.
    pub(super) fn ends_at(&self, at: u32, end: usize) -> bool {
        self.entries[at as usize].end as usize == end
    }

    /// The fragment of a node, and the length of its payload.
    pub(super) fn node(&self, at: u32) -> Option<(&Mbuf, usize)> {
        let node = &self.nodes[at as usize];
        Some((node.mbuf.as_ref()?, usize::from(node.len)))
    }

    /// Adds a fragment behind the node `behind`; `end` is that of the datagram if this is its last fragment. True when
    /// nothing is missing any more. Gives the fragment back if there is no node, which room for its frames excludes.
    #[inline]
    pub(super) fn add(&mut self, at: u32, behind: u32, new: Added) -> Result<bool, Mbuf> {
        let node_at = self.free_node;
        let Some(node) = self.nodes.get_mut(node_at as usize) else { return Err(new.mbuf) };
        self.free_node = node.next;
        node.mbuf = Some(new.mbuf);
        (node.start, node.len) = (new.start as u16, new.len as u16);
        let entry = &mut self.entries[at as usize];
        let next = match behind {
            NONE => std::mem::replace(&mut entry.first, node_at),
            behind => std::mem::replace(&mut self.nodes[behind as usize].next, node_at),
        };
        self.nodes[node_at as usize].next = next;
        if next == NONE {
            entry.last = node_at;
        }
        if new.is_last {
            entry.end = (new.start + new.len) as u32;
        }
        entry.have += new.len as u32;
        entry.frames += new.frames as u16;
        entry.fragments += 1;
        entry.ecn |= 1 << new.ecn;
        let (complete, bin) = (entry.have == entry.end, entry.bin);
        self.frames += new.frames;
        self.fragments += 1;
        self.shares.charge(bin, new.frames);
        Ok(complete)
    }

    /// Takes the fragments of a datagram out, in order. [`Table::release`] or [`Table::entomb`] is to follow.
    #[inline]
    pub(super) fn drain(&mut self, at: u32) -> impl Iterator<Item = Mbuf> + '_ {
        let (nodes, mut next) = (&mut self.nodes, self.entries[at as usize].first);
        std::iter::from_fn(move || {
            loop {
                let node = nodes.get_mut(next as usize)?;
                next = node.next;
                let mbuf = node.mbuf.take(); // the first one may be out already: see `take_first`
                if mbuf.is_some() {
                    return mbuf;
                }
            }
        })
    }

    /// Bytes of payload there are, and the ECN fields seen, a bit each.
    pub(super) fn summary(&self, at: u32) -> (usize, u8) {
        let entry = &self.entries[at as usize];
        (entry.have as usize, entry.ecn)
    }

    /// Forgets a datagram whose fragments were taken out.
    #[inline]
    pub(super) fn release(&mut self, at: u32) {
        let entry = &self.entries[at as usize];
        let (bin, units) = (entry.bin, if entry.open { u32::from(entry.frames) } else { 1 });
        self.release_nodes(at);
        self.shares.uncharge(bin, units);
        self.unlink(at);
    }

    /// Remembers to drop the rest of a datagram whose fragments were taken out.
    pub(super) fn entomb(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        entry.open = false;
        let (bin, frames) = (entry.bin, u32::from(entry.frames));
        self.release_nodes(at);
        self.shares.uncharge(bin, frames);
        self.shares.charge(bin, 1);
    }

    /// Takes the fragment at offset 0 out of a datagram that is about to be removed.
    pub(super) fn take_first(&mut self, at: u32) -> Option<Mbuf> {
        let node = self.nodes.get_mut(self.entries[at as usize].first as usize)?;
        if node.start == 0 { node.mbuf.take() } else { None }
    }

    /// The datagram that has been here longest and is past its time, if any is.
    pub(super) fn expired(&self, now_ms: u64) -> Option<u32> {
        self.ages.iter().filter_map(List::oldest).find(|at| self.is_over(*at, now_ms))
    }

    /// Whom to evict: the oldest of the source with most, if that one uses more than half its share, else the oldest of
    /// all. A flood from ever new sources then evicts itself, since its datagrams never complete and grow old, and does
    /// not make a sender of large datagrams the largest user.
    pub(super) fn victim(&self) -> Option<u32> {
        let born = |at: &u32| self.entries[*at as usize].born_ms;
        let of_heaviest = self.shares.heaviest().and_then(|bin| self.shares.oldest(bin));
        of_heaviest.or_else(|| self.ages.iter().filter_map(List::oldest).min_by_key(born))
    }

    #[inline]
    fn release_nodes(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        self.frames -= u32::from(std::mem::take(&mut entry.frames));
        self.fragments -= u32::from(std::mem::take(&mut entry.fragments));
        let first = std::mem::replace(&mut entry.first, NONE);
        let last = std::mem::replace(&mut entry.last, NONE);
        if let Some(last) = self.nodes.get_mut(last as usize) {
            debug_assert!(last.mbuf.is_none(), "drained before");
            last.next = std::mem::replace(&mut self.free_node, first);
        }
    }

    fn unlink(&mut self, at: u32) {
        let entry = &self.entries[at as usize];
        let (bucket, bin, v6) = (entry.bucket as usize, entry.bin, usize::from(entry.key.is_v6()));
        let next = entry.next;
        if self.buckets[bucket] == at {
            self.buckets[bucket] = next;
        } else {
            let mut before = self.buckets[bucket];
            while before != NONE && self.entries[before as usize].next != at {
                before = self.entries[before as usize].next;
            }
            if before != NONE {
                self.entries[before as usize].next = next;
            }
        }
        self.ages[v6].remove(&mut ByAge(&mut self.entries), at);
        self.shares.datagrams(bin).remove(&mut BySource(&mut self.entries), at);
        self.entries[at as usize].next = std::mem::replace(&mut self.free_entry, at);
        self.datagrams -= 1;
    }
}

/// A fragment to be held.
pub(super) struct Added {
    pub(super) mbuf: Mbuf,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) frames: u32,
    pub(super) ecn: u8,
    pub(super) is_last: bool,
}

impl Node {
    fn end(&self) -> usize {
        usize::from(self.start) + usize::from(self.len)
    }
}
