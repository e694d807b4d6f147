//! The memory a pool divides into frames.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::ptr::NonNull;

/// A region of memory for packet data, with whatever keeps it mapped.
///
/// The region is never seen as a Rust slice as a whole: the kernel and several workers write to different frames
/// of it at the same time.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    _keep: Box<dyn Any + Send + Sync>,
}

// SAFETY: a Region only carries the address; who may touch which bytes is decided frame by frame by the pool.
unsafe impl Send for Region {}
// SAFETY: as above: `&Region` gives no access to the bytes.
unsafe impl Sync for Region {}

impl Region {
    /// Takes over `len` bytes at `base`, which stay mapped until `keep` is dropped.
    ///
    /// # Safety
    /// The bytes are readable and writable for as long as `keep` lives, and nobody but the pool made over this
    /// region (and the kernel, for frames it was lent) accesses them.
    pub unsafe fn from_raw(base: NonNull<u8>, len: usize, keep: Box<dyn Any + Send + Sync>) -> Region {
        Region { base, len, _keep: keep }
    }

    /// Zeroed memory from the global allocator, page aligned. For tests, tools and ports in memory; a region
    /// shared with the kernel is mapped by the AF_XDP crate instead.
    ///
    /// Aborts like any allocation when memory is exhausted.
    pub fn heap(len: usize) -> Region {
        let block = HeapBlock::new(len.max(1));
        Region { base: block.base, len, _keep: Box::new(block) }
    }

    /// First byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

struct HeapBlock {
    base: NonNull<u8>,
    layout: Layout,
}

impl HeapBlock {
    fn new(len: usize) -> HeapBlock {
        // A large pool is aligned to 2 MiB so that transparent huge pages can back it.
        let align = if len >= 2 << 20 { 2 << 20 } else { 4096 };
        let layout = Layout::from_size_align(len, align).unwrap_or_else(|_| panic!("region of {len} bytes"));
        // SAFETY: the layout has a size of at least one byte (`heap` sees to it).
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(raw) else { std::alloc::handle_alloc_error(layout) };
        HeapBlock { base, layout }
    }
}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and dropped once, after the pool over it is gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: the block is only an address to give back; nothing is accessed through it.
unsafe impl Send for HeapBlock {}
// SAFETY: as above.
unsafe impl Sync for HeapBlock {}
