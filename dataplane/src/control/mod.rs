//! The control socket: how commands reach a running dataplane.
//!
//! A Unix stream socket carries messages of a length (four bytes, little endian) and a JSON object. One thread serves all
//! clients with poll(2); it is not the control thread of the dataplane, and no client can hold up another, let alone a
//! worker: requests have a size limit and a deadline, answers wait in a bounded queue, clients are counted.

mod client;
mod connection;
mod protocol;
mod server;
mod sys;

pub use client::Client;
pub use protocol::{Failure, REPLY_MAX, REQUEST_MAX, VERSION};
pub use server::{Counters, Handler, Limits, Peer, Server};
