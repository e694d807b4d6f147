//! Tables of connections, shared by `conntrack` and `nat`.
//!
//! ```text
//!   packet ──▶ packet::V4 / V6 ──▶ key ──▶ Table::find ──▶ flow ──▶ touch: state and time       no lock, no waiting
//!                                            │ none
//!                                            └──▶ open: insert, and when the table is full, evict
//!   tick  ──▶ Flows::age: ends what timed out, so many records a second                         control thread
//! ```
//!
//! * [`record`]: one cache line for each flow, read by any number of workers while one changes it.
//! * [`table`]: records in chains below one word for each bucket. All memory is there from the start.
//! * [`state`]: what a flow is: its protocol, how far a TCP connection is, how long it may be silent.
//! * [`flows`]: a table whose records age, with its figures.
//! * [`packet`]: what of a packet makes the key.

mod flows;
pub(crate) mod packet;
pub(crate) mod record;
pub(crate) mod state;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use flows::SWEEP_TICKS;
pub(crate) use flows::{Ends, Flows, Refusal};
pub(crate) use record::Found;
pub(crate) use state::{Direction, State, Timeouts};
pub(crate) use table::{Table, TableError};

/// Flows of a table when the argument `flows` is not given.
pub(crate) const FLOWS_DEFAULT: i64 = 65_536;
/// Flows of a table at most: half a gigabyte.
pub(crate) const FLOWS_MAX: i64 = 4 << 20;
