//! One client of the control socket.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;

use super::protocol::{Failure, REPLY_MAX, REQUEST_MAX, frame, reply, take_message};
use super::server::Peer;

/// Bytes read at a time. A client that sends more is read again at the next turn, after the others.
const READ_BYTES: usize = 4096;

pub(super) struct Connection {
    stream: UnixStream,
    pub(super) peer: Peer,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// In the middle of a request or an answer.
    pub(super) busy: bool,
    /// When that must be through, or, between requests, when the client has been silent for too long.
    pub(super) due: Instant,
    /// Nothing more is read: once the answer is out the connection is closed.
    pub(super) closing: bool,
}

/// What reading came to.
pub(super) enum Heard {
    /// Nothing whole yet.
    Nothing,
    /// A request.
    Request(Value),
    /// Something that is none.
    Garbage(Failure),
    /// The client has gone.
    Gone,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, peer: Peer, due: Instant) -> Connection {
        Connection {
            stream,
            peer,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            busy: false,
            due,
            closing: false,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether another request may be taken: one at a time, so that answers cannot pile up.
    pub(super) fn wants_read(&self) -> bool {
        !self.closing && self.outgoing.is_empty()
    }

    /// Whether a request has begun to arrive.
    pub(super) fn has_begun(&self) -> bool {
        !self.incoming.is_empty() || self.wants_write()
    }

    pub(super) fn read(&mut self) -> Heard {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => Heard::Gone,
            Ok(n) => {
                self.incoming.extend_from_slice(&buffer[..n]);
                self.next_request()
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Heard::Nothing,
            Err(_) => Heard::Gone,
        }
    }

    /// A request that had arrived behind the one just answered.
    pub(super) fn next_request(&mut self) -> Heard {
        match take_message(&mut self.incoming, REQUEST_MAX) {
            Ok(None) => Heard::Nothing,
            Ok(Some(request)) => Heard::Request(request),
            Err(failure) => Heard::Garbage(failure),
        }
    }

    pub(super) fn answer(&mut self, result: Result<Value, Failure>) {
        let too_long = || {
            let failure = Failure::new("NKE-CTL-BAD-REQUEST", "the answer is too long to be sent");
            frame(&reply(Err(failure)), REPLY_MAX).unwrap_or_default()
        };
        self.outgoing.extend(frame(&reply(result), REPLY_MAX).unwrap_or_else(too_long));
    }

    /// Sends what the client takes; `false` when it has gone.
    pub(super) fn write(&mut self) -> bool {
        match self.stream.write(&self.outgoing) {
            Ok(n) => {
                self.outgoing.drain(..n);
                true
            }
            Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}
