//! How any thread asks the control thread for a change: a request, and a ticket to wait on or to let go.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use nke_filters::{
    Args, AttachId, Cookie, Family, FilterKind, HostError, IfIndex, IfnetKind, InterfaceFilter, IpFilter,
    IpFilterKind, ProbeKind,
};
use serde_json::Value;

use crate::caught::guarded;
use crate::command::{Command, OwnedIoctl, Reply};
use crate::fault::Fault;
use crate::inet::Request;
use crate::kinds::Kind;
use crate::mirror::Exchange;
use crate::report::{DetachReport, Figures, UnloadReport};
use crate::shared::{Shared, may_wait_here};
use crate::snapshot::{Directions, OnPanic};
use crate::views::View;

/// What makes the instance to be attached.
pub enum Maker {
    /// A registered kind.
    Kind(String),
    /// The attacher itself; the name is shown to users and charged.
    Instance(String, Box<dyn InterfaceFilter>),
    /// The same for an IP filter.
    IpInstance(String, Box<dyn IpFilter>),
}

/// Where a filter is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Point {
    /// To an interface, by its name.
    Interface(String),
    /// To a version of IP.
    Ip(Family),
    /// To the path as a whole: a probe.
    Path,
}

impl Point {
    /// `ip` and `ip6` are the two versions of IP, `path` is the path, anything else is an interface.
    pub fn named(name: &str) -> Point {
        match name {
            "ip" => Point::Ip(Family::V4),
            "ip6" => Point::Ip(Family::V6),
            "path" => Point::Path,
            _ => Point::Interface(name.to_owned()),
        }
    }

    /// As users write it.
    pub fn name(&self) -> &str {
        match self {
            Point::Interface(name) => name,
            Point::Ip(family) => family.name(),
            Point::Path => "path",
        }
    }
}

/// A request to attach.
pub struct AttachSpec {
    /// What to attach.
    pub maker: Maker,
    /// Where.
    pub point: Point,
    /// Interface filters: which directions it sees.
    pub directions: Directions,
    /// Interface filters: only this ethertype, or all.
    pub protocol: Option<u16>,
    /// Given back at every call.
    pub cookie: Cookie,
    /// What a panic means for the packets.
    pub on_panic: OnPanic,
    /// For the kind.
    pub args: Args,
}

impl AttachSpec {
    /// Kind `kind` at `point` (see [`Point::named`]), both directions, all protocols.
    pub fn kind(kind: &str, point: &str) -> AttachSpec {
        AttachSpec {
            maker: Maker::Kind(kind.to_owned()),
            point: Point::named(point),
            directions: Directions::BOTH,
            protocol: None,
            cookie: Cookie(0),
            on_panic: OnPanic::Open,
            args: Args::default(),
        }
    }

    /// Instance `filter`, called `name`, on `interface`, both directions, all protocols.
    pub fn instance(name: &str, interface: &str, filter: Box<dyn InterfaceFilter>) -> AttachSpec {
        AttachSpec { maker: Maker::Instance(name.to_owned(), filter), ..AttachSpec::kind(name, interface) }
    }

    /// Instance `filter`, called `name`, for packets of `family`.
    pub fn ip_instance(name: &str, family: Family, filter: Box<dyn IpFilter>) -> AttachSpec {
        let maker = Maker::IpInstance(name.to_owned(), filter);
        AttachSpec { maker, ..AttachSpec::kind(name, family.name()) }
    }

    /// Lets it go unattached. An instance is an extension's: a panic in its drop is caught.
    pub(crate) fn refuse(self) {
        guarded(|| drop(self));
    }
}

/// A request under way. Letting it go is fine: the request is carried out all the same.
#[must_use = "wait on the ticket, or drop it on purpose"]
pub struct Ticket<T>(Receiver<Result<T, Fault>>);

impl<T> Ticket<T> {
    /// Waits until the request is done, at most `timeout`.
    ///
    /// From inside a filter callback this answers [`Fault::WouldDeadlock`] at once: the control thread may be waiting
    /// for that very callback to return. The request goes on.
    pub fn wait(&self, timeout: Duration) -> Result<T, Fault> {
        if !may_wait_here() {
            return Err(Fault::WouldDeadlock);
        }
        match self.0.recv_timeout(timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(Fault::Timeout),
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Ended),
        }
    }
}

