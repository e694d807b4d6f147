//! Why a text is not a list of rules.

use core::fmt;

/// What is wrong, where, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListError {
    /// Line, from 1.
    pub line: usize,
    /// Column in letters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub cure: &'static str,
}

impl ListError {
    /// About byte `at` of `text`.
    pub(super) fn new(text: &str, at: usize, message: impl Into<String>, cure: &'static str) -> ListError {
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ListError { line, column, message: message.into(), cure }
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.line, self.column, self.message, self.cure)
    }
}

impl core::error::Error for ListError {}
