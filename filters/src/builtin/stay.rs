//! How long an instance that is to end by itself goes on, and when it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{AttachId, Host};

/// Seconds an instance that has ended stays attached, for its user to ask for its figures. It leaves then, so that one whose
/// user has gone does not stay.
const STAYS_SECONDS: u64 = 30;

/// One instance's.
pub(super) struct Stay {
    host: Arc<dyn Host>,
    attachment: AttachId,
    /// 0: any time.
    seconds: u64,
    ended: AtomicBool,
    /// Calls of [`Stay::tick`] so far, and since it ended.
    ticks: AtomicU64,
    ticks_ended: AtomicU64,
}

impl Stay {
    /// Of `seconds`; 0 is without end.
    pub(super) fn new(host: Arc<dyn Host>, attachment: AttachId, seconds: u64) -> Stay {
        let count = || AtomicU64::new(0);
        Stay {
            host,
            attachment,
            seconds,
            ended: AtomicBool::new(false),
            ticks: count(),
            ticks_ended: count(),
        }
    }

    /// *Path.* Whether it has ended.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// *Path.* Ends it now.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// On the control thread, about once a second: ends it when its time is over, or it has done all it was to do.
    pub(super) fn tick(&self, done: bool) {
        let ticks = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        // The first one may come at once.
        if done || self.seconds != 0 && ticks > self.seconds {
            self.end();
        }
        if self.has_ended() && self.ticks_ended.fetch_add(1, Ordering::Relaxed) == STAYS_SECONDS {
            // Refused when too much is asked of the control thread: it does no more all the same.
            let _ = self.host.detach(self.attachment);
        }
    }
}
