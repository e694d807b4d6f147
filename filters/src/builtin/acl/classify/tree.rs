//! Trees that cut the space of ranks until few rules are left.
//!
//! A node cuts its region along one field into pieces of 2^shift ranks, at multiples of 2^shift; a rule goes to every
//! piece it reaches into. A leaf is a list of blocks. Most rules are narrow in one field and broad in another, and one
//! that is broad in the field a node cuts is copied into all its pieces. So there are several trees, each for the rules
//! that are narrow in the field that its root cuts: narrow in source, narrow in destination, and the rest. A key goes
//! through all of them and takes the lowest number it finds.
//!
//! Copies, and slots of nodes, are counted against a budget. Past it, a region stays a list, however long: memory is bounded whatever the
//! rules, and only speed suffers.

use std::collections::HashMap;

use super::block::{Block, Bounds, Cell, DST, FIELDS, LANES, NONE, SRC};
use super::work::{BURST, Work};

/// Where a piece leads: a node that divides it further, or a list of rules. One word, so that a step is one load.
///
/// ```text
///   node: 1 | field 3 | shift 4 | 8 | lowest rule 16 | first slot, less that of rank 0, 32
///   list: 0                         | lowest rule 16 | first block 32
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slot(u64);

impl Slot {
    /// The list without rules.
    const EMPTY: Slot = Slot::list(0, NONE);

    const fn list(block: usize, lowest: u16) -> Slot {
        Slot((lowest as u64) << 32 | block as u64)
    }

    /// Of a node whose first slot is for the rank `base`.
    const fn node(first: usize, base: u16, cut: Cut, lowest: u16) -> Slot {
        let zero = (first as u32).wrapping_sub((base >> cut.shift) as u32);
        Slot(
            1 << 63
                | (cut.field as u64) << 60
                | (cut.shift as u64) << 56
                | (lowest as u64) << 32
                | zero as u64,
        )
    }

    #[inline(always)]
    const fn is_node(self) -> bool {
        self.0 >> 63 == 1
    }

    /// Of a node: the slot that `cell` goes to.
    #[inline(always)]
    fn next(self, cell: &Cell) -> usize {
        let rank = u32::from(cell[(self.0 >> 60 & 7) as usize]);
        (self.0 as u32).wrapping_add(rank >> (self.0 >> 56 & 15)) as usize
    }

    /// No rule behind it has a lower number.
    #[inline(always)]
    const fn lowest(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Of a list: its first block.
    #[inline(always)]
    const fn block(self) -> usize {
        self.0 as u32 as usize
    }
}

/// Copies of a rule in all lists together, on average, before lists are no longer divided.
const COPIES: usize = 16;
/// Slots that count as one copy: they take as much memory.
const SLOTS: usize = size_of::<Block>() / LANES / size_of::<Slot>();
/// Pieces a rule may reach into to count as narrow.
const NARROW: usize = 256;
/// Rules that are compared with every key, without a tree.
const FEW: usize = 2 * LANES;
/// Nodes on the way to a leaf at most.
const DEPTH: usize = 12;

/// All trees over one set of rules.
pub(super) struct Forest {
    /// Their roots.
    trees: Vec<Slot>,
    slots: Vec<Slot>,
    blocks: Vec<Block>,
}

impl Forest {
    /// Over `rules`, fewer than 65,535 and first to last, where field f has ranks below `ranks[f]`. `odd` are those with a
    /// test beside their bounds.
    pub(super) fn new(rules: &[Bounds], odd: &[bool], ranks: [usize; FIELDS]) -> Forest {
        let mut builder = Builder {
            rules,
            odd,
            forest: Forest {
                trees: Vec::new(),
                slots: Vec::new(),
                blocks: vec![Block::new(std::iter::empty(), false)],
            },
            lists: HashMap::new(),
            budget: COPIES * rules.len() + 4096,
        };
        let whole = Bounds { first: [0; FIELDS], last: ranks.map(|n| (n - 1) as u16) };
        if rules.len() <= FEW {
            let all: Vec<u16> = (0..rules.len() as u16).collect();
            let root = builder.list(&all);
            builder.forest.trees.push(root);
            return builder.forest;
        }
        let [by_src, by_dst, rest] = divide(rules, &whole);
        let mut groups = [(by_src, Some(SRC)), (by_dst, Some(DST)), (rest, None)];
        groups.sort_by_key(|(list, _)| list.first().copied());
        for (list, field) in groups.iter().filter(|(list, _)| !list.is_empty()) {
            let cut = field.map(|field| Cut { field, shift: 0 });
            let root = builder.region(list, &whole, cut, DEPTH);
            builder.forest.trees.push(root);
        }
        builder.forest
    }

