//! Change without stopping: one published value, readers that never wait, and grace periods (QSBR).
//!
//! A reader is quiescent whenever it calls [`Reader::pin`]: it holds nothing of what it saw before. `pin` announces
//! the generation it is about to read at least, which is all the bookkeeping on the path: two loads, and a store when
//! something changed. The publisher swaps in a new value, counts the generation up, and may drop the old value, and
//! call `detached` on what only it referred to, once every reader has announced that generation.
//!
//! A reader that is about to sleep goes offline, so that grace periods do not wait for it.
//!
//! Why the orderings suffice. The publisher stores the pointer, then the generation (release); a reader that loads the
//! new generation (acquire) therefore loads the new pointer, or a later one. The reader stores its announcement
//! (release) after its last access to the old value; the publisher that loads it (acquire) may free that value. Going
//! online is the one place where a store must come before later loads, hence the two fences: either the publisher sees
//! the reader online and waits for it, or the reader sees the new pointer.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use crossbeam::utils::CachePadded;

use crate::sync::{Arc, AtomicPtr, AtomicU64, Ordering, fence};

const OFFLINE: u64 = u64::MAX;

struct Shared<T> {
    current: AtomicPtr<T>,
    generation: AtomicU64,
    announced: Box<[CachePadded<AtomicU64>]>,
}

// SAFETY: T is handed to readers on other threads by reference and dropped on the publisher's thread.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let current = self.current.load(Ordering::Relaxed);
        // SAFETY: readers and publisher are gone (each holds an Arc), so the last value is nobody's.
        drop(unsafe { Box::from_raw(current) });
    }
}

/// Makes a publisher of `first` and `readers` readers, all offline until their first [`Reader::pin`].
pub fn channel<T: Send + Sync>(first: Box<T>, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let shared = Arc::new(Shared {
        current: AtomicPtr::new(Box::into_raw(first)),
        generation: AtomicU64::new(1),
        announced: (0..readers).map(|_| CachePadded::new(AtomicU64::new(OFFLINE))).collect(),
    });
    let ends = (0..readers).map(|slot| Reader { shared: shared.clone(), slot, announced: OFFLINE }).collect();
    (Publisher { shared, retired: VecDeque::new() }, ends)
}

/// A worker's end.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    slot: usize,
    announced: u64,
}

impl<T> Reader<T> {
    /// Passes a quiescent state and returns the current value, valid until the next call.
    #[inline(always)]
    pub fn pin(&mut self) -> &T {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.announced {
            self.announce(generation);
        }
        let current = self.shared.current.load(Ordering::Acquire);
        // SAFETY: the publisher keeps this value until this reader announces a later generation or goes offline,
        // and both take `&mut self`, which ends the borrow returned here.
        unsafe { &*current }
    }

    #[cold]
    fn announce(&mut self, generation: u64) {
        let slot = &self.shared.announced[self.slot];
        slot.store(generation, Ordering::Release);
        if self.announced == OFFLINE {
            // Pairs with the fence in `publish`.
            fence(Ordering::SeqCst);
        }
        self.announced = generation;
    }

    /// Tells that this reader holds nothing and will not read until its next [`Reader::pin`]. Before sleeping.
    pub fn offline(&mut self) {
        self.shared.announced[self.slot].store(OFFLINE, Ordering::Release);
        self.announced = OFFLINE;
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.offline();
    }
}

/// The control thread's end.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    retired: VecDeque<(u64, Box<T>)>,
}

impl<T> Publisher<T> {
    /// Publishes `next` and retires what was current. Returns the generation to wait for: once [`Publisher::passed`]
    /// says so, no reader can reach what `next` does not refer to.
    pub fn publish(&mut self, next: Box<T>) -> u64 {
        let old = self.shared.current.swap(Box::into_raw(next), Ordering::AcqRel);
        let generation = self.shared.generation.load(Ordering::Relaxed) + 1;
        self.shared.generation.store(generation, Ordering::Release);
        // Pairs with the fence in `announce`.
        fence(Ordering::SeqCst);
        // SAFETY: `old` came from Box::into_raw and left `current` just now; readers may still look at it, so the box
        // is only kept here, not touched, until they have passed.
        self.retired.push_back((generation, unsafe { Box::from_raw(old) }));
        generation
    }

    /// Begins a grace period without a new value: once its generation is passed, no reader is in anything it found before
    /// this call by other ways than the published value.
    pub fn barrier(&mut self) -> u64 {
        let generation = self.shared.generation.load(Ordering::Relaxed) + 1;
        self.shared.generation.store(generation, Ordering::Release);
        // As in `publish`.
        fence(Ordering::SeqCst);
        generation
    }

