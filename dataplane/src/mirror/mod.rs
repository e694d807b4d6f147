//! The kernel as the host: its routes, neighbours and addresses are followed by [`nke_rtnl`] and carried over to NKE's
//! tables, for `[router] host = "kernel"`.
//!
//! ```text
//!   kernel ── rtnetlink ─▶ Follower ─▶ Translator ─▶ steps ─┬─▶ batches of routes, neighbours ─▶ control thread ─▶ tables
//!                                                           └─▶ own addresses ─▶ XDP programs: left to the kernel
//!   control thread ── wanted neighbours ─▶ Exchange ─▶ Asker ─▶ kernel
//! ```
//!
//! One thread, `nke-mirror`, does all of it. It waits for each batch to be carried out: when the control thread is behind,
//! the kernel's notifications pile up and are lost at last, the follower notices, asks for everything anew and tells what
//! is different. Nothing grows without bound, and nothing is missed for good.
//!
//! What only the kernel can send on goes to it by the interface of [`crate::punt`]: routes that lead to devices that are not
//! NKE's, routes of kinds NKE does not know, and those for which there is no room.

mod exchange;
mod locals;
mod settings;
mod translate;

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nke_filters::IfIndex;
use nke_rtnl::{Asker, Change, Config, Event, Follower};

pub use exchange::{Exchange, Figures};
pub use locals::Locals;
pub use settings::warnings;
pub use translate::{Port, Step, Translator};

use crate::command::OwnedIoctl;
use crate::control_handle::{Control, Ticket};
use crate::fault::Fault;
use crate::inet::{InKernel, InetError, Net, Request, RouteChange, RouteTo};
use crate::netdev;

/// Changes of routes in one request.
const BATCH: usize = 256;
/// Between looks at the figures when nothing happens.
const TICK: Duration = Duration::from_millis(200);
/// How long the kernel may take to tell all there is, at the start.
const PATIENCE: Duration = Duration::from_secs(60);
/// After the kernel refused something.
const PAUSE: Duration = Duration::from_secs(1);

/// The kernel's tables of one namespace, known and not carried over yet.
pub struct Followed {
    follower: Follower,
    asker: Asker,
    locals: Locals,
}

impl Followed {
    /// Asks the kernel for all there is in network namespace `netns`, and waits until it is known.
    ///
    /// # Errors
    /// Those of the namespace and of netlink.
    pub fn new(netns: Option<&str>) -> io::Result<Followed> {
        let open = || io::Result::Ok((Follower::new(Config::default())?, Asker::new()?));
        let (mut follower, asker) = netdev::in_netns(netns, open).flatten()?;
        let give_up = Instant::now() + PATIENCE;
        while !follower.poll(Duration::ZERO, |_| ())?.in_sync {
            if Instant::now() > give_up {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "its tables change faster than they are told",
                ));
            }
        }
        let locals = Locals::default();
        follower.tell_all(|change| {
            if let Change::Address(Event::Changed, address) = change {
                // No program is there to refuse it.
                let _ = locals.insert(address.addr);
            }
        });
        Ok(Followed { follower, asker, locals })
    }

    /// The kernel's own addresses, for the programs of ports.
    pub fn locals(&self) -> Locals {
        self.locals.clone()
    }

    /// Carries all over to the tables behind `control`, and from then on each change. Returns when NKE knows all that was
    /// known here.
    ///
    /// # Errors
    /// When the thread cannot be made, or the control thread does not answer.
    pub fn start(self, ports: Vec<Port>, punt: IfIndex, control: &Control) -> io::Result<Mirror> {
        let exchange = Arc::new(Exchange::new()?);
        let refused = |e: Fault| io::Error::other(e.to_string());
        control.follow(exchange.clone()).map_err(refused)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = crossbeam::channel::bounded(1);
        let worker = Worker {
            sink: Sink {
                control: control.clone(),
                exchange: exchange.clone(),
                locals: self.locals,
                stop: stop.clone(),
                pending: Vec::with_capacity(BATCH),
                without_room: HashSet::new(),
                told_full: false,
            },
            follower: self.follower,
            asker: self.asker,
            translator: Translator::new(ports, punt),
        };
        let body = move || worker.run(|| _ = ready.try_send(()));
        let thread = std::thread::Builder::new().name("nke-mirror".into()).spawn(body)?;
        let mirror = Mirror { stop, exchange, thread: Some(thread) };
        match is_ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(mirror),
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel's tables were not carried over"))
            }
        }
    }
}

