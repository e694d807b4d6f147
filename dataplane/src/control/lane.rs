//! A thread that carries requests out, one after the other.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use serde_json::Value;

use super::bell::Bell;
use super::protocol::Failure;
use super::server::{Handler, Peer};

/// A request.
pub(super) struct Job {
    /// Number of the connection it came by.
    pub(super) client: u64,
    pub(super) verb: String,
    pub(super) args: Value,
    pub(super) peer: Peer,
}

/// What became of it.
pub(super) struct Done {
    pub(super) client: u64,
    pub(super) result: Result<Value, Failure>,
}

/// What a lane needs besides its requests.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) done: Sender<Done>,
    pub(super) bell: Arc<Bell>,
    /// Requests that have not begun when this is set never will.
    pub(super) stop: Arc<AtomicBool>,
}

/// The thread.
pub(super) struct Lane {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Lane {
    /// A lane in which at most `room` requests wait.
    pub(super) fn start(name: &str, room: usize, tools: Tools) -> io::Result<Lane> {
        let (jobs, queue) = bounded(room);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&queue, &tools))?;
        Ok(Lane { jobs, thread })
    }

    /// Takes a request, unless too many wait.
    pub(super) fn take(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Ends the thread: after the request it is at, if [`Tools::stop`] is set.
    pub(super) fn end(self) {
        drop(self.jobs);
        // A panic there was printed already.
        let _ = self.thread.join();
    }
}

fn run(queue: &Receiver<Job>, tools: &Tools) {
    for job in queue {
        if tools.stop.load(Ordering::Acquire) {
            return;
        }
        let call = || tools.handler.call(&job.verb, &job.args, &job.peer);
        // A mistake in one verb must not take the others away. The handler is shared between threads, so whatever it
        // changes is behind locks or atomics, which is also what makes it fit to be used after a panic.
        let result = catch_unwind(AssertUnwindSafe(call))
            .unwrap_or_else(|_| Err(Failure::new("NKE-CTL-PANIC", format!("`{}` panicked", job.verb))));
        // As many answers as requests fit; the receiver goes only after this thread.
        let _ = tools.done.send(Done { client: job.client, result });
        tools.bell.ring();
    }
}
