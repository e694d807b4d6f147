//! Text into tokens. A word is anything between blanks and signs, so that an error can show it as it was written.

use core::ops::Range;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Word,
    Open,
    Close,
    Comma,
    /// The end of a rule: of the line, or `;`.
    Stop,
    /// The end of the text, again and again.
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
    /// The bytes of the span.
    pub(super) text: &'a str,
}

/// Reads the token that starts at or behind byte `at`; what is behind `#` on a line is passed over.
pub(super) fn token(text: &str, at: usize) -> Token<'_> {
    let blank = |b: &u8| b.is_ascii_whitespace() && *b != b'\n';
    let mut from = at;
    let bytes = text.as_bytes();
    while bytes.get(from).is_some_and(blank) {
        from += 1;
    }
    if bytes.get(from) == Some(&b'#') {
        from += bytes[from..].iter().take_while(|b| **b != b'\n').count();
    }
    let (kind, len) = match bytes.get(from) {
        None => (Kind::End, 0),
        Some(b'\n' | b';') => (Kind::Stop, 1),
        Some(b'{') => (Kind::Open, 1),
        Some(b'}') => (Kind::Close, 1),
        Some(b',') => (Kind::Comma, 1),
        Some(_) => {
            let end = |b: &&u8| !b.is_ascii_whitespace() && !b"{},;#".contains(b);
            (Kind::Word, bytes[from..].iter().take_while(end).count())
        }
    };
    // Signs and blanks are ASCII: no letter is cut.
    Token { kind, span: from..from + len, text: &text[from..from + len] }
}
