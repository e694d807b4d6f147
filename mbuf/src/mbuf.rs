//! The owned packet handle.
//!
//! Invariant that every `unsafe` block here rests on: an `Mbuf` is the only handle to its header's `meta` and
//! `inline_tags`, to the bytes of its frame, and to the frames of its chain and its tags; [`Mbuf::fresh`] and
//! [`Mbuf::from_frame`] require it, and nothing copies the pointer out without giving the handle up.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::hdr::{Device, Flags, Hdr, Meta, Owner};
use crate::mempool::Pool;

/// Address of a byte in a pool's region, as AF_XDP descriptors carry it: offset from the region's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameAddr(pub u64);

/// A packet: a frame with a window of data in it, and perhaps further frames chained behind it.
///
/// Dropping it gives every frame back to the pool, from any thread. Workers use [`crate::Cache::free`], which is
/// cheaper.
#[repr(transparent)]
pub struct Mbuf(pub(crate) NonNull<Hdr>);

// SAFETY: an Mbuf is the unique owner of what it points to (module invariant), so it may move between threads.
unsafe impl Send for Mbuf {}
// SAFETY: `&Mbuf` only reads, and no other handle can write meanwhile.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// An empty packet in a frame just taken from the free list or a cache, with data from `data_off` on.
    ///
    /// # Safety
    /// Nobody else holds the frame, and `data_off` lies inside of it.
    #[inline(always)]
    pub(crate) unsafe fn fresh(hdr: NonNull<Hdr>, data_off: u16) -> Mbuf {
        // SAFETY: a header lives as long as its pool, which lives as long as a frame is out.
        unsafe { hdr.as_ref() }.set_owner(Owner::DATAPLANE);
        let mut mbuf = Mbuf(hdr);
        mbuf.reset(data_off, 0);
        mbuf
    }

    /// The same, stamped `timestamp`, with what `fill` writes: it gets the `room` bytes there are and says how many of them are the
    /// packet.
    ///
    /// # Safety
    /// As for [`Mbuf::fresh`], and the frame has `room` bytes from `data_off` on.
    #[inline(always)]
    pub(crate) unsafe fn filled(
        hdr: NonNull<Hdr>,
        data_off: u16,
        room: usize,
        timestamp: u64,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Mbuf {
        // SAFETY: the frame is the caller's, and `data_off` and `room` stay inside of it.
        let data =
            unsafe { std::slice::from_raw_parts_mut(hdr.as_ref().base.as_ptr().add(data_off.into()), room) };
        let len = fill(data).min(room) as u16;
        // SAFETY: the caller's promise.
        let mut mbuf = unsafe { Mbuf::fresh(hdr, data_off) };
        let meta = mbuf.meta_mut();
        meta.set_window(data_off, len, len.into());
        meta.timestamp = timestamp;
        mbuf
    }

    /// Takes over a frame that a device gave back with `len` bytes of packet at `addr`.
    ///
    /// # Safety
    /// `addr` lies in `pool`'s region, `len` bytes from there lie inside the same frame, and the caller holds the
    /// only claim to that frame (it was given up by [`Mbuf::into_frame`]).
    #[inline]
    pub unsafe fn from_frame(pool: &Pool, addr: FrameAddr, len: u32) -> Mbuf {
        let inner = pool.inner();
        let hdr = inner.hdr_at(addr.0);
        hdr.set_owner(Owner::DATAPLANE);
        let offset = addr.0 & u64::from(inner.frame_size - 1);
        debug_assert!(offset + u64::from(len) <= u64::from(inner.frame_size));
        let mut mbuf = Mbuf(NonNull::from(hdr));
        mbuf.reset(offset as u16, len as u16);
        mbuf
    }

    /// Lends the first frame to a device: the address of its data and its length. Tags and the rest of a chain, if
    /// any, are released; send a chain frame by frame with [`Mbuf::split_first`]. `device` names the borrower, for
    /// [`Pool::take_back`].
    #[inline]
    pub fn into_frame(mut self, device: Device) -> (FrameAddr, u32) {
        if self.meta().next.is_some() || self.meta().tag_len != 0 {
            drop(self.detach_next());
            self.clear_tags();
        }
        let hdr = self.into_hdr();
        // SAFETY: as the sole holder.
        let h = unsafe { hdr.as_ref() };
        h.lend_to(device);
        // SAFETY: as above; the pool outlives the frame.
        let (meta, pool) = unsafe { (&*h.meta.get(), &*h.pool) };
        (FrameAddr(pool.base_addr(h) + u64::from(meta.data_off)), u32::from(meta.data_len))
    }

    #[inline(always)]
    fn reset(&mut self, data_off: u16, len: u16) {
        let meta = self.meta_mut();
        meta.set_window(data_off, len, u32::from(len));
        meta.timestamp = 0;
        // One word.
        meta.rcvif = 0;
        meta.flags = Flags(0);
        meta.ethertype = 0;
        meta.tag_len = 0;
        meta.inject_depth = 0;
    }

    #[inline(always)]
    pub(crate) fn into_hdr(self) -> NonNull<Hdr> {
        ManuallyDrop::new(self).0
    }

    #[inline(always)]
    pub(crate) fn hdr(&self) -> &Hdr {
        // SAFETY: module invariant.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn meta(&self) -> &Meta {
        // SAFETY: module invariant; `&self` excludes writers.
        unsafe { &*self.hdr().meta.get() }
    }

    #[inline(always)]
    pub(crate) fn meta_mut(&mut self) -> &mut Meta {
        // SAFETY: module invariant; `&mut self` excludes every other access.
        unsafe { &mut *self.hdr().meta.get() }
    }

    pub(crate) fn from_hdr(hdr: NonNull<Hdr>) -> Mbuf {
        Mbuf(hdr)
    }

    /// Bytes of the whole packet, all frames of the chain together.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.meta().pkt_len as usize
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in the first frame: the whole packet unless it is a chain.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        let meta = self.meta();
        // SAFETY: the window lies inside the frame (kept by every method that moves it), the frame is ours.
        unsafe {
            std::slice::from_raw_parts(
                self.hdr().base.as_ptr().add(meta.data_off as usize),
                meta.data_len as usize,
            )
        }
    }

    /// The bytes in the first frame, to be changed.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let meta = *self.meta();
        // SAFETY: as for `data`; `&mut self` makes the slice unique.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.hdr().base.as_ptr().add(meta.data_off as usize),
                meta.data_len as usize,
            )
        }
    }

    /// Asks the processor to fetch the first bytes of the packet, so that a later read does not wait. A hint.
    #[inline(always)]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing; SSE is part of x86-64.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(
                self.hdr().base.as_ptr().add(usize::from(self.meta().data_off)).cast(),
            );
        }
    }

    /// Bytes free in front of the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.meta().data_off)
    }

    /// Bytes free behind the data of the first frame.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.frame_size() - usize::from(self.meta().data_off) - usize::from(self.meta().data_len)
    }

    pub(crate) fn frame_size(&self) -> usize {
        // SAFETY: the pool outlives the frame.
        unsafe { &*self.hdr().pool }.frame_size as usize
    }

    /// Grows the packet by `n` bytes at the front and returns them, unset. `None`, and no change, without headroom.
    #[inline(always)]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let at = self.headroom().checked_sub(n)?;
        self.meta_mut().grow_front(n as u16);
        // SAFETY: the `n` bytes from `at` on were headroom a moment ago: inside the frame, which is ours.
        Some(unsafe { std::slice::from_raw_parts_mut(self.hdr().base.as_ptr().add(at), n) })
    }

    /// Grows the first frame's data by `n` bytes at the end and returns them, unset. `None`, and no change, without
    /// tailroom or when the packet is a chain (the bytes would not be the packet's last).
    #[inline]
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom() || self.meta().next.is_some() {
            return None;
        }
        let meta = self.meta_mut();
        let end = usize::from(meta.data_off) + usize::from(meta.data_len);
        meta.set_window(meta.data_off, meta.data_len + n as u16, meta.pkt_len + n as u32);
        // SAFETY: the `n` bytes from `end` on were tailroom a moment ago: inside the frame, which is ours.
        Some(unsafe { std::slice::from_raw_parts_mut(self.hdr().base.as_ptr().add(end), n) })
    }

    /// Index of the interface the packet came in by.
    #[inline(always)]
    pub fn rcvif(&self) -> u16 {
        self.meta().rcvif
    }
    /// Sets the interface the packet counts as received by.
    #[inline(always)]
    pub fn set_rcvif(&mut self, ifindex: u16) {
        self.meta_mut().rcvif = ifindex;
    }
    /// Facts about the packet.
    #[inline(always)]
    pub fn flags(&self) -> Flags {
        self.meta().flags
    }
    /// Facts about the packet, to be changed.
    #[inline(always)]
    pub fn flags_mut(&mut self) -> &mut Flags {
        &mut self.meta_mut().flags
    }
    /// The network protocol found by demux, as an ethertype (after VLAN tags); 0 before demux.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        self.meta().ethertype
    }
    /// Records the network protocol.
    #[inline(always)]
    pub fn set_ethertype(&mut self, ethertype: u16) {
        self.meta_mut().ethertype = ethertype;
    }
    /// A time stamp in whatever clock the port that set it uses; 0 until one does.
    #[inline(always)]
    pub fn timestamp(&self) -> u64 {
        self.meta().timestamp
    }
    /// Sets the time stamp.
    #[inline(always)]
    pub fn set_timestamp(&mut self, ticks: u64) {
        self.meta_mut().timestamp = ticks;
    }
    /// How often the packet was put back into the pipeline.
    pub fn inject_depth(&self) -> u8 {
        self.meta().inject_depth
    }
    /// Counts one more injection; saturates.
    pub fn count_injection(&mut self) {
        let meta = self.meta_mut();
        meta.inject_depth = meta.inject_depth.saturating_add(1);
        meta.flags.insert(Flags::INJECTED);
    }

    /// Who answers for the packet.
    pub fn owner(&self) -> Owner {
        self.hdr().owner().0
    }

    /// Charges the packet, its chain and its tags to `owner`, from now on. A packet somebody holds is neither free nor
    /// lent to a device: those two count as the dataplane.
    pub fn set_owner(&mut self, owner: Owner) {
        let owner = if owner <= Owner::DEVICE { Owner::DATAPLANE } else { owner };
        // SAFETY: the pool outlives the frame.
        let now = unsafe { &*self.hdr().pool }.clock_ms();
        let mut next = Some(self.0);
        while let Some(hdr) = next {
            // SAFETY: the frames of the chain are ours.
            let hdr = unsafe { hdr.as_ref() };
            hdr.set_owner_at(owner, now);
            // SAFETY: as above.
            let meta = unsafe { &*hdr.meta.get() };
            if let Some(tags) = meta.tag_frame {
                // SAFETY: the tag frame is ours too.
                unsafe { tags.as_ref() }.set_owner_at(owner, now);
            }
            next = meta.next;
        }
    }
}

