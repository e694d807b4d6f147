//! Errors for users: a stable id, what happened, why, what to do, and the exit code of a command that ends with it.

mod catalogue;
mod more;

use std::fmt;

use serde_json::{Value, json};

pub use catalogue::{CATALOGUE, Entry, Exit, entry};
pub use more::more;

use nke_filters::IfError;

use crate::arena::ArenaError;
use crate::fault::Fault;
use crate::inet::InetError;
use crate::port::xdp_open::OpenError;

/// An error with an entry in the catalogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    id: String,
    detail: String,
    cause: Option<String>,
    cure: Option<String>,
}

impl Error {
    /// Error `id`, of which `detail` says what exactly happened.
    pub fn new(id: &str, detail: impl Into<String>) -> Error {
        Error { id: id.to_owned(), detail: detail.into(), cause: None, cure: None }
    }

    /// The same with a cause and a cure that fit better than the catalogue's.
    pub fn because(mut self, cause: impl Into<String>, cure: impl Into<String>) -> Error {
        self.cause = Some(cause.into());
        self.cure = Some(cure.into());
        self
    }

    /// Stable identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What happened.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Why.
    pub fn cause(&self) -> &str {
        self.cause.as_deref().unwrap_or_else(|| entry(&self.id).map_or("", |e| e.cause))
    }

    /// What to do.
    pub fn cure(&self) -> &str {
        self.cure.as_deref().unwrap_or_else(|| entry(&self.id).map_or("", |e| e.cure))
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        entry(&self.id).map_or(Exit::Failed, |e| e.exit) as u8
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        json!({ "id": self.id, "message": self.detail, "cause": self.cause(), "cure": self.cure() })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.id, self.detail)?;
        write!(f, "\n  cause: {}\n  cure:  {}", self.cause(), self.cure())
    }
}

impl std::error::Error for Error {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let detail = fault.to_string();
        let id = match &fault {
            Fault::NoKind(_) => "NKE-EXT-001",
            Fault::NoAttachment(_) => "NKE-EXT-002",
            Fault::Create(e) => return Error::new("NKE-EXT-003", detail).because(&*e.cause, &*e.cure),
            Fault::CreatePanicked(_) => "NKE-EXT-004",
            Fault::Busy(_) | Fault::Stopping(_) => "NKE-EXT-005",
            Fault::KindExists(_) => "NKE-EXT-006",
            Fault::WrongLayer(..) => "NKE-EXT-009",
            Fault::NoInterface(_) => "NKE-EXT-007",
            Fault::TooMany(_) => "NKE-EXT-008",
            Fault::Interface(IfError::NameTaken(_) | IfError::Exists) => "NKE-IF-001",
            Fault::Interface(IfError::Full(..)) => "NKE-IF-002",
            Fault::Interface(IfError::NotAttached) => "NKE-IF-003",
            Fault::Interface(IfError::Invalid(_)) => "NKE-IF-004",
            Fault::Interface(IfError::NotSupported | IfError::Refused(_)) => "NKE-IF-005",
            Fault::Inet(
                InetError::RoutesFull(_) | InetError::GroupsFull(_) | InetError::NeighborsFull(_),
            ) => "NKE-NET-001",
            Fault::Inet(InetError::NoSuchRouter(..) | InetError::NoNextHop(_)) => "NKE-NET-002",
            Fault::Inet(InetError::NoRoute(_)) => "NKE-NET-003",
            Fault::Overloaded => "NKE-RT-002",
            Fault::Ended => "NKE-RT-003",
            Fault::WouldDeadlock | Fault::Timeout => "NKE-RT-004",
        };
        Error::new(id, detail)
    }
}

impl From<af_xdp::Error> for Error {
    fn from(e: af_xdp::Error) -> Error {
        Error::new(e.id(), e.what()).because(e.cause(), e.cure())
    }
}

impl From<ArenaError> for Error {
    fn from(e: ArenaError) -> Error {
        match e {
            ArenaError::Umem(e) => e.into(),
            ArenaError::Pool(e) => Error::new("NKE-RT-001", e.to_string()),
        }
    }
}

impl From<OpenError> for Error {
    fn from(e: OpenError) -> Error {
        let detail = e.to_string();
        match e {
            OpenError::Xdp(e) => e.into(),
            OpenError::Netns(_, e) if e.raw_os_error() == Some(libc::EPERM) => {
                Error::new("NKE-PRIV-001", detail)
                    .because("CAP_SYS_ADMIN missing", "run as root, or start NKE inside the namespace")
            }
            OpenError::Netns(..) => Error::new("NKE-DEV-003", detail),
            OpenError::Device(_, e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                Error::new("NKE-PRIV-001", detail)
            }
            OpenError::Device(..) => Error::new("NKE-DEV-001", detail),
            OpenError::Pool { .. } => Error::new("NKE-RT-001", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_shown_comes_from_the_catalogue_unless_said_otherwise() {
        let plain = Error::new("NKE-DEV-001", "eth9: no such device");
        assert_eq!((plain.exit_code(), plain.cure()), (5, "see `ip link`, and `nke doctor DEVICE`"));
        let special = plain.clone().because("it was unplugged", "plug it in");
        assert_eq!(
            special.to_string(),
            "error[NKE-DEV-001]: eth9: no such device\n  cause: it was unplugged\n  cure:  plug it in"
        );
        assert_eq!(special.to_json()["cure"], "plug it in");
        // An id of another version of NKE, come over the control socket.
        assert_eq!(Error::new("NKE-NEW-001", "?").exit_code(), 1);
    }

    /// Every id that this package gives out has an entry.
    #[test]
    fn ids_in_the_sources_are_known() {
        fn look(directory: &Path, found: &mut Vec<String>) {
            for path in std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()) {
                if path.is_dir() {
                    look(&path, found);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
                    let id = |word: &&str| {
                        word.starts_with("NKE-")
                            && word.chars().all(|c| c == '-' || c.is_ascii_uppercase() || c.is_ascii_digit())
                    };
                    found.extend(shipped.split('"').filter(id).map(str::to_owned));
                }
            }
        }
        let mut found = Vec::new();
        look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > CATALOGUE.iter().filter(|e| e.id.starts_with("NKE-")).count());
        for id in found {
            assert!(entry(&id).is_some(), "{id} has no entry");
        }
    }
}
