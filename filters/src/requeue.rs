//! Packets that extensions hand on from a callback, until the worker takes them up: in the same round, without a lock or
//! an atomic.

use std::collections::VecDeque;

use nke_mbuf::{Mbuf, Owner};

use crate::host::Refused;
use crate::interface::IfIndex;
use crate::kind::AttachId;
use crate::protocol::{LinkDest, ProtocolFamily};

/// Packets that may wait at the same time, on each worker.
pub const REQUEUE_MAX: usize = 512;
/// How often one packet may be handed on or injected. Tunnels in tunnels take one for each layer.
pub const INJECTIONS_MAX: u8 = 8;

/// Where a packet goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Received by this interface (KPI: `ifnet_input`): input filters, demux, protocol.
    Input(IfIndex),
    /// A framed packet to be sent by this interface (KPI: `ifnet_output_raw`): output filters, driver.
    Output(IfIndex),
    /// A packet of a protocol to be sent by this interface (KPI: `ifnet_output`): pre-output, framer, output filters, driver.
    Protocol(IfIndex, ProtocolFamily, LinkDest),
    /// An IP packet as if just received; filters up to and including the one named do not see it.
    IpInput(Option<AttachId>),
    /// An IP packet to be routed and sent; filters up to and including the one named do not see it.
    IpOutput(Option<AttachId>),
}

/// One worker's.
pub struct Requeue(VecDeque<(Target, Mbuf)>);

impl Default for Requeue {
    fn default() -> Self {
        Requeue(VecDeque::with_capacity(REQUEUE_MAX))
    }
}

impl Requeue {
    /// Adds a packet; from here on it is the dataplane's. A full queue, and a packet that goes round, are given back.
    #[inline]
    pub fn push(&mut self, target: Target, mut mbuf: Mbuf) -> Result<(), Refused> {
        if mbuf.inject_depth() >= INJECTIONS_MAX {
            return Err(Refused::Loop(mbuf));
        }
        if self.0.len() == REQUEUE_MAX {
            return Err(Refused::QueueFull(mbuf));
        }
        mbuf.count_injection();
        if mbuf.owner() != Owner::DATAPLANE {
            mbuf.set_owner(Owner::DATAPLANE);
        }
        self.0.push_back((target, mbuf));
        Ok(())
    }

    /// Whether none waits.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the first packet goes on.
    #[inline]
    pub fn target(&self) -> Option<Target> {
        self.0.front().map(|(target, _)| *target)
    }

    /// The first packet, if it goes on at `target`.
    #[inline]
    pub fn pop(&mut self, target: Target) -> Option<Mbuf> {
        self.0.pop_front_if(|(first, _)| *first == target).map(|(_, mbuf)| mbuf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_mbuf::{Pool, PoolConfig, Region};

    #[test]
    fn packets_leave_in_order_by_target_and_loops_end() {
        let pool = Pool::new(Region::heap(2048 * (REQUEUE_MAX + 8)), &PoolConfig::default()).unwrap();
        let mut queue = Requeue::default();
        let (a, b) = (Target::Input(IfIndex(1)), Target::Output(IfIndex(1)));
        for target in [a, a, b] {
            queue.push(target, pool.alloc().unwrap()).unwrap();
        }
        assert_eq!(queue.target(), Some(a));
        assert!(queue.pop(b).is_none());
        assert!(queue.pop(a).is_some() && queue.pop(a).is_some() && queue.pop(a).is_none());
        let mut mbuf = queue.pop(b).unwrap();
        for _ in 1..INJECTIONS_MAX {
            queue.push(a, mbuf).unwrap();
            mbuf = queue.pop(a).unwrap();
        }
        assert!(matches!(queue.push(a, mbuf), Err(Refused::Loop(_))));
        for _ in 0..REQUEUE_MAX {
            queue.push(a, pool.alloc().unwrap()).unwrap();
        }
        assert!(matches!(queue.push(a, pool.alloc().unwrap()), Err(Refused::QueueFull(_))));
    }
}
