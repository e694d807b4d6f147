//! The header of a frame: what is known of the packet in it. Two cache lines; the second one is touched only for
//! tags and for frames that pass through the shared free list.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use crate::mempool::PoolInner;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Who answers for a frame. Extensions have ids from [`Owner::FIRST_EXTENSION`] up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner(pub u16);

impl Owner {
    /// In the pool or in a worker's cache.
    pub const FREE: Owner = Owner(0);
    /// On its way through the dataplane.
    pub const DATAPLANE: Owner = Owner(1);
    /// In a ring shared with the kernel or a device.
    pub const DEVICE: Owner = Owner(2);
    /// The lowest id of an extension.
    pub const FIRST_EXTENSION: Owner = Owner(16);
}

/// A borrower of frames: a ring or device, by a number the borrower chose. Below 2^48.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Device(pub u64);

/// Facts about a packet, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags(pub u16);

impl Flags {
    /// Link-level broadcast.
    pub const BCAST: Flags = Flags(1 << 0);
    /// Link-level multicast.
    pub const MCAST: Flags = Flags(1 << 1);
    /// Received although not addressed to this interface.
    pub const PROMISC: Flags = Flags(1 << 2);
    /// Sent to ourselves.
    pub const LOOP: Flags = Flags(1 << 3);
    /// Receive: the IP header checksum was verified and is good.
    pub const CSUM_IP_GOOD: Flags = Flags(1 << 4);
    /// Receive: the transport checksum was verified and is good.
    pub const CSUM_L4_GOOD: Flags = Flags(1 << 5);
    /// The transport checksum holds only the pseudo-header sum: a local stack left the rest to hardware.
    pub const CSUM_L4_PARTIAL: Flags = Flags(1 << 6);
    /// Transmit: the IP header checksum is still to be computed.
    pub const CSUM_REQ_IP: Flags = Flags(1 << 7);
    /// Transmit: the TCP checksum is still to be computed.
    pub const CSUM_REQ_TCP: Flags = Flags(1 << 8);
    /// Transmit: the UDP checksum is still to be computed.
    pub const CSUM_REQ_UDP: Flags = Flags(1 << 9);
    /// Put back into the pipeline by an extension.
    pub const INJECTED: Flags = Flags(1 << 10);
    /// Followed: somebody wants to know which stages it passes.
    pub const TRACED: Flags = Flags(1 << 11);

    /// Whether every bit of `other` is set.
    #[inline]
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
    /// Sets the bits of `other`.
    #[inline]
    pub fn insert(&mut self, other: Flags) {
        self.0 |= other.0;
    }
    /// Clears the bits of `other`.
    #[inline]
    pub fn remove(&mut self, other: Flags) {
        self.0 &= !other.0;
    }
}

/// The part of a header that only the holder of the frame touches.
///
/// Between uses `next` and `tag_frame` are `None` and `tag_len` is 0: release restores that, so that allocation
/// need not write the first two.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Meta {
    pub(crate) next: Option<NonNull<Hdr>>,
    pub(crate) tag_frame: Option<NonNull<Hdr>>,
    pub(crate) timestamp: u64,
    pub(crate) pkt_len: u32,
    pub(crate) data_off: u16,
    pub(crate) data_len: u16,
    pub(crate) rcvif: u16,
    pub(crate) flags: Flags,
    pub(crate) ethertype: u16,
    pub(crate) tag_len: u8,
    pub(crate) inject_depth: u8,
}

impl Meta {
    /// Sets the window in the frame and the length of the packet.
    #[inline(always)]
    pub(crate) fn set_window(&mut self, data_off: u16, data_len: u16, pkt_len: u32) {
        *self.window() = Window { pkt_len, data_off, data_len }.word();
    }

    /// Grows the window by `n` bytes at the front, which are there.
    #[inline(always)]
    pub(crate) fn grow_front(&mut self, n: u16) {
        let grown = Window { pkt_len: n.into(), data_off: 0, data_len: n };
        let moved = Window { pkt_len: 0, data_off: n, data_len: 0 };
        // No field runs over into the next one.
        let window = self.window();
        *window = window.wrapping_add(grown.word()).wrapping_sub(moved.word());
    }

