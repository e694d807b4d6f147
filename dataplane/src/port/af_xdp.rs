//! `af_xdp`: a device's queue through an AF_XDP socket, on the UMEM all ports share.
//!
//! A frame is at any time an `Mbuf`, free in the worker's cache, or lent to the kernel as an `af_xdp::Frame` token. The
//! two conversions in this file are where one becomes the other.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use af_xdp::{Frame, Kick, Received, Socket, Statistics, Transmit, Umem};
use nke_filters::Counter;
use nke_mbuf::{BURST_MAX, Burst, Cache, Device, FrameAddr, Mbuf, Pool};

use super::{Drops, Link, Moved, Queue};
use crate::drop::{RX_CHAIN, TOO_LONG, TX_INVALID};

/// Frames owed to the fill ring before it is worth touching it.
const FILL_BATCH: u32 = 32;
/// Sent frames taken back at a time, at most.
const COMPLETE_MAX: u32 = 512;
/// Kicks per round at most: copy mode sends a limited number of descriptors per call.
const KICKS_MAX: u32 = 8;

/// What a queue counts beyond the common counters; read by the control thread.
#[derive(Default)]
pub struct XdpTally {
    /// Calls into the kernel to send.
    pub kicks: Counter,
    /// Of these, answered "try again".
    pub kicks_again: Counter,
    /// Of these, answered with another error.
    pub kicks_failed: Counter,
    /// Rounds in which the fill ring could not be refilled because the pool was empty.
    pub fill_starved: Counter,
    /// The socket, while it is open.
    fd: Mutex<Option<RawFd>>,
}

impl XdpTally {
    /// The kernel's counters of the socket; `None` once it is closed.
    pub fn statistics(&self) -> Option<Statistics> {
        // Locked meanwhile: `close` waits, so that the number does not become another file's.
        let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        af_xdp::statistics_of((*fd)?).ok()
    }
}

/// A number for each queue ever made, by which the pool knows the frames it was lent.
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(1);

/// One queue.
pub struct XdpQueue {
    /// Taken out by the drop, and nowhere else.
    socket: ManuallyDrop<Socket>,
    /// Borrower of the frames this queue's rings hold.
    device: Device,
    umem: Umem,
    pool: Pool,
    rcvif: u16,
    /// Longest packet the device takes, link header included.
    len_max: usize,
    /// Descriptors a packet may take.
    segments_max: usize,
    /// Frames taken out of the receive ring and not given to the fill ring yet.
    owed: u32,
    /// Descriptors submitted since the kernel was last told.
    unkicked: u32,
    /// A packet whose further frames have not arrived yet.
    partial: Option<Mbuf>,
    /// The rest of a packet that had to be dropped is still to come.
    skipping: bool,
    link: Link,
    tally: Arc<XdpTally>,
}

impl XdpQueue {
    /// A fresh number for a queue to borrow frames under.
    pub fn next_device() -> Device {
        Device(NEXT_DEVICE.fetch_add(1, Ordering::Relaxed))
    }

    /// A queue over `socket`, which is bound on `umem` and whose fill ring has frames lent to `device`. `len_max` is the
    /// device's MTU plus link headers, `multi_buffer` whether packets may take several frames.
    pub fn new(
        socket: Socket,
        device: Device,
        umem: Umem,
        pool: Pool,
        rcvif: u16,
        len_max: usize,
        multi_buffer: bool,
    ) -> XdpQueue {
        let tally = Arc::new(XdpTally { fd: Mutex::new(Some(socket.fd())), ..XdpTally::default() });
        let frame = umem.frame_size() as usize;
        // The kernel leaves 256 bytes of each frame free.
        let segments_max = if multi_buffer { len_max.div_ceil(frame - 256) } else { 1 };
        XdpQueue {
            socket: ManuallyDrop::new(socket),
            device,
            umem,
            pool,
            rcvif,
            len_max,
            segments_max,
            owed: 0,
            unkicked: 0,
            partial: None,
            skipping: false,
            link: Link::Up,
            tally,
        }
    }

    /// The socket's descriptor.
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Its counters.
    pub fn tally(&self) -> Arc<XdpTally> {
        self.tally.clone()
    }

