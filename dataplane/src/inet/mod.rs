//! IP on the workers: what an interface received and no wire takes is routed.
//!
//! ```text
//!   interface input ─▶ ether: for us? ─┬─ IPv4, IPv6: check ─▶ [prerouting] ─▶ route ─┬─ ours ─▶ local
//!                                      ├─ ARP: neighbours                             └─ [forward] ─▶ output
//!                                      └─ a plumbed protocol, or dropped
//!   local:  reassemble ─▶ [input] ─▶ ICMP, neighbour discovery, transports
//!   output: [output] ─▶ fragment ─▶ neighbour ─▶ link header ─▶ staged for its lane ─▶ interface output
//! ```
//!
//! A burst stays in its slots on the whole way: each step works on the slots of a mask, and what routing found about a
//! packet stands at the same place of a table beside the burst. Packets leave it for the staging burst of the lane they
//! go out by.

mod check;
mod control;
mod ether;
mod flow;
mod forward;
mod icmp;
mod link;
mod local;
mod mac;
mod output;
mod pending;
mod reasons;
mod requeued;
mod route;
mod routes;
pub(crate) mod solicit;
mod stage;
mod tables;
mod worker;

pub use control::{Garbage, InKernel, Inet, InetError, NextHop, Port, Request, RouteChange, RouteTo, Send};
pub use link::{Handler, Link, LinkMore, Plumbed, Takes};
pub use mac::Mac;
pub use routes::{Net, Source};
pub(crate) use stage::Path;
pub use tables::{Settings, Tables};
pub use worker::InetWorker;
