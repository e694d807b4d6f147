//! The control thread: the one place where chains change, and where `detached` and `unregistered` are called.
//!
//! It never waits for a worker. A change is published at once; what has to wait for a grace period stands in a list
//! that `Manager::settle` goes through, so that a worker stuck in a filter delays that filter's detach and nothing
//! else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use nke_filters::{AttachEnv, AttachId, HoldKind, IfEvent, IfEventKind, IfIndex};

use crate::caught::guarded;
use crate::command::{COMMANDS_MAX, Command, Reply, answer};
use crate::control_handle::{AttachSpec, Maker, Point};
use crate::fault::Fault;
use crate::ifnet::IfState;
use crate::inet::{self, Garbage, solicit};
use crate::interfaces::{Interfaces, Unplumbed};
use crate::kinds::{Kind, Kinds};
use crate::manager_if::Detaching;
use crate::manager_unload::Unloading;
use crate::mirror::Exchange;
use crate::quiesce::Publisher;
use crate::report::DetachReport;
use crate::shared::{Shared, host, never_wait_here};
use crate::shortcut::Doors;
use crate::snapshot::{Attachment, FilterStats, Instance, Snapshot};
use crate::views;
use crate::watchdog::Watchdog;

/// Instances attached at the same time at most.
pub const ATTACHMENTS_MAX: usize = 1024;

/// An instance out of the chains, waiting for the last worker to leave them.
pub(crate) struct Draining {
    pub(crate) attachment: Arc<Attachment>,
    generation: u64,
    asked: Instant,
    lost_before: u64,
    reply: Reply<DetachReport>,
}

/// What an answer waits for: workers, and programs in the kernel.
#[derive(Clone, Copy)]
struct Grace {
    generation: u64,
    programs: u64,
}

impl Grace {
    fn passed(self, publisher: &Publisher<Snapshot>, doors: Option<&Doors>) -> bool {
        publisher.passed(self.generation) && doors.is_none_or(|doors| doors.passed(self.programs))
    }
}

/// Grace periods for what routes left behind at the same time.
const GARBAGE_MAX: usize = 4;

/// How long the control thread looks for the end of a grace period before it looks for requests again: a worker's
/// round is a few microseconds.
const SPIN: Duration = Duration::from_micros(20);
/// Between looks at things under way.
const PENDING_TICK: Duration = Duration::from_micros(50);
/// Between looks at workers when nothing is under way.
const IDLE_TICK: Duration = Duration::from_millis(20);

/// Between calls of the instances' own `tick`.
const INSTANCE_TICK: Duration = Duration::from_secs(1);

/// The control thread's state.
pub struct Manager {
    pub(crate) shared: Arc<Shared>,
    pub(crate) publisher: Publisher<Snapshot>,
    commands: Receiver<Command>,
    pub(crate) kinds: Kinds,
    /// In attach order, which is the order in every chain.
    pub(crate) attachments: Vec<Arc<Attachment>>,
    pub(crate) interfaces: Interfaces,
    activating: Vec<(Grace, AttachId, Reply<AttachId>)>,
    /// Answers to changes that every worker is to see first.
    seen_by_all: Vec<(Grace, Box<dyn FnOnce() + Send>)>,
    pub(crate) draining: Vec<Draining>,
    pub(crate) unloading: Vec<Unloading>,
    pub(crate) unplumbed: Vec<(u64, Unplumbed)>,
    pub(crate) detaching: Vec<Detaching>,
    garbage: VecDeque<(Grace, Garbage)>,
    /// With ports that forward by themselves what nobody wants to see.
    pub(crate) doors: Option<Doors>,
    /// With who follows the kernel's tables.
    pub(crate) exchange: Option<Arc<Exchange>>,
    pub(crate) watchdog: Watchdog,
    next_tick: Instant,
    pub(crate) stopping: bool,
    /// Workers that do not leave their filters are waited for so long when everything ends.
    patience: Duration,
    give_up: Option<Instant>,
}

