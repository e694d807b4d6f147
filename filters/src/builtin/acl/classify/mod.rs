//! Which of up to 65,536 rules is the first that a packet matches.
//!
//! ```text
//!   key ──▶ ranks: source, destination, ports  ──▶ a few trees over ranks ──▶ lists of 8 rules, compared at once
//!           (rank.rs)                              (tree.rs)                  (block.rs)
//! ```
//!
//! 1. Each field becomes a *rank*: the number of the interval it lies in among all intervals that the rules' bounds cut
//!    the field into. A rule is then a box of five ranges of 16-bit numbers, for IPv4 and IPv6 alike, and nested,
//!    crowded prefixes lie evenly spread.
//! 2. Trees cut this space into regions with at most eight rules or so. Rules narrow in source, rules narrow in
//!    destination, and the rest have a tree each, which is what keeps copies few.
//! 3. A region's rules are compared all at once; flags and interface only if a rule asks for them.
//!
//! A burst goes through each step together, so that its cache misses overlap. Nothing depends on earlier packets: there
//! is no cache of flows that a stranger could make useless.
//!
//! Memory is bounded by a budget of copies, see `tree.rs`. Should the ranks of a field not fit 16 bits, which takes more
//! than 32,767 rules, the list is divided into parts that are searched one after the other.

mod block;
mod key;
mod rank;
#[cfg(test)]
mod tests;
mod tree;
mod work;

use core::fmt;

use block::{Bounds, Cell, DPORT, DST, FIELDS, FLAGS, NONE, PROTOCOL, RCVIF, SPORT, SRC};
pub use key::{Address, FlagTest, Key, Rule, Span};
use rank::{PortRanker, Ranker};
use tree::Forest;
use work::BURST;

/// Most rules in a classifier.
pub const RULES_MAX: usize = 65536;
/// What is answered for a key that no rule matches.
pub const MISS: u32 = u32::MAX;

/// Most rules in a part, and most ranks of a field: they have to fit 16 bits, [`NONE`] left out.
const PART: usize = 65535;

/// Why there is no classifier of these rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// More than [`RULES_MAX`]: how many.
    TooMany(usize),
    /// This rule looks at ports, flags or types without saying of which protocol.
    NoProtocol(usize),
    /// A span of this rule ends before it starts.
    Reversed(usize),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::TooMany(n) => write!(f, "{n} rules, at most {RULES_MAX} fit"),
            BuildError::NoProtocol(n) => {
                write!(f, "rule {n} looks into a header without naming its protocol")
            }
            BuildError::Reversed(n) => write!(f, "a range of rule {n} ends before it starts"),
        }
    }
}

impl std::error::Error for BuildError {}

/// Finds the first rule that matches. Immutable; made on the control thread, used by all workers.
pub struct Classifier<A> {
    parts: Vec<Part<A>>,
}

impl<A: Address> Classifier<A> {
    /// Over `rules`, first to last.
    pub fn build(rules: &[Rule<A>]) -> Result<Classifier<A>, BuildError> {
        if rules.len() > RULES_MAX {
            return Err(BuildError::TooMany(rules.len()));
        }
        let reversed = |r: &Rule<A>| {
            r.src.first > r.src.last
                || r.dst.first > r.dst.last
                || r.sport.first > r.sport.last
                || r.dport.first > r.dport.last
        };
        if let Some(bad) = rules.iter().position(reversed) {
            return Err(BuildError::Reversed(bad));
        }
        if let Some(bad) = rules.iter().position(|r| r.needs_upper() && r.protocol.is_none()) {
            return Err(BuildError::NoProtocol(bad));
        }
        let mut parts = Vec::new();
        divide(rules, 0, &mut parts);
        Ok(Classifier { parts })
    }

    /// The index of the first rule that each of `keys` matches, or [`MISS`]; as many answers as the shorter slice has.
    pub fn classify_burst(&self, keys: &[Key<A>], answers: &mut [u32]) {
        for (keys, answers) in keys.chunks(BURST).zip(answers.chunks_mut(BURST)) {
            answers.fill(MISS);
            for part in &self.parts {
                part.classify(keys, answers);
            }
        }
    }

    /// [`Classifier::classify_burst`] for one key.
    pub fn classify(&self, key: &Key<A>) -> Option<usize> {
        let mut answer = [MISS];
        self.classify_burst(std::slice::from_ref(key), &mut answer);
        (answer[0] != MISS).then_some(answer[0] as usize)
    }

    /// Memory it takes, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.parts.iter().map(Part::len_bytes).sum()
    }
}

/// The tests of a rule that ranks do not express.
#[derive(Clone, Copy)]
struct Odd {
    flags: FlagTest,
    rcvif: Option<u16>,
}

impl Odd {
    #[inline(always)]
    fn holds(&self, cell: &Cell) -> bool {
        cell[FLAGS] & u16::from(self.flags.mask) == u16::from(self.flags.set)
            && self.rcvif.is_none_or(|rcvif| rcvif == cell[RCVIF])
    }
}

/// Appends the parts that `rules` need, which begin with rule `base`. The n spans of a field make up to 2n + 1 ranks, so
/// that 32,767 rules always fit.
fn divide<A: Address>(rules: &[Rule<A>], base: u32, parts: &mut Vec<Part<A>>) {
    if let Some(part) = Part::build(rules, base) {
        parts.push(part);
    } else {
        let (first, second) = rules.split_at(rules.len() / 2);
        divide(first, base, parts);
        divide(second, base + first.len() as u32, parts);
    }
}

