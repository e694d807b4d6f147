//! The asking side.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::protocol::{CHANGE_MAX, Failure, REPLY_MAX, VERSION, frame, take_message};
use super::sys;

/// How long a request may take from its first byte to the last of its answer: longer than the longest the dataplane
/// takes, and a queue before it.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the dataplane may take to accept.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection to a dataplane.
pub struct Client {
    stream: UnixStream,
    incoming: Vec<u8>,
    deadline: Duration,
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Client, Failure> {
        let stream = sys::connect(path, CONNECT_DEADLINE).map_err(|e| {
            let id = match e.kind() {
                ErrorKind::PermissionDenied => "NKE-CTL-DENIED",
                ErrorKind::TimedOut => "NKE-CTL-TIMEOUT",
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => "NKE-CTL-NOT-RUNNING",
                _ => "NKE-CTL-SYSTEM",
            };
            Failure::new(id, format!("{}: {e}", path.display()))
        })?;
        Ok(Client { stream, incoming: Vec::new(), deadline: DEADLINE })
    }

    /// The same with another deadline for requests.
    pub fn with_deadline(mut self, deadline: Duration) -> Client {
        self.deadline = deadline;
        self
    }

    /// Asks for `verb`, and waits for the answer. After a timeout the connection is of no more use: the answer may come
    /// yet, and would be taken for that of the next request.
    pub fn call(&mut self, verb: &str, args: Value) -> Result<Value, Failure> {
        let request = json!({ "v": VERSION, "verb": verb, "args": args });
        let too_long = || Failure::new("NKE-CTL-TOO-LONG", "the request is too long");
        let bytes = frame(&request, CHANGE_MAX).ok_or_else(too_long)?;
        let end = Instant::now() + self.deadline;
        // A server that refuses may have closed already; its answer can still be read.
        let sent = self.send(&bytes, end);
        let mut reply = match self.receive(end) {
            Ok(reply) => reply,
            Err(failure) => return Err(sent.err().map_or(failure, |e| self.broken(&e))),
        };
        if reply["ok"] == json!(true) {
            return Ok(reply["data"].take());
        }
        Err(serde_json::from_value(reply["error"].take())
            .unwrap_or_else(|e| Failure::new("NKE-CTL-BAD-REQUEST", format!("an answer that is none: {e}"))))
    }

    fn send(&mut self, mut bytes: &[u8], end: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(rest(end)?))?;
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn receive(&mut self, end: Instant) -> Result<Value, Failure> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(reply) = take_message(&mut self.incoming, REPLY_MAX)? {
                return Ok(reply);
            }
            let read = rest(end)
                .and_then(|rest| self.stream.set_read_timeout(Some(rest)))
                .and_then(|()| self.stream.read(&mut buffer));
            match read {
                Ok(0) => return Err(self.broken(&ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.incoming.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(self.broken(&e)),
            }
        }
    }

    fn broken(&self, e: &io::Error) -> Failure {
        match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Failure::new("NKE-CTL-TIMEOUT", format!("no answer within {:?}", self.deadline))
            }
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Failure::new("NKE-CTL-NOT-RUNNING", "the connection was closed without an answer")
            }
            _ => Failure::new("NKE-CTL-SYSTEM", e.to_string()),
        }
    }
}

/// The time until `end`: never zero, which would mean no timeout.
fn rest(end: Instant) -> io::Result<Duration> {
    let rest = end.saturating_duration_since(Instant::now());
    if rest.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(rest) }
}
