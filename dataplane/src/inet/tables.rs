//! What workers look up, and the queues between them and the control thread. The control thread changes it in place, word by
//! word; nobody ever waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use nke_filters::{Family, Target};
use nke_inet::fib::{Found, Groups, Trie};
use nke_inet::icmp::Limits;
use nke_inet::neigh;
use nke_inet::reass::{Config as Reassembly, Steering};
use nke_mbuf::Mbuf;

pub use nke_inet::fib::Way;

use super::flow::flow_hash;
use super::mac::Mac;
use crate::shortcut::Shortcut;

/// Sizes and rates of the layer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Second-level blocks of the IPv4 table.
    pub v4_blocks: u32,
    /// Blocks of the IPv6 table.
    pub v6_blocks: u32,
    /// Neighbours at most.
    pub neighbors: u32,
    /// Groups of equal-cost routes at most.
    pub groups: usize,
    /// Bounds of each worker's reassembly.
    pub reassembly: Reassembly,
    /// Rates of ICMP errors, of each worker.
    pub icmp: Limits,
    /// Neighbours are the kernel's: unresolved ones are asked for there.
    pub kernel: bool,
    /// Programs that forward by the same tables. Made for settings of this size.
    pub shortcut: Option<Shortcut>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            v4_blocks: 4096,
            v6_blocks: 16384,
            neighbors: 4096,
            groups: 1024,
            reassembly: Reassembly::default(),
            icmp: Limits::default(),
            kernel: false,
            shortcut: None,
        }
    }
}

/// What a worker tells the control thread about neighbours.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// An ARP or neighbour discovery packet.
    Heard(neigh::Event),
    /// A packet waits for this neighbour.
    Wanted {
        /// The interface it is at.
        interface: u16,
        /// Its address.
        address: IpAddr,
    },
}

/// Where packets by a neighbour go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adjacency {
    /// Its link address.
    pub mac: Mac,
    /// The interface it is at.
    pub out: u16,
}

/// A neighbour: packed link address and interface, zero while it is not resolved; and its address for who has to ask.
struct Neighbor {
    adjacency: AtomicU64,
    /// Interface plus one in the low half, 4 or 6 above.
    place: AtomicU64,
    address: [AtomicU64; 2],
}

/// The tables.
pub struct Tables {
    fib4: Arc<Trie>,
    fib6: Arc<Trie>,
    groups: Groups,
    neighbors: Box<[Neighbor]>,
    /// Fragments for the worker that puts their datagram together.
    pub(super) handover: Box<[ArrayQueue<Mbuf>]>,
    /// Packets that extensions injected above the link from other threads, by worker.
    pub(crate) injected: Box<[ArrayQueue<(Target, Mbuf)>]>,
    /// For the control thread.
    pub(super) notices: ArrayQueue<Notice>,
    pub(super) steering: Steering,
    pub(super) settings: Settings,
}

/// Fragments under way between two workers.
const HANDOVER: usize = 512;
/// Injected IP packets that may wait for a worker.
const INJECTED: usize = 1024;
/// Notices that may wait for the control thread.
const NOTICES: usize = 4096;

impl Tables {
    /// Around two tables, for `workers` workers.
    pub fn new(
        fib4: Arc<Trie>,
        fib6: Arc<Trie>,
        settings: Settings,
        workers: usize,
        key: [u64; 2],
    ) -> Tables {
        let neighbor = || Neighbor {
            adjacency: AtomicU64::new(0),
            place: AtomicU64::new(0),
            address: [AtomicU64::new(0), AtomicU64::new(0)],
        };
        Tables {
            fib4,
            fib6,
            groups: Groups::new(settings.groups),
            neighbors: (0..settings.neighbors).map(|_| neighbor()).collect(),
            handover: (0..workers).map(|_| ArrayQueue::new(HANDOVER)).collect(),
            injected: (0..workers).map(|_| ArrayQueue::new(INJECTED)).collect(),
            notices: ArrayQueue::new(NOTICES),
            steering: Steering::new(key),
            settings,
        }
    }

    /// IPv4 routes.
    #[inline(always)]
    pub(super) fn fib4(&self) -> &Trie {
        &self.fib4
    }

    /// The ways of IPv6 destinations.
    #[inline(always)]
    pub(super) fn lookup6(&self, destinations: &[u128], found: &mut [Found]) {
        self.fib6.lookup6_burst(destinations, found);
    }