    /// The newest generation.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Relaxed)
    }

    /// Whether every reader has passed `generation`.
    pub fn passed(&self, generation: u64) -> bool {
        self.laggards(generation).next().is_none()
    }

    /// Readers that have not passed `generation` yet, by number.
    pub fn laggards(&self, generation: u64) -> impl Iterator<Item = usize> + '_ {
        let slots = self.shared.announced.iter().enumerate();
        slots.filter(move |(_, slot)| slot.load(Ordering::Acquire) < generation).map(|(i, _)| i)
    }

    /// Takes back the oldest retired value that no reader can reach any more.
    pub fn reclaim(&mut self) -> Option<Box<T>> {
        let (generation, _) = self.retired.front()?;
        if !self.passed(*generation) {
            return None;
        }
        self.retired.pop_front().map(|(_, value)| value)
    }

    /// Values retired and not taken back yet.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        while self.reclaim().is_some() {}
        // A reader that never passed may still look at the rest: better kept than pulled away.
        for (_, value) in self.retired.drain(..) {
            std::mem::forget(value);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    #[test]
    fn a_value_goes_only_after_every_reader_passed() {
        let (mut publisher, mut readers) = channel(Box::new(1), 2);
        assert_eq!(*readers[0].pin(), 1);
        let generation = publisher.publish(Box::new(2));
        assert!(!publisher.passed(generation));
        assert_eq!(publisher.laggards(generation).collect::<Vec<_>>(), [0], "reader 1 is offline");
        assert_eq!(*readers[1].pin(), 2);
        assert!(publisher.reclaim().is_none());
        assert_eq!(*readers[0].pin(), 2);
        assert_eq!(publisher.reclaim().as_deref(), Some(&1));
        assert_eq!(publisher.retired(), 0);
    }

    #[test]
    fn offline_readers_do_not_hold_up_and_come_back_to_the_newest() {
        let (mut publisher, mut readers) = channel(Box::new(1), 1);
        readers[0].pin();
        readers[0].offline();
        publisher.publish(Box::new(2));
        publisher.publish(Box::new(3));
        assert_eq!(publisher.reclaim().as_deref(), Some(&1));
        assert_eq!(publisher.reclaim().as_deref(), Some(&2));
        assert_eq!(*readers[0].pin(), 3);
    }

    /// A value that notices being read after it was dropped.
    struct Canary {
        alive: AtomicBool,
        dropped: std::sync::Arc<AtomicUsize>,
    }
    impl Drop for Canary {
        fn drop(&mut self) {
            self.alive.store(false, Ordering::SeqCst);
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn under_load_nothing_is_read_after_its_drop() {
        let dropped = std::sync::Arc::new(AtomicUsize::new(0));
        let make = || Box::new(Canary { alive: AtomicBool::new(true), dropped: dropped.clone() });
        let (mut publisher, readers) = channel(make(), 3);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for mut reader in readers {
                let stop = &stop;
                scope.spawn(move || {
                    let mut n = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        assert!(reader.pin().alive.load(Ordering::SeqCst));
                        n += 1;
                        if n.is_multiple_of(64) {
                            reader.offline();
                        }
                    }
                });
            }
            for _ in 0..2000 {
                let generation = publisher.publish(make());
                while !publisher.passed(generation) {
                    std::thread::yield_now();
                }
                while publisher.reclaim().is_some() {}
            }
            stop.store(true, Ordering::Relaxed);
        });
        drop(publisher);
        assert_eq!(dropped.load(Ordering::SeqCst), 2001, "each value dropped exactly once");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::thread;

    /// A value whose accesses loom checks: reading while it is being taken down is reported as a race.
    struct Checked(UnsafeCell<u64>);
    // SAFETY: loom checks every access.
    unsafe impl Sync for Checked {}

    fn value(n: u64) -> Box<Checked> {
        Box::new(Checked(UnsafeCell::new(n)))
    }

    fn read(checked: &Checked) -> u64 {
        // SAFETY: loom reports concurrent writers.
        checked.0.with(|p| unsafe { *p })
    }

    fn take_down(checked: Box<Checked>) {
        // SAFETY: loom reports concurrent readers.
        checked.0.with_mut(|p| unsafe { *p = u64::MAX });
    }

    #[test]
    fn reader_that_pins_twice() {
        loom::model(|| {
            let (mut publisher, mut readers) = channel(value(1), 1);
            let mut reader = readers.remove(0);
            let worker = thread::spawn(move || {
                let first = read(reader.pin());
                let second = read(reader.pin());
                assert!(first <= second && second <= 2);
            });
            publisher.publish(value(2));
            if let Some(old) = publisher.reclaim() {
                take_down(old);
            }
            worker.join().unwrap();
            if let Some(old) = publisher.reclaim() {
                take_down(old);
            }
        });
    }

    #[test]
    fn reader_that_sleeps_between() {
        loom::model(|| {
            let (mut publisher, mut readers) = channel(value(1), 1);
            let mut reader = readers.remove(0);
            let worker = thread::spawn(move || {
                read(reader.pin());
                reader.offline();
                read(reader.pin());
            });
            publisher.publish(value(2));
            if let Some(old) = publisher.reclaim() {
                take_down(old);
            }
            worker.join().unwrap();
        });
    }

    /// A table beside the published value, changed in place as routing tables are: what was unhooked from it is taken down
    /// after a barrier, while a reader looks twice and sleeps between.
    #[test]
    fn what_is_unhooked_goes_after_a_barrier() {
        loom::model(|| {
            let (mut publisher, mut readers) = channel(Box::new(()), 1);
            let mut reader = readers.remove(0);
            let hooked = Arc::new(crate::sync::AtomicU64::new(1));
            let node = Arc::new(Checked(UnsafeCell::new(7)));
            let worker = {
                let (hooked, node) = (hooked.clone(), node.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        reader.pin();
                        if hooked.load(Ordering::Acquire) == 1 {
                            assert_eq!(read(&node), 7);
                        }
                        reader.offline();
                    }
                })
            };
            hooked.store(0, Ordering::Release);
            let generation = publisher.barrier();
            if publisher.passed(generation) {
                // SAFETY: loom reports concurrent readers.
                node.0.with_mut(|p| unsafe { *p = u64::MAX });
            }
            worker.join().unwrap();
        });
    }

    /// Every schedule with up to three preemptions; all of them take minutes and found nothing more.
    #[test]
    fn two_readers_two_changes() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let (mut publisher, mut readers) = channel(value(1), 2);
            let workers: Vec<_> = readers
                .drain(..)
                .map(|mut reader| thread::spawn(move || assert!(read(reader.pin()) < 4)))
                .collect();
            for n in 2..4 {
                publisher.publish(value(n));
                while let Some(old) = publisher.reclaim() {
                    take_down(old);
                }
            }
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }
}
