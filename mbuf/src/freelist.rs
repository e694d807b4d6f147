//! The shared free list: a lock-free stack of bundles of frames.
//!
//! Caches exchange frames with it in bundles, so one compare-and-swap moves up to [`BUNDLE`] frames; a thread
//! without a cache pushes bundles of one. The links are in the frames' headers: the list needs no memory of its own
//! and has room for every frame by construction.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::hdr::Hdr;
use crate::sync::{AtomicU64, Ordering};

/// Frames moved between a cache and the shared list at a time.
pub(crate) const BUNDLE: usize = 64;

/// Top of the stack: the first frame's index + 1 in the low half, a tag in the high half. The tag grows with every
/// change, so that a pop which slept while others popped and pushed the same frame fails its compare-and-swap.
pub(crate) struct FreeList {
    top: AtomicU64,
}

const fn pack(tag: u32, link: u32) -> u64 {
    (tag as u64) << 32 | link as u64
}

impl FreeList {
    pub(crate) fn new() -> FreeList {
        FreeList { top: AtomicU64::new(0) }
    }

    /// Pushes `frames` as one bundle. The caller owned them until now.
    pub(crate) fn push(&self, frames: &[NonNull<Hdr>]) {
        let Some((first, rest)) = frames.split_first() else { return };
        // SAFETY: the caller owns these frames, whose headers live as long as the pool that holds this list.
        let first = unsafe { first.as_ref() };
        let mut last = first;
        for frame in rest {
            // SAFETY: as above.
            let frame = unsafe { frame.as_ref() };
            last.links.in_bundle.store(frame.index + 1, Ordering::Relaxed);
            last = frame;
        }
        last.links.in_bundle.store(0, Ordering::Relaxed);
        first.links.bundle_len.store(frames.len() as u32, Ordering::Relaxed);
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            first.links.bundle.store(top as u32, Ordering::Relaxed);
            let new = pack(((top >> 32) as u32).wrapping_add(1), first.index + 1);
            // Release publishes the links above and whatever was written to the frames.
            match self.top.compare_exchange_weak(top, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => top = seen,
            }
        }
    }

    /// Pops one bundle and hands its frames to `take`; returns how many. `hdrs` is the pool's header array.
    pub(crate) fn pop(&self, hdrs: &[Hdr], mut take: impl FnMut(&Hdr)) -> usize {
        let mut top = self.top.load(Ordering::Acquire);
        let first = loop {
            let link = top as u32;
            if link == 0 {
                return 0;
            }
            let first = &hdrs[link as usize - 1];
            // May be stale if somebody else pops this bundle now; then the tag differs and the exchange fails.
            let below = first.links.bundle.load(Ordering::Relaxed);
            let new = pack(((top >> 32) as u32).wrapping_add(1), below);
            match self.top.compare_exchange_weak(top, new, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => break first,
                Err(seen) => top = seen,
            }
        };
        let len = first.links.bundle_len.load(Ordering::Relaxed) as usize;
        let mut frame = first;
        for left in (0..len).rev() {
            let next = frame.links.in_bundle.load(Ordering::Relaxed);
            take(frame);
            if left > 0 {
                frame = &hdrs[next as usize - 1];
            }
        }
        len
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    struct Frames(Vec<Hdr>);
    // SAFETY: the test touches headers only as the free list allows; `owner` marks who has them.
    unsafe impl Send for Frames {}
    // SAFETY: as above.
    unsafe impl Sync for Frames {}

    fn frames(n: u32) -> Arc<(Frames, FreeList)> {
        let hdrs = (0..n).map(|i| Hdr::new(NonNull::dangling(), std::ptr::null(), i)).collect();
        Arc::new((Frames(hdrs), FreeList::new()))
    }

    fn push(pool: &(Frames, FreeList), indices: &[usize]) {
        let bundle: Vec<_> = indices.iter().map(|i| NonNull::from(&pool.0.0[*i])).collect();
        pool.1.push(&bundle);
    }

    fn pop(pool: &(Frames, FreeList)) -> Vec<usize> {
        let mut got = Vec::new();
        pool.1.pop(&pool.0.0, |hdr| got.push(hdr.index as usize));
        got
    }

    /// Two threads pop and push the same bundles: the classic ABA. Every frame is there once afterwards.
    #[test]
    fn pop_and_push_by_two_threads() {
        loom::model(|| {
            let pool = frames(3);
            push(&pool, &[0]);
            push(&pool, &[1, 2]);
            let other = {
                let pool = pool.clone();
                thread::spawn(move || {
                    let got = pop(&pool);
                    push(&pool, &got);
                })
            };
            let got = pop(&pool);
            let more = pop(&pool);
            push(&pool, &got);
            other.join().unwrap();
            push(&pool, &more);
            let mut all = Vec::new();
            loop {
                let got = pop(&pool);
                if got.is_empty() {
                    break;
                }
                all.extend(got);
            }
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        });
    }

    /// What was popped by one thread was not popped by the other.
    #[test]
    fn nobody_pops_the_same_frame() {
        loom::model(|| {
            let pool = frames(2);
            push(&pool, &[0]);
            push(&pool, &[1]);
            let other = {
                let pool = pool.clone();
                thread::spawn(move || pop(&pool))
            };
            let mine = pop(&pool);
            let theirs = other.join().unwrap();
            assert_eq!((mine.len(), theirs.len()), (1, 1));
            assert_ne!(mine, theirs);
        });
    }
}
