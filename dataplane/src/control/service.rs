//! The loop that serves all clients. It waits in poll(2), and nowhere else.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use serde_json::Value;

use super::bell::Sleeper;
use super::connection::{Connection, Heard, Phase};
use super::lane::{Done, Job, Lane};
use super::protocol::{CHANGE_MAX, Failure, VERSION};
use super::server::{Counters, Handler, Limits};
use super::sys::{self, Interest};

/// After an accept that failed (no descriptors left), nobody is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Clients accepted before those that are there get their turn again.
const ACCEPT_BURST: usize = 32;
/// Longest wait when no deadline is near.
const LONG: Duration = Duration::from_secs(60);
/// A client silent for less does not make room for another.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// The threads that carry requests out.
pub(super) struct Lanes {
    pub(super) read: Lane,
    pub(super) change: Lane,
}

impl Lanes {
    /// Ends both.
    pub(super) fn end(self) {
        self.read.end();
        self.change.end();
    }
}

/// All clients.
pub(super) struct Service {
    listener: UnixListener,
    sleeper: Sleeper,
    handler: Arc<dyn Handler>,
    results: Receiver<Done>,
    limits: Limits,
    counters: Arc<Counters>,
    clients: Vec<Connection>,
    next_id: u64,
    accept_after: Option<Instant>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Service {
    pub(super) fn new(
        listener: UnixListener,
        sleeper: Sleeper,
        handler: Arc<dyn Handler>,
        results: Receiver<Done>,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Service {
        let (clients, next_id, accept_after) = (Vec::new(), 0, None);
        Service { listener, sleeper, handler, results, limits, counters, clients, next_id, accept_after }
    }

    /// Serves until `stop` is set and the bell rang.
    pub(super) fn run(mut self, lanes: &Lanes, stop: &AtomicBool) {
        let mut interests = Vec::new();
        while !stop.load(Ordering::Acquire) {
            let now = Instant::now();
            self.accept_after = self.accept_after.filter(|after| *after > now);
            let accepting = self.accept_after.is_none();
            interests.clear();
            interests.push(Interest::new(self.sleeper.fd(), true, false));
            interests.push(Interest::new(self.listener.as_raw_fd(), accepting, false));
            interests.extend(self.clients.iter().map(Connection::interest));
            if let Err(e) = sys::poll(&mut interests, self.rest(now)) {
                eprintln!("nke: control socket: poll: {e}");
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
            // The order keeps `interests` and `clients` in step: both grow and shrink only behind `serve`.
            self.serve(&interests[2..], lanes);
            self.sleeper.hush();
            while let Ok(done) = self.results.try_recv() {
                self.deliver(done, lanes);
            }
            if interests[1].read {
                self.accept();
            }
        }
    }

    /// Until the next deadline.
    fn rest(&self, now: Instant) -> Duration {
        let dues = self.clients.iter().filter_map(|c| self.due(c)).chain(self.accept_after);
        dues.map(|due| due.saturating_duration_since(now)).min().unwrap_or(LONG)
    }

    /// When the client has to be done with what it is in the middle of. Requests being carried out have no deadline here:
    /// whoever carries them out has one.
    fn due(&self, client: &Connection) -> Option<Instant> {
        match client.phase {
            Phase::Silent => Some(client.since + self.limits.idle),
            Phase::Arriving | Phase::Answering => Some(client.since + self.limits.deadline),
            Phase::Waiting => None,
        }
    }

    fn serve(&mut self, ready: &[Interest], lanes: &Lanes) {
        let mut clients = std::mem::take(&mut self.clients);
        let mut ready = ready.iter();
        clients.retain_mut(|client| {
            let Some(ready) = ready.next() else { return true };
            if !self.turn(client, ready, lanes) || client.finished() {
                return false;
            }
            let late = self.due(client).is_some_and(|due| due <= Instant::now());
            if late {
                count(&self.counters.timed_out);
            }
            !late
        });
        self.clients = clients;
    }

    /// One client's turn; `false` when it is over with it.
    fn turn(&mut self, client: &mut Connection, ready: &Interest, lanes: &Lanes) -> bool {
        if ready.write && !(client.write() && self.go_on(client, lanes)) {
            return false;
        }
        if client.wants_read() {
            // What a client sent before it went is still heard.
            if ready.read || ready.gone {
                let heard = client.read();
                return self.heard(client, heard, lanes);
            }
            return true;
        }
        !ready.gone
    }

    /// After something was sent: when that was all, the next request may have arrived already.
    fn go_on(&mut self, client: &mut Connection, lanes: &Lanes) -> bool {
        if !client.has_answered() || client.finished() {
            return true;
        }
        count(&self.counters.served);
        let heard = client.next_request();
        self.heard(client, heard, lanes)
    }

    fn heard(&mut self, client: &mut Connection, mut heard: Heard, lanes: &Lanes) -> bool {
        // Round again for requests that are refused at once, of which many may have arrived together.
        loop {
            let refused = match heard {
                Heard::Nothing => return true,
                Heard::Gone => return false,
                Heard::Garbage(failure) => {
                    count(&self.counters.garbage);
                    return client.dismiss(failure);
                }
                Heard::Request(request) => match self.hand_over(client, request, lanes) {
                    Ok(()) => {
                        client.enter(Phase::Waiting);
                        return true;
                    }
                    Err(failure) => failure,
                },
            };
            if !client.answer(Err(refused)) {
                return false;
            }
            if !client.has_answered() {
                return true;
            }
            count(&self.counters.served);
            heard = client.next_request();
        }
    }

    fn hand_over(&self, client: &Connection, mut request: Value, lanes: &Lanes) -> Result<(), Failure> {
        let bad = |what: String| Err(Failure::new("NKE-CTL-BAD-REQUEST", what));
        if request["v"].as_u64() != Some(VERSION) {
            return bad(format!("version {}; this dataplane speaks {VERSION}", request["v"]));
        }
        let Some(verb) = request["verb"].as_str().map(str::to_owned) else {
            return bad("no verb".into());
        };
        let change = !self.handler.is_read(&verb);
        if !client.may(change, &self.limits.authorise) {
            count(&self.counters.denied);
            return Err(Failure::new("NKE-CTL-DENIED", format!("user {} may not `{verb}`", client.peer.uid)));
        }
        let lane = if change { &lanes.change } else { &lanes.read };
        let args = request["args"].take();
        if !lane.take(Job { client: client.id, verb, args, peer: client.peer }) {
            count(&self.counters.refused_full);
            return Err(Failure::new("NKE-CTL-FULL", "too many requests are waiting"));
        }
        Ok(())
    }

    /// Takes an answer to who asked, if still there.
    fn deliver(&mut self, done: Done, lanes: &Lanes) {
        let Some(at) = self.clients.iter().position(|c| c.id == done.client) else { return };
        let mut client = self.clients.swap_remove(at);
        if client.answer(done.result) && self.go_on(&mut client, lanes) && !client.finished() {
            self.clients.push(client);
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT_BURST {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => (),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        // A stream that cannot be set up is closed by its drop.
        let (Ok(()), Ok(who)) = (stream.set_nonblocking(true), sys::peer(&stream)) else { return };
        self.next_id += 1;
        let mut client = Connection::new(self.next_id, stream, who);
        let trusted = client.may(true, &self.limits.authorise);
        // An answer to somebody turned away goes into the socket's buffer, or not at all.
        if !trusted && !client.may(false, &self.limits.authorise) {
            count(&self.counters.denied);
            let message = format!("user {} may do nothing here", client.peer.uid);
            client.dismiss(Failure::new("NKE-CTL-DENIED", message));
        } else if self.make_room(trusted) {
            count(&self.counters.accepted);
            if trusted {
                client.take_up_to(CHANGE_MAX);
            }
            self.clients.push(client);
        } else {
            count(&self.counters.refused_full);
            client.dismiss(Failure::new("NKE-CTL-FULL", "too many clients"));
        }
    }

    /// Whether there is a place for another client, after taking one from the client that was silent for longest if need
    /// be. Clients that may only read have fewer places, and so cannot keep the others out.
    fn make_room(&mut self, trusted: bool) -> bool {
        let authorise = &self.limits.authorise;
        let all = self.limits.clients;
        let full = self.clients.len() >= all;
        let readers = || self.clients.iter().filter(|c| !c.may(true, authorise)).count();
        if !full && (trusted || readers() < all - all / 8) {
            return true;
        }
        let silent = |c: &Connection| c.phase == Phase::Silent;
        let leaves = |c: &Connection| silent(c) && (full && trusted || !c.may(true, authorise));
        let enough = self.limits.deadline.max(SILENCE_MIN);
        let candidates = self.clients.iter().enumerate().filter(|(_, c)| leaves(c));
        let longest = candidates.min_by_key(|(_, c)| c.since).filter(|(_, c)| c.since.elapsed() >= enough);
        let Some(at) = longest.map(|(at, _)| at) else { return false };
        self.clients.swap_remove(at);
        count(&self.counters.evicted);
        true
    }
}
