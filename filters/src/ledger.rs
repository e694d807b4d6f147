//! The ledger: everything an extension holds, with where and when it was taken.
//!
//! Packets are not entered one by one (their headers carry the owner, and the pool counts them); everything else is.
//! An entry lasts as long as its [`Hold`]. Only control threads come here, so a mutex is fine.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nke_mbuf::Owner;

/// Kinds of resources on the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HoldKind {
    /// A registered kind.
    Registration,
    /// An attached instance.
    Attachment,
    /// An interface.
    Interface,
    /// A protocol attached to an interface.
    Protocol,
    /// A plumber.
    Plumber,
    /// A thread.
    Thread,
    /// An open file.
    File,
    /// Memory outside the pool.
    Memory,
    /// A packet.
    Mbuf,
}

impl HoldKind {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            HoldKind::Registration => "registration",
            HoldKind::Attachment => "attachment",
            HoldKind::Interface => "interface",
            HoldKind::Protocol => "protocol",
            HoldKind::Plumber => "plumber",
            HoldKind::Thread => "thread",
            HoldKind::File => "file",
            HoldKind::Memory => "memory",
            HoldKind::Mbuf => "mbuf",
        }
    }
}

/// One line of the ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who holds it.
    pub owner: Owner,
    /// What kind of thing it is.
    pub kind: HoldKind,
    /// Its name.
    pub name: String,
    /// When it was entered.
    pub since: Instant,
    /// Source file and line that entered it.
    pub made_at: &'static Location<'static>,
}

#[derive(Default)]
struct Book {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    charged: u64,
}

/// The book of one dataplane. Cloning gives another handle to it.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        // A panic between two map operations leaves a valid book.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a resource; it is struck out when the returned hold is dropped.
    #[track_caller]
    pub fn hold(&self, owner: Owner, kind: HoldKind, name: impl Into<String>) -> Hold {
        let made_at = Location::caller();
        let mut book = self.book();
        let id = book.next;
        book.next += 1;
        book.charged += 1;
        book.entries.insert(id, Entry { owner, kind, name: name.into(), since: Instant::now(), made_at });
        Hold { ledger: self.clone(), id }
    }

    /// Everything on the ledger, or everything of one owner.
    pub fn entries(&self, owner: Option<Owner>) -> Vec<Entry> {
        let book = self.book();
        book.entries.values().filter(|e| owner.is_none_or(|o| o == e.owner)).cloned().collect()
    }

    /// How many entries there have been, those struck out included.
    pub fn charged(&self) -> u64 {
        self.book().charged
    }
}

/// A resource on the ledger; dropping it strikes the entry out.
pub struct Hold {
    ledger: Ledger,
    id: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.ledger.book().entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_last_as_long_as_their_holds() {
        let ledger = Ledger::default();
        let a = ledger.hold(Owner(16), HoldKind::Thread, "writer");
        let b = ledger.hold(Owner(17), HoldKind::File, "x.pcapng");
        assert_eq!(ledger.entries(None).len(), 2);
        let of_a = ledger.entries(Some(Owner(16)));
        assert_eq!((of_a[0].kind, of_a[0].name.as_str()), (HoldKind::Thread, "writer"));
        assert!(of_a[0].made_at.file().ends_with("ledger.rs"));
        drop(a);
        assert!(ledger.entries(Some(Owner(16))).is_empty());
        drop(b);
        assert_eq!((ledger.entries(None).len(), ledger.charged()), (0, 2));
    }
}
