//! Text into tokens. Words are cut generously (an address, a range, a typo are all one word), so that an error can
//! show the whole word as it was written.

use super::ExprError;
use core::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Open,
    Close,
    Not,
    And,
    Or,
    AtLeast,
    AtMost,
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

const SIGNS: [(&str, Kind); 7] = [
    ("(", Kind::Open),
    (")", Kind::Close),
    ("!", Kind::Not),
    ("&&", Kind::And),
    ("||", Kind::Or),
    (">=", Kind::AtLeast),
    ("<=", Kind::AtMost),
];

/// Reads the token that starts at or behind byte `at`.
pub(super) fn token(text: &str, at: usize) -> Result<Token<'_>, ExprError> {
    let rest = &text[at..];
    let from = at + (rest.len() - rest.trim_ascii_start().len());
    let rest = &text[from..];
    let make = |kind, len: usize| Token { kind, span: from..from + len, text: &rest[..len] };
    if let Some((sign, kind)) = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign)) {
        return Ok(make(*kind, sign.len()));
    }
    let len = rest.bytes().take_while(|byte| is_word(*byte)).count();
    match &rest[..len] {
        "not" => Ok(make(Kind::Not, len)),
        "and" => Ok(make(Kind::And, len)),
        "or" => Ok(make(Kind::Or, len)),
        "" => match rest.chars().next() {
            None => Ok(make(Kind::End, 0)),
            Some(strange) => Err(strange_character(strange, from)),
        },
        _ => Ok(make(Kind::Word, len)),
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'/' | b'-' | b'_' | b'%')
}

fn strange_character(strange: char, at: usize) -> ExprError {
    let cure = match strange {
        '&' => "write `and` or `&&`",
        '|' => "write `or` or `||`",
        '<' | '>' | '=' => "comparisons are `len >= N` and `len <= N`",
        '"' | '\'' => "leave out the quotes",
        '[' | ']' => "raw bytes cannot be tested; the primitives are listed in the documentation of `expr`",
        _ => "use words, numbers, addresses, parentheses, `!`, `&&` and `||`",
    };
    ExprError::new(at..at + strange.len_utf8(), format!("unexpected {strange:?}"), cure)
}
