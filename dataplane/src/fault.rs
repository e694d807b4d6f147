//! What can go wrong with a request to the running dataplane.

use std::fmt;

use nke_filters::{AttachId, CreateError, IfError};

use crate::inet::InetError;

/// Something that keeps an extension from going.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Kind of resource, as in `nke_filters::HoldKind`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// How long it has been held, in milliseconds.
    pub age_ms: u64,
    /// Where it was taken, when known.
    pub made_at: String,
}

/// Why a request was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No filter kind of this name is registered.
    NoKind(String),
    /// A filter kind of this name is registered already (KPI: EEXIST).
    KindExists(String),
    /// The extension has no kind for this place: an interface filter for IP, or the other way round.
    WrongLayer(String, String),
    /// No interface of this name (KPI: ENXIO).
    NoInterface(String),
    /// No instance of this number, or it is being detached already.
    NoAttachment(AttachId),
    /// The Interface KPI said no.
    Interface(IfError),
    /// The IP layer said no.
    Inet(InetError),
    /// The kind refused to make an instance.
    Create(CreateError),
    /// The kind panicked while it made an instance.
    CreatePanicked(String),
    /// The kind is being unregistered.
    Stopping(String),
    /// As many instances are attached as there can be.
    TooMany(usize),
    /// The extension still holds something; it stays.
    Busy(Vec<Holder>),
    /// Too many requests are waiting for the control thread.
    Overloaded,
    /// The control thread has ended.
    Ended,
    /// A worker or the control thread asked to wait for the control thread: it would wait for itself. The request
    /// itself goes on.
    WouldDeadlock,
    /// Not done in time; the request goes on.
    Timeout,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoKind(name) => write!(f, "no filter kind is called `{name}`"),
            Fault::KindExists(name) => write!(f, "a filter kind is called `{name}` already"),
            Fault::WrongLayer(name, point) => write!(f, "`{name}` cannot be attached to `{point}`"),
            Fault::Interface(e) => e.fmt(f),
            Fault::Inet(e) => e.fmt(f),
            Fault::NoInterface(name) => write!(f, "no interface is called `{name}`"),
            Fault::NoAttachment(id) => write!(f, "no filter is attached under number {id}"),
            Fault::Create(e) => write!(f, "{e}"),
            Fault::CreatePanicked(name) => {
                write!(f, "filter kind `{name}` panicked while making an instance")
            }
            Fault::Stopping(name) => write!(f, "filter kind `{name}` is being unregistered"),
            Fault::TooMany(max) => write!(f, "{max} filters are attached already, which is the most"),
            Fault::Busy(holders) => {
                write!(f, "still in use:")?;
                holders.iter().try_for_each(|h| write!(f, " {} {} ({} ms)", h.kind, h.name, h.age_ms))
            }
            Fault::Overloaded => f.write_str("too many requests are waiting"),
            Fault::Ended => f.write_str("the dataplane has ended"),
            Fault::WouldDeadlock => {
                f.write_str("a worker or the control thread cannot wait for the control thread")
            }
            Fault::Timeout => f.write_str("not done in time"),
        }
    }
}

impl std::error::Error for Fault {}
