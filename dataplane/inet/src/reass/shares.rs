//! Who holds how much.
//!
//! Sources share bins as flows share queues in stochastic fair queueing: the hash is keyed, so that nobody chooses the
//! bin of another, and there are as many bins as datagrams, so that few sources meet. That makes the account of a source
//! one array access and leaves nothing to allocate for it.

use super::list::{List, NONE};

#[derive(Clone, Copy)]
struct Bin {
    /// Frames held, and one for each tombstone.
    units: u32,
    /// Where the bin is in the list of heavy ones.
    heavy_at: u32,
    datagrams: List,
}

/// The bins, and which of them are heavy.
pub(super) struct Shares {
    bins: Box<[Bin]>,
    /// Bins with more than `heavy_above` units. Those are few, and its capacity is all there can be.
    heavy: Vec<u32>,
    heavy_above: u32,
}

impl Shares {
    /// For `sources` sources at most, and `units` in all.
    pub(super) fn new(sources: u32, units: u32, heavy_above: u32) -> Shares {
        let bin = Bin { units: 0, heavy_at: NONE, datagrams: List::EMPTY };
        Shares {
            bins: vec![bin; (sources as usize).next_power_of_two()].into(),
            heavy: Vec::with_capacity((units / heavy_above.max(1)) as usize + 1),
            heavy_above,
        }
    }

    /// How many bins there are.
    pub(super) fn bins(&self) -> usize {
        self.bins.len()
    }

    /// Units charged to a bin.
    pub(super) fn units(&self, bin: u32) -> u32 {
        self.bins[bin as usize].units
    }

    /// The datagrams of a bin, oldest first.
    pub(super) fn datagrams(&mut self, bin: u32) -> &mut List {
        &mut self.bins[bin as usize].datagrams
    }

    /// The oldest datagram of a bin.
    pub(super) fn oldest(&self, bin: u32) -> Option<u32> {
        self.bins[bin as usize].datagrams.oldest()
    }

    /// The bin with the most units, if any is heavy.
    pub(super) fn heaviest(&self) -> Option<u32> {
        self.heavy.iter().copied().max_by_key(|bin| self.units(*bin))
    }

    #[inline]
    pub(super) fn charge(&mut self, bin_at: u32, units: u32) {
        let bin = &mut self.bins[bin_at as usize];
        bin.units += units;
        if bin.units > self.heavy_above && bin.heavy_at == NONE {
            bin.heavy_at = self.heavy.len() as u32;
            self.heavy.push(bin_at);
        }
    }

    #[inline]
    pub(super) fn uncharge(&mut self, bin_at: u32, units: u32) {
        let bin = &mut self.bins[bin_at as usize];
        bin.units -= units;
        if bin.units <= self.heavy_above && bin.heavy_at != NONE {
            let hole = std::mem::replace(&mut bin.heavy_at, NONE);
            self.heavy.swap_remove(hole as usize);
            if let Some(moved) = self.heavy.get(hole as usize) {
                self.bins[*moved as usize].heavy_at = hole;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_is_found_and_the_list_of_heavy_ones_never_grows() {
        let mut shares = Shares::new(16, 100, 9);
        let room = shares.heavy.capacity();
        let mut oracle = [0u32; 16];
        let mut random = 1u32;
        for _ in 0..5000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (bin, units) = ((random >> 28) as usize, random >> 20 & 7);
            if oracle.iter().sum::<u32>() + units <= 100 && random & 1 << 19 == 0 {
                oracle[bin] += units;
                shares.charge(bin as u32, units);
            } else if oracle[bin] >= units {
                oracle[bin] -= units;
                shares.uncharge(bin as u32, units);
            }
            let most = oracle.iter().copied().filter(|units| *units > 9).max();
            assert_eq!(shares.heaviest().map(|bin| oracle[bin as usize]), most);
        }
        assert_eq!(shares.heavy.capacity(), room);
    }
}
