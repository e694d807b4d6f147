//! Filter kinds: what is registered, and makes instances.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nke_mbuf::Owner;

use crate::host::Host;
use crate::interface::{Cookie, IfIndex, InterfaceFilter};

/// Number of an attached instance, never used twice in one run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AttachId(pub u32);

impl fmt::Display for AttachId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A value handed to a filter kind from configuration or command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArgValue {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// A switch.
    Switch(bool),
}

/// The arguments of one attachment, by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Args(pub BTreeMap<String, ArgValue>);

impl Args {
    /// The text called `name`, `None` when it is not given.
    pub fn text(&self, name: &str) -> Result<Option<&str>, CreateError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(ArgValue::Text(text)) => Ok(Some(text)),
            Some(_) => {
                Err(CreateError::new(format!("`{name}` is not text"), format!("write {name} = \"...\"")))
            }
        }
    }

    /// The number called `name`, within `range`; `default` when it is not given.
    pub fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
        default: i64,
    ) -> Result<i64, CreateError> {
        let given = match self.0.get(name) {
            None => return Ok(default),
            Some(ArgValue::Number(n)) => Some(*n),
            // The command line knows only text.
            Some(ArgValue::Text(text)) => text.parse().ok(),
            Some(ArgValue::Switch(_)) => None,
        };
        given.filter(|n| range.contains(n)).ok_or_else(|| {
            CreateError::new(
                format!("`{name}` is not a number from {} to {}", range.start(), range.end()),
                format!("write {name} = {default}"),
            )
        })
    }

    /// The switch called `name`; off when it is not given.
    pub fn switch(&self, name: &str) -> Result<bool, CreateError> {
        match self.0.get(name) {
            None => Ok(false),
            Some(ArgValue::Switch(on)) => Ok(*on),
            Some(ArgValue::Text(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(_) => {
                Err(CreateError::new(format!("`{name}` is not a switch"), format!("write {name} = true")))
            }
        }
    }

    /// Refuses names the kind does not know.
    pub fn only(&self, known: &[&str]) -> Result<(), CreateError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(CreateError::new(
                format!("unknown argument `{name}`"),
                format!(
                    "this kind takes: {}",
                    if known.is_empty() { "no arguments".into() } else { known.join(", ") }
                ),
            )),
        }
    }
}

/// Why an instance was not made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateError {
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub cure: String,
}

impl CreateError {
    /// An error with its cure.
    pub fn new(cause: impl Into<String>, cure: impl Into<String>) -> CreateError {
        CreateError { cause: cause.into(), cure: cure.into() }
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.cure)
    }
}

impl std::error::Error for CreateError {}

/// Where an instance is about to be attached.
pub struct AttachEnv {
    /// The dataplane, for everything an instance may ask of it.
    pub host: Arc<dyn Host>,
    /// Who is charged for what the instance takes.
    pub owner: Owner,
    /// The instance to be.
    pub attachment: AttachId,
    /// The interface.
    pub interface: IfIndex,
    /// The attacher's cookie.
    pub cookie: Cookie,
    /// How many workers may call at the same time.
    pub workers: usize,
}

/// A kind of interface filter (KPI: what `iflt_attach` gets as function pointers).
pub trait FilterKind: Send + Sync {
    /// The name it is registered and attached by.
    fn name(&self) -> &str;

    /// Makes an instance. On the control thread: may allocate, open files, start threads.
    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError>;

    /// After the last `detached` of the last instance, when the kind was unregistered. On the control thread.
    fn unregistered(&self) {}
}
