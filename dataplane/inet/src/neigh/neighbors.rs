//! The table of neighbours, as the control thread sees it.

use std::net::IpAddr;

use nke_mbuf::wire::EtherAddr;

use super::action::{Action, EntryInfo, Lookup, State, Stats};
use super::config::{Config, Mode};
use super::table::Table;
use super::wheel::Wheel;
use crate::icmp::is_one_host_v4;
use crate::icmp::limit::Bucket;

/// Conflicts told, a second and at once.
pub(super) const CONFLICTS: u32 = 10;

/// Who is on the links, and at which link address. What it wants done is appended to the `out` of each call, which the
/// caller empties; all else was allocated when it was made.
pub struct Neighbors {
    pub(super) config: Config,
    pub(super) table: Table,
    pub(super) wheel: Wheel,
    pub(super) solicits: Bucket,
    pub(super) conflicts: Bucket,
    pub(super) stats: Stats,
}

impl Neighbors {
    /// Allocates all it will ever use. `key` is random.
    pub fn new(config: Config, key: [u64; 2]) -> Neighbors {
        let config = config.bounded();
        Neighbors {
            table: Table::new(config.capacity, key),
            wheel: Wheel::new(config.capacity),
            solicits: Bucket::full(config.solicit_burst),
            conflicts: Bucket::full(CONFLICTS),
            stats: Stats::default(),
            config,
        }
    }

    /// The bounds in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts since it was made.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// All entries, in no order.
    pub fn entries(&self, now_ms: u64) -> impl Iterator<Item = EntryInfo> {
        self.table.iter().filter_map(move |(id, entry)| {
            Some(EntryInfo {
                id,
                interface: entry.interface,
                address: entry.address,
                mac: entry.mac,
                state: entry.state?,
                references: entry.refs,
                age_ms: now_ms.saturating_sub(entry.since_ms),
            })
        })
    }

    /// A packet is there for this neighbour. Looks for it if need be.
    pub fn resolve(&mut self, interface: u16, address: IpAddr, now_ms: u64, out: &mut Vec<Action>) -> Lookup {
        if let Some(id) = self.table.find(interface, address) {
            self.used(id, now_ms, out);
            let entry = self.table.at(id);
            return match entry.mac {
                Some(mac) => Lookup::Known { id, mac },
                None if entry.state == Some(State::Failed) => Lookup::Failed,
                None => Lookup::Waiting,
            };
        }
        if !is_one_host(address) {
            self.stats.refused_address += 1;
            return Lookup::Refused;
        }
        // An entry that cannot be asked for would only push another one out.
        if !self.may_solicit(false, now_ms) {
            self.stats.refused_rate += 1;
            return Lookup::Refused;
        }
        if !self.make_room(out) {
            return Lookup::Refused;
        }
        self.bound_waiting(interface, out);
        let Some(id) = self.insert(interface, address, State::Incomplete, now_ms) else {
            return Lookup::Refused;
        };
        self.table.at_mut(id).used_ms = Some(now_ms);
        self.attempt(id, now_ms, out);
        Lookup::Waiting
    }

    /// Packets were sent to this neighbour lately: it is wanted, and asked whether it is still there when its time is
    /// over. Call it now and then for ids that workers used.
    pub fn used(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        if id >= self.table.capacity() {
            return;
        }
        self.table.at_mut(id).used_ms = Some(now_ms);
        if self.table.at(id).state == Some(State::Stale) {
            self.doubt(id, now_ms, out);
        }
    }