impl Hdr {
    /// Unlinks what hangs on the frame and leaves the header as a free frame's: `(rest of the chain, tag frame)`.
    ///
    /// # Safety
    /// The caller is the sole holder of the frame.
    pub(crate) unsafe fn take_links(&self) -> (Option<NonNull<Hdr>>, Option<NonNull<Hdr>>) {
        // SAFETY: the caller's promise.
        let meta = unsafe { &mut *self.meta.get() };
        meta.tag_len = 0;
        (meta.next.take(), meta.tag_frame.take())
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        let mut next = Some(self.0);
        while let Some(hdr) = next {
            // SAFETY: module invariant, for each frame of the chain; the pool outlives them.
            unsafe {
                let pool = hdr.as_ref().pool;
                let (rest, tags) = hdr.as_ref().take_links();
                if let Some(tags) = tags {
                    tags.as_ref().set_owner(Owner::FREE);
                    (*pool).push(&[tags]);
                }
                // The rest is read before the push: from the push on the frame is somebody else's, and when it is
                // the last one out the pool itself may go.
                hdr.as_ref().set_owner(Owner::FREE);
                (*pool).push(&[hdr]);
                next = rest;
            }
        }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meta = self.meta();
        f.debug_struct("Mbuf")
            .field("frame", &self.hdr().index)
            .field("len", &meta.pkt_len)
            .field("segment_len", &meta.data_len)
            .field("rcvif", &meta.rcvif)
            .field("flags", &meta.flags)
            .finish()
    }
}
