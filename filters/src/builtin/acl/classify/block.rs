//! Eight rules in ranks, compared with a key at once.

/// Fields compared in blocks: source, destination, ports, protocol.
pub(super) const FIELDS: usize = 5;
/// Rules in a block.
pub(super) const LANES: usize = 8;

pub(super) const SRC: usize = 0;
pub(super) const DST: usize = 1;
pub(super) const SPORT: usize = 2;
pub(super) const DPORT: usize = 3;
pub(super) const PROTOCOL: usize = 4;
/// Not the number of a rule.
pub(super) const NONE: u16 = u16::MAX;

/// Only looked at for rules that ask.
pub(super) const FLAGS: usize = 5;
pub(super) const RCVIF: usize = 6;

/// A key in ranks, by field; the last is unused.
pub(super) type Cell = [u16; 8];

/// The ranks a rule matches, by field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) first: [u16; FIELDS],
    pub(super) last: [u16; FIELDS],
}

impl Bounds {
    /// Whether all of `other` lies in it.
    pub(super) fn covers(&self, other: &Bounds) -> bool {
        (0..FIELDS).all(|f| self.first[f] <= other.first[f] && other.last[f] <= self.last[f])
    }
}

/// Eight rules, first to last. Three cache lines.
#[repr(align(64))]
pub(super) struct Block {
    first: [[u16; LANES]; FIELDS],
    /// Last rank minus first.
    reach: [[u16; LANES]; FIELDS],
    /// Their numbers; then [`NONE`], for no hit.
    rules: [u16; 12],
    /// Rules with a test beside their ranks, a bit for each.
    odd: u8,
    /// The list goes on in the next block.
    pub(super) more: bool,
}

impl Block {
    /// Of at most eight rules, each with its number, its bounds and whether it is odd.
    pub(super) fn new(rules: impl Iterator<Item = (u16, Bounds, bool)>, more: bool) -> Block {
        let mut block = Block {
            first: [[0; LANES]; FIELDS],
            reach: [[0; LANES]; FIELDS],
            rules: [NONE; 12],
            odd: 0,
            more,
        };
        // No protocol has this number: empty lanes match nothing.
        block.first[PROTOCOL] = [u16::MAX; LANES];
        for (lane, (rule, bounds, odd)) in rules.take(LANES).enumerate() {
            for field in 0..FIELDS {
                block.first[field][lane] = bounds.first[field];
                block.reach[field][lane] = bounds.last[field] - bounds.first[field];
            }
            block.rules[lane] = rule;
            block.odd |= u8::from(odd) << lane;
        }
        block
    }

    /// The first rule that `cell` matches, or [`NONE`]; `odd` is asked for those with more tests. Without these there is
    /// no branch.
    #[inline(always)]
    pub(super) fn find(&self, cell: &Cell, odd: impl Fn(u16) -> bool) -> u16 {
        let mut hits = self.hits(cell);
        while hits & u32::from(self.odd) != 0 {
            let lane = hits.trailing_zeros() as usize % LANES;
            if self.odd >> lane & 1 == 0 || odd(self.rules[lane]) {
                break;
            }
            hits &= hits - 1;
        }
        self.rules[(hits | 1 << LANES).trailing_zeros() as usize]
    }

    /// A bit for each lane where `cell - first`, wrapping, is at most `reach` in every field.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    #[allow(unsafe_code)]
    fn hits(&self, cell: &Cell) -> u32 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { self.hits_sse2(cell) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "sse2")]
    fn hits_sse2(&self, cell: &Cell) -> u32 {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_or_si128, _mm_packs_epi16, _mm_set_epi16, _mm_set1_epi16,
            _mm_setzero_si128, _mm_sub_epi16, _mm_subs_epu16,
        };
        // Becomes one load.
        let load = |lanes: &[u16; LANES]| {
            let [a, b, c, d, e, f, g, h] = lanes.map(u16::cast_signed);
            _mm_set_epi16(h, g, f, e, d, c, b, a)
        };
        let zero = _mm_setzero_si128();
        let mut over = zero;
        for ((rank, first), reach) in cell.iter().zip(&self.first).zip(&self.reach) {
            let at = _mm_sub_epi16(_mm_set1_epi16(rank.cast_signed()), load(first));
            over = _mm_or_si128(over, _mm_subs_epu16(at, load(reach)));
        }
        _mm_movemask_epi8(_mm_packs_epi16(_mm_cmpeq_epi16(over, zero), zero)).cast_unsigned()
    }

    /// The same, lane by lane.
    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn hits_portable(&self, cell: &Cell) -> u32 {
        let at = |field: usize, lane: usize| cell[field].wrapping_sub(self.first[field][lane]);
        let hit = |lane| (0..FIELDS).all(|field| at(field, lane) <= self.reach[field][lane]);
        (0..LANES).fold(0, |hits, lane| hits | u32::from(hit(lane)) << lane)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn hits(&self, cell: &Cell) -> u32 {
        self.hits_portable(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn lanes_are_compared_as_one_by_one(
            rules in proptest::collection::vec(any::<[(u16, u16); FIELDS]>(), 0..=LANES),
            which in 0usize..LANES,
            ends in any::<[u8; FIELDS]>(),
        ) {
            let bounds = |rule: &[(u16, u16); FIELDS]| Bounds {
                first: rule.map(|(a, b)| a.min(b)),
                last: rule.map(|(a, b)| a.max(b)),
            };
            let block = Block::new(rules.iter().map(|r| (5, bounds(r), false)), false);
            let mut cell = [0; 8];
            if let Some(rule) = rules.get(which).map(bounds) {
                for field in 0..FIELDS {
                    let end = if ends[field] & 1 == 0 { rule.first[field] } else { rule.last[field] };
                    let off = if ends[field] > 250 { u16::from(ends[field]).wrapping_sub(252) } else { 0 };
                    cell[field] = end.wrapping_add(off);
                }
            }
            prop_assert_eq!(block.hits(&cell), block.hits_portable(&cell));
            let within = |rule: &[(u16, u16); FIELDS]| {
                let b = bounds(rule);
                (0..FIELDS).all(|f| b.first[f] <= cell[f] && cell[f] <= b.last[f])
            };
            let expect = rules.iter().enumerate().fold(0, |hits, (i, r)| hits | u32::from(within(r)) << i);
            prop_assert_eq!(block.hits(&cell), expect);
        }
    }
}
