//! What every thread of the dataplane may reach: tables, counters, the pool. And the side of it extensions see.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam::channel::{Sender, TrySendError};
use crossbeam::utils::CachePadded;
use nke_filters::{
    AttachId, Direction, DropClass, DropReason, Hold, HoldKind, Host, HostError, IfIndex, Ledger, Recorder,
    Refused,
};
use nke_mbuf::{Mbuf, Owner, Pool, TagId};

use crate::drop::Reasons;
use crate::ifnet::Ifnet;
use crate::manager::{COMMANDS_MAX, Command};
use crate::recorder::PcapRecorder;
use crate::status::{State, WorkerStatus};
use crate::wake::Wake;

/// How often a packet may be injected.
pub const INJECTIONS_MAX: u8 = 8;
/// Different tag names at most.
const TAGS_MAX: usize = 4096;
/// The first tag id given out (KPI: ids are from 1000 up).
const FIRST_TAG: u32 = 1000;

/// The common ground.
pub struct Shared {
    /// Frames.
    pub pool: Pool,
    /// Interfaces by index; fixed while the dataplane runs.
    pub interfaces: Vec<Ifnet>,
    /// Workers by number.
    pub workers: Vec<CachePadded<WorkerStatus>>,
    /// Core each worker is pinned to, if any.
    pub cores: Vec<Option<usize>>,
    /// Wakes workers that sleep.
    pub wakes: Vec<Wake>,
    /// Drop reasons.
    pub reasons: Reasons,
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
}

thread_local! {
    /// Set on workers and on the control thread: threads that must not wait for the control thread.
    static MUST_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
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
        interfaces: Vec<Ifnet>,
        cores: Vec<Option<usize>>,
        wakes: Vec<Wake>,
        commands: Sender<Command>,
    ) -> Shared {
        let workers = wakes.iter().map(|_| CachePadded::new(WorkerStatus::new(interfaces.len()))).collect();
        Shared {
            pool,
            interfaces,
            workers,
            cores,
            wakes,
            reasons: Reasons::default(),
            ledger: Ledger::default(),
            started: Instant::now(),
            stop: AtomicBool::new(false),
            extensions: Mutex::new(Vec::new()),
            tags: Mutex::new(Vec::new()),
            commands,
        }
    }

    /// Sends a command to the control thread without waiting.
    pub fn command(&self, command: Command) -> Result<(), HostError> {
        self.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => HostError::Full("waiting control requests", COMMANDS_MAX),
            TrySendError::Disconnected(_) => HostError::NotFound("the control thread".into()),
        })
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
        self.interfaces.iter().find(|i| i.name == name)
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

    fn inject(&self, interface: IfIndex, direction: Direction, mut mbuf: Mbuf) -> Result<(), Refused> {
        let Some(ifnet) = self.interfaces.get(usize::from(interface.0)) else {
            return Err(Refused::NoInterface(mbuf));
        };
        if mbuf.inject_depth() >= INJECTIONS_MAX {
            return Err(Refused::Loop(mbuf));
        }
        mbuf.count_injection();
        let owner = mbuf.owner();
        mbuf.set_owner(Owner::DATAPLANE);
        if let Err(mut mbuf) = ifnet.injected(direction).push(mbuf) {
            mbuf.set_owner(owner);
            return Err(Refused::QueueFull(mbuf));
        }
        if self.workers[ifnet.worker].state() == State::Sleeping {
            self.wakes[ifnet.worker].wake();
        }
        Ok(())
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

    fn ip_inject_input(&self, packet: Mbuf, _: Option<AttachId>) -> Result<(), Refused> {
        Err(Refused::NotIp(packet))
    }

    fn ip_inject_output(&self, packet: Mbuf, _: Option<AttachId>) -> Result<(), Refused> {
        Err(Refused::NotIp(packet))
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

    fn recorder(&self, owner: Owner, path: &Path) -> Result<Box<dyn Recorder>, HostError> {
        let hold = self.ledger.hold(owner, HoldKind::Thread, format!("recorder of {}", path.display()));
        let recorder = PcapRecorder::start(path, hold).map_err(|e| HostError::System(e.to_string()))?;
        Ok(Box::new(recorder))
    }
}

/// The common ground as extensions get it.
pub fn host(shared: &Arc<Shared>) -> Arc<dyn Host> {
    shared.clone()
}
