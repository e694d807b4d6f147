//! `ring`: a pair of bounded rings in memory. The worker has one end, a test or an embedding program the other.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use nke_mbuf::{Burst, Cache, Mbuf};

use super::{Drops, Moved, Queue};

/// The worker's end.
pub struct RingQueue {
    rx: Arc<ArrayQueue<Mbuf>>,
    tx: Arc<ArrayQueue<Mbuf>>,
}

/// The other end: any thread may use it.
#[derive(Clone)]
pub struct RingPeer {
    to_worker: Arc<ArrayQueue<Mbuf>>,
    from_worker: Arc<ArrayQueue<Mbuf>>,
}

/// A pair of rings with room for `capacity` packets each way.
pub fn ring(capacity: usize) -> (RingQueue, RingPeer) {
    let to_worker = Arc::new(ArrayQueue::new(capacity.max(1)));
    let from_worker = Arc::new(ArrayQueue::new(capacity.max(1)));
    let peer = RingPeer { to_worker: to_worker.clone(), from_worker: from_worker.clone() };
    (RingQueue { rx: to_worker, tx: from_worker }, peer)
}

impl RingPeer {
    /// Offers a packet to the worker; gives it back when the ring is full.
    pub fn send(&self, mbuf: Mbuf) -> Result<(), Mbuf> {
        self.to_worker.push(mbuf)
    }

    /// The next packet the worker sent.
    pub fn recv(&self) -> Option<Mbuf> {
        self.from_worker.pop()
    }
}

impl Queue for RingQueue {
    fn rx(&mut self, burst: &mut Burst, max: usize, _: &mut Cache, _: &Drops) -> Moved {
        let mut moved = Moved::default();
        for _ in 0..max.min(burst.room()) {
            let Some(mbuf) = self.rx.pop() else { break };
            moved.add(mbuf.len());
            let full = burst.push(mbuf);
            debug_assert!(full.is_ok(), "not more than the burst has room for");
        }
        moved
    }

    fn tx_room(&mut self, _: &mut Cache) -> usize {
        // Only the worker fills it, so the room does not shrink.
        self.tx.capacity() - self.tx.len()
    }

    fn tx(&mut self, burst: &mut Burst, _: &mut Cache, _: &Drops) -> Moved {
        let mut moved = Moved::default();
        let room = self.tx.capacity() - self.tx.len();
        burst.take_first(room, |mbuf| {
            moved.add(mbuf.len());
            let full = self.tx.push(mbuf);
            debug_assert!(full.is_ok(), "only the worker fills this ring");
        });
        moved
    }

    fn flush(&mut self, _: &mut Cache) {}

    fn close(self: Box<Self>, _: &mut Cache) {
        while self.rx.pop().is_some() {}
    }
}