/// The way to the control thread. Cloning gives another one.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Control {
        Control(shared)
    }

    /// The tables and counters, to be read.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<Ticket<T>, Fault> {
        let (reply, answer) = bounded(1);
        match self.0.command(command(Some(reply))) {
            Ok(()) => Ok(Ticket(answer)),
            Err(HostError::Full(..)) => Err(Fault::Overloaded),
            Err(_) => Err(Fault::Ended),
        }
    }

    /// Registers a kind of interface filter under its name.
    pub fn register(&self, kind: Arc<dyn FilterKind>) -> Result<Ticket<()>, Fault> {
        self.ask(|reply| Command::Register { kind: Kind::Interface(kind), reply })
    }

    /// Registers a kind of IP filter. It may have the name of a kind of interface filter: both are one extension then.
    pub fn register_ip(&self, kind: Arc<dyn IpFilterKind>) -> Result<Ticket<()>, Fault> {
        self.ask(|reply| Command::Register { kind: Kind::Ip(kind), reply })
    }

    /// Registers a kind of probe, with a name of its own or that of filters.
    pub fn register_probe(&self, kind: Arc<dyn ProbeKind>) -> Result<Ticket<()>, Fault> {
        self.ask(|reply| Command::Register { kind: Kind::Probe(kind), reply })
    }

    /// Registers a kind of interface.
    pub fn register_ifnet(&self, kind: Arc<dyn IfnetKind>) -> Result<Ticket<()>, Fault> {
        self.ask(|reply| Command::Register { kind: Kind::Ifnet(kind), reply })
    }

    /// Makes an interface of a registered kind and attaches it.
    pub fn create_interface(&self, kind: &str, name: &str, args: Args) -> Result<Ticket<IfIndex>, Fault> {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        self.ask(|reply| Command::Create { kind, name, args, reply })
    }

    /// Takes an interface away: filters and protocols are detached, routes by it go. Done when its driver had its last call.
    pub fn detach_interface(&self, name: &str) -> Result<Ticket<()>, Fault> {
        let interface = self.index_of(name)?;
        self.ask(|reply| Command::IfDetach { interface, reply })
    }

    fn index_of(&self, name: &str) -> Result<IfIndex, Fault> {
        self.0.interface(name).map(|i| i.index).ok_or_else(|| Fault::NoInterface(name.to_owned()))
    }

    /// Gives an interface an address, with the length of its network's prefix.
    pub fn add_address(&self, interface: &str, address: IpAddr, len: u8) -> Result<Ticket<()>, Fault> {
        let interface = interface.to_owned();
        self.ask(|reply| Command::Address { interface, address, len, add: true, reply })
    }

    /// Takes an address away.
    pub fn remove_address(&self, interface: &str, address: IpAddr) -> Result<Ticket<()>, Fault> {
        let interface = interface.to_owned();
        self.ask(|reply| Command::Address { interface, address, len: 0, add: false, reply })
    }

    /// A request to an interface: its filters, protocols and driver are asked (KPI: `ifnet_ioctl`).
    pub fn ioctl(&self, interface: &str, request: OwnedIoctl) -> Result<Ticket<()>, Fault> {
        let interface = self.index_of(interface)?;
        self.ask(|reply| Command::Ioctl { interface, request, reply })
    }

    /// A change of routes or neighbours.
    pub fn inet(&self, request: Request) -> Result<Ticket<()>, Fault> {
        self.ask(|reply| Command::Inet { request, reply })
    }

    /// Tells which addresses the kernel has on an interface, which then takes IP, without resolving neighbours.
    pub fn host_addresses(
        &self,
        interface: IfIndex,
        addresses: Vec<(IpAddr, u8)>,
    ) -> Result<Ticket<()>, Fault> {
        self.ask(|reply| Command::HostAddresses { interface, addresses, reply })
    }

    /// Makes known who follows the kernel's tables.
    pub fn follow(&self, exchange: Arc<Exchange>) -> Result<(), Fault> {
        self.0.command(Command::Follow { exchange }).map_err(|_| Fault::Overloaded)
    }

    /// Unregisters a kind: detaches its instances, waits up to `wait` for everything it holds to come back, and then
    /// calls `unregistered`. [`Fault::Busy`] when something is still held; the kind stays registered then, without
    /// instances.
    pub fn unregister(&self, name: &str, wait: Duration) -> Result<Ticket<UnloadReport>, Fault> {
        self.ask(|reply| Command::Unregister { name: name.to_owned(), wait, reply })
    }

    /// Attaches an instance. The ticket is done when every worker runs it.
    pub fn attach(&self, spec: AttachSpec) -> Result<Ticket<AttachId>, Fault> {
        self.ask(|reply| Command::Attach { spec: Box::new(spec), reply })
    }

    /// Detaches an instance. The ticket is done after `detached` was called and the instance is gone.
    pub fn detach(&self, id: AttachId) -> Result<Ticket<DetachReport>, Fault> {
        self.ask(|reply| Command::Detach { id, reply })
    }

    /// Attaches and detaches in one step: each worker goes from the old chains to the new ones between two bursts, so that no packet
    /// meets both an old instance and the one in its place, or neither. All of it, or nothing and an error. Done when every worker
    /// runs the new chains; the old instances have their last calls after that.
    pub fn refit(
        &self,
        attach: Vec<AttachSpec>,
        detach: Vec<AttachId>,
    ) -> Result<Ticket<Vec<AttachId>>, Fault> {
        self.ask(|reply| Command::Refit { attach, detach, reply })
    }

    /// The ways packets took, as a probe tells it: see [`crate::views::paths`].
    pub fn paths(&self, id: AttachId) -> Result<Ticket<Value>, Fault> {
        self.ask(|reply| Command::Paths { id, reply })
    }

    /// The figures of an instance.
    pub fn figures(&self, id: AttachId) -> Result<Ticket<Figures>, Fault> {
        self.ask(|reply| Command::Figures { id, reply })
    }

    /// A table for users, as an array of flat objects.
    pub fn view(&self, view: View) -> Result<Ticket<Value>, Fault> {
        self.ask(|reply| Command::View { view, reply })
    }
}