impl Manager {
    /// A control thread for `shared`, which publishes by `publisher`.
    pub fn new(
        shared: Arc<Shared>,
        publisher: Publisher<Snapshot>,
        commands: Receiver<Command>,
        interfaces: Interfaces,
        stall: Duration,
        patience: Duration,
    ) -> Manager {
        let watchdog = Watchdog::new(shared.workers.len(), stall);
        Manager {
            publisher,
            commands,
            kinds: Kinds::default(),
            attachments: Vec::new(),
            interfaces,
            shared,
            activating: Vec::new(),
            seen_by_all: Vec::new(),
            draining: Vec::new(),
            unloading: Vec::new(),
            unplumbed: Vec::new(),
            detaching: Vec::new(),
            garbage: VecDeque::new(),
            doors: None,
            exchange: None,
            watchdog,
            next_tick: Instant::now(),
            stopping: false,
            patience,
            give_up: None,
        }
    }

    /// Runs until [`Command::Stop`] was carried out.
    pub fn run(mut self) {
        never_wait_here();
        // Here, so that its thread keeps off the workers' cores like this one.
        self.doors = self.shared.tables.shortcut().map(Doors::new).transpose().unwrap_or_else(|e| {
            eprintln!("nke: no shortcut: {e}");
            None
        });
        while !self.stopping || (self.pending() && self.give_up.is_none_or(|at| Instant::now() < at)) {
            let tick = if self.pending() { PENDING_TICK } else { IDLE_TICK };
            match self.commands.recv_timeout(tick) {
                Ok(command) => self.carry_out(command),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => self.begin_stop(),
            }
            self.settle();
            let now = self.shared.started.elapsed();
            self.shared.pool.set_clock_ms(now.as_millis() as u64);
            self.run_inet();
            self.watch();
            self.tick();
        }
        // What was asked for while all ended is answered; filters among it were promised their last call.
        for command in self.commands.clone().try_iter().take(COMMANDS_MAX) {
            self.carry_out(command);
        }
        self.kinds.clear();
    }

    fn pending(&self) -> bool {
        let settled = self.activating.is_empty()
            && self.seen_by_all.is_empty()
            && self.draining.is_empty()
            && self.unloading.is_empty()
            && self.unplumbed.is_empty()
            && self.detaching.is_empty()
            && self.garbage.is_empty();
        !settled || self.publisher.retired() > 0
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.shared.started.elapsed().as_millis() as u64
    }