    /// Writes to `found` the first rule of each of at most 64 `cells`, or leaves what is there if that is lower.
    ///
    /// Cells take their steps together, and those that are done leave the list of work: whether one is done is never a
    /// branch, which would be mispredicted as often as packets differ, and loads of different cells overlap.
    #[inline(always)]
    pub(super) fn search(
        &self,
        cells: &[Cell; BURST],
        found: &mut [u16; BURST],
        count: usize,
        odd: impl Fn(u16, &Cell) -> bool,
    ) {
        for root in &self.trees {
            let mut at = [*root; BURST];
            let mut nodes = Work::NONE;
            let mut lists = if root.is_node() {
                Work::first(count, |i| {
                    let slot = self.slots[root.next(&cells[i])];
                    at[i] = slot;
                    let below = slot.lowest() < found[i];
                    nodes.add(i, slot.is_node() & below);
                    below
                })
            } else {
                Work::first(count, |_| true)
            };
            while !nodes.is_empty() {
                nodes.keep(|i| {
                    at[i] = self.slots[at[i].next(&cells[i])];
                    at[i].is_node()
                });
            }
            while !lists.is_empty() {
                lists.keep(|i| {
                    let block = &self.blocks[at[i].block()];
                    let rule = block.find(&cells[i], |rule| odd(rule, &cells[i]));
                    found[i] = found[i].min(rule);
                    at[i].0 += 1;
                    block.more & (rule == NONE)
                });
            }
        }
    }

    pub(super) fn len_bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.blocks)
    }

    /// Rules in the longest list.
    #[cfg(test)]
    pub(super) fn longest(&self) -> usize {
        self.blocks.chunk_by(|a, _| a.more).map(<[Block]>::len).max().unwrap_or(0) * LANES
    }
}

/// Which tree each rule goes to: cut by source, by destination, neither.
fn divide(rules: &[Bounds], whole: &Bounds) -> [Vec<u16>; 3] {
    let pieces = |rule: &Bounds, field: usize| usize::from(rule.last[field] - rule.first[field]) + 1;
    let narrow = |rule: &Bounds, field: usize| {
        // In a small field, narrow is a part of it.
        let ranks = usize::from(whole.last[field]) + 1;
        pieces(rule, field) <= NARROW.min(ranks.div_ceil(4))
    };
    // How crowded each rank is: of two narrow fields the emptier one leaves shorter lists.
    let crowd = |field: usize| {
        let mut steps = vec![0i32; usize::from(whole.last[field]) + 2];
        for rule in rules.iter().filter(|rule| narrow(rule, field)) {
            steps[usize::from(rule.first[field])] += 1;
            steps[usize::from(rule.last[field]) + 1] -= 1;
        }
        steps.iter_mut().fold(0, |sum, step| {
            *step += sum;
            *step
        });
        steps
    };
    let (crowd_src, crowd_dst) = (crowd(SRC), crowd(DST));
    let most = |crowd: &[i32], rule: &Bounds, field: usize| {
        let reached = &crowd[usize::from(rule.first[field])..=usize::from(rule.last[field])];
        reached.iter().copied().max().unwrap_or(0)
    };
    let mut parts = [const { Vec::new() }; 3];
    for (number, rule) in rules.iter().enumerate() {
        let part = match (narrow(rule, SRC), narrow(rule, DST)) {
            (false, false) => 2,
            (true, false) => 0,
            (false, true) => 1,
            (true, true) => usize::from(most(&crowd_dst, rule, DST) < most(&crowd_src, rule, SRC)),
        };
        parts[part].push(number as u16);
    }
    parts
}

#[derive(Clone, Copy)]
struct Cut {
    field: usize,
    shift: u32,
}

struct Builder<'a> {
    rules: &'a [Bounds],
    odd: &'a [bool],
    forest: Forest,
    /// Lists made already, by their rules.
    lists: HashMap<Box<[u16]>, Slot>,
    /// Copies left.
    budget: usize,
}

