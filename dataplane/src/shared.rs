//! What every thread of the dataplane may reach: tables, counters, the pool. And the side of it extensions see.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use crossbeam::channel::{Sender, TrySendError};
use crossbeam::utils::CachePadded;
use nke_filters::{
    AttachId, Direction, DropClass, DropReason, Family, Hold, HoldKind, Host, HostError, IFNETS_MAX,
    INJECTIONS_MAX, IfError, IfFamily, IfIndex, IfParams, Ifnet as IfRef, IfnetDriver, InterfaceFilter,
    IpFilter, Ledger, LinkDest, Plumber, ProtocolFamily, ProtocolSpec, RecordFile, Recorder, Refused, Target,
};
use nke_mbuf::{Mbuf, Owner, Pool, TagId};

use crate::command::{COMMANDS_MAX, Command};
use crate::drop::Reasons;
use crate::ifnet::{Identity, IfState, IfTable, Ifnet};
use crate::inet::Tables;
use crate::recorder::PcapRecorder;
use crate::snapshot::Instance;
use crate::status::{State, WorkerStatus};
use crate::wake::Wake;

/// Different tag names at most.
const TAGS_MAX: usize = 4096;
/// The first tag id given out (KPI: ids are from 1000 up).
const FIRST_TAG: u32 = 1000;

/// The common ground.
pub struct Shared {
    /// Frames.
    pub pool: Pool,
    /// Interfaces by index.
    pub interfaces: IfTable,
    /// What the IP layer's workers look up.
    pub tables: Arc<Tables>,
    /// Workers by number.
    pub workers: Vec<CachePadded<WorkerStatus>>,
    /// Core each worker is pinned to, if any.
    pub cores: Vec<Option<usize>>,
    /// Wakes workers that sleep.
    pub wakes: Vec<Wake>,
    /// Drop reasons.
    pub reasons: Arc<Reasons>,
    /// The ledger.
    pub ledger: Ledger,
    /// When it all began.
    pub started: Instant,
    /// Set once: workers finish.
    pub stop: AtomicBool,
    /// Names of extensions by owner id, from [`Owner::FIRST_EXTENSION`] up.
    pub extensions: Mutex<Vec<String>>,
    tags: Mutex<Vec<String>>,
    commands: Sender<Command>,
    next_attachment: AtomicU32,
    next_worker: AtomicUsize,
    /// Itself, for the references it hands out.
    this: Weak<Shared>,
}

