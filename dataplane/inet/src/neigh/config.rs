//! The bounds of the neighbour table, and its times.

/// Who solicits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// We do: the machine of RFC 4861 section 7.3 and RFC 826.
    Solicit,
    /// The kernel does, and its table is mirrored by [`Neighbors::set`](super::Neighbors::set): it gets all ARP and
    /// neighbour discovery, so that nothing is learned from packets.
    Kernel,
}

/// The bounds of [`Neighbors`](super::Neighbors), and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who solicits.
    pub mode: Mode,
    /// Entries, and ids: those that wait for their release are among them. More than the hosts on all links.
    pub capacity: u32,
    /// Entries in all whose neighbour has not answered yet.
    pub incomplete_max: u32,
    /// The same, of one interface.
    pub incomplete_per_interface: u32,
    /// Solicitations a second, in all.
    pub solicit_per_second: u32,
    /// Solicitations at once, in all. A quarter is kept for neighbours that answered before and for routes.
    pub solicit_burst: u32,
    /// From one solicitation for an address to the next: RETRANS_TIMER of RFC 4861 section 10.
    pub retransmit_ms: u64,
    /// Solicitations without answer before it is given up: MAX_MULTICAST_SOLICIT.
    pub tries: u8,
    /// How long a confirmation holds: REACHABLE_TIME.
    pub reachable_ms: u64,
    /// How long an entry that nobody uses is kept after that.
    pub stale_ms: u64,
    /// How long packets for a neighbour that did not answer are refused at once.
    pub failed_ms: u64,
    /// Longest time between two solicitations for a route's neighbour that does not answer.
    pub backoff_max_ms: u64,
    /// How long what was heard or confirmed is kept against a claim that nobody asked for.
    pub lock_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mode: Mode::Solicit,
            capacity: 4096,
            incomplete_max: 1024,
            incomplete_per_interface: 256,
            solicit_per_second: 1000,
            solicit_burst: 128,
            retransmit_ms: 1000,
            tries: 3,
            reachable_ms: 30_000,
            stale_ms: 60_000,
            failed_ms: 5000,
            backoff_max_ms: 30_000,
            lock_ms: 1000,
        }
    }
}

impl Config {
    /// With every value where the others make sense.
    pub(super) fn bounded(self) -> Config {
        let capacity = self.capacity.clamp(2, 1 << 20);
        let incomplete_max = self.incomplete_max.clamp(1, capacity);
        Config {
            capacity,
            incomplete_max,
            incomplete_per_interface: self.incomplete_per_interface.clamp(1, incomplete_max),
            solicit_burst: self.solicit_burst.max(2),
            solicit_per_second: self.solicit_per_second.max(1),
            retransmit_ms: self.retransmit_ms.max(1),
            tries: self.tries.max(1),
            ..self
        }
    }
}