impl Builder<'_> {
    fn rule(&self, number: u16) -> &Bounds {
        &self.rules[usize::from(number)]
    }

    /// The slot for `list`, first to last and all of it reaching into `region`. `cut` is the first cut, if it is given.
    fn region(&mut self, list: &[u16], region: &Bounds, cut: Option<Cut>, depth: usize) -> Slot {
        // What comes behind a rule that matches all of the region is never reached.
        let covers = |number: &u16| !self.odd[usize::from(*number)] && self.rule(*number).covers(region);
        let list = match list.iter().position(covers) {
            Some(last) => &list[..=last],
            None => list,
        };
        if depth == 0 || (list.len() <= LANES && cut.is_none()) {
            return self.list(list);
        }
        match cut.or_else(|| self.choose(list, region)) {
            None => self.list(list),
            Some(cut) => self.node(list, region, cut, depth - 1),
        }
    }

    fn list(&mut self, list: &[u16]) -> Slot {
        if list.is_empty() {
            return Slot::EMPTY;
        }
        if let Some(slot) = self.lists.get(list) {
            return *slot;
        }
        let slot = Slot::list(self.forest.blocks.len(), list[0]);
        let count = list.len().div_ceil(LANES);
        for (i, lanes) in list.chunks(LANES).enumerate() {
            let rules = lanes.iter().map(|n| (*n, *self.rule(*n), self.odd[usize::from(*n)]));
            self.forest.blocks.push(Block::new(rules, i + 1 < count));
        }
        self.budget = self.budget.saturating_sub(list.len());
        self.lists.insert(list.into(), slot);
        slot
    }

    fn node(&mut self, list: &[u16], region: &Bounds, cut: Cut, depth: usize) -> Slot {
        let Cut { field, shift } = cut;
        let (base, last) = (region.first[field], region.last[field]);
        let pieces = pieces(base, last, shift);
        let first = self.forest.slots.len();
        self.forest.slots.resize(first + pieces, Slot::EMPTY);
        self.budget = self.budget.saturating_sub(pieces / SLOTS);
        let mut of_piece = vec![Vec::new(); pieces];
        for number in list {
            for i in reached(self.rule(*number), base, last, cut) {
                of_piece[i].push(*number);
            }
        }
        // Where a piece is one rank, equal lists have equal trees.
        let mut known: HashMap<&[u16], Slot> = HashMap::new();
        for (i, part) in of_piece.iter().enumerate() {
            let slot = match known.get(&**part) {
                Some(slot) => *slot,
                None => {
                    let mut piece = *region;
                    let start = ((base >> shift) + i as u16) << shift;
                    piece.first[field] = start.max(base);
                    piece.last[field] = last.min(start | ((1 << shift) - 1));
                    let slot = self.region(part, &piece, None, depth);
                    if shift == 0 {
                        known.insert(part, slot);
                    }
                    slot
                }
            };
            self.forest.slots[first + i] = slot;
        }
        Slot::node(first, base, cut, list.first().copied().unwrap_or(NONE))
    }

    /// The cut that leaves the shortest lists, `None` if none is worth it.
    fn choose(&self, list: &[u16], region: &Bounds) -> Option<Cut> {
        if self.budget < list.len() {
            return None;
        }
        let mut best: Option<(Cut, f64)> = None;
        for field in 0..FIELDS {
            let (base, last) = (region.first[field], region.last[field]);
            let divided = list.iter().any(|n| {
                let rule = self.rule(*n);
                rule.first[field] > base || rule.last[field] < last
            });
            if !divided {
                continue;
            }
            for shift in 0..16 {
                let pieces = pieces(base, last, shift);
                if pieces < 2 {
                    break;
                }
                if pieces > 4 * list.len() + 8 {
                    continue;
                }
                let cut = Cut { field, shift };
                let Some(score) = self.score(list, base, last, cut, pieces) else { continue };
                if best.is_none_or(|(_, least)| score < least) {
                    best = Some((cut, score));
                }
                break; // Coarser cuts of this field leave longer lists.
            }
        }
        let (cut, score) = best?;
        (score < 0.9 * list.len() as f64).then_some(cut)
    }

    /// The length of the list that a rule of it finds itself in, on average. `None` if the cut copies too much.
    fn score(&self, list: &[u16], base: u16, last: u16, cut: Cut, pieces: usize) -> Option<f64> {
        let mut steps = vec![0i64; pieces + 1];
        let mut copies = 0;
        for number in list {
            let reached = reached(self.rule(*number), base, last, cut);
            steps[*reached.start()] += 1;
            steps[reached.end() + 1] -= 1;
            copies += reached.count();
        }
        if copies > 3 * list.len() + 8 || copies > self.budget {
            return None;
        }
        let (mut len, mut squares) = (0i64, 0i64);
        for step in &steps[..pieces] {
            len += step;
            squares += len * len;
        }
        Some(squares as f64 / copies as f64)
    }
}

/// How many pieces of 2^`shift` ranks there are between `base` and `last`; the outer ones may reach beyond.
fn pieces(base: u16, last: u16, shift: u32) -> usize {
    usize::from((last >> shift) - (base >> shift)) + 1
}

/// Which of them `rule` reaches into.
fn reached(rule: &Bounds, base: u16, last: u16, cut: Cut) -> std::ops::RangeInclusive<usize> {
    let first = rule.first[cut.field].max(base) >> cut.shift;
    let end = rule.last[cut.field].min(last) >> cut.shift;
    let zero = base >> cut.shift;
    usize::from(first - zero)..=usize::from(end - zero)
}
