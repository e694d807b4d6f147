//! What an extension may ask of the dataplane.

use std::fmt;

use nke_mbuf::{Mbuf, Owner, TagId};

use std::sync::Arc;

use crate::ifnet::IfFamily;
use crate::ifnet::{IfError, IfParams, Ifnet, IfnetDriver};
use crate::interface::{IfIndex, InterfaceFilter};
use crate::ip::{Family, IpFilter};
use crate::kind::AttachId;
use crate::ledger::{Hold, HoldKind};
use crate::protocol::{LinkDest, Plumber, ProtocolFamily, ProtocolSpec};
use crate::recorder::{RecordFile, Recorder};
use crate::verdict::DropReason;

/// Why the dataplane said no.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostError {
    /// A table of fixed size is full: which one, and its size.
    Full(&'static str, usize),
    /// Something of this name or number does not exist.
    NotFound(String),
    /// The system refused: what was tried and what it said.
    System(String),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Full(table, size) => write!(f, "the table of {table} is full ({size})"),
            HostError::NotFound(what) => write!(f, "{what} does not exist"),
            HostError::System(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for HostError {}

/// A packet the dataplane did not take, given back.
#[derive(Debug)]
pub enum Refused {
    /// No interface of that number.
    NoInterface(Mbuf),
    /// The interface's injection queue is full.
    QueueFull(Mbuf),
    /// Not an IP packet, or no interface does IP.
    NotIp(Mbuf),
    /// The packet was injected too often: a filter does not know its own packets again.
    Loop(Mbuf),
}

impl Refused {
    /// The packet.
    pub fn into_mbuf(self) -> Mbuf {
        match self {
            Refused::NoInterface(m) | Refused::QueueFull(m) | Refused::NotIp(m) | Refused::Loop(m) => m,
        }
    }
}

/// The dataplane as extensions see it. Every call may come from any thread; those marked *path* neither block nor
/// call the kernel, the others belong into `create`, `event` and `detached`.
pub trait Host: Send + Sync {
    /// *Path.* Puts a packet into `interface` as if it had been received: all its input filters see it, the caller's
    /// too. The caller marks the packet with a tag of its own to know it again; a packet that is injected more than
    /// eight times is refused.
    fn inject_input(&self, interface: IfIndex, packet: Mbuf) -> Result<(), Refused>;

    /// *Path.* Sends a framed packet by `interface`: all its output filters see it.
    fn inject_output(&self, interface: IfIndex, packet: Mbuf) -> Result<(), Refused>;

    /// *Path.* Sends a packet of a protocol that is attached to `interface` (KPI: `ifnet_output`): the protocol's pre-output
    /// says how to frame it.
    fn inject_protocol(
        &self,
        interface: IfIndex,
        family: ProtocolFamily,
        dest: LinkDest,
        packet: Mbuf,
    ) -> Result<(), Refused>;

    /// *Path.* Puts an IP packet (data at its IP header) in as if it had just been received and validated: it is routed
    /// anew, and IP filters see it again. With `after`, filters up to and including that instance in the order of the
    /// hook do not (KPI: `ipf_inject_input` with a reference); the mark is used up at the first hook.
    fn ip_inject_input(&self, packet: Mbuf, after: Option<AttachId>) -> Result<(), Refused>;

    /// *Path.* Routes and sends an IP packet (data at its IP header): output filters see it, with `after` only those
    /// behind that instance (KPI: `ipf_inject_output`).
    fn ip_inject_output(&self, packet: Mbuf, after: Option<AttachId>) -> Result<(), Refused>;

    /// *Path.* Asks the control thread to detach an instance. Also from inside the instance's own callbacks.
    fn detach(&self, attachment: AttachId) -> Result<(), HostError>;

    /// Attaches an instance of the extension's own to an interface (KPI: `iflt_attach`), or to IP (`ipf_addv4`,
    /// `ipf_addv6`): the number is fixed now, the control thread carries it out. Its `detached` is called also when it
    /// could not be attached.
    fn attach_filter(
        &self,
        owner: Owner,
        name: &str,
        interface: IfIndex,
        filter: Box<dyn InterfaceFilter>,
    ) -> Result<AttachId, HostError>;

    /// The same for IP.
    fn attach_ip_filter(
        &self,
        owner: Owner,
        name: &str,
        family: Family,
        filter: Box<dyn IpFilter>,
    ) -> Result<AttachId, HostError>;

    /// Makes an interface, embryonic until [`Ifnet::attach`] (KPI: `ifnet_allocate`).
    fn ifnet_allocate(
        &self,
        owner: Owner,
        params: IfParams,
        driver: Arc<dyn IfnetDriver>,
    ) -> Result<Ifnet, IfError>;

    /// See [`Ifnet::attach`].
    fn ifnet_attach(&self, interface: IfIndex) -> Result<(), IfError>;

    /// See [`Ifnet::detach`].
    fn ifnet_detach(&self, interface: IfIndex) -> Result<(), IfError>;

    /// A reference to the attached interface called `name` (KPI: `ifnet_find_by_name`).
    fn ifnet_find(&self, name: &str) -> Result<Ifnet, IfError>;

    /// What is known of an interface: `None` when there is none of that number.
    fn ifnet_info(&self, interface: IfIndex) -> Option<IfParams>;

    /// Attaches a protocol to an interface (KPI: `ifnet_attach_protocol`): asked for now, done by the control thread.
    fn attach_protocol(
        &self,
        owner: Owner,
        interface: IfIndex,
        family: ProtocolFamily,
        spec: ProtocolSpec,
    ) -> Result<(), IfError>;

    /// Detaches it (KPI: `ifnet_detach_protocol`); the protocol hears `detached` after a grace period.
    fn detach_protocol(&self, interface: IfIndex, family: ProtocolFamily) -> Result<(), IfError>;

    /// Registers a plumber for a pair of families (KPI: `proto_register_plumber`).
    fn register_plumber(
        &self,
        owner: Owner,
        family: ProtocolFamily,
        interfaces: IfFamily,
        plumber: Arc<dyn Plumber>,
    ) -> Result<(), IfError>;

    /// Takes a plumber back (KPI: `proto_unregister_plumber`). What it plumbed stays attached.
    fn unregister_plumber(&self, family: ProtocolFamily, interfaces: IfFamily);

    /// An empty packet charged to `owner`, for threads other than workers. `None` when the pool is exhausted.
    fn alloc(&self, owner: Owner) -> Option<Mbuf>;

    /// The interface called `name`.
    fn interface_by_name(&self, name: &str) -> Option<IfIndex>;

    /// A named reason for policy drops, made on first use. The name is shown with the extension's in front.
    fn drop_reason(&self, owner: Owner, name: &str) -> Result<DropReason, HostError>;

    /// The tag id of `name`, made on first use and kept (KPI: `mbuf_tag_id_find`).
    fn tag_id(&self, name: &str) -> Result<TagId, HostError>;

    /// Enters a resource of the extension in the ledger.
    fn hold(&self, owner: Owner, kind: HoldKind, name: &str) -> Hold;

    /// Makes a capture file and starts a recorder that writes it; its thread and file are charged to `owner`.
    fn recorder(&self, owner: Owner, file: &RecordFile) -> Result<Box<dyn Recorder>, HostError>;
}
