//! Code of extensions: a panic there ends the call, not the thread it runs on.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the call answers; `None` if it panicked. What it left half done is its own: it is not called again, or stands for it.
#[inline]
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// For calls without an answer on the control thread: says that it panicked.
pub(crate) fn guarded(call: impl FnOnce()) {
    if caught(call).is_none() {
        eprintln!("nke: an extension panicked in a callback on the control thread");
    }
}
