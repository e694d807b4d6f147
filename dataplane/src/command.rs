//! What the control thread is asked for, and where its answers go.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use nke_filters::{
    Args, AttachId, IfEventKind, IfFamily, IfFlags, IfIndex, Plumber, ProtocolFamily, ProtocolSpec,
};
use nke_mbuf::Owner;
use nke_mbuf::wire::EtherAddr;
use serde_json::Value;

use crate::control_handle::AttachSpec;
use crate::fault::Fault;
use crate::inet::Request;
use crate::kinds::Kind;
use crate::mirror::Exchange;
use crate::report::{DetachReport, Figures, UnloadReport};
use crate::snapshot::Instance;
use crate::views::View;

/// Requests that may wait for the control thread.
pub const COMMANDS_MAX: usize = 1024;
/// Where the answer to a request goes; `None` when nobody waits.
pub type Reply<T> = Option<Sender<Result<T, Fault>>>;

/// A request to the control thread.
#[allow(missing_docs, reason = "each is a method of `Control`, documented there")]
pub enum Command {
    Register {
        kind: Kind,
        reply: Reply<()>,
    },
    Unregister {
        name: String,
        wait: Duration,
        reply: Reply<UnloadReport>,
    },
    Attach {
        spec: Box<AttachSpec>,
        reply: Reply<AttachId>,
    },
    Detach {
        id: AttachId,
        reply: Reply<DetachReport>,
    },
    Refit {
        attach: Vec<AttachSpec>,
        detach: Vec<AttachId>,
        reply: Reply<Vec<AttachId>>,
    },
    Paths {
        id: AttachId,
        reply: Reply<Value>,
    },
    Figures {
        id: AttachId,
        reply: Reply<Figures>,
    },
    View {
        view: View,
        reply: Reply<Value>,
    },
    /// An extension attaches an instance of its own.
    AttachInstance {
        id: AttachId,
        owner: Owner,
        name: String,
        interface: IfIndex,
        filter: Instance,
    },
    IfAttach {
        interface: IfIndex,
    },
    IfDetach {
        interface: IfIndex,
        reply: Reply<()>,
    },
    AttachProtocol {
        owner: Owner,
        interface: IfIndex,
        family: ProtocolFamily,
        spec: ProtocolSpec,
    },
    DetachProtocol {
        interface: IfIndex,
        family: ProtocolFamily,
    },
    RegisterPlumber {
        owner: Owner,
        family: ProtocolFamily,
        interfaces: IfFamily,
        plumber: Arc<dyn Plumber>,
    },
    UnregisterPlumber {
        family: ProtocolFamily,
        interfaces: IfFamily,
    },
    /// An interface of a registered kind.
    Create {
        kind: String,
        name: String,
        args: Args,
        reply: Reply<IfIndex>,
    },
    Address {
        interface: String,
        address: IpAddr,
        len: u8,
        add: bool,
        reply: Reply<()>,
    },
    Ioctl {
        interface: IfIndex,
        request: OwnedIoctl,
        reply: Reply<()>,
    },
    Inet {
        request: Request,
        reply: Reply<()>,
    },
    /// The addresses that the kernel has on an interface.
    HostAddresses {
        interface: IfIndex,
        addresses: Vec<(IpAddr, u8)>,
        reply: Reply<()>,
    },
    /// Somebody follows the kernel's tables.
    Follow {
        exchange: Arc<Exchange>,
    },
    /// Something happened to an interface.
    Event {
        interface: IfIndex,
        kind: IfEventKind,
    },
    /// What devices can has changed, or all begins.
    Doors {
        running: Option<bool>,
    },
    /// Detach everything, unregister everything, end.
    Stop,
}

/// A request to an interface that can wait in a queue; see [`nke_filters::IfIoctl`].
#[derive(Clone, Debug)]
pub enum OwnedIoctl {
    /// [`nke_filters::IfIoctl::SetMtu`].
    SetMtu(u32),
    /// [`nke_filters::IfIoctl::SetFlags`].
    SetFlags(IfFlags),
    /// [`nke_filters::IfIoctl::SetLladdr`].
    SetLladdr(EtherAddr),
    /// [`nke_filters::IfIoctl::AddMulti`].
    AddMulti(IpAddr),
    /// [`nke_filters::IfIoctl::DelMulti`].
    DelMulti(IpAddr),
}

/// Answers, if somebody waits.
pub(crate) fn answer<T>(reply: Reply<T>, result: Result<T, Fault>) {
    if let Some(reply) = reply {
        // The asker may have gone; the channel has room for its one answer.
        let _ = reply.try_send(result);
    }
}
