//! Tables of words that begin as zero, of which only the pages that are used cost memory.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU32;

/// A huge page: tables begin at one, so that the kernel can back them with such pages.
const ALIGN: usize = 2 << 20;

/// A fixed number of words.
pub(super) struct Words {
    first: NonNull<AtomicU32>,
    layout: Layout,
    len: usize,
}

// SAFETY: it owns its memory, and what it gives out are shared references to atomics.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// `len` words, all zero. Large ones ask for huge pages, as far as the kernel has them to give.
    ///
    /// # Panics
    /// When `len` is 0, or more than an address space holds.
    pub(super) fn zeroed(len: usize) -> Words {
        assert!(len > 0, "a table has words");
        let bytes = len.checked_mul(size_of::<AtomicU32>());
        let layout = bytes.and_then(|bytes| Layout::from_size_align(bytes, ALIGN).ok());
        let Some(layout) = layout else { panic!("a table of {len} words") };
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(first) = NonNull::new(memory.cast::<AtomicU32>()) else { handle_alloc_error(layout) };
        if layout.size() >= ALIGN {
            // SAFETY: the range is our allocation, rounded down to whole pages; the advice changes nothing that is in it.
            // It may be refused, which changes nothing either.
            unsafe { libc::madvise(memory.cast(), layout.size() & !4095, libc::MADV_HUGEPAGE) };
        }
        Words { first, layout, len }
    }
}

/// Asks the processor to fetch a word, so that a later read does not wait. A hint.
#[inline(always)]
pub(super) fn prefetch(words: &[AtomicU32], index: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, so that any address will do; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(index).cast());
    }
}

impl Deref for Words {
    type Target = [AtomicU32];
    #[inline(always)]
    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: `len` words were allocated, zero is a valid word, and they live as long as this.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody can refer to it any more.
        unsafe { dealloc(self.first.as_ptr().cast(), self.layout) };
    }
}
