//! Single-producer single-consumer rings in memory shared with the kernel.
//!
//! Indices run freely through all of u32 and are masked on access. Each side keeps a copy of the other side's index and
//! reads the shared one only when the copy says there is not enough: one acquire load and one release store per batch.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::sync::{AtomicU32, Ordering, UnsafeCell};

/// Where the parts of a ring lie.
pub(crate) struct RingMemory<T> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) entries: NonNull<UnsafeCell<T>>,
    /// A power of two.
    pub(crate) size: u32,
}

impl<T> Clone for RingMemory<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for RingMemory<T> {}

impl<T: Copy> RingMemory<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: whoever made this RingMemory keeps the ring mapped as long as the ends made of it live.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> &UnsafeCell<T> {
        // SAFETY: the masked index is below `size`, the number of entries mapped.
        unsafe { self.entries.add((index & (self.size - 1)) as usize).as_ref() }
    }
}

/// The producing end: of fill and tx rings.
pub(crate) struct Producer<T> {
    memory: RingMemory<T>,
    /// Our index: everything before it is submitted.
    next: u32,
    /// The consumer's index, as last seen.
    consumed: u32,
}

// SAFETY: the end is used by one thread at a time (`&mut self`); the other end is the kernel's.
unsafe impl<T: Send> Send for Producer<T> {}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// The ring stays mapped as long as this end, which is the only producer.
    pub(crate) unsafe fn new(memory: RingMemory<T>) -> Producer<T> {
        let next = memory.producer().load(Ordering::Relaxed);
        let consumed = memory.consumer().load(Ordering::Acquire);
        Producer { memory, next, consumed }
    }

    /// Free entries; looks at the shared index only if fewer than `want` are known of.
    #[inline(always)]
    pub(crate) fn room(&mut self, want: u32) -> u32 {
        let free = self.memory.size - self.next.wrapping_sub(self.consumed);
        if free >= want {
            return free;
        }
        self.consumed = self.memory.consumer().load(Ordering::Acquire);
        self.memory.size - self.next.wrapping_sub(self.consumed)
    }

    /// Submits what `items` yields, at most `max` and never more than there is room for; takes no item it cannot submit.
    #[inline(always)]
    pub(crate) fn produce(&mut self, max: u32, items: impl Iterator<Item = T>) -> u32 {
        let room = self.room(max).min(max);
        let mut done = 0;
        // `zip` with the range first: an item is only drawn when there is a place for it.
        for (i, item) in (0..room).zip(items) {
            // SAFETY: the entry lies between the consumer's index and what is submitted: the consumer leaves it alone.
            self.memory.entry(self.next.wrapping_add(i)).with_mut(|p| unsafe { p.write(item) });
            done += 1;
        }
        if done > 0 {
            self.next = self.next.wrapping_add(done);
            self.memory.producer().store(self.next, Ordering::Release);
        }
        done
    }

    /// Entries submitted that the consumer has not taken yet, as far as it has told.
    #[inline]
    pub(crate) fn untaken(&self) -> u32 {
        self.next.wrapping_sub(self.memory.consumer().load(Ordering::Acquire)).min(self.memory.size)
    }

    /// Entries ever submitted, modulo 2^32.
    pub(crate) fn submitted(&self) -> u32 {
        self.next
    }

    /// What the consumer has not taken yet. Only when the consumer is known to have stopped.
    pub(crate) fn leftovers(&self) -> Vec<T> {
        let first = self.memory.consumer().load(Ordering::Acquire);
        // A consumer cannot be further behind than the ring is long; anything else is a broken ring.
        let count = self.next.wrapping_sub(first).min(self.memory.size);
        let at = |i| self.next.wrapping_sub(count).wrapping_add(i);
        // SAFETY: the consumer has stopped, so nobody writes; entries before `next` were written by us.
        (0..count).map(|i| self.memory.entry(at(i)).with(|p| unsafe { p.read() })).collect()
    }
}

/// The consuming end: of rx and completion rings.
pub(crate) struct Consumer<T> {
    memory: RingMemory<T>,
    /// Our index: everything before it is given back.
    next: u32,
    /// The producer's index, as last seen.
    produced: u32,
}

// SAFETY: as for Producer.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// The ring stays mapped as long as this end, which is the only consumer.
    pub(crate) unsafe fn new(memory: RingMemory<T>) -> Consumer<T> {
        let next = memory.consumer().load(Ordering::Relaxed);
        Consumer { memory, next, produced: next }
    }

    /// Hands up to `max` entries to `take`, in order, then gives their places back.
    #[inline(always)]
    pub(crate) fn consume(&mut self, max: u32, mut take: impl FnMut(T)) -> u32 {
        let mut ready = self.produced.wrapping_sub(self.next);
        if ready < max {
            self.produced = self.memory.producer().load(Ordering::Acquire);
            ready = self.produced.wrapping_sub(self.next).min(self.memory.size);
        }
        let count = ready.min(max);
        for i in 0..count {
            // SAFETY: the entry lies before the producer's index: it is written, and left alone until given back.
            take(self.memory.entry(self.next.wrapping_add(i)).with(|p| unsafe { p.read() }));
        }
        if count > 0 {
            self.next = self.next.wrapping_add(count);
            self.memory.consumer().store(self.next, Ordering::Release);
        }
        count
    }

    /// Entries ever taken, modulo 2^32.
    pub(crate) fn taken(&self) -> u32 {
        self.next
    }
}