    /// Neighbours, and what routes left behind.
    fn run_inet(&mut self) {
        let (now_ms, shared, exchange) = (self.now_ms(), &self.shared, &self.exchange);
        self.interfaces.inet.run(now_ms, |send| match (send, exchange) {
            (inet::Send::AskKernel(interface, address), Some(exchange)) => {
                exchange.ask(IfIndex(interface), address);
            }
            (send, _) => solicit::send(shared, send),
        });
        if self.garbage.len() < GARBAGE_MAX
            && let Some(garbage) = self.interfaces.inet.take_garbage()
        {
            let programs = self.doors.as_ref().map_or(0, Doors::barrier);
            self.garbage.push_back((Grace { generation: self.publisher.barrier(), programs }, garbage));
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Register { kind, reply } => answer(reply, self.register(kind)),
            Command::Unregister { name, wait, reply } => self.unregister(name, wait, reply),
            Command::Attach { spec, reply } => match self.attach(*spec) {
                Ok((id, generation)) => self.activating.push((self.grace(generation), id, reply)),
                Err(fault) => answer(reply, Err(fault)),
            },
            Command::Detach { id, reply } => self.detach(id, reply),
            Command::Refit { attach, detach, reply } => {
                let outcome = self.refit(attach, &detach);
                self.answer_when_seen(reply, outcome);
            }
            Command::Paths { id, reply } => {
                let found = self.attachments.iter().find(|a| a.id == id);
                answer(reply, found.map(|a| views::paths(self, a)).ok_or(Fault::NoAttachment(id)));
            }
            Command::Figures { id, reply } => {
                let found = self.attachments.iter().find(|a| a.id == id);
                answer(reply, found.map(|a| views::figures(a)).ok_or(Fault::NoAttachment(id)));
            }
            Command::View { view, reply } => {
                let table = views::table(self, view);
                answer(reply, Ok(table));
            }
            Command::AttachInstance { id, owner, name, interface, filter } => {
                self.attach_instance(id, owner, name, interface, filter);
            }
            Command::IfAttach { interface } => self.if_attach(interface),
            Command::IfDetach { interface, reply } => self.if_detach(interface, reply),
            Command::AttachProtocol { owner, interface, family, spec } => {
                let outcome = self.interfaces.attach_protocol(owner, interface, family, spec);
                self.changed(interface, IfEventKind::ProtocolAttached, outcome);
            }
            Command::DetachProtocol { interface, family } => {
                // Meanwhile it may have gone with its interface or extension.
                let outcome = self.interfaces.detach_protocol(interface, family);
                if outcome != Err(nke_filters::IfError::NotAttached) {
                    self.changed(interface, IfEventKind::ProtocolDetached, outcome);
                }
            }
            Command::RegisterPlumber { owner, family, interfaces, plumber } => {
                if let Err(e) = self.interfaces.register_plumber(owner, family, interfaces, plumber) {
                    eprintln!("nke: a plumber of {} was not registered: {e}", self.shared.owner_name(owner));
                }
            }
            Command::UnregisterPlumber { family, interfaces } => {
                self.interfaces.unregister_plumber(family, interfaces);
            }
            Command::Create { kind, name, args, reply } => {
                let outcome = self.create(&kind, name, &args);
                self.answer_when_seen(reply, outcome);
            }
            Command::Address { interface, address, len, add, reply } => {
                let outcome = self.address(&interface, address, len, add);
                self.answer_when_seen(reply, outcome);
            }
            Command::Ioctl { interface, request, reply } => {
                let outcome = self.ioctl(interface, request);
                self.answer_when_seen(reply, outcome.map_err(Fault::Interface));
            }
            Command::Inet { request, reply } => {
                let now_ms = self.now_ms();
                let outcome = self.interfaces.inet.request(&request, now_ms);
                answer(reply, outcome.map_err(Fault::Inet));
            }
            Command::HostAddresses { interface, addresses, reply } => {
                let outcome = self.host_addresses(interface, addresses);
                self.answer_when_seen(reply, outcome.map_err(Fault::Interface));
            }
            Command::Follow { exchange } => self.exchange = Some(exchange),
            Command::Event { interface, kind } => self.event(interface, kind),
            Command::Doors { running } => {
                if let (Some(doors), Some(running)) = (&mut self.doors, running) {
                    doors.set_running(running);
                }
                self.move_doors();
            }
            Command::Stop => self.begin_stop(),
        }
    }

    fn register(&mut self, kind: Kind) -> Result<(), Fault> {
        if self.stopping { Err(Fault::Ended) } else { self.kinds.register(kind, &self.shared) }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.attachments.len() < ATTACHMENTS_MAX
    }

    fn attach(&mut self, spec: AttachSpec) -> Result<(AttachId, u64), Fault> {
        if !self.has_room() {
            spec.refuse();
            return Err(Fault::TooMany(ATTACHMENTS_MAX));
        }
        let attachment = self.make(spec)?;
        let id = attachment.id;
        self.attachments.push(Arc::new(attachment));
        Ok((id, self.publish()))
    }

