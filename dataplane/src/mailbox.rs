//! How the control thread gives a worker another queue for an interface, and gets the old one back.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::port::Queue;
use crate::worker::Lane;

/// A queue to be put into a lane.
pub struct Replacement {
    /// Number of the lane on its worker.
    pub lane: usize,
    /// The new queue.
    pub queue: Box<dyn Queue>,
}

/// One worker's mailbox.
pub struct Mailbox {
    any: AtomicBool,
    incoming: ArrayQueue<Replacement>,
    outgoing: ArrayQueue<Replacement>,
}

/// Queues under way at most.
const MAIL_MAX: usize = 64;

impl Default for Mailbox {
    fn default() -> Self {
        Mailbox {
            any: AtomicBool::new(false),
            incoming: ArrayQueue::new(MAIL_MAX),
            outgoing: ArrayQueue::new(MAIL_MAX),
        }
    }
}

impl Mailbox {
    /// Control thread: sends a queue; gives it back when the box is full.
    pub fn send(&self, replacement: Replacement) -> Result<(), Replacement> {
        self.incoming.push(replacement)?;
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// Control thread: a queue the worker put out of use.
    pub fn recv(&self) -> Option<Replacement> {
        self.outgoing.pop()
    }

    /// Control thread, after the worker ended: everything that is still in the box.
    pub fn drain(&self) -> impl Iterator<Item = Replacement> + '_ {
        std::iter::from_fn(|| self.outgoing.pop().or_else(|| self.incoming.pop()))
    }

    /// Worker: whether there is something to do.
    #[inline(always)]
    pub fn has_mail(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Worker: puts the new queues in place.
    #[cold]
    pub fn exchange(&self, lanes: &mut [Lane]) {
        self.any.store(false, Ordering::Relaxed);
        // Stops while the old queues have not been collected: nothing is closed on a worker.
        while !self.outgoing.is_full() {
            let Some(mut mail) = self.incoming.pop() else { return };
            if let Some(lane) = lanes.get_mut(mail.lane) {
                std::mem::swap(&mut lane.queue, &mut mail.queue);
            }
            let full = self.outgoing.push(mail);
            debug_assert!(full.is_ok(), "only the worker fills this queue");
        }
        self.any.store(true, Ordering::Relaxed);
    }
}
