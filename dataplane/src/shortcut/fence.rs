//! Waiting for XDP programs, on a thread of its own: it takes milliseconds, which the control thread has not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Shortcut;

/// Should the kernel refuse to say, programs are given so long; they take microseconds.
const WITHOUT_ANSWER: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Tickets {
    asked: AtomicU64,
    passed: AtomicU64,
    stop: AtomicBool,
}

/// The thread; dropping it ends it.
pub(super) struct Fence {
    tickets: Arc<Tickets>,
    thread: Option<JoinHandle<()>>,
}

impl Fence {
    pub(super) fn start(shortcut: Shortcut) -> std::io::Result<Fence> {
        let tickets = Arc::<Tickets>::default();
        let thread = {
            let tickets = tickets.clone();
            std::thread::Builder::new().name("nke-fence".into()).spawn(move || run(&tickets, &shortcut))?
        };
        Ok(Fence { tickets, thread: Some(thread) })
    }

    /// A ticket that is passed when every program has ended that runs now.
    pub(super) fn ask(&self) -> u64 {
        let ticket = self.tickets.asked.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        ticket
    }

    pub(super) fn passed(&self, ticket: u64) -> bool {
        self.tickets.passed.load(Ordering::Acquire) >= ticket
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.tickets.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only panics with a bug of ours, which it reported.
            let _ = thread.join();
        }
    }
}

fn run(tickets: &Tickets, shortcut: &Shortcut) {
    let mut told = false;
    while !tickets.stop.load(Ordering::Acquire) {
        let asked = tickets.asked.load(Ordering::Acquire);
        if tickets.passed.load(Ordering::Acquire) == asked {
            std::thread::park();
            continue;
        }
        if let Err(e) = shortcut.tables().wait_for_programs() {
            if !told {
                eprintln!("nke: {e}");
            }
            told = true;
            std::thread::sleep(WITHOUT_ANSWER);
        }
        tickets.passed.store(asked, Ordering::Release);
    }
}
