//! Why a text is not an expression.

use core::fmt;
use core::ops::Range;

/// What is wrong, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// Bytes of the text that the message is about; empty at the end of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub cure: &'static str,
}

impl ExprError {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>, cure: &'static str) -> Self {
        Self { span, message: message.into(), cure }
    }

    pub(super) fn too_long(len_bytes: usize) -> Self {
        let message =
            format!("an expression has at most {} bytes, written out in full", super::TEXT_BYTES_MAX);
        Self::new(0..len_bytes, message, "attach several filters instead of one large one")
    }
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}; {}", self.span.start, self.message, self.cure)
    }
}

impl core::error::Error for ExprError {}
