//! What a reassembler answers, and what it counts.

use nke_mbuf::Mbuf;

/// What became of a packet.
#[must_use]
#[derive(Debug)]
pub enum Outcome {
    /// Not a fragment; it is given back untouched.
    NotAFragment(Mbuf),
    /// Kept until the rest comes.
    Held,
    /// A whole datagram, a chain of frames, with its header set right.
    Whole(Mbuf),
    /// Dropped; its frames are free.
    Dropped(DropReason),
    /// To be dropped, after telling the sender: IPv6 wants an ICMPv6 parameter problem about it.
    Answer(Mbuf, DropReason, Problem),
}

/// Code and pointer of an ICMPv6 parameter problem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The code.
    pub code: u8,
    /// Which byte of the packet is wrong.
    pub pointer: u32,
}

impl Problem {
    /// "First fragment has incomplete header chain" (RFC 7112 section 5).
    pub(super) const INCOMPLETE_CHAIN: Problem = Problem { code: 3, pointer: 0 };
}

/// Why a fragment was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DropReason {
    /// The IP header does not hold.
    BadHeader,
    /// No payload, or one that is no multiple of 8 bytes although more follows.
    BadLength,
    /// The datagram would be longer than 65535 bytes ("ping of death").
    TooLong,
    /// An IPv6 first fragment without all the headers (RFC 7112).
    IncompleteChain,
    /// It covers bytes another fragment brought; the datagram is dropped (RFC 5722, for both versions).
    Overlap,
    /// It disagrees with another fragment on where the datagram ends; the datagram is dropped.
    BadEnd,
    /// An exact duplicate; the datagram is unharmed (RFC 8200 section 4.5).
    Duplicate,
    /// Its datagram was dropped before.
    Dead,
    /// The datagram has more fragments, or frames, than are kept; it is dropped.
    TooManyFragments,
    /// No room, and its own datagram was the next to go.
    Memory,
    /// Its sender uses all its share, and its own datagram was the next to go.
    PerSource,
    /// Congestion was met on the way of a sender that does not know ECN (RFC 3168 section 5.3).
    Ecn,
}

impl DropReason {
    /// Every reason, in the order of [`Stats::dropped`].
    pub const ALL: [DropReason; 12] = [
        DropReason::BadHeader,
        DropReason::BadLength,
        DropReason::TooLong,
        DropReason::IncompleteChain,
        DropReason::Overlap,
        DropReason::BadEnd,
        DropReason::Duplicate,
        DropReason::Dead,
        DropReason::TooManyFragments,
        DropReason::Memory,
        DropReason::PerSource,
        DropReason::Ecn,
    ];

    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::BadHeader => "frag_bad_header",
            DropReason::BadLength => "frag_bad_length",
            DropReason::TooLong => "frag_too_long",
            DropReason::IncompleteChain => "frag_incomplete_chain",
            DropReason::Overlap => "frag_overlap",
            DropReason::BadEnd => "frag_bad_end",
            DropReason::Duplicate => "frag_duplicate",
            DropReason::Dead => "frag_dead",
            DropReason::TooManyFragments => "frag_too_many",
            DropReason::Memory => "frag_memory",
            DropReason::PerSource => "frag_per_source",
            DropReason::Ecn => "frag_ecn",
        }
    }
}

/// Counts of a reassembler. Every fragment received is in one place:
/// `fragments == reassembled + dropped + killed + timed_out + evicted + fragments held now`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Fragments received, atomic ones not among them.
    pub fragments: u64,
    /// Atomic fragments made ordinary packets (RFC 6946).
    pub atomic: u64,
    /// Datagrams completed.
    pub datagrams: u64,
    /// Fragments that became part of one.
    pub reassembled: u64,
    /// Fragments dropped as they came, by reason.
    pub dropped: [u64; DropReason::ALL.len()],
    /// Fragments held and then dropped because another one spoilt the datagram.
    pub killed: u64,
    /// Fragments held until their time was over.
    pub timed_out: u64,
    /// Fragments held and then dropped to make room.
    pub evicted: u64,
    /// Datagrams, not tombstones, whose time was over: `ReasmTimeout` of the MIB.
    pub timeouts: u64,
}

impl Stats {
    /// Fragments dropped as they came for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}
