//! The asking side.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::protocol::{Failure, REPLY_MAX, REQUEST_MAX, VERSION, frame, take_message};

/// How long an answer may take: longer than the longest request of the dataplane.
const DEADLINE: Duration = Duration::from_secs(30);

/// A connection to a dataplane.
pub struct Client {
    stream: UnixStream,
    incoming: Vec<u8>,
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Client, Failure> {
        let name = path.display();
        let stream = UnixStream::connect(path).map_err(|e| match e.kind() {
            ErrorKind::PermissionDenied => Failure::new("NKE-CTL-DENIED", format!("{name}: {e}")),
            _ => Failure::new("NKE-CTL-NOT-RUNNING", format!("{name}: {e}")),
        })?;
        let timed = stream.set_read_timeout(Some(DEADLINE)).and(stream.set_write_timeout(Some(DEADLINE)));
        timed.map_err(|e| Failure::new("NKE-CTL-SYSTEM", e.to_string()))?;
        Ok(Client { stream, incoming: Vec::new() })
    }

    /// Asks for `verb`, and waits for the answer.
    pub fn call(&mut self, verb: &str, args: Value) -> Result<Value, Failure> {
        let request = json!({ "v": VERSION, "verb": verb, "args": args });
        let bytes = frame(&request, REQUEST_MAX)
            .ok_or_else(|| Failure::new("NKE-CTL-BAD-REQUEST", "the request is too long"))?;
        // A server that refuses may have closed already; its answer can still be read.
        let sent = self.stream.write_all(&bytes);
        let mut reply = match self.receive() {
            Ok(reply) => reply,
            Err(failure) => return Err(sent.err().map_or(failure, |e| broken(&e))),
        };
        if reply["ok"] == json!(true) {
            return Ok(reply["data"].take());
        }
        Err(serde_json::from_value(reply["error"].take())
            .unwrap_or_else(|e| Failure::new("NKE-CTL-BAD-REQUEST", format!("an answer that is none: {e}"))))
    }

    fn receive(&mut self) -> Result<Value, Failure> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(reply) = take_message(&mut self.incoming, REPLY_MAX)? {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(broken(&ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.incoming.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => (),
                Err(e) => return Err(broken(&e)),
            }
        }
    }
}

fn broken(e: &io::Error) -> Failure {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Failure::new("NKE-CTL-TIMEOUT", format!("no answer within {} s", DEADLINE.as_secs()))
        }
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            Failure::new("NKE-CTL-NOT-RUNNING", "the connection was closed without an answer")
        }
        _ => Failure::new("NKE-CTL-SYSTEM", e.to_string()),
    }
}
