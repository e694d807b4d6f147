//! State with one copy per worker, so that workers never write to the same cache line.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

/// One `T` for each worker, each in cache lines of its own.
pub struct PerWorker<T>(Box<[CachePadded<T>]>);

impl<T> PerWorker<T> {
    /// `workers` copies made by `make`.
    pub fn new(workers: usize, mut make: impl FnMut() -> T) -> PerWorker<T> {
        PerWorker((0..workers).map(|_| CachePadded::new(make())).collect())
    }

    /// The copy of worker `worker`.
    #[inline(always)]
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker]
    }

    /// All copies.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &**padded)
    }
}

/// A counter with one writer and any number of readers: an increment is a plain load and store.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only one thread may do that; concurrent additions would lose counts, nothing worse.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count, from any thread.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