#[cfg(test)]
pub(crate) mod heap {
    //! A ring in ordinary memory, with both ends in our hands.

    use super::*;

    pub(crate) struct HeapRing {
        producer: Box<AtomicU32>,
        consumer: Box<AtomicU32>,
        entries: Box<[UnsafeCell<u64>]>,
    }

    // SAFETY: accessed only through one Producer and one Consumer.
    unsafe impl Send for HeapRing {}
    // SAFETY: as above.
    unsafe impl Sync for HeapRing {}

    impl HeapRing {
        pub(crate) fn new(size: usize, first_index: u32) -> HeapRing {
            #[cfg(loom)]
            let cell = || UnsafeCell::new(0);
            // SAFETY: a transparent wrapper around a u64 in a cell.
            #[cfg(not(loom))]
            let cell = || unsafe { std::mem::transmute::<u64, UnsafeCell<u64>>(0) };
            HeapRing {
                producer: Box::new(AtomicU32::new(first_index)),
                consumer: Box::new(AtomicU32::new(first_index)),
                entries: (0..size).map(|_| cell()).collect(),
            }
        }

        /// # Safety
        /// The ring outlives both ends, and this is called once.
        pub(crate) unsafe fn ends(&self) -> (Producer<u64>, Consumer<u64>) {
            let memory = RingMemory {
                producer: NonNull::from(&*self.producer),
                consumer: NonNull::from(&*self.consumer),
                entries: NonNull::from(&self.entries[0]),
                size: self.entries.len() as u32,
            };
            // SAFETY: the caller's promise.
            unsafe { (Producer::new(memory), Consumer::new(memory)) }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::heap::HeapRing;
    use std::collections::VecDeque;

    /// Random batches against a queue that is known to be right, across the end of u32.
    #[test]
    fn behaves_as_a_bounded_queue() {
        for size in [1usize, 2, 8, 64] {
            let ring = HeapRing::new(size, u32::MAX - 100);
            // SAFETY: once, and the ring outlives the ends.
            let (mut producer, mut consumer) = unsafe { ring.ends() };
            let mut oracle = VecDeque::new();
            let (mut x, mut value) = (size as u64, 0u64);
            for _ in 0..20_000 {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let n = (x >> 33) as u32 % (size as u32 + 3);
                if x >> 63 == 0 {
                    let mut source = value..;
                    let done = producer.produce(n, &mut source);
                    assert_eq!(done, n.min((size - oracle.len()) as u32));
                    assert_eq!(source.start, value + u64::from(done), "no item is drawn and lost");
                    oracle.extend(value..source.start);
                    value = source.start;
                } else {
                    let mut got = Vec::new();
                    let done = consumer.consume(n, |v| got.push(v));
                    assert_eq!(done, n.min(oracle.len() as u32));
                    assert_eq!(got, oracle.drain(..done as usize).collect::<Vec<_>>());
                }
                assert_eq!(producer.leftovers(), oracle.iter().copied().collect::<Vec<_>>());
                assert_eq!(producer.room(u32::MAX) as usize, size - oracle.len());
                assert_eq!(producer.submitted().wrapping_sub(consumer.taken()) as usize, oracle.len());
            }
        }
    }

    #[test]
    fn two_threads_lose_and_double_nothing() {
        let ring = HeapRing::new(64, u32::MAX - 1000);
        // SAFETY: once, and the scope ends before the ring.
        let (mut producer, mut consumer) = unsafe { ring.ends() };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut source = 0..100_000u64;
                while !source.is_empty() {
                    if producer.produce(17, &mut source) == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < 100_000 {
                let before = expected;
                consumer.consume(23, |v| {
                    assert_eq!(v, expected);
                    expected += 1;
                });
                if before == expected {
                    std::thread::yield_now();
                }
            }
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::heap::HeapRing;
    use loom::sync::Arc;
    use loom::thread;

    /// A ring of two, four items in batches, over the wrap of u32: every schedule delivers each once, in order.
    #[test]
    fn loom_producer_and_consumer() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let ring = Arc::new(HeapRing::new(2, u32::MAX - 1));
            // SAFETY: once; each thread holds the ring as long as its end.
            let (mut producer, mut consumer) = unsafe { ring.ends() };
            let kept = ring.clone();
            let sender = thread::spawn(move || {
                let mut source = 0..4u64;
                while !source.is_empty() {
                    if producer.produce(2, &mut source) == 0 {
                        thread::yield_now();
                    }
                }
                drop(kept);
            });
            let mut expected = 0;
            while expected < 4 {
                let before = expected;
                consumer.consume(2, |v| {
                    assert_eq!(v, expected);
                    expected += 1;
                });
                if before == expected {
                    thread::yield_now();
                }
            }
            sender.join().unwrap();
        });
    }
}
