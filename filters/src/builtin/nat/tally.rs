//! What is counted, and why packets are dropped.

use crate::kind::CreateError;
use crate::{Counter, DropReason, HostError};

/// Why a packet was not let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// No outside port was free.
    NoPort,
    /// The table is full of established flows.
    TableFull,
    /// Another worker was changing the same part of a table all the time.
    Busy,
    /// From outside, to an endpoint that an inside host uses, from an address it does not talk to.
    Filtered,
    /// A packet from inside that cannot be translated: a fragment, a header cut short, an answer to nothing.
    Invalid,
}

impl Why {
    pub(super) const COUNT: usize = 5;

    /// The drop reasons `nat:...`, by number.
    pub(super) fn reasons(
        make: impl Fn(&str) -> Result<DropReason, HostError>,
    ) -> Result<[DropReason; Why::COUNT], CreateError> {
        let mut reasons = [DropReason::from_index(0); Why::COUNT];
        let names = ["no_port", "table_full", "busy", "filtered", "invalid"];
        for (reason, name) in reasons.iter_mut().zip(names) {
            *reason = make(name).map_err(|e| {
                CreateError::new(e.to_string(), "detach filters with drop reasons of their own")
            })?;
        }
        Ok(reasons)
    }
}

/// Packets, of one worker.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) outbound: Counter,
    pub(super) inbound: Counter,
    pub(super) hairpin: Counter,
    pub(super) icmp_errors: Counter,
    pub(super) no_port: Counter,
    pub(super) filtered: Counter,
    pub(super) invalid: Counter,
}

impl Tally {
    /// Counts a packet from inside that was not let through. What the table refused it counts itself.
    pub(super) fn refused(&self, why: Why) {
        match why {
            Why::NoPort => self.no_port.add(1),
            Why::Filtered => self.filtered.add(1),
            Why::Invalid => self.invalid.add(1),
            Why::TableFull | Why::Busy => {}
        }
    }

    /// The counters with their names.
    pub(super) fn named(&self) -> [(&'static str, &Counter); 7] {
        [
            ("outbound", &self.outbound),
            ("inbound", &self.inbound),
            ("hairpin", &self.hairpin),
            ("icmp_errors", &self.icmp_errors),
            ("no_port", &self.no_port),
            ("filtered", &self.filtered),
            ("invalid", &self.invalid),
        ]
    }
}
