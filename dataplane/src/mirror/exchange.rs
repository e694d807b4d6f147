//! What the control thread and the follower of the kernel's tables leave for each other.

use std::io;
use std::net::IpAddr;

use crossbeam::queue::ArrayQueue;
use nke_filters::IfIndex;

use crate::status::Gauge;
use crate::wake::Wake;

/// Questions that may wait. One that finds no room is lost; the control thread asks again a second later.
const ASKS: usize = 1024;

/// Questions one way, figures the other.
pub struct Exchange {
    asks: ArrayQueue<(IfIndex, IpAddr)>,
    pub(super) wake: Wake,
    /// What the follower counted.
    pub figures: Figures,
}

impl Exchange {
    /// An empty one.
    pub fn new() -> io::Result<Exchange> {
        Ok(Exchange { asks: ArrayQueue::new(ASKS), wake: Wake::new()?, figures: Figures::default() })
    }

    /// Control thread: the kernel is to look for a neighbour.
    pub fn ask(&self, interface: IfIndex, address: IpAddr) {
        if self.asks.push((interface, address)).is_ok() {
            self.wake.wake();
        }
    }

    pub(super) fn asked(&self) -> Option<(IfIndex, IpAddr)> {
        self.asks.pop()
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// Figures of the follower, which alone writes them.
        #[derive(Default)]
        pub struct Figures {
            $($(#[$doc])* pub $name: Gauge,)*
        }

        impl Figures {
            /// Name and value of each.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),*]
            }
        }
    };
}

figures! {
    /// 1 if all that was told is what the kernel had a moment ago.
    in_sync;
    /// Routes the kernel has, those that are not the best of their prefix included.
    routes;
    /// Changes of routes carried out.
    route_changes;
    /// Of these, routes that lead to the kernel.
    punted;
    /// Routes for which there was no room: their packets follow a shorter prefix, or none.
    rejected;
    /// Changes of neighbours carried out.
    neighbor_changes;
    /// Neighbours for which there was no room.
    neighbors_rejected;
    /// Addresses whose packets are left to the kernel.
    locals;
    /// Neighbours the kernel was asked for.
    asked;
    /// Of these, questions it refused.
    ask_failed;
    /// Times that notifications were lost.
    overruns;
    /// Times that all was asked for anew and known again.
    resyncs;
    /// Dumps of the kernel's tables.
    dumps;
    /// Messages that do not hold.
    malformed;
}
