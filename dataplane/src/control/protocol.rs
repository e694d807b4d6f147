//! What is said on the control socket.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Version of the protocol.
pub const VERSION: u64 = 1;
/// Longest request, in bytes, of a client that may only read.
pub const REQUEST_MAX: usize = 64 * 1024;
/// Longest request, in bytes, of one that may change something: a whole configuration.
pub const CHANGE_MAX: usize = 4 * 1024 * 1024;
/// Longest reply, in bytes.
pub const REPLY_MAX: usize = 4 * 1024 * 1024;

/// An error as it crosses the socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Id in the catalogue of errors.
    pub id: String,
    /// What happened.
    pub message: String,
    /// Why.
    pub cause: String,
    /// What to do.
    pub cure: String,
}

impl Failure {
    /// A failure with cause and cure of the catalogue.
    pub fn new(id: &str, message: impl Into<String>) -> Failure {
        crate::error::Error::new(id, message).into()
    }
}

/// A message with its length in front; `None` if it is longer than `max`.
pub(super) fn frame(message: &Value, max: usize) -> Option<Vec<u8>> {
    let body = message.to_string().into_bytes();
    if body.len() > max {
        return None;
    }
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(body);
    Some(bytes)
}

/// The reply to a request.
pub(super) fn reply(result: Result<Value, Failure>) -> Value {
    match result {
        Ok(data) => json!({ "v": VERSION, "ok": true, "data": data }),
        Err(failure) => json!({ "v": VERSION, "ok": false, "error": failure }),
    }
}

/// Takes a whole message off the front of `bytes`: `Ok(None)` while it is not complete, `Err` when it cannot become one.
pub(super) fn take_message(bytes: &mut Vec<u8>, max: usize) -> Result<Option<Value>, Failure> {
    let bad = |what: String| Failure::new("NKE-CTL-BAD-REQUEST", what);
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*head) as usize;
    if len > max {
        return Err(bad(format!("a message of {len} bytes; at most {max} are taken")));
    }
    if bytes.len() < 4 + len {
        return Ok(None);
    }
    let rest = bytes.split_off(4 + len);
    let message = std::mem::replace(bytes, rest);
    serde_json::from_slice(&message[4..]).map(Some).map_err(|e| bad(format!("not JSON: {e}")))
}
