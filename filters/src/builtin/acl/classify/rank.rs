//! Values into ranks: which of the intervals that the rules' bounds cut a field into.
//!
//! Rules with n different spans cut a field into at most 2n + 1 intervals within which no rule tells two values apart.
//! Numbered in order, an address becomes 16 bits, and the addresses of a rule become a short range of numbers, for
//! IPv4 and IPv6 alike. Everything behind works on ranks alone.
//!
//! An address is found by a trie over what lies between the lowest and the highest bound. Each node is indexed by as
//! many bits as it has bounds for. A slot with at most four bounds ends the walk: the rank of its lowest address, plus
//! how many of the next four bounds are below the key. That needs no branch.
//!
//! Where all bounds of a block lie close together, as those of hosts in an IPv6 network do, a node *skips*: it moves a key
//! that is below the first bound or above the last to these, and goes on in the small block that holds both.

use super::key::{Address, Span};
use super::work::{BURST, Work};

/// Bounds compared at the end.
const NEAR: usize = 4;
/// Least bits a node skips: fewer are not worth it.
const SKIP_MIN: u32 = 16;
/// Most bits a node is indexed by.
const STRIDE_MAX: u32 = 16;

/// Bounds from which on the first node is as large as it gets: addresses cluster, and most of it is never touched.
const MANY: usize = 64;

/// The rank of the lowest address of a block with few bounds, or a node that divides it further.
///
/// ```text
///   node: 1 | skips 1 | 7 | shift 7 | mask 16 | first slot 32
///   rank: 0                                   | rank 32
/// ```
#[derive(Clone, Copy)]
struct Slot(u64);

impl Slot {
    const fn node(first: usize, shift: u32, stride: u32, skips: bool) -> Slot {
        let mask = (1 << stride) - 1;
        Slot(1 << 63 | (skips as u64) << 62 | (shift as u64) << 48 | mask << 32 | first as u64)
    }

    #[inline(always)]
    const fn skips(self) -> bool {
        self.0 >> 62 & 1 == 1
    }

    #[inline(always)]
    const fn is_node(self) -> bool {
        self.0 >> 63 == 1
    }

    #[inline(always)]
    const fn first(self) -> usize {
        self.0 as u32 as usize
    }

    #[inline(always)]
    fn piece<A: Address>(self, at: A) -> usize {
        self.first() + at.bits((self.0 >> 48) as u32, (self.0 >> 32) as u32 & 0xffff)
    }
}

