//! A queue in the place of one whose device is gone.

use nke_mbuf::{Burst, Cache};

use super::{Drops, Link, Moved, Queue};

/// Receives nothing and takes nothing: what is sent to it is dropped with reason `if_down`.
pub struct Absent;

impl Queue for Absent {
    fn rx(&mut self, _: &mut Burst, _: usize, _: &mut Cache, _: &Drops) -> Moved {
        Moved::default()
    }

    fn tx_room(&mut self, _: &mut Cache) -> usize {
        // The other side of the wire goes on being emptied; otherwise its ring would be full of old packets when the
        // device is back.
        nke_mbuf::BURST_MAX
    }

    fn tx(&mut self, _: &mut Burst, _: &mut Cache, _: &Drops) -> Moved {
        Moved::default()
    }

    fn flush(&mut self, _: &mut Cache) {}

    fn link(&self) -> Link {
        Link::Gone
    }

    fn close(self: Box<Self>, _: &mut Cache) {}
}
