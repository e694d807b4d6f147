//! Values into ranks: which of the intervals that the rules' bounds cut a field into.
//!
//! Rules with n different spans cut a field into at most 2n + 1 intervals within which no rule tells two values apart.
//! Numbered in order, an address becomes 16 bits, and the addresses of a rule become a short range of numbers, for
//! IPv4 and IPv6 alike. Everything behind works on ranks alone.
//!
//! An address is found by a trie whose root is indexed by 16 bits and whose nodes by as many bits as they have bounds
//! for. A slot with at most four bounds ends it: the rank of its lowest address, plus how many of the next four bounds
//! are below the key. That needs no branch, so keys of a burst overlap.

use super::key::{Address, Span};
use super::work::{BURST, Work};

const ROOT_BITS: u32 = 16;
const ROOT: usize = 1 << ROOT_BITS;
/// Bounds compared at the end.
const NEAR: usize = 4;
/// Marks a slot that names a node.
const NODE: u32 = 1 << 31;

struct Node {
    first: u32,
    mask: u32,
    shift: u32,
}

/// Ranks of addresses.
pub(super) struct Ranker<A> {
    root: Box<[u32; ROOT]>,
    nodes: Vec<Node>,
    slots: Vec<u32>,
    /// The last address of each interval but the highest, in order, and four that no address is above.
    bounds: Vec<A>,
}

impl<A: Address> Ranker<A> {
    /// For all of `spans`. `None` if no bound is among them: every address has rank 0.
    pub(super) fn new(spans: impl Iterator<Item = Span<A>>) -> Option<Ranker<A>> {
        let mut bounds = Vec::new();
        for span in spans {
            if span.first > A::MIN {
                bounds.push(A::narrow(span.first.wide() - 1));
            }
            if span.last < A::MAX {
                bounds.push(span.last);
            }
        }
        bounds.sort_unstable();
        bounds.dedup();
        if bounds.is_empty() {
            return None;
        }
        let root = vec![0u32; ROOT].into_boxed_slice().try_into().ok()?;
        let mut ranker = Ranker { root, nodes: Vec::new(), slots: Vec::new(), bounds };
        for top in 0..ROOT {
            let shift = A::BITS - ROOT_BITS;
            ranker.root[top] = ranker.slot((top as u128) << shift, shift);
        }
        ranker.bounds.extend([A::MAX; NEAR]);
        Some(ranker)
    }

    /// The slot of the block of 2^`bits` addresses from `base` on. Each level takes at least five bits.
    fn slot(&mut self, base: u128, bits: u32) -> u32 {
        let last = base | ((1u128 << bits) - 1);
        let from = self.bounds.partition_point(|b| b.wide() < base);
        // A bound that is the block's last address does not divide it.
        let count = self.bounds[from..].partition_point(|b| b.wide() < last);
        if count <= NEAR {
            return from as u32;
        }
        let stride = (4 * count).next_power_of_two().trailing_zeros().min(bits);
        let shift = bits - stride;
        let first = self.slots.len();
        self.slots.resize(first + (1 << stride), 0);
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { first: first as u32, mask: (1 << stride) - 1, shift });
        for i in 0..1usize << stride {
            self.slots[first + i] = self.slot(base + ((i as u128) << shift), shift);
        }
        NODE | node
    }

    /// The rank of `address`.
    pub(super) fn rank(&self, address: A) -> u16 {
        let mut slot = self.top(address);
        while slot & NODE != 0 {
            slot = self.next(slot, address);
        }
        self.near(slot, address)
    }

    /// The ranks of at most 64 addresses, all a step at a time.
    #[inline(always)]
    pub(super) fn ranks(&self, count: usize, address: impl Fn(usize) -> A, mut set: impl FnMut(usize, u16)) {
        let mut slots = [0; BURST];
        for (i, slot) in slots.iter_mut().enumerate().take(count) {
            *slot = self.top(address(i));
        }
        let mut work = Work::of(slots[..count.min(BURST)].iter().map(|slot| slot & NODE != 0));
        while !work.is_empty() {
            work.keep(|i| {
                slots[i] = self.next(slots[i], address(i));
                slots[i] & NODE != 0
            });
        }
        for (i, slot) in slots.iter().enumerate().take(count) {
            set(i, self.near(*slot, address(i)));
        }
    }

    #[inline(always)]
    fn top(&self, address: A) -> u32 {
        self.root[address.bits(A::BITS - ROOT_BITS, ROOT as u32 - 1)]
    }

    #[inline(always)]
    fn next(&self, slot: u32, address: A) -> u32 {
        let node = &self.nodes[(slot & !NODE) as usize];
        self.slots[node.first as usize + address.bits(node.shift, node.mask)]
    }

    #[inline(always)]
    fn near(&self, slot: u32, address: A) -> u16 {
        let near = &self.bounds[slot as usize..][..NEAR];
        near.iter().fold(slot, |rank, bound| rank + u32::from(address > *bound)) as u16
    }

    /// How many ranks there are.
    pub(super) fn count(&self) -> usize {
        self.bounds.len() - NEAR + 1
    }

    pub(super) fn len_bytes(&self) -> usize {
        size_of_val(&*self.root)
            + size_of_val(&*self.nodes)
            + size_of_val(&*self.slots)
            + size_of_val(&*self.bounds)
    }
}

