//! Interfaces as every thread of the dataplane may see them: a name, a number, a state, and the queues by which extensions
//! inject. What workers need of an interface for each packet is in the snapshot ([`crate::inet::Link`]).
//!
//! An interface has a slot, made when it is first used and kept for as long as the dataplane lives; a slot whose
//! interface was detached and is no longer referred to is given to another interface.

use std::ops::Index;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use crossbeam::queue::ArrayQueue;
use nke_filters::{
    Direction, Hold, IFNAME_MAX, IFNETS_MAX, IfError, IfFamily, IfFlags, IfIndex, IfParams, IfnetDriver,
};
use nke_mbuf::{Mbuf, Owner};

/// Packets an injection queue holds at most.
pub const INJECT_QUEUE: usize = 1024;

/// State of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum IfState {
    /// Carries packets.
    Up = 0,
    /// Exists, and is down.
    Down = 1,
    /// The device vanished.
    Gone = 2,
    /// Allocated, and not attached yet.
    Embryonic = 3,
    /// On its way out.
    Detaching = 4,
    /// Detached, and still referred to.
    Detached = 5,
    /// The slot has no interface.
    Free = 6,
}

impl IfState {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            IfState::Up => "up",
            IfState::Down => "down",
            IfState::Gone => "gone",
            IfState::Embryonic => "embryonic",
            IfState::Detaching => "detaching",
            IfState::Detached => "detached",
            IfState::Free => "free",
        }
    }

    /// Whether it is attached.
    pub fn is_attached(self) -> bool {
        matches!(self, IfState::Up | IfState::Down | IfState::Gone)
    }
}

/// Figures of the port beyond the common counters, read by the control thread: name and value.
pub type Telemetry = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// Who an interface is: fixed from allocation to detach, but for what [`Ifnet::update`] changes.
#[derive(Clone)]
pub struct Identity {
    /// Name, kind, family and what can be changed about it.
    pub params: IfParams,
    /// Who is charged.
    pub owner: Owner,
    /// What the port tells about itself once and for all: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// The port's figures.
    pub telemetry: Arc<Telemetry>,
    /// What sends its packets; `None` for ports, which have queues.
    pub driver: Option<Arc<dyn IfnetDriver>>,
    /// Its line on the ledger.
    pub hold: Option<Arc<Hold>>,
}

impl Identity {
    /// A port's.
    pub fn port(
        name: &str,
        kind: &'static str,
        facts: Vec<(&'static str, String)>,
        telemetry: Telemetry,
    ) -> Identity {
        let params = IfParams {
            name: name.to_owned(),
            kind,
            family: IfFamily::ETHERNET,
            flags: IfFlags::UP.with(IfFlags::BROADCAST).with(IfFlags::MULTICAST),
            mtu: 1500,
            hdrlen: 14,
            lladdr: None,
        };
        Identity {
            params,
            owner: Owner::DATAPLANE,
            facts,
            telemetry: Arc::new(telemetry),
            driver: None,
            hold: None,
        }
    }
}

/// An interface.
pub struct Ifnet {
    /// Its number.
    pub index: IfIndex,
    worker: AtomicUsize,
    state: AtomicU64,
    input: ArrayQueue<Mbuf>,
    output: ArrayQueue<Mbuf>,
    identity: RwLock<Arc<Identity>>,
    references: Mutex<Weak<Reference>>,
}

/// What every reference to an interface shares.
pub struct Reference;

impl Ifnet {
    fn new(index: IfIndex, identity: Identity, worker: usize, state: IfState) -> Ifnet {
        Ifnet {
            index,
            worker: AtomicUsize::new(worker),
            state: AtomicU64::new(state as u64),
            input: ArrayQueue::new(INJECT_QUEUE),
            output: ArrayQueue::new(INJECT_QUEUE),
            identity: RwLock::new(Arc::new(identity)),
            references: Mutex::new(Weak::new()),
        }
    }

    /// The queue of packets injected in `direction`.
    #[inline(always)]
    pub fn injected(&self, direction: Direction) -> &ArrayQueue<Mbuf> {
        match direction {
            Direction::Input => &self.input,
            Direction::Output => &self.output,
        }
    }

    /// The worker that drains the injection queues.
    #[inline(always)]
    pub fn worker(&self) -> usize {
        self.worker.load(Ordering::Relaxed)
    }

    /// Who it is. Not for the path.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its name. Not for the path.
    pub fn name(&self) -> String {
        self.identity().params.name.clone()
    }

    /// Changes who it is.
    pub fn update(&self, change: impl FnOnce(&mut Identity)) {
        let mut identity = self.identity.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut identity));
    }

    /// Lets go of what its extension gave: nothing of it is reached by this interface any more.
    pub fn let_go(&self) {
        self.update(|identity| {
            identity.driver = None;
            identity.hold = None;
            identity.telemetry = Arc::new(Box::new(Vec::new));
        });
    }

    /// Figures of the port or driver behind it, as they are now.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        (self.identity().telemetry)()
    }

    /// Its state.
    pub fn state(&self) -> IfState {
        match self.state.load(Ordering::Acquire) {
            0 => IfState::Up,
            1 => IfState::Down,
            2 => IfState::Gone,
            3 => IfState::Embryonic,
            4 => IfState::Detaching,
            5 => IfState::Detached,
            _ => IfState::Free,
        }
    }

    /// Sets the state; returns what it was.
    pub fn set_state(&self, state: IfState) -> IfState {
        let old = self.state();
        self.state.store(state as u64, Ordering::Release);
        old
    }

    /// One more reference to it.
    pub fn refer(&self) -> Arc<Reference> {
        let mut shared = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reference) = shared.upgrade() {
            return reference;
        }
        let reference = Arc::new(Reference);
        *shared = Arc::downgrade(&reference);
        reference
    }

    /// Whether there were references and all are gone.
    fn is_released(&self) -> bool {
        let shared = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        shared.strong_count() == 0 && !shared.ptr_eq(&Weak::new())
    }

    /// Whether nobody can come back to it.
    fn is_over(&self) -> bool {
        match self.state() {
            IfState::Embryonic => self.is_released(),
            IfState::Detached => {
                self.references.lock().unwrap_or_else(PoisonError::into_inner).strong_count() == 0
            }
            _ => false,
        }
    }
}

