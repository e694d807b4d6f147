//! What time it is, for filters that need to know.

use std::sync::OnceLock;
use std::time::Instant;

use crate::Cx;

/// Milliseconds of a clock that only goes forward. The one place to change when the call context carries the time.
pub(super) fn now_ms(_: &Cx<'_>) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}
