//! Notices workers that do not come back from a round.

use std::time::{Duration, Instant};

use crate::shared::Shared;
use crate::status::State;

/// A worker that has not finished a round for too long.
#[derive(Clone, Debug)]
pub struct Stall {
    /// When its last round was seen to end.
    pub since: Instant,
    /// Number of the filter it is in, 0 for none.
    pub filter: u64,
    /// Kind of that filter.
    pub kind: Option<String>,
}

struct Seen {
    loops: u64,
    at: Instant,
    stall: Option<Stall>,
}

/// Watches all workers.
pub struct Watchdog {
    limit: Duration,
    seen: Vec<Seen>,
}

impl Watchdog {
    /// Reports workers whose round takes longer than `limit`.
    pub fn new(workers: usize, limit: Duration) -> Watchdog {
        let at = Instant::now();
        Watchdog { limit, seen: (0..workers).map(|_| Seen { loops: 0, at, stall: None }).collect() }
    }

    /// Looks at every worker once. `kind_of` names the kind of an attachment.
    pub fn look(&mut self, shared: &Shared, kind_of: impl Fn(u64) -> Option<String>) {
        let now = Instant::now();
        for (number, (seen, status)) in self.seen.iter_mut().zip(&shared.workers).enumerate() {
            let loops = status.loops.get();
            if loops != seen.loops || status.state() != State::Running {
                if seen.stall.take().is_some() {
                    eprintln!("nke: worker {number} goes on");
                }
                (seen.loops, seen.at) = (loops, now);
            } else if seen.stall.is_none() && now - seen.at > self.limit {
                let filter = status.in_filter.get();
                let kind = kind_of(filter);
                match &kind {
                    Some(kind) => eprintln!("nke: worker {number} is stuck in filter {filter} ({kind})"),
                    None => eprintln!("nke: worker {number} is stuck outside any filter"),
                }
                seen.stall = Some(Stall { since: seen.at, filter, kind });
            }
        }
    }

    /// The stall of worker `number`, if it is stalled.
    pub fn stall(&self, number: usize) -> Option<&Stall> {
        self.seen.get(number)?.stall.as_ref()
    }
}