/// The thread. Dropping it ends it; what it told stays in the tables.
pub struct Mirror {
    stop: Arc<AtomicBool>,
    exchange: Arc<Exchange>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.exchange.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    follower: Follower,
    asker: Asker,
    translator: Translator,
    sink: Sink,
}

impl Worker {
    fn run(mut self, ready: impl Fn()) {
        self.all_again();
        self.settle(true);
        ready();
        while !self.sink.stopped() {
            let fd = self.follower.fd().as_raw_fd();
            self.sink.exchange.wake.sleep(std::iter::once(fd), TICK);
            self.questions();
            let (translator, sink) = (&mut self.translator, &mut self.sink);
            let polled = self.follower.poll(Duration::ZERO, |change| sink.take(translator, change));
            if self.translator.wants_all_again() {
                self.all_again();
            }
            match polled {
                Ok(status) => self.settle(status.in_sync),
                Err(e) => {
                    eprintln!("nke: following the kernel's tables: {e}");
                    self.settle(false);
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Which device is which port has changed, or is known at last.
    fn all_again(&mut self) {
        let (translator, sink) = (&mut self.translator, &mut self.sink);
        self.follower.tell_all(|change| sink.take(translator, change));
        // Links come first, so that the rest was told with what they say.
        let _ = translator.wants_all_again();
    }

    /// Has the kernel look for neighbours that packets wait for.
    fn questions(&mut self) {
        while let Some((interface, address)) = self.sink.exchange.asked() {
            let Some((ifindex, known)) = self.translator.question(interface, address) else { continue };
            let figures = &self.sink.exchange.figures;
            add(&figures.asked, 1);
            if self.asker.probe_neighbor(ifindex, address).is_err() {
                // No such device any more, or it is down.
                add(&figures.ask_failed, 1);
            }
            // The kernel does not say again what it has said.
            if let Some(known @ InKernel::Known(..)) = known {
                self.sink.neighbor(interface, address, known);
            }
        }
    }

    fn settle(&mut self, in_sync: bool) {
        self.sink.flush(&self.translator);
        let (figures, stats) = (&self.sink.exchange.figures, self.follower.stats());
        figures.in_sync.set(in_sync.into());
        figures.routes.set(self.follower.routes_known() as u64);
        figures.locals.set(self.sink.locals.len() as u64);
        figures.overruns.set(stats.overruns);
        figures.resyncs.set(stats.resyncs);
        figures.dumps.set(stats.dumps);
        figures.malformed.set(stats.malformed);
    }
}

/// Where steps are carried out.
struct Sink {
    control: Control,
    exchange: Arc<Exchange>,
    locals: Locals,
    stop: Arc<AtomicBool>,
    /// Changes of routes that were not sent yet.
    pending: Vec<RouteChange>,
    /// Addresses the programs have no room for: packets for them go to the kernel by a route.
    without_room: HashSet<IpAddr>,
    told_full: bool,
}

impl Sink {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn take(&mut self, translator: &mut Translator, change: Change) {
        if self.stopped() {
            return;
        }
        // Steps are few for each change; those of routes, which are many, are one.
        let mut steps = Vec::new();
        translator.take(change, &mut |step| steps.push(step));
        for step in steps {
            self.carry_out(translator, step);
        }
    }

    fn carry_out(&mut self, translator: &Translator, step: Step) {
        if let Step::Route(change) = step {
            if change.to.as_ref().is_some_and(|to| translator.is_punted(to)) {
                add(&self.exchange.figures.punted, 1);
            }
            return self.route(translator, change);
        }
        // The order of what depends on each other is kept.
        self.flush(translator);
        let control = self.control.clone();
        let name =
            |interface| control.shared().interfaces.get(interface).map(|i| i.name()).unwrap_or_default();
        match step {
            Step::Route(_) => (),
            Step::Neighbor(interface, address, known) => self.neighbor(interface, address, known),
            Step::Addresses(interface, addresses) => {
                self.expect(self.done(|| control.host_addresses(interface, addresses.clone())));
            }
            Step::Lladdr(interface, mac) => {
                self.expect(self.done(|| control.ioctl(&name(interface), OwnedIoctl::SetLladdr(mac))));
            }
            Step::Mtu(interface, mtu) => {
                self.expect(self.done(|| control.ioctl(&name(interface), OwnedIoctl::SetMtu(mtu))));
            }
            Step::Local(address, there) => self.local(translator, address, there),
            Step::Warn(text) => eprintln!("nke: {text}"),
        }
    }

    fn route(&mut self, translator: &Translator, change: RouteChange) {
        self.pending.push(change);
        if self.pending.len() == BATCH {
            self.flush(translator);
        }
    }

    fn local(&mut self, translator: &Translator, address: IpAddr, there: bool) {
        let net = Net::host(address);
        if !there {
            self.locals.remove(address);
            if self.without_room.remove(&address) {
                self.route(translator, RouteChange { net, to: None });
            }
        } else if let Err(e) = self.locals.insert(address) {
            if self.without_room.is_empty() {
                eprintln!("nke: {e}; packets for such addresses go to the kernel by a route");
            }
            self.without_room.insert(address);
            self.route(translator, RouteChange { net, to: Some(translator.to_kernel()) });
        }
    }

    fn neighbor(&mut self, interface: IfIndex, address: IpAddr, known: InKernel) {
        let request = || self.control.inet(Request::KernelNeighbor(interface, address, known));
        let figure = match self.done(request) {
            Ok(()) => &self.exchange.figures.neighbor_changes,
            Err(_) => &self.exchange.figures.neighbors_rejected,
        };
        add(figure, 1);
    }

    /// Sends the changes of routes that wait.
    fn flush(&mut self, translator: &Translator) {
        if self.pending.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.pending, Vec::with_capacity(BATCH));
        add(&self.exchange.figures.route_changes, batch.len() as u64);
        if self.done(|| self.control.inet(Request::Routes(batch.clone()))).is_ok() {
            return;
        }
        // One of them was not carried out, or several: which, each says for itself. What is there already is there again.
        for change in batch {
            if let Err(Fault::Inet(e)) = self.change(&change) {
                self.no_room(translator, change, &e);
            }
        }
    }

    fn change(&self, change: &RouteChange) -> Result<(), Fault> {
        self.done(|| self.control.inet(Request::Routes(vec![change.clone()])))
    }

    /// A route that was not taken: it leads to the kernel instead, which needs no neighbour and no group.
    fn no_room(&mut self, translator: &Translator, change: RouteChange, why: &InetError) {
        let by_kernel = RouteChange { net: change.net, to: Some(translator.to_kernel()) };
        match change.to {
            // It was never taken.
            None => (),
            Some(RouteTo::Via(_)) if self.change(&by_kernel).is_ok() => {
                add(&self.exchange.figures.punted, 1);
            }
            Some(_) => {
                add(&self.exchange.figures.rejected, 1);
                if !std::mem::replace(&mut self.told_full, true) {
                    eprintln!(
                        "nke: {why}; its packets follow a shorter prefix, or none. See `rejected` of `nke show kernel`, and \
                         raise v4_blocks of [router]. This is said once"
                    );
                }
            }
        }
    }

    fn expect(&self, outcome: Result<(), Fault>) {
        if let Err(e) = outcome
            && !self.stopped()
        {
            eprintln!("nke: what the kernel says cannot be carried out: {e}");
        }
    }

    /// Asks the control thread for something and waits until it is done. A full queue is waited for, too.
    fn done<T>(&self, ask: impl Fn() -> Result<Ticket<T>, Fault>) -> Result<T, Fault> {
        loop {
            if self.stopped() {
                return Err(Fault::Ended);
            }
            let ticket = match ask() {
                Err(Fault::Overloaded) => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                other => other?,
            };
            loop {
                match ticket.wait(TICK) {
                    Err(Fault::Timeout) if !self.stopped() => (),
                    other => return other,
                }
            }
        }
    }
}

fn add(figure: &crate::status::Gauge, n: u64) {
    figure.set(figure.get() + n);
}

#[cfg(test)]
mod tests;
