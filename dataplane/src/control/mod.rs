//! The control socket: how commands reach a running dataplane.
//!
//! A Unix stream socket carries messages of a length (four bytes, little endian) and a JSON object. One thread serves all
//! clients with poll(2) and never waits for anything else. Requests are carried out by two more threads, one for those
//! that change something and one for those that only read, so that looking is possible while a change hangs. None of
//! them is the control thread of the dataplane, let alone a worker.
//!
//! No client can hold up another: requests have a size limit and a deadline, answers wait in a bounded queue, clients
//! are counted, the silent ones make room, and some places are kept for those who may change something.
//!
//! From the outside in: `place` makes the socket, `service` is the loop, `connection` one client in it, `lane` a
//! thread that carries requests out, `protocol` what is said.

mod bell;
mod client;
mod connection;
mod lane;
mod place;
mod protocol;
mod server;
mod service;
mod sys;

pub use client::Client;
pub use protocol::{Failure, REPLY_MAX, REQUEST_MAX, VERSION};
pub use server::{Counters, Handler, Limits, Peer, Server};

#[cfg(test)]
mod tests;
