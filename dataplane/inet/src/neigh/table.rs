//! The entries: found by a keyed hash, numbered by ids that outlive them until their grace period is over.

use std::net::IpAddr;

use nke_mbuf::wire::EtherAddr;

use super::action::State;
use super::wheel::Links;
use crate::reass::list::{List, NONE};
use nke_mbuf::hash::{KeyedHash, scale};

/// Who goes first when room is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Nobody: proven, given by the user, or a route's.
    Kept,
    /// After those: asked for, no answer yet.
    Waiting,
    /// First: failed, or known by their own word only.
    Unproven,
}

/// A neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) address: IpAddr,
    pub(super) interface: u16,
    /// `None` when it is not in the table: free, or waiting for its release.
    pub(super) state: Option<State>,
    /// Known exactly in the states that have one.
    pub(super) mac: Option<EtherAddr>,
    /// It once answered, and did not fail since.
    pub(super) proven: bool,
    /// Given by the user.
    pub(super) given: bool,
    /// Solicitations since it came into its state.
    pub(super) tries: u8,
    /// Routes that point at it.
    pub(super) refs: u32,
    /// Releases that are still to come.
    pub(super) owed: u32,
    class: Class,
    /// The next entry of the same bucket.
    chain: u32,
    /// It was confirmed, or came into its state.
    pub(super) since_ms: u64,
    /// Its link address was heard or confirmed.
    pub(super) heard_ms: u64,
    pub(super) used_ms: Option<u64>,
    pub(super) solicited_ms: Option<u64>,
    /// When to look at it; the wheel may come earlier.
    pub(super) deadline_ms: u64,
}

impl Entry {
    const FREE: Entry = Entry {
        address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        interface: 0,
        state: None,
        mac: None,
        proven: false,
        given: false,
        tries: 0,
        refs: 0,
        owed: 0,
        class: Class::Kept,
        chain: NONE,
        since_ms: 0,
        heard_ms: 0,
        used_ms: None,
        solicited_ms: None,
        deadline_ms: u64::MAX,
    };

    fn belongs_to(&self) -> Class {
        match self.state {
            _ if self.refs > 0 || self.proven => Class::Kept,
            Some(State::Incomplete) => Class::Waiting,
            Some(State::Static) | None => Class::Kept,
            Some(_) => Class::Unproven,
        }
    }
}

pub(super) struct Table {
    hash: KeyedHash,
    buckets: Box<[u32]>,
    entries: Box<[Entry]>,
    free: Vec<u32>,
    links: Links,
    waiting: List,
    unproven: List,
    waiting_len: u32,
    /// Entries in the table.
    len: u32,
}

impl Table {
    pub(super) fn new(capacity: u32, key: [u64; 2]) -> Table {
        Table {
            hash: KeyedHash::new(key),
            buckets: vec![NONE; (capacity as usize).next_power_of_two()].into(),
            entries: vec![Entry::FREE; capacity as usize].into(),
            free: (0..capacity).rev().collect(),
            links: Links::new(capacity),
            waiting: List::EMPTY,
            unproven: List::EMPTY,
            waiting_len: 0,
            len: 0,
        }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Ids that can be given out.
    pub(super) fn free(&self) -> u32 {
        self.free.len() as u32
    }

    /// Ids that are neither free nor of an entry: a release or a route still holds them.
    pub(super) fn retired(&self) -> u32 {
        self.capacity() - self.free() - self.len
    }

    /// Entries in the table.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0..).zip(&*self.entries).filter(|(_, entry)| entry.state.is_some())
    }

    /// The entry of an id that the table gave out.
    pub(super) fn at(&self, id: u32) -> &Entry {
        &self.entries[id as usize]
    }

    /// The same, to be changed; after a change of state, references or proof call [`Table::classify`].
    pub(super) fn at_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.entries[id as usize]
    }

    pub(super) fn find(&self, interface: u16, address: IpAddr) -> Option<u32> {
        let mut at = self.buckets[self.bucket(interface, address)];
        while at != NONE {
            let entry = self.at(at);
            if entry.interface == interface && entry.address == address {
                return Some(at);
            }
            at = entry.chain;
        }
        None
    }

    /// A new entry, for an address that is not in the table. `None` without a free id.
    pub(super) fn insert(&mut self, interface: u16, address: IpAddr, state: State) -> Option<u32> {
        let id = self.free.pop()?;
        let bucket = self.bucket(interface, address);
        let chain = std::mem::replace(&mut self.buckets[bucket], id);
        self.entries[id as usize] = Entry { interface, address, state: Some(state), chain, ..Entry::FREE };
        self.len += 1;
        self.classify(id);
        Some(id)
    }

    /// Takes an entry out. Its id is free when no route has it and no release is owed.
    pub(super) fn remove(&mut self, id: u32) {
        let Entry { interface, address, chain, .. } = *self.at(id);
        let bucket = self.bucket(interface, address);
        if self.buckets[bucket] == id {
            self.buckets[bucket] = chain;
        } else {
            let mut at = self.buckets[bucket];
            while self.at(at).chain != id {
                at = self.at(at).chain;
            }
            self.at_mut(at).chain = chain;
        }
        let entry = self.at_mut(id);
        entry.state = None;
        entry.mac = None;
        self.len -= 1;
        self.classify(id);
        self.reuse(id);
    }

    /// Gives an id back if nothing holds it; call it when a route or a release let go.
    pub(super) fn reuse(&mut self, id: u32) {
        let entry = self.at(id);
        if entry.state.is_none() && entry.refs == 0 && entry.owed == 0 {
            self.free.push(id);
        }
    }

    /// Puts an entry in the line it belongs to, at the end if that is another one.
    pub(super) fn classify(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        let (old, new) = (entry.class, entry.belongs_to());
        if old == new {
            return;
        }
        entry.class = new;
        match old {
            Class::Kept => {}
            Class::Waiting => {
                self.waiting.remove(&mut self.links, id);
                self.waiting_len -= 1;
            }
            Class::Unproven => self.unproven.remove(&mut self.links, id),
        }
        match new {
            Class::Kept => {}
            Class::Waiting => {
                self.waiting.push_back(&mut self.links, id);
                self.waiting_len += 1;
            }
            Class::Unproven => self.unproven.push_back(&mut self.links, id),
        }
    }

    /// Whom to evict.
    pub(super) fn victim(&self) -> Option<u32> {
        self.unproven.oldest().or(self.waiting.oldest())
    }

    /// The entry that waits longest, of all.
    pub(super) fn oldest_waiting(&self) -> Option<u32> {
        self.waiting.oldest()
    }

    /// How many entries wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting_len
    }

    /// How many entries of this interface wait, and which has done so longest. Looks at all that wait.
    pub(super) fn waiting_on(&self, interface: u16) -> (u32, Option<u32>) {
        let (mut count, mut oldest) = (0, None);
        let mut at = self.waiting.oldest();
        while let Some(id) = at {
            if self.at(id).interface == interface {
                count += 1;
                oldest = oldest.or(at);
            }
            at = self.links.next(id);
        }
        (count, oldest)
    }

    fn bucket(&self, interface: u16, address: IpAddr) -> usize {
        let (family, bits) = match address {
            IpAddr::V4(addr) => (4, u128::from(addr.to_bits())),
            IpAddr::V6(addr) => (6, addr.to_bits()),
        };
        let words = [u64::from(interface) << 8 | family, (bits >> 64) as u64, bits as u64];
        scale(self.hash.words(words), self.buckets.len())
    }
}
