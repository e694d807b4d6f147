//! Puts a dataplane together, starts its threads, and takes it down again.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use nke_filters::IfIndex;
use nke_mbuf::wire::EtherAddr;
use nke_mbuf::{BURST_MAX, Owner, Pool};

use crate::affinity;
use crate::command::{COMMANDS_MAX, Command};
use crate::control_handle::Control;
use crate::ifnet::{Identity, IfState, IfTable, Telemetry};
use crate::inet::{self, Inet};
use crate::interfaces::Interfaces;
use crate::mailbox::Mailbox;
use crate::manager::Manager;
use crate::port::Queue;
use crate::quiesce;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::wake::Wake;
use crate::worker::{Lane, Pace, Worker};

/// How a dataplane works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One worker per entry, pinned to that core; `None` leaves the worker to the scheduler.
    pub cores: Vec<Option<usize>>,
    /// Packets per burst, 1 to 64.
    pub burst: usize,
    /// Workers sleep when nothing arrives.
    pub adaptive: bool,
    /// A worker whose round takes longer is reported.
    pub stall: Duration,
    /// When everything ends, a worker that does not come back from a filter is waited for so long, twice: once for the
    /// filter to be detached, once for the worker to end.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cores: vec![None],
            burst: BURST_MAX,
            adaptive: false,
            stall: Duration::from_secs(1),
            patience: Duration::from_secs(5),
        }
    }
}

/// A queue of an interface, as the builder numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneId {
    /// The worker.
    pub worker: usize,
    /// The lane on that worker.
    pub lane: usize,
}

/// Collects interfaces, queues and wires.
pub struct Builder {
    pool: Pool,
    settings: Settings,
    interfaces: IfTable,
    lanes: Vec<Vec<Lane>>,
    inet: inet::Settings,
}

impl Builder {
    /// An empty dataplane over `pool`.
    ///
    /// # Panics
    /// When `settings` names no core, or a burst that is not 1 to 64.
    pub fn new(pool: Pool, settings: Settings) -> Builder {
        assert!(!settings.cores.is_empty(), "a dataplane needs a worker");
        assert!((1..=BURST_MAX).contains(&settings.burst), "a burst is 1 to {BURST_MAX} packets");
        let lanes = settings.cores.iter().map(|_| Vec::new()).collect();
        Builder { pool, settings, interfaces: IfTable::default(), lanes, inet: inet::Settings::default() }
    }

    /// Adds an interface whose first queue worker `worker` will own.
    ///
    /// # Panics
    /// When the name cannot be one, or is taken, or there are too many: a configuration is checked before.
    pub fn interface(
        &mut self,
        name: &str,
        kind: &'static str,
        worker: usize,
        facts: Vec<(&'static str, String)>,
        telemetry: Telemetry,
    ) -> IfIndex {
        let identity = Identity::port(name, kind, facts, telemetry);
        match self.interfaces.allocate(identity, worker, IfState::Up) {
            Ok(ifnet) => ifnet.index,
            Err(e) => panic!("interface {name:?}: {e}"),
        }
    }

    /// Says what is known of an interface's link: its address and MTU.
    pub fn link(&mut self, interface: IfIndex, mac: EtherAddr, mtu: u32) {
        if let Some(ifnet) = self.interfaces.get(interface) {
            ifnet.update(|identity| {
                identity.params.lladdr = Some(mac);
                identity.params.mtu = mtu;
            });
        }
    }

    /// Sizes and rates of the IP layer.
    pub fn inet(&mut self, settings: inet::Settings) {
        self.inet = settings;
    }

    /// Interfaces so far: the number the next one gets.
    pub fn interfaces(&self) -> usize {
        self.interfaces.used()
    }

    /// Adds an interface without facts or figures of its own.
    pub fn plain_interface(&mut self, name: &str, kind: &'static str, worker: usize) -> IfIndex {
        self.interface(name, kind, worker, Vec::new(), Box::new(Vec::new))
    }

    /// Gives a queue of `interface` to `worker`.
    pub fn queue(&mut self, interface: IfIndex, worker: usize, queue: Box<dyn Queue>) -> LaneId {
        let i = usize::from(interface.0);
        let lanes = &mut self.lanes[worker];
        lanes.push(Lane { interface: i, queue, peer: None });
        LaneId { worker, lane: lanes.len() - 1 }
    }

    /// Wires two queues of one worker: what one receives the other sends, both ways.
    ///
    /// # Panics
    /// When the queues belong to different workers.
    pub fn wire(&mut self, a: LaneId, b: LaneId) {
        assert_eq!(a.worker, b.worker, "both ends of a wire belong to one worker");
        self.lanes[a.worker][a.lane].peer = Some(b.lane);
        self.lanes[b.worker][b.lane].peer = Some(a.lane);
    }

    /// Starts the control thread, and workers that wait for [`Runtime::go`].
    pub fn start(self) -> io::Result<Runtime> {
        let Builder { pool, settings, interfaces, lanes, mut inet } = self;
        // Whatever the settings say, a flood of fragments leaves three quarters of the pool to other traffic.
        let most = u32::try_from(pool.capacity() / 4 / settings.cores.len().max(1)).unwrap_or(u32::MAX);
        if inet.reassembly.frames_max > most {
            eprintln!(
                "nke: at most {most} frames of fragments wait for the rest on each worker, a quarter of the pool in all: more \
                 frames in [pool], or less `reassembly_bytes`, would make the settings hold"
            );
            inet.reassembly.frames_max = most;
            inet.reassembly.per_source_frames = inet.reassembly.per_source_frames.min(most / 8);
        }
        let wakes = settings.cores.iter().map(|_| Wake::new()).collect::<io::Result<Vec<_>>>()?;
        let (sender, commands) = bounded(COMMANDS_MAX);
        let (inet, tables) = Inet::new(inet, settings.cores.len(), nke_filters::random_key());
        let shared = Shared::new(pool, interfaces, tables, settings.cores.clone(), wakes, sender);
        let interfaces = Interfaces::new(shared.clone(), inet);
        let first = Snapshot::of(interfaces.links.clone(), interfaces.drains(), &[]);
        let (publisher, readers) = quiesce::channel(Box::new(first), settings.cores.len());
        let manager =
            Manager::new(shared.clone(), publisher, commands, interfaces, settings.stall, settings.patience);
        let pinned: Vec<usize> = settings.cores.iter().copied().flatten().collect();
        let control = move || {
            if let Err(e) = affinity::avoid(&pinned) {
                eprintln!("nke: the control thread may share a core with a worker: {e}");
            }
            manager.run();
        };
        let manager = std::thread::Builder::new().name("nke-control".into()).spawn(control)?;
        let pace = Pace { burst: settings.burst, adaptive: settings.adaptive };
        let mut workers = Vec::new();
        let mut mailboxes = Vec::new();
        let mut gates = Vec::new();
        for (number, ((lanes, reader), core)) in
            lanes.into_iter().zip(readers).zip(&settings.cores).enumerate()
        {
            let mailbox = Arc::new(Mailbox::default());
            mailboxes.push(mailbox.clone());
            let (open, gate) = bounded::<()>(1);
            gates.push(open);
            let (shared, core) = (shared.clone(), *core);
            let body =
                move || run_worker(core, &gate, || Worker::new(number, shared, reader, mailbox, lanes, pace));
            workers.push(std::thread::Builder::new().name(format!("nke-worker-{number}")).spawn(body)?);
        }
        Ok(Runtime { shared, manager: Some(manager), workers, mailboxes, gates, patience: settings.patience })
    }
}

fn run_worker(core: Option<usize>, gate: &Receiver<()>, make: impl FnOnce() -> Worker) {
    if let Some(id) = core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        eprintln!("nke: core {id} cannot be pinned to; the worker goes where the scheduler puts it");
    }
    // Built on its own core, so that its memory is near. A gate that is dropped lets the worker through to see the
    // stop flag and close its queues.
    let worker = make();
    let _ = gate.recv();
    worker.run();
}