    /// All at once: nothing is published before every new instance is made.
    fn refit(&mut self, attach: Vec<AttachSpec>, detach: &[AttachId]) -> Result<Vec<AttachId>, Fault> {
        let gone = detach.iter().find(|id| !self.attachments.iter().any(|a| a.id == **id));
        let mut refusal = gone.map(|gone| Fault::NoAttachment(*gone));
        if refusal.is_none() && self.attachments.len() - detach.len() + attach.len() > ATTACHMENTS_MAX {
            refusal = Some(Fault::TooMany(ATTACHMENTS_MAX));
        }
        let mut attach = attach.into_iter();
        if let Some(fault) = refusal {
            attach.for_each(AttachSpec::refuse);
            return Err(fault);
        }
        let mut made = Vec::new();
        while let Some(spec) = attach.next() {
            match self.make(spec) {
                Ok(attachment) => made.push(Arc::new(attachment)),
                Err(fault) => {
                    attach.for_each(AttachSpec::refuse);
                    for unused in made {
                        guarded(|| unused.filter.detached(unused.interface, unused.cookie));
                        guarded(|| drop(unused));
                    }
                    return Err(fault);
                }
            }
        }
        let ids = made.iter().map(|a| a.id).collect();
        let (asked, lost_before) = (Instant::now(), self.shared.unwanted_drops());
        let old: Vec<_> = self.attachments.extract_if(.., |a| detach.contains(&a.id)).collect();
        self.attachments.extend(made);
        let generation = self.publish();
        self.draining.extend(old.into_iter().map(|attachment| Draining {
            attachment,
            generation,
            asked,
            lost_before,
            reply: None,
        }));
        Ok(ids)
    }

    /// Makes an instance that is in no chain yet.
    fn make(&mut self, spec: AttachSpec) -> Result<Attachment, Fault> {
        let interface = match self.place(&spec) {
            Ok(interface) => interface,
            Err(fault) => {
                spec.refuse();
                return Err(fault);
            }
        };
        let AttachSpec { maker, point, directions, protocol, cookie, on_panic, args } = spec;
        let id = self.shared.attachment_number();
        let workers = self.shared.workers.len();
        let (kind, owner, filter) = match (maker, &point) {
            (Maker::Instance(name, filter), Point::Interface(_)) => {
                let owner = self.shared.owner_of(&name);
                (name, owner, Instance::Interface(filter))
            }
            (Maker::IpInstance(name, filter), Point::Ip(family)) => {
                let owner = self.shared.owner_of(&name);
                (name, owner, Instance::Ip(*family, filter.hooks(), filter))
            }
            (Maker::Instance(name, _) | Maker::IpInstance(name, _), point) => {
                return Err(Fault::WrongLayer(name, point.name().to_owned()));
            }
            (Maker::Kind(name), point) => {
                let host = host(&self.shared);
                let env = |owner| AttachEnv { host, owner, attachment: id, interface, cookie, workers };
                let registered = self.kinds.find(&name)?;
                let owner = registered.owner;
                (name, owner, registered.make(&self.shared, point, env, &args)?)
            }
        };
        let name = format!("{kind} on {} ({id})", point.name());
        let hold = self.shared.ledger.hold(owner, HoldKind::Attachment, name);
        let made = Attachment::new(id, kind, owner, interface, filter, workers, hold);
        Ok(Attachment { directions, protocol, cookie, on_panic, ..made })
    }

    /// The interface an instance is for; [`IfIndex::NONE`] if for none.
    fn place(&self, spec: &AttachSpec) -> Result<IfIndex, Fault> {
        if self.stopping {
            return Err(Fault::Ended);
        }
        match (&spec.maker, &spec.point) {
            (Maker::Kind(_) | Maker::Instance(..), Point::Interface(name)) => {
                match self.shared.interface(name) {
                    Some(ifnet) => Ok(ifnet.index),
                    None => Err(Fault::NoInterface(name.clone())),
                }
            }
            (Maker::Kind(_), _) | (Maker::IpInstance(..), Point::Ip(_)) => Ok(IfIndex::NONE),
            (Maker::Instance(name, _) | Maker::IpInstance(name, _), point) => {
                Err(Fault::WrongLayer(name.clone(), point.name().to_owned()))
            }
        }
    }

