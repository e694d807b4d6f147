//! The packets a filter is shown.

use nke_mbuf::{Burst, Mbuf, Owner};

use crate::verdict::DropReason;

/// Where a batch puts what a filter dropped, until the worker has counted it.
pub struct Removed {
    packets: Burst,
    reasons: [DropReason; nke_mbuf::BURST_MAX],
}

impl Default for Removed {
    fn default() -> Self {
        Removed { packets: Burst::new(), reasons: [DropReason::from_index(0); nke_mbuf::BURST_MAX] }
    }
}

impl Removed {
    /// Takes one dropped packet out.
    pub fn pop(&mut self) -> Option<(Mbuf, DropReason)> {
        let mbuf = self.packets.pop()?;
        Some((mbuf, self.reasons[self.packets.len()]))
    }
}

/// The packets of one burst that a filter instance selected, each at its place in the burst.
///
/// A place is a number below 64. Packets that are neither dropped nor taken go on in their order.
pub struct Batch<'a> {
    burst: &'a mut Burst,
    removed: &'a mut Removed,
    selected: u64,
    gone: u64,
    owner: Owner,
}

impl<'a> Batch<'a> {
    /// A view on the places of `burst` whose bit is set in `selected`; packets taken are charged to `owner`. Made by
    /// the runner of the chain.
    #[inline(always)]
    pub fn new(burst: &'a mut Burst, selected: u64, removed: &'a mut Removed, owner: Owner) -> Batch<'a> {
        Batch { burst, removed, selected, gone: 0, owner }
    }

    /// Packets still in the batch.
    #[inline]
    pub fn len(&self) -> usize {
        self.selected.count_ones() as usize
    }

    /// Whether no packet is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.selected == 0
    }

    /// One bit for each place whose packet was dropped or taken.
    #[inline(always)]
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// The places with a packet, in order. A snapshot: dropping and taking meanwhile is fine.
    #[inline]
    pub fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.selected;
        std::iter::from_fn(move || {
            let place = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (place < 64).then_some(place as usize)
        })
    }

    /// The packet at `place`.
    #[inline]
    pub fn get(&self, place: usize) -> Option<&Mbuf> {
        if !self.has(place) {
            return None;
        }
        self.burst.slots().get(place)?.as_ref()
    }

    /// The packet at `place`, to be changed.
    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Mbuf> {
        if !self.has(place) {
            return None;
        }
        self.burst.slots_mut().get_mut(place)?.as_mut()
    }

    /// The packets, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Mbuf> {
        self.places().filter_map(|place| self.get(place))
    }

    /// Drops the packet at `place`. Without effect if there is none.
    #[inline]
    pub fn drop(&mut self, place: usize, reason: DropReason) {
        if let Some(mbuf) = self.remove(place) {
            self.removed.reasons[self.removed.packets.len()] = reason;
            // As many fit as a burst has, and a batch is emptied before the next one is made.
            let full = self.removed.packets.push(mbuf);
            debug_assert!(full.is_ok(), "a worker empties `Removed` after each filter");
        }
    }

    /// Takes the packet at `place`: from here on it is the filter's, and charged to it until it is dropped or
    /// injected.
    #[inline]
    pub fn take(&mut self, place: usize) -> Option<Mbuf> {
        let mut mbuf = self.remove(place)?;
        mbuf.set_owner(self.owner);
        Some(mbuf)
    }

    /// Decides packet by packet: `Ok` lets it go on, `Err` drops it.
    #[inline]
    pub fn each(&mut self, mut decide: impl FnMut(&mut Mbuf) -> Result<(), DropReason>) {
        for place in self.places() {
            if let Some(Err(reason)) = self.get_mut(place).map(&mut decide) {
                self.drop(place, reason);
            }
        }
    }

    #[inline(always)]
    fn has(&self, place: usize) -> bool {
        place < 64 && self.selected >> place & 1 == 1
    }

    #[inline]
    fn remove(&mut self, place: usize) -> Option<Mbuf> {
        if !self.has(place) {
            return None;
        }
        let mbuf = self.burst.take(place)?;
        self.selected &= !(1 << place);
        self.gone |= 1 << place;
        Some(mbuf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_mbuf::{Pool, PoolConfig, Region};

    #[test]
    fn verdicts_move_packets_where_they_belong() {
        let pool = Pool::new(Region::heap(2048 * 16), &PoolConfig::default()).unwrap();
        let (mut burst, mut removed) = (Burst::new(), Removed::default());
        for i in 0..8u8 {
            let mut m = pool.alloc().unwrap();
            m.append(1).unwrap()[0] = i;
            burst.push(m).unwrap();
        }
        let reason = DropReason::from_index(9);
        let mut batch = Batch::new(&mut burst, 0b1011_0110, &mut removed, Owner(20));
        assert_eq!(batch.places().collect::<Vec<_>>(), [1, 2, 4, 5, 7]);
        assert!(batch.get(0).is_none() && batch.take(0).is_none(), "not selected");
        batch.drop(0, reason);
        batch.drop(64, reason);
        let mine = batch.take(4).unwrap();
        assert_eq!(mine.owner(), Owner(20));
        assert!(batch.take(4).is_none());
        batch.each(|m| if m.data()[0] == 2 { Err(reason) } else { Ok(()) });
        assert_eq!((batch.len(), batch.gone()), (3, 0b1_0100));
        burst.compact();
        assert_eq!(burst.iter().map(|m| m.data()[0]).collect::<Vec<_>>(), [0, 1, 3, 5, 6, 7]);
        let (dropped, why) = removed.pop().unwrap();
        assert_eq!((dropped.data(), why), (&[2u8][..], reason));
        assert!(removed.pop().is_none());
    }
}
