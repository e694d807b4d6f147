//! What a filter decides about a packet.
//!
//! The three verdicts of the contract are three actions on a [`crate::Batch`]: leaving a packet in place is Continue
//! (KPI: 0), [`crate::Batch::take`] is Consumed (EJUSTRETURN), [`crate::Batch::drop`] is Drop (any other errno).

/// Different reasons for drops at most, those of extensions included.
pub const REASONS_MAX: usize = 256;

/// Why a packet was dropped: an index into the table of named counters. Extensions get theirs from
/// [`crate::Host::drop_reason`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DropReason(u8);

impl DropReason {
    /// The reason with this index.
    pub const fn from_index(index: u8) -> DropReason {
        DropReason(index)
    }

    /// Index into the table of counters.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whose fault a drop is. Policy drops never count as interface errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropClass {
    /// A filter decided so.
    Policy,
    /// The packet was malformed, or not for anybody here.
    Packet,
    /// A resource was short: a ring, the pool, a queue.
    Resource,
}

impl DropClass {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            DropClass::Policy => "policy",
            DropClass::Packet => "packet",
            DropClass::Resource => "resource",
        }
    }
}
