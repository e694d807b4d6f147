//! The keys of a burst that a step is not done with.

/// Keys that go through the steps together.
pub(super) const BURST: usize = 64;

/// Some of the keys of a burst, by index.
#[derive(Clone, Copy)]
pub(super) struct Work {
    keys: [u8; BURST],
    len: usize,
}

impl Work {
    /// Those of at most [`BURST`] keys for which `wanted` is true.
    #[inline(always)]
    pub(super) fn of(wanted: impl Iterator<Item = bool>) -> Work {
        let mut work = Work { keys: [0; BURST], len: 0 };
        for (i, wanted) in wanted.take(BURST).enumerate() {
            work.keys[work.len % BURST] = i as u8;
            work.len += usize::from(wanted);
        }
        work
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a step with each, and keeps those for which it says so. No branch depends on what it says.
    #[inline(always)]
    pub(super) fn keep(&mut self, mut step: impl FnMut(usize) -> bool) {
        let mut kept = 0;
        for i in 0..self.len.min(BURST) {
            let key = self.keys[i];
            self.keys[kept] = key;
            kept += usize::from(step(usize::from(key) % BURST));
        }
        self.len = kept;
    }
}
