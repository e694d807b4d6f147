//! The pool: frames over a region, their headers, and the shared free list.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::freelist::{BUNDLE, FreeList};
use crate::hdr::{Device, Hdr, Owner};
use crate::mbuf::Mbuf;
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};

/// Frames of one pool are spread over this many start offsets, a cache line apart: frames lie a power of two from
/// each other, and packets that all began at the same offset would compete for one or two sets of the L1 cache.
const COLOURS: u32 = 4;
const LINE_BYTES: u32 = 64;

/// Where data of fresh mbufs starts in the frames of one pool.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    headroom: u16,
    /// Address of the first header.
    first: usize,
}

impl Start {
    /// In this frame. The headers lie side by side, so their addresses number the frames: that spares a look into the header.
    /// Two neighbours have the same colour: frames of 2 KiB are half the sets of a usual L1 cache apart, and the pair is spread
    /// already.
    #[inline(always)]
    pub(crate) fn of(self, hdr: NonNull<Hdr>) -> u16 {
        let pair = (hdr.addr().get() - self.first) / (2 * size_of::<Hdr>());
        self.headroom + ((pair as u32 % COLOURS) * LINE_BYTES) as u16
    }
}

/// How a region is divided.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Bytes per frame, a power of two from 512 to 32768 (AF_XDP takes 2048 and 4096).
    pub frame_size: u32,
    /// Bytes kept free in front of the data of a fresh mbuf, at least; a frame may start up to 192 bytes later.
    pub headroom: u16,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig { frame_size: 2048, headroom: 128 }
    }
}

/// Why a pool was not made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PoolError {
    /// The frame size is not a power of two between 512 and 32768.
    FrameSize(u32),
    /// The region holds no frame, or more than 2^32 - 2.
    FrameCount(usize),
    /// Headroom and the largest start offset leave no room for data.
    Headroom(u16),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::FrameSize(n) => write!(f, "frame size {n}: use a power of two from 512 to 32768"),
            PoolError::FrameCount(n) => write!(f, "{n} frames: make the region hold between 1 and 2^32 - 2"),
            PoolError::Headroom(n) => write!(f, "headroom {n} leaves no room for data in a frame"),
        }
    }
}

impl std::error::Error for PoolError {}

pub(crate) struct PoolInner {
    // Dropped before the region the headers point into.
    hdrs: Box<[Hdr]>,
    free: FreeList,
    region: Region,
    frame_shift: u32,
    pub(crate) frame_size: u32,
    headroom: u16,
    exhausted: AtomicU64,
    clock_ms: AtomicU64,
}

// SAFETY: headers are shared as atomics, except `meta` and `inline_tags`, which only the unique holder of a frame
// (an `Mbuf`, or a cache that holds it free) accesses; the raw pointers lead to memory that lives as long as the pool.
unsafe impl Send for PoolInner {}
// SAFETY: as above.
unsafe impl Sync for PoolInner {}

impl PoolInner {
    pub(crate) fn hdr_at(&self, addr: u64) -> &Hdr {
        &self.hdrs[(addr >> self.frame_shift) as usize]
    }

    pub(crate) fn base_addr(&self, hdr: &Hdr) -> u64 {
        u64::from(hdr.index) << self.frame_shift
    }

    /// Where data of fresh mbufs starts.
    pub(crate) fn start(&self) -> Start {
        Start { headroom: self.headroom, first: self.hdrs.as_ptr().addr() }
    }

    /// Bytes of data that fit into any fresh mbuf.
    pub(crate) fn room(&self) -> usize {
        // Positive: `Pool::new` saw to it.
        (self.frame_size - u32::from(self.headroom) - (COLOURS - 1) * LINE_BYTES) as usize
    }

    /// Gives frames nobody else holds to the shared list.
    pub(crate) fn push(&self, frames: &[NonNull<Hdr>]) {
        self.free.push(frames);
    }

    /// One bundle from the shared list.
    pub(crate) fn pop(&self, take: impl FnMut(&Hdr)) -> usize {
        self.free.pop(&self.hdrs, take)
    }

    pub(crate) fn note_exhausted(&self) {
        self.exhausted.fetch_add(1, Ordering::Relaxed);
    }

    /// A free frame without a cache: takes a bundle and puts the rest back.
    pub(crate) fn alloc_slow(&self) -> Option<NonNull<Hdr>> {
        let mut rest = [NonNull::dangling(); BUNDLE];
        let mut n = 0;
        self.pop(|hdr| {
            rest[n] = NonNull::from(hdr);
            n += 1;
        });
        if n == 0 {
            self.note_exhausted();
            return None;
        }
        self.push(&rest[1..n]);
        Some(rest[0])
    }

    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }
}

/// Last handle of a pool. Frees headers and region if every frame is home; otherwise somebody still holds an
/// `Mbuf`, and the memory is kept for good rather than pulled from under it.
struct Handle(NonNull<PoolInner>);

