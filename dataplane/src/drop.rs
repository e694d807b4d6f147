//! Every reason a packet is dropped for, the dataplane's own and those extensions add.

use std::sync::{PoisonError, RwLock};

use nke_filters::{DropClass, DropReason, HostError, REASONS_MAX};

macro_rules! reasons {
    ($($(#[$doc:meta])* $constant:ident = $index:literal, $name:literal, $class:ident;)*) => {
        $($(#[$doc])* pub const $constant: DropReason = DropReason::from_index($index);)*
        const CORE: &[(DropReason, &str, DropClass)] = &[$(($constant, $name, DropClass::$class)),*];
    };
}

reasons! {
    /// Nothing is plumbed or wired to the interface the packet came in by.
    NO_PROTOCOL = 0, "no_protocol", Packet;
    /// The transmit ring or queue had no room.
    TX_FULL = 1, "tx_full", Resource;
    /// The device is gone or down.
    IF_DOWN = 2, "if_down", Resource;
    /// A filter panicked, and its attachment says to drop what it was shown.
    FILTER_PANIC = 3, "filter_panic", Policy;
    /// Longer than the port can send.
    TOO_LONG = 4, "too_long", Packet;
    /// The device refused the descriptor: empty, or outside its frame.
    TX_INVALID = 5, "tx_invalid", Packet;
    /// A packet in several frames came in with frames missing, or of more frames than a chain takes.
    RX_CHAIN = 6, "rx_chain", Packet;
    /// Not addressed to this interface, which has no wire.
    OTHER_HOST = 7, "other_host", Packet;
    /// Shorter than its IP header says.
    IP_SHORT = 8, "ip_short", Packet;
    /// An IP header whose version or lengths cannot be.
    IP_BAD_HEADER = 9, "ip_bad_header", Packet;
    /// An IPv4 header whose checksum is wrong.
    IP_BAD_CHECKSUM = 10, "ip_bad_checksum", Packet;
    /// A source that nobody has, or a destination that is not on links.
    IP_MARTIAN = 11, "ip_martian", Packet;
    /// A malformed option, a source route, or an extension header out of place.
    IP_BAD_OPTION = 12, "ip_bad_option", Packet;
    /// No route to its destination.
    NO_ROUTE = 13, "no_route", Packet;
    /// A route says to drop it.
    BLACKHOLE = 14, "blackhole", Policy;
    /// A route says that its destination is unreachable, or that it is forbidden.
    PROHIBITED = 15, "prohibited", Policy;
    /// Its hops are used up.
    HOPS_EXHAUSTED = 16, "hops_exhausted", Packet;
    /// Too big for the next link, and not to be fragmented there.
    TOO_BIG = 17, "too_big", Packet;
    /// The next hop does not answer for its address.
    NEIGHBOR_UNRESOLVED = 18, "neighbor_unresolved", Packet;
    /// Too many packets wait for the next hop's address.
    NEIGHBOR_QUEUE = 19, "neighbor_queue", Resource;
    /// The worker it belongs to, or the one with the queue it goes out by, is behind.
    HANDOVER_FULL = 20, "handover_full", Resource;
    /// Nobody takes its transport protocol or port.
    NO_TRANSPORT = 21, "no_transport", Packet;
    /// For a group that nobody here is in.
    NOT_MEMBER = 22, "not_member", Packet;
    /// An ARP packet or a neighbour discovery message that does not hold.
    NEIGHBOR_BAD = 23, "neighbor_bad", Packet;
    /// The control thread is behind with ARP and neighbour discovery.
    NEIGHBOR_EVENTS = 24, "neighbor_events", Resource;
    /// An ICMP message that does not hold, or that wants no answer.
    ICMP_IGNORED = 25, "icmp_ignored", Packet;
    /// No room in front of it for a link header, or in the pool for what has to be made of it.
    NO_ROOM = 26, "no_room", Resource;
    /// A fragment whose header does not hold.
    FRAG_BAD = 27, "frag_bad", Packet;
    /// A fragment that covers bytes another one brought, or disagrees on the end; its datagram is dropped.
    FRAG_OVERLAP = 28, "frag_overlap", Packet;
    /// An exact duplicate of a fragment; its datagram is unharmed.
    FRAG_DUPLICATE = 29, "frag_duplicate", Packet;
    /// Of a datagram that was dropped before.
    FRAG_DEAD = 30, "frag_dead", Packet;
    /// Of a datagram of too many fragments, in or out.
    FRAG_TOO_MANY = 31, "frag_too_many", Resource;
    /// No room for fragments, in all or for this source.
    FRAG_MEMORY = 32, "frag_memory", Resource;
    /// Held until the rest did not come in time.
    FRAG_TIMEOUT = 33, "frag_timeout", Packet;
    /// Held, and dropped with its datagram: another fragment spoilt it, or room was needed.
    FRAG_DISCARDED = 34, "frag_discarded", Packet;
    /// Its checksum was left to whoever sends, and cannot be computed: a fragment, or not TCP or UDP.
    CHECKSUM_PENDING = 35, "checksum_pending", Packet;
    /// Handed on or injected too often: it goes round between interfaces.
    LOOPED = 36, "looped", Packet;
    /// What an extension's driver did not take.
    DRIVER_FULL = 37, "driver_full", Resource;
}

/// Names and classes of all reasons. Reasons are never removed, so that a counter keeps its meaning.
pub struct Reasons(RwLock<Vec<(String, DropClass)>>);

impl Default for Reasons {
    fn default() -> Self {
        debug_assert!(CORE.iter().enumerate().all(|(i, (reason, ..))| reason.index() == i));
        Reasons(RwLock::new(CORE.iter().map(|(_, name, class)| ((*name).to_owned(), *class)).collect()))
    }
}

impl Reasons {
    /// The reason called `name`, made now if need be.
    pub fn find_or_add(&self, name: &str, class: DropClass) -> Result<DropReason, HostError> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = table.iter().position(|(known, _)| known == name) {
            return Ok(DropReason::from_index(i as u8));
        }
        if table.len() == REASONS_MAX {
            return Err(HostError::Full("drop reasons", REASONS_MAX));
        }
        table.push((name.to_owned(), class));
        Ok(DropReason::from_index((table.len() - 1) as u8))
    }

    /// The name of a reason.
    pub fn name(&self, reason: DropReason) -> String {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table
            .get(reason.index())
            .map_or_else(|| format!("reason {}", reason.index()), |(name, _)| name.clone())
    }

    /// All reasons in the order of their index.
    pub fn all(&self) -> Vec<(String, DropClass)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
