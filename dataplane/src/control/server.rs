//! The serving side as others see it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::unbounded;
use serde_json::Value;

use super::bell::{Bell, bell};
use super::lane::{Lane, Tools};
use super::place::{listen, system};
use super::protocol::Failure;
use super::service::{Lanes, Service};
use super::sys;

/// Who a client is, as the kernel says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: i32,
}

/// What may be asked.
pub trait Handler: Send + Sync {
    /// Whether `verb` changes nothing. Called on the thread that serves all clients: must not wait.
    fn is_read(&self, verb: &str) -> bool;

    /// Carries a request out. Changes come one after the other, and so do reads, but a read may come in the middle of a
    /// change. May take its time: it delays requests of its own sort and the end of the server, and nothing else.
    fn call(&self, verb: &str, args: &Value, peer: &Peer) -> Result<Value, Failure>;
}

/// Says whether a peer may read (`false`) or change (`true`).
pub type Authorise = Box<dyn Fn(&Peer, bool) -> bool + Send>;

/// Bounds of the service.
pub struct Limits {
    /// Clients at a time. Of these, one in eight is kept for those who may change something.
    pub clients: usize,
    /// How long a request may take to arrive, and an answer to be taken.
    pub deadline: Duration,
    /// How long a client may be silent between requests. When there is no place left, whoever has been silent for longest
    /// makes room for the next, if it was for longer than `deadline` and a second.
    pub idle: Duration,
    /// Who may do what; a client may what it may by any of the groups it is in. By default change is for root and the
    /// server's own user, reading also for its group.
    pub authorise: Authorise,
}

impl Default for Limits {
    fn default() -> Self {
        let (uid, gid) = sys::own_ids();
        let authorise = move |peer: &Peer, change: bool| {
            let trusted = peer.uid == 0 || peer.uid == uid;
            trusted || (!change && peer.gid == gid)
        };
        Limits {
            clients: 64,
            deadline: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            authorise: Box::new(authorise),
        }
    }
}

/// What the server has seen.
#[derive(Default)]
pub struct Counters {
    /// Clients that got a place.
    pub accepted: AtomicU64,
    /// Clients turned away because there was none, and requests because too many were waiting.
    pub refused_full: AtomicU64,
    /// Clients turned away, and requests refused, because of who they came from.
    pub denied: AtomicU64,
    /// Messages that were no requests.
    pub garbage: AtomicU64,
    /// Clients cut off in a request or an answer that took too long, or after being silent for too long.
    pub timed_out: AtomicU64,
    /// Silent clients that made room for others.
    pub evicted: AtomicU64,
    /// Requests answered.
    pub served: AtomicU64,
}

/// A running server. Dropping it ends it and removes the socket.
pub struct Server {
    stop: Arc<AtomicBool>,
    bell: Arc<Bell>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `handler` on a socket at `path`.
    pub fn start(path: &Path, handler: Box<dyn Handler>, limits: Limits) -> Result<Server, Failure> {
        let (listener, place) = listen(path)?;
        let (bell, sleeper) = bell().map_err(|e| system("a socket pair", &e))?;
        let (bell, stop) = (Arc::new(bell), Arc::new(AtomicBool::new(false)));
        let (counters, handler) = (Arc::new(Counters::default()), Arc::<dyn Handler>::from(handler));
        // Holds no more than the lanes took, which is bounded.
        let (done, results) = unbounded();
        let tools = Tools { handler: handler.clone(), done, bell: bell.clone(), stop: stop.clone() };
        let lane = |name: &str| Lane::start(name, limits.clients, tools.clone());
        let lanes = Lanes {
            read: lane("nke-ctl-read").map_err(|e| system("a thread", &e))?,
            change: lane("nke-ctl-change").map_err(|e| system("a thread", &e))?,
        };
        let service = Service::new(listener, sleeper, handler, results, limits, counters.clone());
        let stopped = stop.clone();
        let run = move || {
            service.run(&lanes, &stopped);
            // Gone before the lanes are waited for: a new dataplane may start meanwhile.
            drop(place);
            lanes.end();
        };
        let thread = std::thread::Builder::new().name("nke-socket".into()).spawn(run);
        Ok(Server { stop, bell, counters, thread: Some(thread.map_err(|e| system("a thread", &e))?) })
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ends the service and removes the socket. Waits for requests that are being carried out, and drops those that
    /// have not begun.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
    }
}