    #[inline(always)]
    fn window(&mut self) -> &mut u64 {
        const AT: usize = std::mem::offset_of!(Meta, pkt_len);
        const _: () = assert!(AT.is_multiple_of(8) && std::mem::offset_of!(Meta, data_len) == AT + 6);
        // SAFETY: the three fields are the aligned eight bytes at `AT`; any value of theirs is one of a word, and the other
        // way round. The borrow of all of `self` keeps others away.
        unsafe { &mut *std::ptr::from_mut(self).byte_add(AT).cast() }
    }
}

/// `pkt_len`, `data_off` and `data_len` of [`Meta`], to be written by one store: what a packet costs on its way through the
/// layers is, to a good part, the number of stores.
#[repr(C)]
struct Window {
    pkt_len: u32,
    data_off: u16,
    data_len: u16,
}

impl Window {
    #[inline(always)]
    fn word(self) -> u64 {
        // SAFETY: both are eight plain bytes.
        unsafe { std::mem::transmute(self) }
    }
}

/// Bytes for tags beside the frame; more than that go into a frame of their own.
pub(crate) const INLINE_TAG_BYTES: usize = 48;

/// Links of the shared free list; meaningful only while the frame is in it.
pub(crate) struct Links {
    /// Next frame of the same bundle, index + 1, 0 ends.
    pub(crate) in_bundle: AtomicU32,
    /// First frame of the next bundle, index + 1, 0 ends.
    pub(crate) bundle: AtomicU32,
    /// Frames in this bundle; kept in its first frame.
    pub(crate) bundle_len: AtomicU32,
}

#[repr(C, align(64))]
pub(crate) struct Hdr {
    // First line: read or written for every packet.
    pub(crate) base: NonNull<u8>,
    pub(crate) pool: *const PoolInner,
    owner: AtomicU64,
    pub(crate) meta: UnsafeCell<Meta>,
    // Second line.
    pub(crate) links: Links,
    pub(crate) index: u32,
    pub(crate) inline_tags: UnsafeCell<[u8; INLINE_TAG_BYTES]>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Hdr>() == 128 && std::mem::offset_of!(Hdr, links) == 64);

impl Hdr {
    pub(crate) fn new(base: NonNull<u8>, pool: *const PoolInner, index: u32) -> Hdr {
        Hdr {
            base,
            pool,
            owner: AtomicU64::new(0),
            meta: UnsafeCell::new(Meta {
                next: None,
                tag_frame: None,
                timestamp: 0,
                pkt_len: 0,
                data_off: 0,
                data_len: 0,
                rcvif: 0,
                flags: Flags(0),
                ethertype: 0,
                tag_len: 0,
                inject_depth: 0,
            }),
            links: Links {
                in_bundle: AtomicU32::new(0),
                bundle: AtomicU32::new(0),
                bundle_len: AtomicU32::new(0),
            },
            index,
            inline_tags: UnsafeCell::new([0; INLINE_TAG_BYTES]),
        }
    }

    /// Charges the frame to `owner`. Relaxed: the census is a count of a moving thing, and a plain store is what
    /// the path can afford.
    #[inline(always)]
    pub(crate) fn set_owner(&self, owner: Owner) {
        self.owner.store(u64::from(owner.0), Ordering::Relaxed);
    }

    /// Notes that the frame is lent, and to whom.
    #[inline(always)]
    pub(crate) fn lend_to(&self, device: Device) {
        self.set_owner_at(Owner::DEVICE, device.0);
    }

    /// Charges the frame to `owner` and notes when, in milliseconds of the caller's clock.
    #[inline]
    pub(crate) fn set_owner_at(&self, owner: Owner, now_ms: u64) {
        self.owner.store(u64::from(owner.0) | now_ms << 16, Ordering::Relaxed);
    }

    /// Owner, and when it took over (0 when it was not noted).
    #[inline]
    pub(crate) fn owner(&self) -> (Owner, u64) {
        let word = self.owner.load(Ordering::Relaxed);
        (Owner(word as u16), word >> 16)
    }
}
