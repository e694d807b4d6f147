//! The keys of a burst that a step is not done with.

/// Keys that go through the steps together.
pub(super) const BURST: usize = 64;

/// Some of the keys of a burst, a bit for each. A register: were it a list in memory, the next key would wait for the
/// store of the one before, and that for its step.
#[derive(Clone, Copy)]
pub(super) struct Work(u64);

impl Work {
    pub(super) const NONE: Work = Work(0);

    /// Adds key `i` if it is `wanted`.
    #[inline(always)]
    pub(super) fn add(&mut self, i: usize, wanted: bool) {
        self.0 |= u64::from(wanted) << (i % BURST);
    }

    /// Takes the first step with each of `count` keys, and keeps those for which it says so.
    #[inline(always)]
    pub(super) fn first(count: usize, mut step: impl FnMut(usize) -> bool) -> Work {
        Work((0..count.min(BURST)).fold(0, |kept, i| kept | u64::from(step(i)) << i))
    }

    #[inline(always)]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Takes a step with each, and keeps those for which it says so. No branch depends on what it says.
    #[inline(always)]
    pub(super) fn keep(&mut self, mut step: impl FnMut(usize) -> bool) {
        let mut kept = 0;
        while self.0 != 0 {
            let i = self.0.trailing_zeros();
            self.0 &= self.0 - 1;
            kept |= u64::from(step(i as usize)) << i;
        }
        self.0 = kept;
    }
}