/// Ranks of addresses.
pub(super) struct Ranker<A> {
    /// The lowest bound; addresses count from here, those below as 0.
    base: A,
    /// One above the highest bound; those above count as this.
    top: A,
    root: Slot,
    slots: Vec<Slot>,
    /// The last address of each interval but the highest, in order; then four that nothing is above.
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
        let (base, highest) = (*bounds.first()?, *bounds.last()?);
        let top = highest.wide() - base.wide() + 1;
        bounds.iter_mut().for_each(|bound| *bound = A::narrow(bound.wide() - base.wide()));
        let mut ranker = Ranker { base, top: A::narrow(top), root: Slot(0), slots: Vec::new(), bounds };
        ranker.root = ranker.slot(0, u128::BITS - top.leading_zeros());
        ranker.bounds.extend([A::MAX; NEAR]);
        Some(ranker)
    }

    /// The slot of the block of 2^`bits` addresses from `block` on. Each level takes at least five bits.
    fn slot(&mut self, block: u128, bits: u32) -> Slot {
        let last = block | 1u128.checked_shl(bits).map_or(u128::MAX, |size| size - 1);
        let from = self.bounds.partition_point(|b| b.wide() < block);
        // A bound that is the block's last address does not divide it.
        let count = self.bounds[from..].partition_point(|b| b.wide() < last);
        if count <= NEAR {
            return Slot(from as u64);
        }
        let (first_bound, last_bound) = (self.bounds[from].wide(), self.bounds[from + count - 1].wide());
        let near_bits = u128::BITS - (first_bound ^ (last_bound + 1)).leading_zeros();
        let skips = near_bits + SKIP_MIN <= bits;
        let (block, bits) =
            if skips { (first_bound >> near_bits << near_bits, near_bits) } else { (block, bits) };
        let stride = match self.slots.len() {
            0 if count >= MANY => STRIDE_MAX,
            _ => (8 * count).next_power_of_two().trailing_zeros().min(STRIDE_MAX),
        };
        let stride = stride.min(bits);
        let shift = bits - stride;
        if skips {
            // Read by `next`: the first and the last bound.
            self.slots.push(Slot((from as u64) << 32 | (from + count - 1) as u64));
        }
        let first = self.slots.len();
        self.slots.resize(first + (1 << stride), Slot(0));
        for i in 0..1usize << stride {
            self.slots[first + i] = self.slot(block + ((i as u128) << shift), shift);
        }
        Slot::node(first, shift, stride, skips)
    }

    /// The rank of `address`.
    pub(super) fn rank(&self, address: A) -> u16 {
        let mut at = self.at(address);
        let mut slot = self.root;
        while slot.is_node() {
            slot = self.next(slot, &mut at);
        }
        self.near(slot, at)
    }

    /// Sets the rank of each of at most 64 addresses, all a step at a time.
    #[inline(always)]
    pub(super) fn ranks(&self, addresses: impl Iterator<Item = A>, mut set: impl FnMut(usize, u16)) {
        let mut at = [A::MIN; BURST];
        let mut count = 0;
        for (at, address) in at.iter_mut().zip(addresses) {
            *at = self.at(address);
            count += 1;
        }
        let mut slots = [self.root; BURST];
        if self.root.is_node() {
            let mut work = Work::first(count, |i| {
                slots[i] = self.next(self.root, &mut at[i]);
                slots[i].is_node()
            });
            while !work.is_empty() {
                work.keep(|i| {
                    slots[i] = self.next(slots[i], &mut at[i]);
                    slots[i].is_node()
                });
            }
        }
        for i in 0..count.min(BURST) {
            set(i, self.near(slots[i], at[i]));
        }
    }

    #[inline(always)]
    fn at(&self, address: A) -> A {
        address.above(self.base).min(self.top)
    }

    #[inline(always)]
    fn next(&self, slot: Slot, at: &mut A) -> Slot {
        if slot.skips() {
            let Slot(ends) = self.slots[slot.first() - 1];
            let (first, last) = (self.bounds[(ends >> 32) as usize], self.bounds[ends as u32 as usize]);
            *at = if *at > last { last.after() } else { (*at).max(first) };
        }
        self.slots[slot.piece(*at)]
    }

    #[inline(always)]
    fn near(&self, slot: Slot, at: A) -> u16 {
        let rank = slot.0 as u32;
        let window = rank as usize..rank as usize + NEAR;
        let Some(near) = self.bounds.get(window).and_then(|near| near.first_chunk::<NEAR>()) else {
            return 0;
        };
        near.iter().fold(rank, |rank, bound| rank + u32::from(at > *bound)) as u16
    }

    /// How many ranks there are.
    pub(super) fn count(&self) -> usize {
        self.bounds.len() - NEAR + 1
    }

    pub(super) fn len_bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.bounds)
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
            // A few hosts in each of some networks.
            let hosts: Vec<_> = seeds.iter().map(|(x, len, by)| {
                Span::prefix(crowd(*x >> 64 << 64, 1) | u128::from(*len >> 5) << (by * 5) | *x & 3, 128)
            }).collect();
            check(&hosts, keys.iter().map(|k| k & (u128::MAX << 64 | 0xff)));
        }
    }

    #[test]
    fn ports() {
        let ranker =
            PortRanker::new([Span::new(80, 80), Span::new(1024, 65535), Span::ALL].into_iter()).unwrap();
        let ranks: Vec<_> = [0, 79, 80, 81, 1023, 1024, 65535].map(|p| ranker.rank(p)).into();
        assert_eq!(ranks, [0, 0, 1, 2, 2, 3, 3]);
        assert_eq!(ranker.count(), 4);
        assert!(PortRanker::new([Span::ALL].into_iter()).is_none());
    }
}
