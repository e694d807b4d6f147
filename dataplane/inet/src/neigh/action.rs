//! What the state machine wants done, what it answers, and what it counts.

use std::net::IpAddr;

use nke_mbuf::wire::EtherAddr;

/// Something to do, in the order given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a solicitation or ARP request: to the group, or to one link address.
    Solicit {
        /// By which interface.
        interface: u16,
        /// For whom.
        address: IpAddr,
        /// `None` is the solicited-node group, or broadcast.
        to: Option<EtherAddr>,
    },
    /// Have the kernel look for this neighbour.
    AskKernel {
        /// On which interface.
        interface: u16,
        /// Whom.
        address: IpAddr,
    },
    /// The neighbour's link address is known, or changed: tell the workers, send what waits.
    Reachable {
        /// Its number.
        id: u32,
        /// Its interface.
        interface: u16,
        /// Its address.
        address: IpAddr,
        /// Its link address.
        mac: EtherAddr,
    },
    /// The neighbour has no link address any more, or was not found: tell the workers, drop what waits. After a grace
    /// period call [`Neighbors::release`](super::Neighbors::release), once for each of these. A route's neighbour
    /// keeps its id all the same.
    Gone {
        /// Its number.
        id: u32,
        /// Its interface.
        interface: u16,
        /// Its address.
        address: IpAddr,
    },
    /// Somebody claims an address of ours (RFC 5227 section 2.4): log it; it may be defended by an announcement, once
    /// in 10 s.
    Conflict {
        /// Where it was heard.
        interface: u16,
        /// Ours.
        address: IpAddr,
        /// Who claims it.
        mac: EtherAddr,
    },
}

/// What is to become of a packet for a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// It is known.
    Known {
        /// Its number.
        id: u32,
        /// Its link address.
        mac: EtherAddr,
    },
    /// It is being looked for: the packet waits for [`Action::Reachable`] or [`Action::Gone`].
    Waiting,
    /// It did not answer a moment ago: host unreachable.
    Failed,
    /// Not looked for: no address of one host, too many solicitations, or no room. Drop the packet.
    Refused,
}

/// Where an entry is in its life (RFC 4861 section 7.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Given by the user, or permanent in the kernel.
    Static,
    /// Confirmed a short time ago.
    Reachable,
    /// Its link address is known and used, but was not confirmed lately.
    Stale,
    /// Being asked whether it is still there; used meanwhile.
    Probe,
    /// Being looked for.
    Incomplete,
    /// It did not answer. A route's neighbour is asked again now and then.
    Failed,
}

impl State {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            State::Static => "static",
            State::Reachable => "reachable",
            State::Stale => "stale",
            State::Probe => "probe",
            State::Incomplete => "incomplete",
            State::Failed => "failed",
        }
    }

    /// Whether an entry in this state has a link address.
    pub const fn has_mac(self) -> bool {
        !matches!(self, State::Incomplete | State::Failed)
    }
}

/// An entry, to be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryInfo {
    /// Its number.
    pub id: u32,
    /// Its interface.
    pub interface: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its link address, if known.
    pub mac: Option<EtherAddr>,
    /// Its state.
    pub state: State,
    /// How many routes point at it.
    pub references: u32,
    /// Since it was last confirmed, or came into its state.
    pub age_ms: u64,
}

/// Counts since the table was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Entries made.
    pub created: u64,
    /// Solicitations sent, or questions to the kernel.
    pub solicited: u64,
    /// Solicitations that did not fit the rate.
    pub rate_limited: u64,
    /// Neighbours confirmed.
    pub confirmed: u64,
    /// Link addresses that changed.
    pub changed: u64,
    /// Neighbours that did not answer.
    pub failed: u64,
    /// Entries removed to make room.
    pub evicted: u64,
    /// Not looked for: no address of one host.
    pub refused_address: u64,
    /// Not looked for: too many solicitations.
    pub refused_rate: u64,
    /// Not looked for, or not learned: no room.
    pub refused_full: u64,
    /// Claims about neighbours that are not in the table.
    pub unknown: u64,
    /// Claims against an entry that the user gave.
    pub static_kept: u64,
    /// Claims against an entry heard or confirmed a moment before.
    pub locked: u64,
    /// Claims to addresses of ours.
    pub conflicts: u64,
}
