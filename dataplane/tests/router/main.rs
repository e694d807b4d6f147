//! The IP layer on a running dataplane, over rings in memory. Each test ends with the account: every frame home, nothing
//! on the ledger.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod bed;
mod capture;
mod corpus;
mod extensions;
mod forward;
mod fragments;
mod icmp;
mod interfaces;
mod ip_filters;
mod neighbors;
mod punt;
mod routing;
mod trace;
mod tunnels;
mod vif;
