//! What was heard of a neighbour: the same few words for ARP and for neighbour discovery, from worker to control thread.

use std::net::IpAddr;

use nke_mbuf::wire::EtherAddr;

/// A packet of a neighbour that was checked; what it claims may still be a lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// The interface it came by.
    pub interface: u16,
    /// What it says.
    pub kind: Kind,
}

/// What a packet of a neighbour says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `sender` asks who has `target`: ARP request, neighbour solicitation.
    Request {
        /// Who asks; unspecified when somebody asks whether he may take `target` (RFC 5227 section 2.1.1, RFC 4862
        /// section 5.4).
        sender: IpAddr,
        /// Of the sender; a solicitation may leave it out.
        mac: Option<EtherAddr>,
        /// What is asked for. The packet is addressed to us if this is ours.
        target: IpAddr,
    },
    /// Somebody has `address`: ARP reply or announcement (a request for oneself too, RFC 5227 section 3), neighbour
    /// advertisement.
    Answer {
        /// The address that is claimed.
        address: IpAddr,
        /// Who claims it; an advertisement may leave it out.
        mac: Option<EtherAddr>,
        /// It says of itself that it answers a question, and came to us alone. ARP has no such flag: there it is a
        /// reply that was not sent to a group.
        solicited: bool,
        /// It replaces what was known; ARP always does (RFC 826).
        override_flag: bool,
        /// The neighbour is a router; of ARP never known.
        router: bool,
    },
    /// Good, but nothing is learned from it: router discovery and redirects. Redirects are never followed.
    Other,
}
