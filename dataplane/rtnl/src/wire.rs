//! Messages and attributes of netlink as bytes: read with every length checked, and built.
//!
//! A datagram holds messages; a message is a header of 16 bytes, a body whose first bytes are a structure by the kind of
//! message, and attributes; an attribute is length, number and value. Each begins on a multiple of four. Numbers are in
//! this machine's byte order.

use std::fmt;

/// Length of the header of a message.
pub(crate) const HEADER: usize = 16;
/// Flags that mark a nested attribute or its byte order are not part of its number.
const TYPE_MASK: u16 = 0x3fff;

/// What was wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed rtnetlink message: {}", self.0)
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    /// The asker's number for what this answers; in a notification, that of whoever caused it.
    pub seq: u32,
    /// The socket that asked, likewise.
    pub port: u32,
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    pub fn has(&self, flag: i32) -> bool {
        i32::from(self.flags) & flag != 0
    }

    /// The structure of `len` bytes at the front of the body, and the attributes behind it.
    pub fn split(&self, len: usize) -> Result<(&'a [u8], Attributes<'a>), Malformed> {
        let fixed = self.body.get(..len).ok_or(Malformed("its body is short"))?;
        let rest = self.body.get(len.next_multiple_of(4)..).unwrap_or_default();
        Ok((fixed, Attributes(rest)))
    }
}

/// The messages of a datagram; ends after the first that is malformed.
pub(crate) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let message = || {
            let len = u32_at(bytes, 0)? as usize;
            let body = bytes.get(HEADER..len)?;
            let (kind, flags) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
            let (seq, port) = (u32_at(bytes, 8)?, u32_at(bytes, 12)?);
            let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
            Some((Message { kind, flags, seq, port, body }, rest))
        };
        let Some((message, rest)) = message() else { return Some(Err(Malformed("its length is wrong"))) };
        self.0 = rest;
        Some(Ok(message))
    }
}

/// Number and value of each attribute; ends after the first that is malformed.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let attribute = || {
            let len = usize::from(u16_at(bytes, 0)?);
            let kind = u16_at(bytes, 2)? & TYPE_MASK;
            let value = bytes.get(4..len)?;
            Some(((kind, value), bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
        };
        let Some((attribute, rest)) = attribute() else {
            return Some(Err(Malformed("an attribute's length is wrong")));
        };
        self.0 = rest;
        Some(Ok(attribute))
    }
}

/// The kernel's answer to a request, from the body of an `NLMSG_ERROR`.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// The error number; 0: done.
    pub errno: i32,
    /// What the kernel has to say about it.
    pub text: Option<String>,
}

impl Answer {
    const MESSAGE: u16 = 1;

    /// Errno in front; in `NLMSG_ERROR` the request's header behind it, and then attributes if the flags say so.
    pub fn of(message: &Message<'_>) -> Result<Answer, Malformed> {
        let errno = u32_at(message.body, 0).ok_or(Malformed("an answer without an error number"))?;
        let errno = (errno as i32).wrapping_neg();
        let mut at = 4;
        if message.kind == libc::NLMSG_ERROR as u16 {
            let request = u32_at(message.body, 4).ok_or(Malformed("an answer without its request"))? as usize;
            at += if message.has(libc::NLM_F_CAPPED) { HEADER } else { request.next_multiple_of(4) };
        }
        let mut text = None;
        if message.has(libc::NLM_F_ACK_TLVS) {
            for attribute in Attributes(message.body.get(at..).unwrap_or_default()) {
                let (kind, value) = attribute?;
                if kind == Self::MESSAGE {
                    let value = value.split(|b| *b == 0).next().unwrap_or_default();
                    text = Some(String::from_utf8_lossy(value).into_owned());
                }
            }
        }
        Ok(Answer { errno, text })
    }

    /// As an error that says what was asked.
    pub fn error(&self, asked: &str) -> std::io::Error {
        let error = std::io::Error::from_raw_os_error(self.errno);
        let text = self.text.as_ref().map(|t| format!(": {t}")).unwrap_or_default();
        std::io::Error::new(error.kind(), format!("{asked}: {error}{text}"))
    }
}

/// A message being built.
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub fn new(kind: u16, flags: i32, seq: u32, fixed: &[u8]) -> Request {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags as u16).to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        bytes.extend([0; 4]); // the kernel knows the sender
        bytes.extend(fixed);
        Request(bytes).sealed()
    }

    /// Adds an attribute of at most 64 KiB.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.sealed()
    }

    /// Pads to a multiple of four and sets the length.
    fn sealed(mut self) -> Request {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_built_is_read_and_cuts_are_noticed() {
        let request =
            Request::new(26, 0x301, 7, &[2; 12]).attribute(15, &254u32.to_ne_bytes()).attribute(3, b"a\0");
        let bytes = request.bytes();
        let message = Messages(bytes).next().unwrap().unwrap();
        assert_eq!((message.kind, message.flags, message.seq, message.port), (26, 0x301, 7, 0));
        let (fixed, attributes) = message.split(12).unwrap();
        assert_eq!(fixed, [2; 12]);
        let read: Vec<_> = attributes.map(Result::unwrap).collect();
        // The padding of the last one is inside the message.
        assert_eq!(read, [(15, &254u32.to_ne_bytes()[..]), (3, &b"a\0"[..])]);
        for cut in 1..bytes.len() {
            assert!(Messages(&bytes[..cut]).next().unwrap().is_err(), "cut at {cut}");
        }
        assert!(message.split(64).is_err());
        assert!(Attributes(&[3, 0, 1, 0]).next().unwrap().is_err(), "shorter than its own header");
    }

    #[test]
    fn an_answer_has_the_kernels_words() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend([0; 16]);
        body[4..8].copy_from_slice(&16u32.to_ne_bytes());
        let attributes = Request::new(0, 0, 0, &[]).attribute(1, b"no such thing\0");
        body.extend(&attributes.bytes()[HEADER..]);
        let flags = (libc::NLM_F_CAPPED | libc::NLM_F_ACK_TLVS) as u16;
        let message = Message { kind: libc::NLMSG_ERROR as u16, flags, seq: 1, port: 1, body: &body };
        let answer = Answer::of(&message).unwrap();
        assert_eq!(answer, Answer { errno: 22, text: Some("no such thing".into()) });
        let error = answer.error("dump");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("no such thing"));
        assert!(Answer::of(&Message { body: &body[..2], ..message }).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(0u8..40, 0..200)) {
            prop_assert!(Messages(&bytes).count() <= bytes.len() / HEADER + 1);
            prop_assert!(Attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