    fn refill(&mut self, cache: &mut Cache) {
        let room = self.socket.fill_room(self.owed).min(self.owed);
        let (umem, device) = (&self.umem, self.device);
        let frames = std::iter::from_fn(|| {
            let addr = cache.lend(device)?;
            // SAFETY: `lend` gave up the pool's claim to the frame.
            Some(unsafe { umem.frame_from_addr(addr.0) })
        });
        let filled = self.socket.fill(frames, room);
        self.owed -= filled;
        if filled < room {
            self.tally.fill_starved.add(1);
        }
    }

    fn kick(&mut self) {
        for _ in 0..KICKS_MAX {
            self.tally.kicks.add(1);
            match self.socket.kick_tx() {
                Kick::Done => {
                    // What the kernel left is in the ring, not in what it answered.
                    self.unkicked = self.socket.tx_unsent();
                    if self.unkicked == 0 {
                        return;
                    }
                }
                Kick::Again => {
                    // More descriptors than one call takes, or a busy device: the next round goes on.
                    self.tally.kicks_again.add(1);
                    return;
                }
                Kick::Gone => {
                    self.link = Link::Gone;
                    return;
                }
                Kick::Down | Kick::Failed(_) => {
                    self.tally.kicks_failed.add(1);
                    return;
                }
            }
        }
    }

    /// Sends one packet of several frames; gives it back when the ring has no room.
    #[cold]
    fn tx_chain(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        let segments = mbuf.segment_count();
        if (self.socket.tx_room(segments as u32) as usize) < segments {
            return Err(mbuf);
        }
        let (umem, device) = (&self.umem, self.device);
        let mut rest = Some(mbuf);
        let descriptors = std::iter::from_fn(|| {
            let (first, behind) = rest.take()?.split_first();
            rest = behind;
            Some(transmit(umem, device, first, rest.is_some()))
        });
        let sent = self.socket.transmit(descriptors, segments as u32);
        debug_assert_eq!(sent as usize, segments, "there was room");
        self.unkicked += sent;
        Ok(())
    }

    /// Brings a packet in more frames than the device takes into one: what was put together of small fragments. One that
    /// does not fit stays as it is.
    #[cold]
    fn gather(&self, mbuf: &mut Mbuf) {
        if mbuf.segment_count() > self.segments_max {
            mbuf.pullup(mbuf.len());
        }
    }

    /// Whether the device can ever send this packet; if not, why.
    #[inline]
    fn unsendable(&self, mbuf: &Mbuf) -> Option<nke_filters::DropReason> {
        if mbuf.len() > self.len_max {
            return Some(TOO_LONG);
        }
        if !self.pool.owns(mbuf) {
            return Some(TX_INVALID);
        }
        if mbuf.is_contiguous() {
            return mbuf.is_empty().then_some(TX_INVALID);
        }
        if mbuf.segments().any(|s| s.is_empty()) {
            return Some(TX_INVALID);
        }
        (mbuf.segment_count() > self.segments_max).then_some(TOO_LONG)
    }
}

/// Turns a packet of one frame into a descriptor.
#[inline(always)]
fn transmit(umem: &Umem, device: Device, mbuf: Mbuf, more: bool) -> Transmit {
    let (addr, len) = mbuf.into_frame(device);
    // SAFETY: `into_frame` gave up the pool's claim to the frame.
    let frame = unsafe { umem.frame_from_addr(addr.0) };
    Transmit { frame, len, more }
}

/// Turns a frame the kernel gave back into a packet.
#[inline(always)]
fn received(pool: &Pool, frame: Frame, len: u32) -> Mbuf {
    // SAFETY: the token was the one claim to the frame, and the kernel wrote `len` bytes inside it.
    unsafe { Mbuf::from_frame(pool, FrameAddr(frame.into_addr()), len) }
}

