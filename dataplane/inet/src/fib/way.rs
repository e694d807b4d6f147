//! What a route says, in the 23 bits an entry of the trie has for it; and groups of equal-cost ways.

use std::sync::atomic::{AtomicU32, Ordering};

/// Where packets of a route go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Way {
    /// There is no route.
    #[default]
    None,
    /// To a neighbour, by its number.
    Via(u32),
    /// To the destination itself, on the link of this interface.
    Link(u16),
    /// To this host.
    Local,
    /// Nowhere, and nobody is told.
    Blackhole,
    /// Nowhere: unreachable.
    Unreachable,
    /// Nowhere: forbidden.
    Prohibit,
    /// By one of several ways of equal cost: a number of [`Groups`].
    Several(u32),
}

/// What a burst of lookups found for one address: a way that nobody has looked at yet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Found(pub(super) u32);

impl Found {
    /// The neighbour's number, if it is a way to a neighbour: nearly all are.
    #[inline(always)]
    pub fn via(self) -> Option<u32> {
        (self.0 >> NUMBER_BITS & 7 == 1).then_some(self.0 & NUMBER)
    }

    /// The way.
    #[inline(always)]
    pub fn way(self) -> Way {
        Way::from_bits(self.0)
    }
}

impl From<Way> for Found {
    fn from(way: Way) -> Found {
        Found(way.to_bits())
    }
}

/// Bits of a way in an entry.
pub(super) const WAY_BITS: u32 = 23;
const NUMBER_BITS: u32 = 20;
const NUMBER: u32 = (1 << NUMBER_BITS) - 1;

impl Way {
    /// Neighbours and groups are numbered below this.
    pub const NUMBER_MAX: u32 = NUMBER;

    /// As a word of 23 bits.
    ///
    /// # Panics
    /// When a number is above [`Way::NUMBER_MAX`].
    pub fn to_bits(self) -> u32 {
        let (kind, number) = match self {
            Way::None => (0, 0),
            Way::Via(number) => (1, number),
            Way::Link(interface) => (2, u32::from(interface)),
            Way::Local => (3, 0),
            Way::Blackhole => (4, 0),
            Way::Unreachable => (5, 0),
            Way::Prohibit => (6, 0),
            Way::Several(number) => (7, number),
        };
        assert!(number <= NUMBER, "neighbours and groups are numbered below 2^20");
        kind << NUMBER_BITS | number
    }

    /// The way of a word; higher bits than the 23 are not looked at.
    #[inline(always)]
    pub fn from_bits(bits: u32) -> Way {
        let number = bits & NUMBER;
        match bits >> NUMBER_BITS & 7 {
            0 => Way::None,
            1 => Way::Via(number),
            2 => Way::Link(number as u16),
            3 => Way::Local,
            4 => Way::Blackhole,
            5 => Way::Unreachable,
            6 => Way::Prohibit,
            _ => Way::Several(number),
        }
    }
}

/// Ways of one group at most.
pub const MEMBERS_MAX: usize = 64;

/// Groups of ways of equal cost, each a row of buckets that flows are spread over by their hash (RFC 2992). When a member
/// goes, only the buckets it had are given to others, so that flows of the rest stay where they are.
pub struct Groups {
    buckets: Box<[AtomicU32]>,
}

/// Buckets of a group: four for each member where there are most of them.
const BUCKETS: usize = MEMBERS_MAX * 4;

impl Groups {
    /// Room for `capacity` groups.
    pub fn new(capacity: usize) -> Groups {
        Groups { buckets: (0..capacity * BUCKETS).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Groups there is room for.
    pub fn capacity(&self) -> usize {
        self.buckets.len() / BUCKETS
    }

    /// The way of group `group` for a flow.
    #[inline]
    pub fn choose(&self, group: u32, flow_hash: u32) -> Way {
        let bucket = group as usize * BUCKETS + flow_hash as usize % BUCKETS;
        self.buckets.get(bucket).map_or(Way::None, |word| Way::from_bits(word.load(Ordering::Relaxed)))
    }

    /// Sets the members of a group, each with its weight. Buckets of members that stay are left to them as far as their
    /// share goes. No members: [`Way::None`]. Without effect for a group there is no room for.
    pub fn set(&self, group: u32, members: &[(Way, u32)]) {
        let begin = group as usize * BUCKETS;
        let Some(buckets) = self.buckets.get(begin..begin + BUCKETS) else { return };
        let members = &members[..members.len().min(MEMBERS_MAX)];
        let total: u64 = members.iter().map(|(_, weight)| u64::from((*weight).max(1))).sum();
        // Shares by largest whole part; what rounding leaves goes to the first ones.
        let mut left = BUCKETS as u64;
        let mut shares: Vec<(u32, u64)> = Vec::with_capacity(members.len());
        for (way, weight) in members {
            let share = BUCKETS as u64 * u64::from((*weight).max(1)) / total;
            left -= share;
            shares.push((way.to_bits(), share));
        }
        for (_, share) in shares.iter_mut().take(left as usize) {
            *share += 1;
        }
        let mut homeless = Vec::new();
        for bucket in buckets {
            let now = bucket.load(Ordering::Relaxed);
            match shares.iter_mut().find(|(way, share)| *way == now && *share > 0) {
                Some((_, share)) => *share -= 1,
                None => homeless.push(bucket),
            }
        }
        let mut ways = shares.iter().flat_map(|(way, share)| std::iter::repeat_n(*way, *share as usize));
        for bucket in homeless {
            bucket.store(ways.next().unwrap_or(Way::None.to_bits()), Ordering::Relaxed);
        }
    }
}