// SAFETY: PoolInner is Send and Sync; the handle is a counted reference to it.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by Box::into_raw in `Pool::new`; this is the last handle, and caches hold handles.
        let inner = unsafe { self.0.as_ref() };
        let mut home = 0;
        loop {
            match inner.pop(|_| ()) {
                0 => break,
                n => home += n,
            }
        }
        if home == inner.hdrs.len() {
            // SAFETY: every frame came home through a finished push, so no Mbuf and no cache is left that could
            // reach the headers.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

/// Frames over one region. Cloning gives another handle to the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

impl Pool {
    /// Divides `region` into frames, all free. A remainder shorter than a frame is left unused.
    pub fn new(region: Region, config: &PoolConfig) -> Result<Pool, PoolError> {
        let size = config.frame_size;
        if !size.is_power_of_two() || !(512..=32768).contains(&size) {
            return Err(PoolError::FrameSize(size));
        }
        if u32::from(config.headroom) + (COLOURS - 1) * LINE_BYTES >= size {
            return Err(PoolError::Headroom(config.headroom));
        }
        let count = region.len() / size as usize;
        if count == 0 || count > u32::MAX as usize - 1 {
            return Err(PoolError::FrameCount(count));
        }
        let inner = Box::into_raw(Box::new(PoolInner {
            hdrs: Box::new([]),
            free: FreeList::new(),
            frame_shift: size.trailing_zeros(),
            frame_size: size,
            headroom: config.headroom,
            exhausted: AtomicU64::new(0),
            clock_ms: AtomicU64::new(0),
            region,
        }));
        // SAFETY: `inner` was just made and nobody else knows it.
        unsafe {
            let base = (*inner).region.base();
            (*inner).hdrs = (0..count)
                .map(|i| Hdr::new(base.add(i * size as usize), inner, i as u32))
                .collect::<Vec<_>>()
                .into_boxed_slice();
        }
        // SAFETY: not null, it comes from a box.
        let pool = Pool(Arc::new(Handle(unsafe { NonNull::new_unchecked(inner) })));
        let all: Vec<_> = pool.inner().hdrs.iter().map(NonNull::from).collect();
        // Last bundle first, so that low frames are handed out first.
        for bundle in all.chunks(BUNDLE).rev() {
            pool.inner().push(bundle);
        }
        Ok(pool)
    }

    pub(crate) fn inner(&self) -> &PoolInner {
        // SAFETY: the handle keeps it alive.
        unsafe { self.0.0.as_ref() }
    }

    /// Frames in the pool, wherever they are.
    pub fn capacity(&self) -> usize {
        self.inner().hdrs.len()
    }

    /// Bytes per frame.
    pub fn frame_size(&self) -> u32 {
        self.inner().frame_size
    }

    /// Whether a packet's frames are this pool's.
    #[inline]
    pub fn owns(&self, mbuf: &Mbuf) -> bool {
        std::ptr::eq(mbuf.hdr().pool, self.inner())
    }

    /// Allocates without a cache. For threads other than workers; a worker uses its [`crate::Cache`].
    ///
    /// `None` when the shared list is empty, which is counted; frames in workers' caches are not reached.
    pub fn alloc(&self) -> Option<Mbuf> {
        let hdr = self.inner().alloc_slow()?;
        // SAFETY: the frame came from the free list: nobody else holds it.
        Some(unsafe { Mbuf::fresh(hdr, self.inner().start().of(hdr)) })
    }

    /// How often an allocation found no frame.
    pub fn exhausted(&self) -> u64 {
        self.inner().exhausted.load(Ordering::Relaxed)
    }

    /// Sets the coarse clock used to tell since when a frame is held, in milliseconds.
    pub fn set_clock_ms(&self, now: u64) {
        self.inner().clock_ms.store(now, Ordering::Relaxed);
    }

    /// Takes back every frame lent to `device`; returns how many there were. For a device that was closed: a kernel does
    /// not hand back frames it held between two rings.
    ///
    /// # Safety
    /// The device uses none of these frames any more, and nobody holds a claim to one (an address that came from
    /// [`Mbuf::into_frame`] or [`crate::Cache::lend`]).
    pub unsafe fn take_back(&self, device: Device) -> usize {
        let hdrs = self.inner().hdrs.iter();
        let lent = hdrs.filter(|hdr| hdr.owner() == (Owner::DEVICE, device.0));
        let mut count = 0;
        for hdr in lent {
            hdr.set_owner(Owner::FREE);
            self.inner().push(&[NonNull::from(hdr)]);
            count += 1;
        }
        count
    }

    /// Counts frames by owner while traffic flows. Each frame is seen once; a frame that moves meanwhile is counted
    /// where it was or where it went.
    pub fn census(&self) -> Census {
        let mut by_owner = BTreeMap::new();
        for hdr in &self.inner().hdrs {
            *by_owner.entry(hdr.owner().0).or_insert(0) += 1;
        }
        Census { by_owner }
    }

    /// Frames charged to `owner`, at most `max` of them.
    pub fn holdings(&self, owner: Owner, max: usize) -> Vec<Holding> {
        let hdrs = self.inner().hdrs.iter();
        hdrs.filter_map(|hdr| {
            let (who, since_ms) = hdr.owner();
            (who == owner).then_some(Holding { frame: hdr.index, since_ms })
        })
        .take(max)
        .collect()
    }
}

/// Frames by owner at one moment.
#[derive(Clone, Debug)]
pub struct Census {
    by_owner: BTreeMap<Owner, usize>,
}

impl Census {
    /// Frames charged to `owner`.
    pub fn of(&self, owner: Owner) -> usize {
        self.by_owner.get(&owner).copied().unwrap_or(0)
    }

    /// Every owner that holds a frame, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Owner, usize)> + '_ {
        self.by_owner.iter().map(|(owner, n)| (*owner, *n))
    }
}

/// One frame an owner holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The frame's number in its pool.
    pub frame: u32,
    /// Since when, on the clock given to [`Pool::set_clock_ms`]; 0 if that was not noted.
    pub since_ms: u64,
}
