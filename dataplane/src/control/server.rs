//! The serving side: one thread, all clients.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::connection::{Connection, Heard};
use super::protocol::{Failure, VERSION};
use super::sys::{self, Interest};

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

/// What may be asked. Calls block the server's thread, not workers nor the control thread; they take at most seconds.
pub trait Handler: Send {
    /// Whether `verb` changes nothing.
    fn is_read(&self, verb: &str) -> bool;
    /// Carries a request out.
    fn call(&mut self, verb: &str, args: &Value, peer: &Peer) -> Result<Value, Failure>;
}

/// Whether a peer may read (`false`) or change (`true`).
pub type Authorise = Box<dyn Fn(&Peer, bool) -> bool + Send>;

/// Bounds of the service.
pub struct Limits {
    /// Clients at a time.
    pub clients: usize,
    /// How long a request may take to arrive, and an answer to be taken.
    pub deadline: Duration,
    /// How long a client may be silent between requests.
    pub idle: Duration,
    /// Whether a peer may read (`false`) or change (`true`). By default change is for root and the server's own user,
    /// reading also for its group.
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
#[allow(missing_docs, reason = "the names say it")]
pub struct Counters {
    pub accepted: AtomicU64,
    pub refused_full: AtomicU64,
    pub denied: AtomicU64,
    pub garbage: AtomicU64,
    pub timed_out: AtomicU64,
    pub served: AtomicU64,
}

/// A running server.
pub struct Server {
    path: PathBuf,
    inode: u64,
    stop: Arc<AtomicBool>,
    wake: OwnedFd,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// After an accept that failed (no descriptors left), nobody is accepted for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait of the loop, so that deadlines are kept.
const TICK: Duration = Duration::from_millis(100);

fn system(what: &str, e: &io::Error) -> Failure {
    Failure::new("NKE-CTL-SYSTEM", format!("{what}: {e}"))
}

impl Server {
    /// Serves `handler` on a socket at `path`.
    pub fn start(path: &Path, handler: Box<dyn Handler>, limits: Limits) -> Result<Server, Failure> {
        let listener = listen(path)?;
        let inode = fs::metadata(path).map_err(|e| system("the socket", &e))?.ino();
        let (wake, woken) = UnixStream::pair().map_err(|e| system("a socket pair", &e))?;
        let (stop, counters) = (Arc::new(AtomicBool::new(false)), Arc::new(Counters::default()));
        let service = Service {
            listener,
            woken,
            handler,
            limits,
            stop: stop.clone(),
            counters: counters.clone(),
            clients: Vec::new(),
            accept_after: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("nke-socket".into()).spawn(move || service.run());
        let thread = thread.map_err(|e| system("a thread", &e))?;
        Ok(Server { path: path.to_owned(), inode, stop, wake: wake.into(), counters, thread: Some(thread) })
    }

    /// What it has seen.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ends the service and removes the socket.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Closing our end makes the other readable.
        let (ours, _) = match UnixStream::pair() {
            Ok(pair) => pair,
            // The loop looks at the flag at least every tick.
            Err(_) => return self.join(),
        };
        drop(std::mem::replace(&mut self.wake, ours.into()));
        self.join();
    }
}

impl Server {
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
        // Not if somebody put another socket in its place.
        if fs::metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket: its directory if need be, in the place of one that nobody serves any more.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(directory);
        made.map_err(|e| system(&format!("directory {}", directory.display()), &e))?;
    }
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(Failure::new("NKE-CTL-BUSY", format!("a dataplane answers on {}", path.display())));
        }
        fs::remove_file(path).map_err(|e| system(&format!("stale {}", path.display()), &e))?;
    }
    let name = path.display();
    let listener = UnixListener::bind(path).map_err(|e| system(&format!("socket {name}"), &e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .map_err(|e| system(&format!("socket {name}"), &e))?;
    listener.set_nonblocking(true).map_err(|e| system(&format!("socket {name}"), &e))?;
    Ok(listener)
}

struct Service {
    listener: UnixListener,
    woken: UnixStream,
    handler: Box<dyn Handler>,
    limits: Limits,
    stop: Arc<AtomicBool>,
    counters: Arc<Counters>,
    clients: Vec<Connection>,
    accept_after: Instant,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Service {
    fn run(mut self) {
        while !self.stop.load(Ordering::Acquire) {
            let accepting = Instant::now() >= self.accept_after;
            let mut interests = vec![
                Interest { fd: self.woken.as_raw_fd(), read: true, write: false },
                Interest { fd: self.listener.as_raw_fd(), read: accepting, write: false },
            ];
            interests.extend(self.clients.iter().map(|c| Interest {
                fd: c.fd(),
                read: c.wants_read(),
                write: c.wants_write(),
            }));
            if let Err(e) = sys::poll(&mut interests, TICK) {
                eprintln!("nke: control socket: poll: {e}");
                std::thread::sleep(TICK);
                continue;
            }
            self.serve(&interests[2..]);
            if accepting && interests[1].read {
                self.accept();
            }
        }
    }

    fn serve(&mut self, ready: &[Interest]) {
        let now = Instant::now();
        let mut clients = std::mem::take(&mut self.clients);
        let mut ready = ready.iter();
        clients.retain_mut(|client| {
            let Some(interest) = ready.next() else { return true };
            let alive = (!interest.write || self.write(client)) && (!interest.read || self.read(client));
            if !alive || (client.closing && !client.wants_write()) {
                return false;
            }
            let busy = client.has_begun();
            if busy != client.busy {
                client.busy = busy;
                client.due = now + if busy { self.limits.deadline } else { self.limits.idle };
            } else if now >= client.due {
                count(&self.counters.timed_out);
                return false;
            }
            true
        });
        self.clients = clients;
    }

    fn write(&mut self, client: &mut Connection) -> bool {
        if !client.write() {
            return false;
        }
        if client.wants_write() {
            return true;
        }
        // The answer is out: its deadline is over, and the next request may have arrived already.
        client.busy = false;
        client.due = Instant::now() + self.limits.idle;
        let heard = client.next_request();
        self.heard(client, heard)
    }

    fn read(&mut self, client: &mut Connection) -> bool {
        if !client.wants_read() {
            return true;
        }
        let heard = client.read();
        self.heard(client, heard)
    }

    fn heard(&mut self, client: &mut Connection, heard: Heard) -> bool {
        match heard {
            Heard::Nothing => true,
            Heard::Gone => false,
            Heard::Garbage(failure) => {
                count(&self.counters.garbage);
                client.answer(Err(failure));
                client.closing = true;
                true
            }
            Heard::Request(request) => {
                let result = self.carry_out(&request, &client.peer);
                count(&self.counters.served);
                client.answer(result);
                client.busy = true;
                client.due = Instant::now() + self.limits.deadline;
                // Most answers fit the socket's buffer.
                client.write()
            }
        }
    }

    fn carry_out(&mut self, request: &Value, peer: &Peer) -> Result<Value, Failure> {
        if request["v"].as_u64() != Some(VERSION) {
            let message = format!("version {}; this dataplane speaks {VERSION}", request["v"]);
            return Err(Failure::new("NKE-CTL-BAD-REQUEST", message));
        }
        let Some(verb) = request["verb"].as_str() else {
            return Err(Failure::new("NKE-CTL-BAD-REQUEST", "no verb"));
        };
        let change = !self.handler.is_read(verb);
        if !(self.limits.authorise)(peer, change) {
            count(&self.counters.denied);
            return Err(Failure::new("NKE-CTL-DENIED", format!("user {} may not `{verb}`", peer.uid)));
        }
        self.handler.call(verb, &request["args"], peer)
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.accept_after = Instant::now() + ACCEPT_PAUSE;
                    return;
                }
            };
            // A stream that cannot be set up is closed by its drop.
            let (Ok(()), Ok(peer)) = (stream.set_nonblocking(true), sys::peer(&stream)) else { continue };
            let mut client = Connection::new(stream, peer, Instant::now() + self.limits.idle);
            if self.clients.len() >= self.limits.clients {
                count(&self.counters.refused_full);
                client.answer(Err(Failure::new("NKE-CTL-FULL", "too many clients")));
                // Into the socket's buffer, or not at all.
                client.write();
                continue;
            }
            count(&self.counters.accepted);
            self.clients.push(client);
        }
    }
}
