//! The kernel's links, addresses, routes and neighbours of one network namespace, followed by rtnetlink (RFC 3549).
//!
//! A [`Follower`] subscribes to the kernel's notifications, asks for all there is, and from then on tells each difference
//! as a [`Change`]. It keeps a bounded mirror of what it told, so that when notifications are lost it asks again and tells
//! only what is different. [`Asker`] has the kernel resolve a neighbour.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let mut follower = nke_rtnl::Follower::new(nke_rtnl::Config::default())?;
//! loop {
//!     let status = follower.poll(Duration::from_secs(1), |change| println!("{change:?}"))?;
//!     if status.in_sync { /* the mirror is what the kernel has */ }
//! }
//! # #[allow(unreachable_code)]
//! # std::io::Result::Ok(())
//! ```
//!
//! # What is not followed
//!
//! Rules (policy routing), routes by type of service or by source, bridge and multicast forwarding entries. Routes with
//! an encapsulation are told as [`RouteKind::Unsupported`], so that a forwarder leaves their packets to the kernel.

mod ask;
mod change;
mod config;
mod follow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(missing_docs, clippy::missing_panics_doc)]
pub mod harness;
mod parse;
mod socket;
mod wire;

pub use ask::Asker;
pub use change::{Address, Change, Event, Kind, Link, Neighbor, NextHop, Route, RouteKind};
pub use config::{Config, LOCAL_TABLE, MAIN_TABLE};
pub use follow::{Follower, Stats, Status};
