//! A worker's own stock of free frames: allocation and release are a pop and a push of an array.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::burst::{BURST_MAX, Burst};
use crate::freelist::BUNDLE;
use crate::hdr::{Device, Hdr, Owner};
use crate::mbuf::{FrameAddr, Mbuf};
use crate::mempool::{Pool, PoolInner, Start};

/// Most frames a cache holds. Above that a bundle goes to the shared list.
pub const CACHE_FRAMES: usize = 512;

/// Free frames of one worker. Last in, first out, so that the frame handed out is the one most likely still in the
/// processor's cache. What it holds goes back to the pool when it is dropped.
pub struct Cache {
    pool: Pool,
    /// The pool's inside, to tell its frames from another pool's at a glance.
    inner: *const PoolInner,
    start: Start,
    /// Bytes a fresh packet surely has room for.
    room: usize,
    len: usize,
    slots: Box<[NonNull<Hdr>; CACHE_FRAMES]>,
}

// SAFETY: the frames in `slots` are held by this cache alone; moving it to another thread moves them along.
unsafe impl Send for Cache {}

impl Cache {
    /// An empty cache on `pool`.
    pub fn new(pool: &Pool) -> Cache {
        Cache {
            pool: pool.clone(),
            inner: std::ptr::from_ref(pool.inner()),
            start: pool.inner().start(),
            room: pool.inner().room(),
            len: 0,
            slots: Box::new([NonNull::dangling(); CACHE_FRAMES]),
        }
    }

    /// The pool behind the cache.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Frames in the cache now.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cache holds no frame.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// An empty packet, or `None` when pool and cache have no frame left (counted by the pool).
    #[inline]
    pub fn alloc(&mut self) -> Option<Mbuf> {
        if self.len == 0 && !self.refill() {
            return None;
        }
        self.len -= 1;
        let hdr = self.slots[self.len];
        // SAFETY: the cache held the frame, and gives it up by counting down; it starts where its pool's frames do.
        Some(unsafe { Mbuf::fresh(hdr, self.start.of(hdr)) })
    }

    /// Adds up to `n` packets to `burst`, as many as there are room and frames for, stamped `timestamp`. `fill` writes each:
    /// it gets all the room a fresh packet surely has, with old bytes in it, and says how many of them, from the first on, are
    /// the packet. Returns how many were added.
    #[inline(always)]
    pub fn alloc_burst(
        &mut self,
        burst: &mut Burst,
        n: usize,
        timestamp: u64,
        mut fill: impl FnMut(&mut [u8]) -> usize,
    ) -> usize {
        let n = n.min(burst.room());
        while self.len < n && self.refill() {}
        let n = n.min(self.len);
        let (start, room) = (self.start, self.room);
        // Counts in the end, and when `fill` panics.
        let mut moved = Alloc { cache: self, burst, packets: 0 };
        let from = moved.cache.len;
        for (slot, hdr) in moved.burst.beyond().iter_mut().zip(moved.cache.slots[from - n..from].iter().rev())
        {
            // SAFETY: the cache held the frame, and gives it up when `moved` counts.
            let mbuf = unsafe { Mbuf::filled(*hdr, start.of(*hdr), room, timestamp, &mut fill) };
            // The slot is empty: forgetting its old content spares a drop check.
            std::mem::forget(slot.replace(mbuf));
            moved.packets += 1;
        }
        n
    }

    /// Takes a packet back: its whole chain, its tags. One of another pool goes home to that.
    #[inline]
    pub fn free(&mut self, mbuf: Mbuf) {
        if mbuf.hdr().pool != self.inner {
            return drop(mbuf);
        }
        let hdr = mbuf.into_hdr();
        // SAFETY: into_hdr gave up the only handle.
        let meta = unsafe { &*hdr.as_ref().meta.get() };
        if meta.next.is_none() && meta.tag_len == 0 {
            self.put(hdr);
        } else {
            self.free_chain(hdr);
        }
    }

    /// Takes a whole burst back.
    #[inline]
    pub fn free_burst(&mut self, burst: &mut Burst) {
        burst.take_first(BURST_MAX, |mbuf| self.free(mbuf));
    }

    /// Lends a free frame to a device to receive into: the address of its first byte. `None` when pool and cache have
    /// no frame left (counted by the pool). `device` names the borrower, for [`Pool::take_back`].
    #[inline]
    pub fn lend(&mut self, device: Device) -> Option<FrameAddr> {
        if self.len == 0 && !self.refill() {
            return None;
        }
        self.len -= 1;
        // SAFETY: the cache held the frame; its header lives as long as the pool.
        let hdr = unsafe { self.slots[self.len].as_ref() };
        hdr.lend_to(device);
        Some(FrameAddr(self.pool.inner().base_addr(hdr)))
    }

    /// Takes back a frame that was lent to a device with [`Mbuf::into_frame`] or
    /// [`Cache::lend`].
    ///
    /// # Safety
    /// The caller holds the only claim to the frame, of this cache's pool, and gives it up.
    #[inline]
    pub unsafe fn free_frame(&mut self, addr: FrameAddr) {
        let hdr = NonNull::from(self.pool.inner().hdr_at(addr.0));
        self.put(hdr);
    }

    /// Gives everything back to the shared list.
    pub fn flush(&mut self) {
        while self.len > 0 {
            self.spill();
        }
    }

    #[inline(always)]
    fn put(&mut self, hdr: NonNull<Hdr>) {
        // SAFETY: the caller gave the frame up; its header lives as long as the pool.
        unsafe { hdr.as_ref() }.set_owner(Owner::FREE);
        if self.len == CACHE_FRAMES {
            self.spill();
        }
        self.slots[self.len] = hdr;
        self.len += 1;
    }

    #[cold]
    fn free_chain(&mut self, hdr: NonNull<Hdr>) {
        let mut next = Some(hdr);
        while let Some(hdr) = next {
            // SAFETY: the chain was owned by the mbuf that is being freed.
            let (rest, tags) = unsafe { hdr.as_ref().take_links() };
            if let Some(tags) = tags {
                self.put(tags);
            }
            self.put(hdr);
            next = rest;
        }
    }

    #[cold]
    fn refill(&mut self) -> bool {
        let (slots, len) = (&mut self.slots, &mut self.len);
        let got = self.pool.inner().pop(|hdr| {
            slots[*len] = NonNull::from(hdr);
            *len += 1;
        });
        if got == 0 {
            self.pool.inner().note_exhausted();
        }
        got > 0
    }

    #[cold]
    fn spill(&mut self) {
        let keep = self.len.saturating_sub(BUNDLE);
        self.pool.inner().push(&self.slots[keep..self.len]);
        self.len = keep;
    }
}

/// Packets on their way from a cache into a burst.
struct Alloc<'a> {
    cache: &'a mut Cache,
    burst: &'a mut Burst,
    packets: usize,
}

impl Drop for Alloc<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.cache.len -= self.packets;
        self.burst.grow(self.packets);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
    }
}
