//! The dataplane: workers, ports, filter chains that change under load, and the control plane around them.
//!
//! Where to look: [`worker`] is the poll loop, [`pfil`] runs a chain, [`port`] is where packets come from,
//! [`quiesce`] is how chains change without stopping anybody, [`manager`] is the one thread that changes them, and
//! [`runtime`] puts it all together.

pub mod affinity;
pub mod arena;
pub mod assemble;
mod caught;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod control_handle;
pub mod demo;
pub mod doctor;
pub mod drop;
pub mod entries;
pub mod error;
pub mod fault;
pub mod guard;
pub mod ifnet;
pub mod inet;
pub mod interfaces;
pub mod kinds;
pub mod lab;
pub mod linkwatch;
pub mod mailbox;
pub mod manager;
mod manager_if;
mod manager_unload;
pub mod mirror;
pub mod netdev;
pub mod pcapfile;
pub mod pfil;
pub mod port;
pub mod probes;
pub mod punt;
pub mod quiesce;
pub mod recorder;
pub mod report;
pub mod run;
pub mod running;
pub mod runtime;
pub mod shared;
pub mod shortcut;
pub mod signals;
pub mod snapshot;
pub mod status;
mod sync;
pub mod tap;
pub mod views;
mod wake;
pub mod watchdog;
pub mod worker;
mod xdp_features;

/// Where the control socket is unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nke/control.sock";
