//! One harness for property tests, replay and the fuzz target: any bytes in, assertions inside.

use super::{DEPTH_MAX, Expr, TEXT_BYTES_MAX};

/// Bytes up to the first zero are the expression, the rest is a frame to run it on.
pub fn expr(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let frame = parts.next().unwrap_or_default();
    let Ok(text) = core::str::from_utf8(text) else { return };
    match Expr::parse(text) {
        Ok(expr) => {
            assert!(text.len() <= TEXT_BYTES_MAX && expr.as_str().len() <= TEXT_BYTES_MAX);
            let again = Expr::parse(expr.as_str()).expect("the printed form parses");
            assert_eq!(again, expr);
            assert_eq!(again.matches(frame), expr.matches(frame));
            if expr.as_str().len() + 6 <= TEXT_BYTES_MAX
                && let Ok(not) = Expr::parse(&format!("not ({expr})"))
            {
                assert_ne!(not.matches(frame), expr.matches(frame));
            }
        }
        Err(error) => {
            assert!(text.get(error.span.clone()).is_some(), "a span of the text: {error:?}");
            assert!(!error.message.is_empty() && !error.cure.is_empty());
            assert!(
                error.to_string().len() < 2 * TEXT_BYTES_MAX,
                "an error shows a word, not {DEPTH_MAX} of them"
            );
        }
    }
}