    pub(crate) fn publish(&mut self) -> u64 {
        let interfaces = &mut self.interfaces;
        let next = Snapshot::of(interfaces.links.clone(), interfaces.drains(), &self.attachments);
        if let Some(doors) = &mut self.doors {
            doors.shut(&next, &self.shared.interfaces);
        }
        let generation = self.publisher.publish(Box::new(next));
        if let Some(doors) = &mut self.doors {
            doors.open();
        }
        self.unplumbed.extend(interfaces.unplumbed.drain(..).map(|u| (generation, u)));
        generation
    }

    /// Something else has changed that doors of the shortcut depend on.
    fn move_doors(&mut self) {
        if self.doors.is_some() {
            self.publish();
        }
    }

    /// What has to pass before it can be said that what was published is what happens to packets.
    fn grace(&self, generation: u64) -> Grace {
        Grace { generation, programs: self.doors.as_ref().map_or(0, Doors::last_shut) }
    }

    pub(crate) fn detach(&mut self, id: AttachId, reply: Reply<DetachReport>) {
        let Some(at) = self.attachments.iter().position(|a| a.id == id) else {
            return answer(reply, Err(Fault::NoAttachment(id)));
        };
        let attachment = self.attachments.remove(at);
        let (asked, lost_before) = (Instant::now(), self.shared.unwanted_drops());
        let generation = self.publish();
        self.draining.push(Draining { attachment, generation, asked, lost_before, reply });
    }

    fn event(&mut self, interface: IfIndex, kind: IfEventKind) {
        if let Some(ifnet) = self.shared.interfaces.get(interface).filter(|i| i.state().is_attached()) {
            match kind {
                IfEventKind::LinkOn | IfEventKind::DeviceBack => _ = ifnet.set_state(IfState::Up),
                IfEventKind::LinkOff => _ = ifnet.set_state(IfState::Down),
                IfEventKind::DeviceGone => _ = ifnet.set_state(IfState::Gone),
                _ => (),
            }
            eprintln!("nke: interface {}: {}", ifnet.name(), kind.name());
        }
        self.move_doors();
        self.tell(interface, kind);
    }

    /// Tells the filters of an interface what happened to it, then its protocols, then its driver.
    pub(crate) fn tell(&self, interface: IfIndex, kind: IfEventKind) {
        for attachment in self.attachments.iter().filter(|a| a.interface == interface) {
            if let Instance::Interface(filter) = &attachment.filter {
                let event = IfEvent { interface, cookie: attachment.cookie, kind };
                guarded(|| filter.event(&event));
            }
        }
        self.interfaces.tell(interface, kind);
    }

    fn begin_stop(&mut self) {
        self.stopping = true;
        if let Some(doors) = &mut self.doors {
            doors.set_running(false);
        }
        let now = Instant::now();
        self.give_up = Some(now + self.patience);
        self.unloading.iter_mut().for_each(|unloading| unloading.deadline = now);
        // Interfaces go first: their filters hear of it before they are detached.
        let all: Vec<_> =
            self.shared.interfaces.iter().filter(|i| i.state().is_attached()).map(|i| i.index).collect();
        for interface in all {
            self.if_detach(interface, None);
        }
        for id in self.attachments.iter().map(|a| a.id).collect::<Vec<_>>() {
            self.detach(id, None);
        }
    }

    /// Finishes what had to wait: for a grace period, or for the ledger.
    fn settle(&mut self) {
        let spin_until = Instant::now() + SPIN;
        loop {
            // Old snapshots first: they refer to the instances that are draining.
            while self.publisher.reclaim().is_some() {}
            let waiting = self.publisher.retired() > 0;
            if !waiting || Instant::now() > spin_until {
                break;
            }
            std::thread::yield_now();
        }
        self.finish_attaching();
        self.finish_detaching();
        self.finish_interfaces();
        while self
            .garbage
            .front()
            .is_some_and(|(grace, _)| grace.passed(&self.publisher, self.doors.as_ref()))
        {
            if let Some((_, garbage)) = self.garbage.pop_front() {
                self.interfaces.inet.reclaim(garbage);
            }
        }
        self.finish_unloading();
    }