/// All interfaces.
pub struct IfTable {
    slots: Box<[OnceLock<Ifnet>]>,
    /// Slots in use so far; those beyond were never made.
    used: AtomicUsize,
    allocating: Mutex<()>,
}

impl Default for IfTable {
    fn default() -> Self {
        let slots = (0..IFNETS_MAX).map(|_| OnceLock::new()).collect();
        IfTable { slots, used: AtomicUsize::new(0), allocating: Mutex::new(()) }
    }
}

impl IfTable {
    /// The interface of this number, whatever its state but [`IfState::Free`].
    #[inline]
    pub fn get(&self, index: IfIndex) -> Option<&Ifnet> {
        let ifnet = self.slots.get(usize::from(index.0))?.get()?;
        (ifnet.state() != IfState::Free).then_some(ifnet)
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Ifnet> {
        (0..self.used()).filter_map(|i| self.get(IfIndex(i as u16)))
    }

    /// Numbers given out so far are below this.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// The attached interface called `name`.
    pub fn find(&self, name: &str) -> Option<&Ifnet> {
        self.iter().find(|i| i.state().is_attached() && i.identity().params.name == name)
    }

    /// Makes an interface whose injection queues `worker` will drain. Names are unique among all that are not detached.
    pub fn allocate(&self, identity: Identity, worker: usize, state: IfState) -> Result<&Ifnet, IfError> {
        let name = &identity.params.name;
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=IFNAME_MAX).contains(&name.len())
            || !name.bytes().all(fits)
            || matches!(name.as_str(), "ip" | "ip6")
        {
            return Err(IfError::Invalid("the name of the interface"));
        }
        let _one_at_a_time = self.allocating.lock().unwrap_or_else(PoisonError::into_inner);
        if self.iter().any(|i| i.state() != IfState::Detached && i.identity().params.name == *name) {
            return Err(IfError::NameTaken(name.clone()));
        }
        let used = self.used();
        let free = (0..used).filter_map(|i| self.slots[i].get()).find(|i| i.state() == IfState::Free);
        if let Some(ifnet) = free {
            ifnet.update(|old| *old = identity);
            ifnet.worker.store(worker, Ordering::Relaxed);
            *ifnet.references.lock().unwrap_or_else(PoisonError::into_inner) = Weak::new();
            ifnet.set_state(state);
            return Ok(ifnet);
        }
        let full = || IfError::Full("interfaces", IFNETS_MAX);
        let slot = self.slots.get(used).ok_or_else(full)?;
        let ifnet = slot.get_or_init(|| Ifnet::new(IfIndex(used as u16), identity, worker, state));
        self.used.store(used + 1, Ordering::Release);
        Ok(ifnet)
    }

    /// Frees slots of interfaces that are detached, or never were attached, and that nobody refers to any more.
    pub fn sweep(&self) {
        for ifnet in self.iter().filter(|i| i.is_over()) {
            ifnet.let_go();
            ifnet.set_state(IfState::Free);
        }
    }
}

impl Index<usize> for IfTable {
    type Output = Ifnet;

    /// # Panics
    /// When no interface ever had this number.
    fn index(&self, index: usize) -> &Ifnet {
        match self.slots[index].get() {
            Some(ifnet) => ifnet,
            None => panic!("interface {index} was never made"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Identity {
        Identity::port(name, "test", Vec::new(), Box::new(Vec::new))
    }

    #[test]
    fn slots_come_back_when_the_last_reference_goes() {
        let table = IfTable::default();
        let a = table.allocate(identity("a"), 0, IfState::Up).unwrap();
        let reference = a.refer();
        assert_eq!(table.allocate(identity("a"), 0, IfState::Up).err(), Some(IfError::NameTaken("a".into())));
        a.set_state(IfState::Detached);
        table.sweep();
        assert!(table.find("a").is_none());
        let b = table.allocate(identity("a"), 0, IfState::Up).unwrap();
        assert_eq!((a.index, b.index), (IfIndex(0), IfIndex(1)), "the first one is still referred to");
        drop(reference);
        table.sweep();
        assert!(table.get(a.index).is_none());
        assert_eq!(table.allocate(identity("c"), 0, IfState::Embryonic).unwrap().index, IfIndex(0));
        for i in 2..IFNETS_MAX {
            table.allocate(identity(&format!("n{i}")), 0, IfState::Up).unwrap();
        }
        assert_eq!(
            table.allocate(identity("z"), 0, IfState::Up).err(),
            Some(IfError::Full("interfaces", IFNETS_MAX))
        );
        for bad in ["", "ip", "a b", &"x".repeat(IFNAME_MAX + 1)] {
            assert_eq!(
                table.allocate(identity(bad), 0, IfState::Up).err(),
                Some(IfError::Invalid("the name of the interface"))
            );
        }
    }
}
