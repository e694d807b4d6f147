//! A batch of packets, the unit in which everything on the path works.

use crate::mbuf::Mbuf;

/// Packets in a burst at most. Sixty-four, so that one machine word has a bit for each.
pub const BURST_MAX: usize = 64;

/// Up to [`BURST_MAX`] packets in order, without allocation.
pub struct Burst {
    len: usize,
    slots: [Option<Mbuf>; BURST_MAX],
}

impl Default for Burst {
    fn default() -> Self {
        Burst::new()
    }
}

impl Burst {
    /// An empty burst.
    pub const fn new() -> Burst {
        Burst { len: 0, slots: [const { None }; BURST_MAX] }
    }

    /// Packets in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Packets that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        BURST_MAX - self.len
    }

    /// Adds a packet at the end; gives it back when the burst is full.
    #[inline(always)]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        let Some(slot) = self.slots.get_mut(self.len) else { return Err(mbuf) };
        // The slot is empty: forgetting its old content spares a drop check.
        std::mem::forget(slot.replace(mbuf));
        self.len += 1;
        Ok(())
    }

    /// The empty slots behind the packets.
    #[inline(always)]
    pub(crate) fn beyond(&mut self) -> &mut [Option<Mbuf>] {
        &mut self.slots[self.len..]
    }

    /// Counts `n` packets in that were put into the first slots of [`Burst::beyond`].
    #[inline(always)]
    pub(crate) fn grow(&mut self, n: usize) {
        self.len = (self.len + n).min(BURST_MAX);
    }

    /// Takes the last packet.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        self.slots[self.len].take()
    }

    /// The packets in order, by place: `None` where one was taken with [`Burst::take`] and not compacted yet.
    #[inline(always)]
    pub fn slots(&self) -> &[Option<Mbuf>] {
        &self.slots[..self.len]
    }

    /// The packets in order, to be changed.
    #[inline(always)]
    pub fn slots_mut(&mut self) -> &mut [Option<Mbuf>] {
        &mut self.slots[..self.len]
    }

    /// The packets in order.
    pub fn iter(&self) -> impl Iterator<Item = &Mbuf> {
        self.slots().iter().flatten()
    }

    /// The packets in order, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Mbuf> {
        self.slots_mut().iter_mut().flatten()
    }

    /// Takes the packet at place `i`, leaving a gap until [`Burst::compact`].
    #[inline(always)]
    pub fn take(&mut self, i: usize) -> Option<Mbuf> {
        self.slots_mut().get_mut(i)?.take()
    }

    /// Closes the gaps; order is kept.
    pub fn compact(&mut self) {
        let mut kept = 0;
        for i in 0..self.len {
            if self.slots[i].is_some() {
                self.slots.swap(i, kept);
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Removes the first `n` packets, handing each to `take`; the others move up.
    #[inline]
    pub fn take_first(&mut self, n: usize, mut take: impl FnMut(Mbuf)) {
        let n = n.min(self.len);
        for slot in &mut self.slots[..n] {
            if let Some(mbuf) = slot.take() {
                take(mbuf);
            }
        }
        if n == self.len {
            self.len = 0;
        } else {
            self.compact();
        }
    }
}
