//! Ports: where packets come from and go to. A port is made of queues; each queue belongs to one worker.

pub mod absent;
pub mod af_xdp;
pub mod frames;
pub mod memory;
pub mod pcap;
pub mod ring;
pub mod xdp_open;

use std::os::fd::RawFd;

use nke_filters::Counter;
use nke_mbuf::{Burst, Cache};

/// Packets and bytes moved by one call.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Moved {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Moved {
    /// Adds one packet of `len` bytes.
    #[inline(always)]
    pub fn add(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }

    /// All of a burst.
    pub fn of(burst: &Burst) -> Moved {
        let mut moved = Moved::default();
        burst.iter().for_each(|mbuf| moved.add(mbuf.len()));
        moved
    }
}

/// Whether a queue can move packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// It can.
    Up,
    /// The device is gone; the queue neither receives nor sends until it is replaced.
    Gone,
    /// Nothing more will come: a source that reached its end.
    Drained,
}

/// Counters of the worker, by index of the drop reason.
pub type Drops = [Counter];

/// One receive and transmit queue, owned by a worker.
///
/// No call blocks, allocates outside the cache, or logs; only [`Queue::flush`] and [`Queue::close`] may call the
/// kernel.
pub trait Queue: Send {
    /// Adds up to `max` received packets to `burst`. Packets that cannot be received are counted in `drops`.
    fn rx(&mut self, burst: &mut Burst, max: usize, cache: &mut Cache, drops: &Drops) -> Moved;

    /// Packets that `tx` will take at least. The worker receives no more than that from the other side of a wire, so
    /// that overload is shed where it is cheapest: in the receive ring, before any work was done.
    fn tx_room(&mut self, cache: &mut Cache) -> usize;

    /// Takes packets from the front of `burst` for sending; what does not fit stays in it, what can never be sent is
    /// freed and counted in `drops`.
    fn tx(&mut self, burst: &mut Burst, cache: &mut Cache, drops: &Drops) -> Moved;

    /// Once per round of the worker: kicks the device, takes back sent frames, refills.
    fn flush(&mut self, cache: &mut Cache);

    /// State of the device.
    fn link(&self) -> Link {
        Link::Up
    }

    /// What to wait on for packets before sleeping; `None` when that cannot be waited on.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    /// Gives every frame back and releases the device. Off the path, after the worker is done with the queue.
    fn close(self: Box<Self>, cache: &mut Cache);
}