    /// A route points at this neighbour: its id, which stays until as many [`Neighbors::unref`] as there were of these.
    /// It is looked for without packets, and for ever. `None` without room, or if it is no address of one host.
    pub fn gateway(
        &mut self,
        interface: u16,
        address: IpAddr,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Option<u32> {
        let known = self.table.find(interface, address);
        let id = match known {
            Some(id) => id,
            None if is_one_host(address) => {
                self.create(interface, address, State::Incomplete, now_ms, out)?
            }
            None => return None,
        };
        self.table.at_mut(id).refs += 1;
        self.table.classify(id);
        match self.table.at(id).state {
            Some(State::Incomplete) if known.is_none() => self.attempt(id, now_ms, out),
            Some(State::Failed) if self.table.at(id).refs == 1 => self.restart(id, now_ms, out),
            Some(State::Stale) => self.doubt(id, now_ms, out),
            _ => {}
        }
        Some(id)
    }

    /// A route does not point at this neighbour any more.
    pub fn unref(&mut self, id: u32, now_ms: u64) {
        if id >= self.table.capacity() || self.table.at(id).refs == 0 {
            return;
        }
        self.table.at_mut(id).refs -= 1;
        if self.table.at(id).refs > 0 {
            return;
        }
        self.table.classify(id);
        self.table.reuse(id);
        if self.table.at(id).state == Some(State::Failed) {
            self.arm(id, now_ms + self.config.failed_ms);
        }
    }

    /// A grace period is over since an [`Action::Gone`] of this id.
    pub fn release(&mut self, id: u32) {
        if id < self.table.capacity() && self.table.at(id).owed > 0 {
            self.table.at_mut(id).owed -= 1;
            self.table.reuse(id);
        }
    }

    /// The user gives the link address of a neighbour. `None` without room, or if either address is not of one host.
    pub fn insert_static(
        &mut self,
        interface: u16,
        address: IpAddr,
        mac: EtherAddr,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Option<u32> {
        let id = self.put(interface, address, mac, State::Static, now_ms, out)?;
        self.table.at_mut(id).given = true;
        Some(id)
    }

    /// Takes back what [`Neighbors::insert_static`] gave; false if there is none. A route's neighbour is looked for.
    pub fn remove_static(
        &mut self,
        interface: u16,
        address: IpAddr,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> bool {
        let found = self.table.find(interface, address).filter(|id| self.table.at(*id).given);
        found.is_some_and(|id| self.lose(id, now_ms, out))
    }

    /// The kernel has this neighbour, in this state: what it would tell, it tells us. Without a link address it is looked
    /// for there, or has failed. An entry given by the user stays. `None` if there is no entry then.
    pub fn set(
        &mut self,
        interface: u16,
        address: IpAddr,
        mac: Option<EtherAddr>,
        state: State,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Option<u32> {
        let known = self.table.find(interface, address);
        if let Some(id) = known.filter(|id| self.table.at(*id).given) {
            return Some(id);
        }
        if let Some(mac) = mac.filter(|_| state.has_mac()) {
            return self.put(interface, address, mac, state, now_ms, out);
        }
        let id = known?;
        match self.table.at(id).state {
            Some(State::Failed) => {}
            _ if state == State::Failed => self.fail(id, now_ms, out),
            Some(State::Incomplete) => {}
            _ => {
                self.lose(id, now_ms, out);
            }
        }
        self.table.at(id).state.map(|_| id)
    }

    /// Forgets a neighbour that was learned or mirrored; false if there is none, or the user gave it. A route's neighbour
    /// is looked for.
    pub fn forget(&mut self, interface: u16, address: IpAddr, now_ms: u64, out: &mut Vec<Action>) -> bool {
        let found = self.table.find(interface, address).filter(|id| !self.table.at(*id).given);
        found.is_some_and(|id| self.lose(id, now_ms, out))
    }

    /// Removes everything on an interface. Ids of routes stay theirs until [`Neighbors::unref`].
    pub fn interface_gone(&mut self, interface: u16, out: &mut Vec<Action>) {
        for id in 0..self.table.capacity() {
            if self.table.at(id).state.is_some() && self.table.at(id).interface == interface {
                self.remove(id, out);
            }
        }
    }

    fn lose(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) -> bool {
        if self.table.at(id).refs > 0 {
            self.restart(id, now_ms, out)
        } else {
            self.remove(id, out)
        }
        true
    }

    /// Makes an entry with this link address and state, or gives them to the one that is there.
    fn put(
        &mut self,
        interface: u16,
        address: IpAddr,
        mac: EtherAddr,
        state: State,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Option<u32> {
        if !is_one_host(address) || !mac.is_unicast() {
            return None;
        }
        let known = self.table.find(interface, address);
        let id = known.or_else(|| self.create(interface, address, state, now_ms, out))?;
        self.learn_mac(id, mac, now_ms, out);
        self.enter(id, state, now_ms);
        let entry = self.table.at_mut(id);
        entry.proven |= state != State::Stale;
        self.table.classify(id);
        match state {
            State::Static => self.wheel.clear(id),
            State::Stale => self.arm(id, now_ms + self.config.stale_ms),
            _ => self.arm(id, now_ms + self.config.reachable_ms),
        }
        Some(id)
    }

    /// A new entry, after making room. It has no link address and no time yet.
    pub(super) fn create(
        &mut self,
        interface: u16,
        address: IpAddr,
        state: State,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) -> Option<u32> {
        if !self.make_room(out) {
            return None;
        }
        self.insert(interface, address, state, now_ms)
    }

    fn insert(&mut self, interface: u16, address: IpAddr, state: State, now_ms: u64) -> Option<u32> {
        let id = self.table.insert(interface, address, state)?;
        self.table.at_mut(id).since_ms = now_ms;
        self.stats.created += 1;
        Some(id)
    }

    /// Whether an id is free. Evicts while some are left: the id of an evicted entry is not free at once.
    fn make_room(&mut self, out: &mut Vec<Action>) -> bool {
        let spare = (self.table.capacity() / 8).max(1);
        if self.table.free() <= spare && self.table.retired() < spare {
            self.evict(self.table.victim(), out);
        }
        let room = self.table.free() > 0;
        self.stats.refused_full += u64::from(!room);
        room
    }

    /// Makes one more unanswered entry on this interface fit under the caps.
    fn bound_waiting(&mut self, interface: u16, out: &mut Vec<Action>) {
        let (count, oldest) = self.table.waiting_on(interface);
        if count >= self.config.incomplete_per_interface {
            self.evict(oldest, out);
        } else if self.table.waiting() >= self.config.incomplete_max {
            self.evict(self.table.oldest_waiting(), out);
        }
    }

    fn evict(&mut self, id: Option<u32>, out: &mut Vec<Action>) {
        if let Some(id) = id {
            self.stats.evicted += 1;
            self.remove(id, out);
        }
    }

    /// Takes an entry out of the table.
    pub(super) fn remove(&mut self, id: u32, out: &mut Vec<Action>) {
        // Of a failed one it was told before.
        if self.table.at(id).state != Some(State::Failed) {
            self.gone(id, out);
        }
        self.wheel.clear(id);
        self.table.remove(id);
    }

    /// Tells that the entry has no link address, or was not found.
    pub(super) fn gone(&mut self, id: u32, out: &mut Vec<Action>) {
        let entry = self.table.at_mut(id);
        entry.owed += 1;
        out.push(Action::Gone { id, interface: entry.interface, address: entry.address });
    }

    /// Brings an entry into a state whose claims about the link address hold already.
    pub(super) fn enter(&mut self, id: u32, state: State, now_ms: u64) {
        let entry = self.table.at_mut(id);
        entry.state = Some(state);
        entry.tries = 0;
        entry.since_ms = now_ms;
        self.table.classify(id);
    }

    pub(super) fn mirrors_kernel(&self) -> bool {
        self.config.mode == Mode::Kernel
    }
}

/// Whether a neighbour can have the address.
pub(super) fn is_one_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(addr) => is_one_host_v4(addr, false),
        IpAddr::V6(addr) => super::nd::is_one_host(addr),
    }
}