    /// Answers once every worker has the state that was published last.
    fn answer_when_seen<T: Send + 'static>(&mut self, reply: Reply<T>, outcome: Result<T, Fault>) {
        if reply.is_none() || outcome.is_err() {
            return answer(reply, outcome);
        }
        let grace = self.grace(self.publisher.generation());
        self.seen_by_all.push((grace, Box::new(move || answer(reply, outcome))));
    }

    fn finish_attaching(&mut self) {
        let (publisher, doors) = (&self.publisher, self.doors.as_ref());
        for (_, answer) in self.seen_by_all.extract_if(.., |(grace, _)| grace.passed(publisher, doors)) {
            answer();
        }
        for (_, id, reply) in self.activating.extract_if(.., |(grace, ..)| grace.passed(publisher, doors)) {
            answer(reply, Ok(id));
        }
    }

    fn finish_detaching(&mut self) {
        let publisher = &self.publisher;
        // Neither a worker nor a snapshot that was not taken back yet may refer to it: the instance goes here and now.
        let over = |d: &mut Draining| publisher.passed(d.generation) && Arc::strong_count(&d.attachment) == 1;
        let passed: Vec<_> = self.draining.extract_if(.., over).collect();
        for draining in passed {
            let grace_us = micros(draining.asked);
            let attachment = draining.attachment;
            guarded(|| attachment.filter.detached(attachment.interface, attachment.cookie));
            let sum = |f: fn(&FilterStats) -> u64| attachment.stats.iter().map(|s| f(s)).sum();
            let mut report = DetachReport {
                id: attachment.id,
                kind: attachment.kind.clone(),
                interface: views::point(&self.shared, &attachment),
                packets: sum(|s| s.packets.get()),
                dropped: sum(|s| s.dropped.get()),
                consumed: sum(|s| s.consumed.get()),
                panics: sum(|s| s.panics.get()),
                grace_us,
                total_us: 0,
                mbufs_held: 0,
                lost_meanwhile: 0,
                figures: views::figures(&attachment),
            };
            let owner = attachment.owner;
            debug_assert_eq!(Arc::strong_count(&attachment), 1, "no snapshot refers to it any more");
            guarded(|| drop(attachment));
            report.mbufs_held = self.shared.pool.census().of(owner);
            report.lost_meanwhile = self.shared.unwanted_drops() - draining.lost_before;
            report.total_us = micros(draining.asked);
            answer(draining.reply, Ok(report));
        }
    }

    /// About once a second, every instance may age its tables.
    fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + INSTANCE_TICK;
            if let Some(doors) = &mut self.doors {
                doors.open();
            }
            self.attachments.iter().for_each(|attachment| guarded(|| attachment.filter.tick()));
        }
    }

    /// Stalled workers are reported, filters that panicked are detached.
    fn watch(&mut self) {
        let names =
            |id: u64| self.attachments.iter().find(|a| u64::from(a.id.0) == id).map(|a| a.kind.clone());
        self.watchdog.look(&self.shared, names);
        // Every flag is taken: one raised from here on is seen the next time.
        if self.shared.workers.iter().fold(0, |any, w| any | w.panicked.take()) == 0 {
            return;
        }
        let panicked = |a: &&Arc<Attachment>| a.stats.iter().any(|s| s.panics.get() > 0);
        for id in self.attachments.iter().filter(panicked).map(|a| a.id).collect::<Vec<_>>() {
            eprintln!("nke: filter {id} panicked and is detached");
            self.detach(id, None);
        }
    }
}

pub(crate) fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}