/// A running dataplane.
pub struct Runtime {
    shared: Arc<Shared>,
    manager: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    mailboxes: Vec<Arc<Mailbox>>,
    gates: Vec<crossbeam::channel::Sender<()>>,
    patience: Duration,
}

/// What a dataplane leaves behind.
#[derive(Clone, Debug)]
pub struct Account {
    /// Frames in the pool.
    pub capacity: usize,
    /// Frames that are home.
    pub free: usize,
    /// Entries left on the ledger.
    pub outstanding: usize,
    /// Packets dropped for other reasons than policy.
    pub unwanted_drops: u64,
}

impl Runtime {
    /// Lets the workers start. Filters attached before see the first packet.
    pub fn go(&mut self) {
        self.gates.clear();
        if self.shared.command(Command::Doors { running: Some(true) }).is_err() {
            eprintln!("nke: the control thread is too busy: the shortcut stays shut");
        }
    }

    /// The way to ask for changes.
    pub fn control(&self) -> Control {
        Control::new(self.shared.clone())
    }

    /// Tables and counters.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Mailbox of each worker.
    pub fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    /// Detaches every filter (each hears `detached`), ends the workers, closes the queues, and settles the account.
    pub fn stop(mut self) -> Account {
        self.shut_down();
        let census = self.shared.pool.census();
        Account {
            capacity: self.shared.pool.capacity(),
            free: census.of(Owner::FREE),
            outstanding: self.shared.ledger.entries(None).len(),
            unwanted_drops: self.shared.unwanted_drops(),
        }
    }

    fn shut_down(&mut self) {
        let Some(manager) = self.manager.take() else { return };
        self.gates.clear();
        // The queue may be full of requests: the control thread empties it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.shared.command(Command::Stop).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Filters first, while workers still pass grace periods; then the workers.
        join(manager, "control thread");
        self.shared.stop_workers();
        let give_up = Instant::now() + self.patience;
        for (number, worker) in self.workers.drain(..).enumerate() {
            while !worker.is_finished() && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(1));
            }
            if worker.is_finished() {
                join(worker, "worker");
            } else {
                // A thread cannot be ended from outside; what it holds is not given back.
                eprintln!("nke: worker {number} does not come back from a filter and is left behind");
            }
        }
        for mailbox in &self.mailboxes {
            for mail in mailbox.drain() {
                mail.queue.close(&mut nke_mbuf::Cache::new(&self.shared.pool));
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn join(thread: JoinHandle<()>, what: &str) {
    if thread.join().is_err() {
        eprintln!("nke: the {what} panicked");
    }
}