/// A run of rules.
struct Part<A> {
    /// Number of its first rule.
    base: u32,
    src: Option<Ranker<A>>,
    dst: Option<Ranker<A>>,
    sport: Option<PortRanker>,
    dport: Option<PortRanker>,
    odd: Vec<Odd>,
    forest: Forest,
}

/// Protocols are ranked as they are: even with an upper header, odd without.
#[inline(always)]
fn protocol_rank(protocol: u8, upper: bool) -> u16 {
    u16::from(protocol) * 2 + u16::from(!upper)
}

impl<A: Address> Part<A> {
    /// `None` if 16 bits do not number the rules, or the ranks of a field.
    fn build(rules: &[Rule<A>], base: u32) -> Option<Part<A>> {
        if rules.len() > PART {
            return None;
        }
        let src = Ranker::new(rules.iter().map(|r| r.src));
        let dst = Ranker::new(rules.iter().map(|r| r.dst));
        let sport = PortRanker::new(rules.iter().map(|r| r.sport));
        let dport = PortRanker::new(rules.iter().map(|r| r.dport));
        let mut ranks = [1; FIELDS];
        ranks[SRC] = src.as_ref().map_or(1, Ranker::count);
        ranks[DST] = dst.as_ref().map_or(1, Ranker::count);
        ranks[SPORT] = sport.as_ref().map_or(1, PortRanker::count);
        ranks[DPORT] = dport.as_ref().map_or(1, PortRanker::count);
        ranks[PROTOCOL] = 512;
        if ranks.iter().any(|count| *count > PART) {
            return None;
        }
        let bounds = |rule: &Rule<A>| {
            let mut b = Bounds { first: [0; FIELDS], last: [0; FIELDS] };
            let mut set = |field: usize, first, last| (b.first[field], b.last[field]) = (first, last);
            let of = |ranker: &Option<Ranker<A>>, address| ranker.as_ref().map_or(0, |r| r.rank(address));
            set(SRC, of(&src, rule.src.first), of(&src, rule.src.last));
            set(DST, of(&dst, rule.dst.first), of(&dst, rule.dst.last));
            let of = |ranker: &Option<PortRanker>, port| ranker.as_ref().map_or(0, |r| r.rank(port));
            set(SPORT, of(&sport, rule.sport.first), of(&sport, rule.sport.last));
            set(DPORT, of(&dport, rule.dport.first), of(&dport, rule.dport.last));
            let (low, high) = rule.protocol.map_or((0, u8::MAX), |p| (p, p));
            set(PROTOCOL, protocol_rank(low, true), protocol_rank(high, rule.needs_upper()));
            b
        };
        let boxes: Vec<Bounds> = rules.iter().map(bounds).collect();
        let is_odd: Vec<bool> = rules.iter().map(|r| r.flags.is_some() || r.rcvif.is_some()).collect();
        let odd = rules
            .iter()
            .map(|r| Odd { flags: r.flags.unwrap_or(FlagTest { set: 0, mask: 0 }), rcvif: r.rcvif });
        let forest = Forest::new(&boxes, &is_odd, ranks);
        Some(Part { base, odd: odd.collect(), src, dst, sport, dport, forest })
    }

    fn classify(&self, keys: &[Key<A>], answers: &mut [u32]) {
        let count = keys.len().min(BURST);
        let mut cells = [[0; 8]; BURST];
        self.rank(&keys[..count], &mut cells);
        let mut found = [NONE; BURST];
        self.search(&cells, &mut found, count);
        for (answer, found) in answers.iter_mut().zip(&found[..count]) {
            if *found != NONE {
                *answer = (*answer).min(self.base + u32::from(*found));
            }
        }
    }

    /// Alone, as is `search`: together they ask for more registers than there are.
    #[inline(never)]
    fn rank(&self, keys: &[Key<A>], cells: &mut [Cell; BURST]) {
        for (cell, key) in cells.iter_mut().zip(keys) {
            cell[PROTOCOL] = protocol_rank(key.protocol, key.upper);
            cell[FLAGS] = key.flags.into();
            cell[RCVIF] = key.rcvif;
        }
        if let Some(src) = &self.src {
            src.ranks(keys.iter().map(|key| key.src), |i, rank| cells[i][SRC] = rank);
        }
        if let Some(dst) = &self.dst {
            dst.ranks(keys.iter().map(|key| key.dst), |i, rank| cells[i][DST] = rank);
        }
        if let Some(sport) = &self.sport {
            cells.iter_mut().zip(keys).for_each(|(cell, key)| cell[SPORT] = sport.rank(key.sport));
        }
        if let Some(dport) = &self.dport {
            cells.iter_mut().zip(keys).for_each(|(cell, key)| cell[DPORT] = dport.rank(key.dport));
        }
    }

    #[inline(never)]
    fn search(&self, cells: &[Cell; BURST], found: &mut [u16; BURST], count: usize) {
        self.forest.search(cells, found, count, |rule, cell| self.odd[usize::from(rule)].holds(cell));
    }

    fn len_bytes(&self) -> usize {
        let addresses = [&self.src, &self.dst].into_iter().flatten().map(Ranker::len_bytes);
        let ports = [&self.sport, &self.dport].into_iter().flatten().map(PortRanker::len_bytes);
        addresses.chain(ports).sum::<usize>() + size_of_val(&*self.odd) + self.forest.len_bytes()
    }
}