impl Queue for XdpQueue {
    #[inline]
    fn rx(&mut self, burst: &mut Burst, max: usize, _: &mut Cache, drops: &Drops) -> Moved {
        let mut moved = Moved::default();
        let Self { socket, pool, rcvif, partial, skipping, .. } = self;
        let max = max.min(burst.room()) as u32;
        let taken = socket.receive(max, |Received { frame, len, more }| {
            let mut mbuf = received(pool, frame, len);
            // Another core wrote it: the misses of a burst shall overlap instead of following each other.
            mbuf.prefetch();
            if more || partial.is_some() || *skipping {
                match assemble(partial, skipping, mbuf, more, drops) {
                    Some(whole) => mbuf = whole,
                    None => return,
                }
            }
            mbuf.set_rcvif(*rcvif);
            moved.add(mbuf.len());
            let full = burst.push(mbuf);
            debug_assert!(full.is_ok(), "not more than the burst has room for");
        });
        self.owed += taken;
        moved
    }

    #[inline]
    fn tx_room(&mut self, _: &mut Cache) -> usize {
        self.socket.tx_room(BURST_MAX as u32) as usize / self.segments_max
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst, cache: &mut Cache, drops: &Drops) -> Moved {
        let mut moved = Moved::default();
        if self.link == Link::Gone {
            return moved;
        }
        let mut chains = false;
        for slot in burst.slots_mut() {
            let Some(mbuf) = slot else { continue };
            if !mbuf.is_contiguous() {
                self.gather(mbuf);
                chains |= !mbuf.is_contiguous();
            }
            if let Some(reason) = self.unsendable(mbuf) {
                drops[reason.index()].add(1);
                slot.take().into_iter().for_each(|mbuf| cache.free(mbuf));
            }
        }
        if chains {
            for slot in burst.slots_mut() {
                let Some(mbuf) = slot.take() else { continue };
                let len = mbuf.len();
                match self.tx_chain(mbuf) {
                    Ok(()) => moved.add(len),
                    Err(mbuf) => {
                        *slot = Some(mbuf);
                        break;
                    }
                }
            }
        } else {
            let (umem, device) = (&self.umem, self.device);
            let room = self.socket.tx_room(burst.len() as u32);
            let packets = burst.slots_mut().iter_mut().filter_map(Option::take);
            let descriptors = packets.map(|mbuf| {
                moved.add(mbuf.len());
                transmit(umem, device, mbuf, false)
            });
            self.unkicked += self.socket.transmit(descriptors, room);
        }
        burst.compact();
        moved
    }

    #[inline]
    fn flush(&mut self, cache: &mut Cache) {
        if self.link == Link::Gone {
            return;
        }
        // First: a full completion ring keeps the kernel from sending.
        if self.socket.pending_tx() > 0 {
            self.socket.complete(COMPLETE_MAX, |frame| {
                // SAFETY: the token was the one claim to the frame.
                unsafe { cache.free_frame(FrameAddr(frame.into_addr())) }
            });
        }
        if self.unkicked > 0 {
            if self.socket.tx_needs_wakeup() {
                self.kick();
            } else {
                self.unkicked = self.socket.tx_unsent();
            }
        }
        if self.owed >= FILL_BATCH {
            self.refill(cache);
        }
        if self.socket.rx_needs_wakeup() {
            self.socket.kick_rx();
        }
    }

    fn link(&self) -> Link {
        self.link
    }

    fn wait_fd(&self) -> Option<RawFd> {
        (self.link == Link::Up).then(|| self.socket.fd())
    }

    fn close(self: Box<Self>, _: &mut Cache) {}
}

impl Drop for XdpQueue {
    /// Closes the socket and gives every frame of its rings back to the pool.
    fn drop(&mut self) {
        self.partial = None;
        *self.tally.fd.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // SAFETY: this is the drop, and nothing else takes the socket.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        drop(socket.close());
        // SAFETY: the socket is closed and its tokens are dropped: nobody uses or claims a frame lent to this device.
        unsafe { self.pool.take_back(self.device) };
    }
}

/// Puts the frames of one packet together; the packet, once its last frame is there.
#[cold]
fn assemble(
    partial: &mut Option<Mbuf>,
    skipping: &mut bool,
    mbuf: Mbuf,
    more: bool,
    drops: &Drops,
) -> Option<Mbuf> {
    if *skipping {
        *skipping = more;
        return None;
    }
    match partial {
        None => *partial = Some(mbuf),
        Some(head) => {
            if head.chain(mbuf).is_err() {
                drops[RX_CHAIN.index()].add(1);
                *partial = None;
                *skipping = more;
                return None;
            }
        }
    }
    if more { None } else { partial.take() }
}
