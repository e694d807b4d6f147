//! One client of the control socket.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;

use super::protocol::{Failure, REPLY_MAX, REQUEST_MAX, frame, reply, take_message};
use super::server::{Authorise, Peer};
use super::sys::Interest;

/// Bytes read at a time. A client that sends more is read again at the next turn, after the others.
const READ_BYTES: usize = 4096;

/// What a connection is in the middle of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing: the client has not begun another request.
    Silent,
    /// A request is arriving.
    Arriving,
    /// A request is being carried out.
    Waiting,
    /// An answer is being sent.
    Answering,
}

/// A client and what it has said.
pub(super) struct Connection {
    /// Its number, never used twice.
    pub(super) id: u64,
    stream: UnixStream,
    pub(super) peer: Peer,
    groups: Vec<u32>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    pub(super) phase: Phase,
    /// When the phase began.
    pub(super) since: Instant,
    /// Nothing more is read: once the answer is out the connection is closed.
    closing: bool,
    /// Longest request taken.
    request_max: usize,
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
    pub(super) fn new(id: u64, stream: UnixStream, (peer, groups): (Peer, Vec<u32>)) -> Connection {
        Connection {
            id,
            stream,
            peer,
            groups,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            phase: Phase::Silent,
            since: Instant::now(),
            closing: false,
            request_max: REQUEST_MAX,
        }
    }

    /// Takes requests of up to so many bytes.
    pub(super) fn take_up_to(&mut self, request_max: usize) {
        self.request_max = request_max;
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether the client may read, or change, by any of its groups.
    pub(super) fn may(&self, change: bool, authorise: &Authorise) -> bool {
        self.groups.iter().any(|&gid| authorise(&Peer { gid, ..self.peer }, change))
    }

    /// One request at a time: nothing is read while another is under way, so that answers cannot pile up.
    pub(super) fn wants_read(&self) -> bool {
        !self.closing && matches!(self.phase, Phase::Silent | Phase::Arriving)
    }

    pub(super) fn interest(&self) -> Interest {
        Interest::new(self.fd(), self.wants_read(), !self.outgoing.is_empty())
    }

    /// The answer is out, and it was the last.
    pub(super) fn finished(&self) -> bool {
        self.closing && self.outgoing.is_empty()
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.since = Instant::now();
        }
    }

    /// Reads a little.
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

    /// A request that has arrived, maybe together with the one before.
    pub(super) fn next_request(&mut self) -> Heard {
        let heard = match take_message(&mut self.incoming, self.request_max) {
            Ok(None) => Heard::Nothing,
            Ok(Some(request)) => Heard::Request(request),
            Err(failure) => Heard::Garbage(failure),
        };
        self.enter(if self.incoming.is_empty() { Phase::Silent } else { Phase::Arriving });
        heard
    }

    /// Begins to answer; `false` when the client has gone.
    pub(super) fn answer(&mut self, result: Result<Value, Failure>) -> bool {
        let too_long = || {
            let failure = Failure::new("NKE-CTL-TOO-LONG", "the answer is too long to be sent");
            frame(&reply(Err(failure)), REPLY_MAX).unwrap_or_default()
        };
        self.outgoing = frame(&reply(result), REPLY_MAX).unwrap_or_else(too_long);
        self.phase = Phase::Answering;
        self.since = Instant::now();
        // Most answers fit the socket's buffer.
        self.write()
    }

    /// Answers, and closes after that.
    pub(super) fn dismiss(&mut self, failure: Failure) -> bool {
        self.closing = true;
        self.answer(Err(failure))
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

    /// Whether an answer has just gone out whole.
    pub(super) fn has_answered(&self) -> bool {
        self.phase == Phase::Answering && self.outgoing.is_empty()
    }
}
