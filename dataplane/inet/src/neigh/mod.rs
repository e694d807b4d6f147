//! Neighbours: ARP (RFC 826) and neighbour discovery (RFC 4861).
//!
//! Two halves, which meet in two small types:
//!
//! ```text
//!   worker                                        control thread
//!   packet ──▶ arp_reply, na_reply ──▶ wire
//!          └─▶ parse_arp, parse_nd ──  Event  ──▶ Neighbors::event ─┐
//!   no link address for a next hop ─────────────▶ Neighbors::resolve ┼──▶ Action: solicit, tell the workers, ...
//!                                     the clock ──▶ Neighbors::tick ──┘
//! ```
//!
//! Workers read an array of link addresses, indexed by the ids that [`Neighbors`] gives out. An id means one neighbour
//! from its [`Action::Reachable`] until a grace period after its [`Action::Gone`] is over.
//!
//! # What a stranger can make it do
//!
//! Anybody on a link can claim anything, and anybody anywhere can have us look for addresses nobody has (RFC 6583). So:
//! - the table is allocated once; unanswered entries are capped, in all and for each interface;
//! - solicitations are limited, one a second for an address and a bucket for all, of which a part is kept for neighbours
//!   that answered before and for those that routes point at;
//! - what nobody asked for changes an entry once a second at most, and makes none; a question to us makes one only while
//!   the table is less than half full;
//! - to make room those go that failed or never answered. One that did answer, one of a route or one given by the user
//!   never makes way for a stranger;
//! - an entry given by the user wins over all that is heard.

mod action;
mod arp;
mod config;
mod event;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(missing_docs, clippy::missing_panics_doc)]
pub mod harness;
mod learn;
mod nd;
mod neighbors;
mod table;
#[cfg(test)]
mod tests;
mod timer;
mod wheel;

pub use action::{Action, EntryInfo, Lookup, State, Stats};
pub use arp::{arp_reply, arp_request, parse_arp};
pub use config::{Config, Mode};
pub use event::{Event, Kind};
pub use nd::{group_mac, na_reply, neighbor_solicitation, parse_nd, solicited_node, unsolicited_na};
pub use neighbors::Neighbors;