/// Ranks of ports, one entry for each.
pub(super) struct PortRanker {
    ranks: Box<[u16; 1 << 16]>,
}

impl PortRanker {
    /// For all of `spans`. `None` if no bound is among them.
    pub(super) fn new(spans: impl Iterator<Item = Span<u16>>) -> Option<PortRanker> {
        let mut starts = vec![0u16; 1 << 16];
        for span in spans {
            if span.first > 0 {
                starts[usize::from(span.first)] = 1;
            }
            if span.last < u16::MAX {
                starts[usize::from(span.last) + 1] = 1;
            }
        }
        let mut rank = 0;
        for start in &mut starts {
            rank += *start;
            *start = rank;
        }
        if rank == 0 { None } else { Some(PortRanker { ranks: starts.into_boxed_slice().try_into().ok()? }) }
    }

    #[inline(always)]
    pub(super) fn rank(&self, port: u16) -> u16 {
        self.ranks[usize::from(port)]
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.rank(u16::MAX)) + 1
    }

    pub(super) fn len_bytes(&self) -> usize {
        size_of_val(&*self.ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<A: Address>(spans: &[Span<A>], keys: impl Iterator<Item = A>) {
        let mut bounds: Vec<A> = Vec::new();
        for span in spans {
            bounds.extend((span.first > A::MIN).then(|| A::narrow(span.first.wide() - 1)));
            bounds.extend((span.last < A::MAX).then_some(span.last));
        }
        bounds.sort();
        bounds.dedup();
        let ranker = Ranker::new(spans.iter().copied());
        assert_eq!(ranker.is_none(), bounds.is_empty());
        let Some(ranker) = ranker else { return };
        assert_eq!(ranker.count(), bounds.len() + 1);
        let near = bounds.iter().flat_map(|b| {
            let b = b.wide();
            [b.saturating_sub(1), b, b.saturating_add(1).min(A::MAX.wide())]
        });
        for key in keys.chain(near.map(A::narrow)).chain([A::MIN, A::MAX]) {
            let expect = bounds.iter().filter(|b| key > **b).count();
            assert_eq!(usize::from(ranker.rank(key)), expect, "{key:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn ranks_count_the_bounds_below(
            seeds in proptest::collection::vec((any::<u128>(), 0u32..=128, 0u32..4), 0..200),
            keys in proptest::collection::vec(any::<u128>(), 20),
        ) {
            // Crowded: a few /16, within them a few /24, and so on down.
            let crowd = |x: u128, by: u32| if by == 0 { x } else { x & 0x0301_0703_0101_0303_0101_0101_0303_0707 };
            let wide: Vec<_> = seeds.iter().map(|(x, len, by)| Span::prefix(crowd(*x, *by), *len)).collect();
            check(&wide, keys.iter().copied());
            let four: Vec<_> =
                seeds.iter().map(|(x, len, by)| Span::prefix((crowd(*x, *by) >> 96) as u32, len / 4)).collect();
            check(&four, keys.iter().map(|k| *k as u32));
        }
    }

    #[test]
    fn ports() {
        let ranker = PortRanker::new([Span::new(80, 80), Span::new(1024, 65535), Span::ALL].into_iter()).unwrap();
        let ranks: Vec<_> = [0, 79, 80, 81, 1023, 1024, 65535].map(|p| ranker.rank(p)).into();
        assert_eq!(ranks, [0, 0, 1, 2, 2, 3, 3]);
        assert_eq!(ranker.count(), 4);
        assert!(PortRanker::new([Span::ALL].into_iter()).is_none());
    }
}
