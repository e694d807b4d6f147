//! A value that the control thread replaces while workers use it.
//!
//! ```text
//!   control                      worker
//!   publish: new value,          read: takes its own reference out of its seat,
//!            new version               compares the version, uses the value,
//!   collect: frees what no             puts the reference back
//!            worker refers to
//! ```
//!
//! A worker sees one whole value from the beginning of a [`Swap::read`] to its end: the old one or the new. It neither
//! waits nor frees: when the version has moved on it tries to fetch the new value and, should the control thread be in
//! the way at that moment, goes on with the old one until its next call. A replaced value is kept until the last worker
//! has let go of it, and is dropped by the control thread, in [`Swap::publish`] or [`Swap::collect`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam::atomic::AtomicCell;

use crate::per_worker::PerWorker;

struct Dated<T> {
    version: u64,
    value: T,
}

struct Book<T> {
    current: Arc<Dated<T>>,
    /// Replaced, and possibly still in a seat.
    retired: Vec<Arc<Dated<T>>>,
}

impl<T> Book<T> {
    /// Nobody can get at a retired value any more, so one reference is the last one.
    fn collect(&mut self) {
        self.retired.retain(|old| Arc::strong_count(old) > 1);
    }
}

/// A value with one writer and a fixed number of workers that read it.
pub struct Swap<T> {
    /// Of `current` in the book.
    version: AtomicU64,
    book: Mutex<Book<T>>,
    /// Each worker's reference; empty while it reads. A pointer, so the cell is lock-free.
    seats: PerWorker<AtomicCell<Option<Arc<Dated<T>>>>>,
}

impl<T> Swap<T> {
    /// Starts with `value`, for workers with numbers below `workers`.
    pub fn new(workers: usize, value: T) -> Swap<T> {
        let current = Arc::new(Dated { version: 0, value });
        let seats = PerWorker::new(workers, || AtomicCell::new(Some(current.clone())));
        Swap { version: AtomicU64::new(0), book: Mutex::new(Book { current, retired: Vec::new() }), seats }
    }

    /// *Path.* Calls `f` with the value. Only worker `worker` may do so.
    #[inline]
    pub fn read<R>(&self, worker: usize, f: impl FnOnce(&T) -> R) -> R {
        let seat = self.seats.of(worker);
        let held = match seat.take() {
            Some(held) if held.version == self.version.load(Ordering::Acquire) => held,
            held => self.renew(held),
        };
        let result = f(&held.value);
        seat.store(Some(held));
        result
    }

    #[cold]
    fn renew(&self, held: Option<Arc<Dated<T>>>) -> Arc<Dated<T>> {
        match (self.book.try_lock(), held) {
            (Ok(book), _) => book.current.clone(),
            (Err(TryLockError::Poisoned(book)), _) => book.into_inner().current.clone(),
            (Err(TryLockError::WouldBlock), Some(held)) => held,
            // The seat is empty only after `f` panicked. The lock is held for a few instructions.
            (Err(TryLockError::WouldBlock), None) => self.book().current.clone(),
        }
    }

    /// Replaces the value. On the control thread.
    pub fn publish(&self, value: T) {
        let mut book = self.book();
        let version = book.current.version + 1;
        let old = std::mem::replace(&mut book.current, Arc::new(Dated { version, value }));
        book.retired.push(old);
        self.version.store(version, Ordering::Release);
        book.collect();
    }

    /// Drops replaced values that no worker refers to any more; says how many are left. On the control thread, now and
    /// then.
    pub fn collect(&self) -> usize {
        let mut book = self.book();
        book.collect();
        book.retired.len()
    }

    /// Calls `f` with the newest value. On the control thread.
    pub fn newest<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        let current = self.book().current.clone();
        f(&current.value)
    }

    fn book(&self) -> MutexGuard<'_, Book<T>> {
        // Every step leaves a valid book.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Two halves that are always equal, and a count of those alive.
    struct Pair<'a>(u64, u64, &'a AtomicUsize);

    impl<'a> Pair<'a> {
        fn new(n: u64, alive: &'a AtomicUsize) -> Pair<'a> {
            alive.fetch_add(1, Ordering::SeqCst);
            Pair(n, n, alive)
        }
    }

    impl Drop for Pair<'_> {
        fn drop(&mut self) {
            assert!(std::thread::current().name() != Some("worker"), "freed on a worker");
            self.2.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn workers_see_whole_values_and_never_an_older_one_again() {
        let alive = AtomicUsize::new(0);
        let swap = Swap::new(3, Pair::new(0, &alive));
        assert!(AtomicCell::<Option<Arc<Dated<Pair<'_>>>>>::is_lock_free());
        const LAST: u64 = 2000;
        std::thread::scope(|scope| {
            let swap = &swap;
            for worker in 0..3 {
                let work = move || {
                    let mut seen = 0;
                    while seen < LAST {
                        swap.read(worker, |pair| {
                            assert!(pair.0 == pair.1 && pair.0 >= seen);
                            seen = pair.0;
                        });
                        std::thread::yield_now();
                    }
                };
                std::thread::Builder::new().name("worker".into()).spawn_scoped(scope, work).unwrap();
            }
            (1..=LAST).for_each(|n| swap.publish(Pair::new(n, &alive)));
        });
        assert_eq!(swap.collect(), 0);
        assert_eq!(alive.load(Ordering::SeqCst), 1, "all but the newest are gone");
    }

    #[test]
    fn what_is_in_use_is_kept() {
        let alive = AtomicUsize::new(0);
        let swap = Swap::new(2, Pair::new(1, &alive));
        swap.read(0, |old| {
            swap.publish(Pair::new(2, &alive));
            assert_eq!((old.0, swap.collect()), (1, 1));
            // From within, as if it were another call: the newest.
            assert_eq!(swap.read(0, |new| new.0), 2);
        });
        assert_eq!(swap.newest(|pair| pair.0), 2);
        assert_eq!(swap.collect(), 1, "worker 1 did not call yet");
        assert_eq!((swap.read(0, |p| p.0), swap.read(1, |p| p.0), swap.collect()), (2, 2, 0));
    }

    #[test]
    fn a_panic_does_not_cost_the_seat() {
        let swap = Swap::new(1, 5);
        let caught =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| swap.read(0, |_| panic!("oops"))));
        assert!(caught.is_err());
        assert_eq!(swap.read(0, |n| *n), 5);
    }
}