thread_local! {
    /// Set on workers and on the control thread: threads that must not wait for the control thread.
    static MUST_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
    /// The worker that IP packets injected by this thread go to.
    static INJECT_TO: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Declares that this thread must not wait for the control thread.
pub fn never_wait_here() {
    MUST_NOT_WAIT.set(true);
}

/// Whether this thread must not wait for the control thread.
pub fn may_wait_here() -> bool {
    !MUST_NOT_WAIT.get()
}

impl Shared {
    /// Puts the parts together. `commands` leads to the control thread.
    pub fn new(
        pool: Pool,
        interfaces: IfTable,
        tables: Arc<Tables>,
        cores: Vec<Option<usize>>,
        wakes: Vec<Wake>,
        commands: Sender<Command>,
    ) -> Arc<Shared> {
        let workers = wakes.iter().map(|_| CachePadded::new(WorkerStatus::new(IFNETS_MAX))).collect();
        Arc::new_cyclic(|this| Shared {
            pool,
            interfaces,
            tables,
            workers,
            cores,
            wakes,
            reasons: Arc::default(),
            ledger: Ledger::default(),
            started: Instant::now(),
            stop: AtomicBool::new(false),
            extensions: Mutex::new(Vec::new()),
            tags: Mutex::new(Vec::new()),
            commands,
            next_attachment: AtomicU32::new(1),
            next_worker: AtomicUsize::new(0),
            this: this.clone(),
        })
    }

    /// A number for an attachment, never given out before.
    pub fn attachment_number(&self) -> AttachId {
        AttachId(self.next_attachment.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a command to the control thread without waiting.
    pub fn command(&self, command: Command) -> Result<(), HostError> {
        self.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => HostError::Full("waiting control requests", COMMANDS_MAX),
            TrySendError::Disconnected(_) => HostError::NotFound("the control thread".into()),
        })
    }

    fn ask(&self, command: Command) -> Result<(), IfError> {
        self.command(command).map_err(|_| IfError::Full("waiting control requests", COMMANDS_MAX))
    }

    /// The id that extension `name` is charged under, made on first use.
    pub fn owner_of(&self, name: &str) -> Owner {
        let mut names = self.extensions.lock().unwrap_or_else(PoisonError::into_inner);
        let i = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        // Extensions are registered by programs and administrators, at most some hundreds.
        Owner(Owner::FIRST_EXTENSION.0 + i as u16)
    }

    /// The name of an owner.
    pub fn owner_name(&self, owner: Owner) -> String {
        match owner {
            Owner::FREE => "free".into(),
            Owner::DATAPLANE => "dataplane".into(),
            Owner::DEVICE => "device".into(),
            Owner(n) => {
                let names = self.extensions.lock().unwrap_or_else(PoisonError::into_inner);
                let i = usize::from(n).checked_sub(usize::from(Owner::FIRST_EXTENSION.0));
                i.and_then(|i| names.get(i).cloned()).unwrap_or_else(|| format!("owner {n}"))
            }
        }
    }

    /// The interface called `name`.
    pub fn interface(&self, name: &str) -> Option<&Ifnet> {
        self.interfaces.find(name)
    }

    /// Packets dropped so far for each reason, all workers together.
    pub fn drops(&self) -> Vec<(String, DropClass, u64)> {
        let sum = |i: usize| self.workers.iter().map(|w| w.drops[i].get()).sum();
        self.reasons.all().into_iter().enumerate().map(|(i, (name, class))| (name, class, sum(i))).collect()
    }

    /// Packets dropped so far for other reasons than policy.
    pub fn unwanted_drops(&self) -> u64 {
        self.drops().iter().filter(|(_, class, _)| *class != DropClass::Policy).map(|(.., n)| n).sum()
    }

    fn inject(&self, interface: IfIndex, direction: Direction, mbuf: Mbuf) -> Result<(), Refused> {
        let Some(ifnet) = self.interfaces.get(interface).filter(|i| i.state().is_attached()) else {
            return Err(Refused::NoInterface(mbuf));
        };
        self.take_over(ifnet.worker(), mbuf, |mbuf| ifnet.injected(direction).push(mbuf))
    }

    /// Takes a packet over from its owner into a queue that `worker` empties.
    fn take_over(
        &self,
        worker: usize,
        mut mbuf: Mbuf,
        push: impl FnOnce(Mbuf) -> Result<(), Mbuf>,
    ) -> Result<(), Refused> {
        if mbuf.inject_depth() >= INJECTIONS_MAX {
            return Err(Refused::Loop(mbuf));
        }
        mbuf.count_injection();
        let owner = mbuf.owner();
        mbuf.set_owner(Owner::DATAPLANE);
        if let Err(mut mbuf) = push(mbuf) {
            mbuf.set_owner(owner);
            return Err(Refused::QueueFull(mbuf));
        }
        self.nudge(worker);
        Ok(())
    }

    fn ip_inject(&self, target: Target, mbuf: Mbuf) -> Result<(), Refused> {
        if !mbuf.data().first().is_some_and(|first| matches!(first >> 4, 4 | 6)) {
            return Err(Refused::NotIp(mbuf));
        }
        self.hand_over(target, mbuf)
    }

    /// Gives a packet to a worker, to go on at `target`.
    fn hand_over(&self, target: Target, mbuf: Mbuf) -> Result<(), Refused> {
        // Packets of one sender stay in order: each thread keeps to one worker.
        let worker = INJECT_TO.with(|to| match to.get() {
            Some(worker) => worker,
            None => {
                let worker = self.next_worker.fetch_add(1, Ordering::Relaxed);
                to.set(Some(worker));
                worker
            }
        }) % self.workers.len();
        let queue = &self.tables.injected[worker];
        self.take_over(worker, mbuf, |mbuf| queue.push((target, mbuf)).map_err(|(_, mbuf)| mbuf))
    }

    /// Wakes a worker that sleeps.
    #[inline]
    pub fn nudge(&self, worker: usize) {
        if self.workers[worker].state() == State::Sleeping {
            self.wakes[worker].wake();
        }
    }

    fn refer(&self, ifnet: &Ifnet) -> Result<IfRef, IfError> {
        let host = self.this.upgrade().ok_or(IfError::NotAttached)?;
        Ok(IfRef::new(ifnet.index, host, ifnet.refer()))
    }

    /// Ends the workers.
    pub fn stop_workers(&self) {
        self.stop.store(true, Ordering::Release);
        for wake in &self.wakes {
            wake.wake();
        }
    }
}

impl Host for Shared {
    fn inject_input(&self, interface: IfIndex, packet: Mbuf) -> Result<(), Refused> {
        self.inject(interface, Direction::Input, packet)
    }

    fn inject_output(&self, interface: IfIndex, packet: Mbuf) -> Result<(), Refused> {
        self.inject(interface, Direction::Output, packet)
    }

    fn inject_protocol(
        &self,
        interface: IfIndex,
        family: ProtocolFamily,
        dest: LinkDest,
        packet: Mbuf,
    ) -> Result<(), Refused> {
        if self.interfaces.get(interface).is_none_or(|i| !i.state().is_attached()) {
            return Err(Refused::NoInterface(packet));
        }
        self.hand_over(Target::Protocol(interface, family, dest), packet)
    }

    fn ip_inject_input(&self, packet: Mbuf, after: Option<AttachId>) -> Result<(), Refused> {
        self.ip_inject(Target::IpInput(after), packet)
    }

    fn ip_inject_output(&self, packet: Mbuf, after: Option<AttachId>) -> Result<(), Refused> {
        self.ip_inject(Target::IpOutput(after), packet)
    }

    fn attach_filter(
        &self,
        owner: Owner,
        name: &str,
        interface: IfIndex,
        filter: Box<dyn InterfaceFilter>,
    ) -> Result<AttachId, HostError> {
        let (id, filter) = (self.attachment_number(), Instance::Interface(filter));
        self.command(Command::AttachInstance { id, owner, name: name.to_owned(), interface, filter })?;
        Ok(id)
    }

    fn attach_ip_filter(
        &self,
        owner: Owner,
        name: &str,
        family: Family,
        filter: Box<dyn IpFilter>,
    ) -> Result<AttachId, HostError> {
        let (id, filter) = (self.attachment_number(), Instance::Ip(family, filter.hooks(), filter));
        let (name, interface) = (name.to_owned(), IfIndex::NONE);
        self.command(Command::AttachInstance { id, owner, name, interface, filter })?;
        Ok(id)
    }

    fn ifnet_allocate(
        &self,
        owner: Owner,
        params: IfParams,
        driver: Arc<dyn IfnetDriver>,
    ) -> Result<IfRef, IfError> {
        let name = params.name.clone();
        let figures = driver.clone();
        let identity = Identity {
            params,
            owner,
            facts: Vec::new(),
            telemetry: Arc::new(Box::new(move || figures.figures())),
            driver: Some(driver),
            hold: Some(Arc::new(self.ledger.hold(owner, HoldKind::Interface, name))),
        };
        let worker = self.next_worker.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        let ifnet = self.interfaces.allocate(identity, worker, IfState::Embryonic)?;
        self.refer(ifnet)
    }

    fn ifnet_attach(&self, interface: IfIndex) -> Result<(), IfError> {
        match self.interfaces.get(interface).map(Ifnet::state) {
            Some(IfState::Embryonic) => self.ask(Command::IfAttach { interface }),
            Some(state) if state.is_attached() => Err(IfError::Exists),
            _ => Err(IfError::NotAttached),
        }
    }

    fn ifnet_detach(&self, interface: IfIndex) -> Result<(), IfError> {
        match self.interfaces.get(interface).filter(|i| i.state().is_attached()) {
            Some(_) => self.ask(Command::IfDetach { interface, reply: None }),
            None => Err(IfError::NotAttached),
        }
    }

    fn ifnet_find(&self, name: &str) -> Result<IfRef, IfError> {
        self.refer(self.interfaces.find(name).ok_or(IfError::NotAttached)?)
    }

    fn ifnet_info(&self, interface: IfIndex) -> Option<IfParams> {
        Some(self.interfaces.get(interface)?.identity().params.clone())
    }

    fn attach_protocol(
        &self,
        owner: Owner,
        interface: IfIndex,
        family: ProtocolFamily,
        spec: ProtocolSpec,
    ) -> Result<(), IfError> {
        self.ask(Command::AttachProtocol { owner, interface, family, spec })
    }

    fn detach_protocol(&self, interface: IfIndex, family: ProtocolFamily) -> Result<(), IfError> {
        self.ask(Command::DetachProtocol { interface, family })
    }

    fn register_plumber(
        &self,
        owner: Owner,
        family: ProtocolFamily,
        interfaces: IfFamily,
        plumber: Arc<dyn Plumber>,
    ) -> Result<(), IfError> {
        self.ask(Command::RegisterPlumber { owner, family, interfaces, plumber })
    }

    fn unregister_plumber(&self, family: ProtocolFamily, interfaces: IfFamily) {
        // Nobody could do anything about a full queue; the plumber goes with its extension at the latest.
        let _ = self.ask(Command::UnregisterPlumber { family, interfaces });
    }

    fn detach(&self, attachment: AttachId) -> Result<(), HostError> {
        self.command(Command::Detach { id: attachment, reply: None })
    }

    fn alloc(&self, owner: Owner) -> Option<Mbuf> {
        let mut mbuf = self.pool.alloc()?;
        mbuf.set_owner(owner);
        Some(mbuf)
    }

    fn interface_by_name(&self, name: &str) -> Option<IfIndex> {
        self.interface(name).map(|i| i.index)
    }

    fn drop_reason(&self, owner: Owner, name: &str) -> Result<DropReason, HostError> {
        self.reasons.find_or_add(&format!("{}:{name}", self.owner_name(owner)), DropClass::Policy)
    }

    fn tag_id(&self, name: &str) -> Result<TagId, HostError> {
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let i = match tags.iter().position(|known| known == name) {
            Some(i) => i,
            None if tags.len() == TAGS_MAX => return Err(HostError::Full("tag names", TAGS_MAX)),
            None => {
                tags.push(name.to_owned());
                tags.len() - 1
            }
        };
        Ok(TagId(FIRST_TAG + i as u32))
    }

    fn hold(&self, owner: Owner, kind: HoldKind, name: &str) -> Hold {
        self.ledger.hold(owner, kind, name)
    }

    fn recorder(&self, owner: Owner, file: &RecordFile) -> Result<Box<dyn Recorder>, HostError> {
        let path = file.path.display();
        let hold = self.ledger.hold(owner, HoldKind::Thread, format!("recorder of {path}"));
        let recorder = PcapRecorder::start(file, self.reasons.clone(), Some(hold))
            .map_err(|e| HostError::System(format!("{path}: {e}")))?;
        Ok(Box::new(recorder))
    }
}

/// The common ground as extensions get it.
pub fn host(shared: &Arc<Shared>) -> Arc<dyn Host> {
    shared.clone()
}