    /// The way of one destination.
    pub(super) fn lookup(&self, destination: IpAddr) -> Way {
        match destination {
            IpAddr::V4(a) => self.fib4.lookup4(a.to_bits()).way(),
            IpAddr::V6(a) => self.fib6.lookup6(a.to_bits()),
        }
    }

    /// One way of a group, by the packet's flow.
    #[cold]
    pub(super) fn choose(&self, group: u32, family: Family, mbuf: &Mbuf) -> Way {
        self.groups.choose(group, flow_hash(family, mbuf.data()))
    }

    /// Groups of equal-cost ways.
    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Where packets by this neighbour go; `None` while that is not known.
    #[inline(always)]
    pub(super) fn adjacency(&self, id: u32) -> Option<Adjacency> {
        self.adjacencies()(id)
    }

    /// As [`Tables::adjacency`], for one after the other, with what they have in common done once.
    #[inline(always)]
    pub(super) fn adjacencies(&self) -> impl Fn(u32) -> Option<Adjacency> {
        let neighbors = &*self.neighbors;
        |id| {
            let word = neighbors.get(id as usize)?.adjacency.load(Ordering::Acquire);
            (word != 0).then(|| Adjacency { mac: Mac::from_bits(word), out: (word >> 48) as u16 })
        }
    }

    /// Who forwards by these tables besides workers.
    pub fn shortcut(&self) -> Option<Shortcut> {
        self.settings.shortcut.clone()
    }

    /// Interface and address of a neighbour.
    pub(super) fn neighbor(&self, id: u32) -> Option<(u16, IpAddr)> {
        let neighbor = self.neighbors.get(id as usize)?;
        let place = neighbor.place.load(Ordering::Acquire);
        let [low, high] = [0, 1].map(|i| neighbor.address[i].load(Ordering::Relaxed));
        let interface = (place as u16).checked_sub(1)?;
        let address = match place >> 32 {
            4 => IpAddr::V4((low as u32).into()),
            _ => IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()),
        };
        Some((interface, address))
    }

    /// Control thread: says who neighbour `id` is. Before any route leads to it; its old self is out of reach.
    pub(super) fn set_neighbor(&self, id: u32, interface: u16, address: IpAddr) {
        let Some(neighbor) = self.neighbors.get(id as usize) else { return };
        let (bits, version) = match address {
            IpAddr::V4(a) => (u128::from(a.to_bits()), 4u64),
            IpAddr::V6(a) => (a.to_bits(), 6),
        };
        neighbor.address[0].store(bits as u64, Ordering::Relaxed);
        neighbor.address[1].store((bits >> 64) as u64, Ordering::Relaxed);
        neighbor.place.store(version << 32 | (u64::from(interface) + 1), Ordering::Release);
    }

    /// Control thread: says where packets by neighbour `id` go from now on.
    pub(super) fn set_adjacency(&self, id: u32, adjacency: Option<Adjacency>) {
        let Some(neighbor) = self.neighbors.get(id as usize) else { return };
        let word = adjacency.map_or(0, |a| a.mac.to_bits() | u64::from(a.out) << 48);
        neighbor.adjacency.store(word, Ordering::Release);
        if let Some(shortcut) = &self.settings.shortcut {
            shortcut.set_hop(id, word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_inet::fib::Fib;

    #[test]
    fn neighbors_are_what_was_said_last() {
        let (fib4, fib6) = (Fib::<std::net::Ipv4Addr>::new(1), Fib::<std::net::Ipv6Addr>::new(1));
        let settings = Settings { neighbors: 4, groups: 1, ..Settings::default() };
        let tables = Tables::new(fib4.trie().clone(), fib6.trie().clone(), settings, 1, [1, 2]);
        assert_eq!((tables.neighbor(0), tables.adjacency(0), tables.neighbor(9)), (None, None, None));
        for address in ["192.0.2.1", "2001:db8::ffff:1", "::"] {
            let address = address.parse().unwrap();
            tables.set_neighbor(3, 7, address);
            assert_eq!(tables.neighbor(3), Some((7, address)));
        }
        let adjacency = Adjacency { mac: Mac::from([2, 0, 0, 0, 0, 0xff]), out: 7 };
        tables.set_adjacency(3, Some(adjacency));
        assert_eq!(tables.adjacency(3), Some(adjacency));
        tables.set_adjacency(3, None);
        assert_eq!(tables.adjacency(3), None);
    }
}
