//! Errors that say what to do. The kernel answers set-up mistakes with a bare number; each error here adds the cause,
//! probed where possible, and a cure.

use std::fmt;
use std::io;

/// Why a UMEM, socket or program could not be set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    id: &'static str,
    what: String,
    cause: String,
    cure: String,
    errno: Option<i32>,
}

impl Error {
    pub(crate) fn new(
        id: &'static str,
        what: impl Into<String>,
        cause: impl Into<String>,
        cure: impl Into<String>,
    ) -> Error {
        Error { id, what: what.into(), cause: cause.into(), cure: cure.into(), errno: None }
    }

    pub(crate) fn with_errno(mut self, errno: i32) -> Error {
        self.errno = Some(errno);
        self
    }

    /// Stable identifier, such as `AFXDP-BIND-BUSY`.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// What was tried.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Why it failed.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do about it.
    pub fn cure(&self) -> &str {
        &self.cure
    }

    /// What the kernel answered, if it was the kernel.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    /// An error of a call that needs privilege: names the missing capability when that is the reason.
    pub(crate) fn privileged(
        id: &'static str,
        what: impl Into<String>,
        capabilities: &[(u32, &str)],
        error: &io::Error,
    ) -> Error {
        let errno = error.raw_os_error().unwrap_or(0);
        let what = what.into();
        let missing: Vec<_> =
            capabilities.iter().filter(|(bit, _)| !has_capability(*bit)).map(|(_, name)| *name).collect();
        let error = if matches!(errno, libc::EPERM | libc::EACCES) && !missing.is_empty() {
            let missing = missing.join(" and ");
            Error::new(
                "AFXDP-PRIVILEGE",
                what,
                format!("{missing} missing"),
                format!("run as root, or grant {missing}"),
            )
        } else {
            Error::new(id, what, error.to_string(), "see the kernel log, and `nke doctor`")
        };
        error.with_errno(errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.id, self.what, self.cause, self.cure)
    }
}

impl std::error::Error for Error {}

pub(crate) const CAP_NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
pub(crate) const CAP_NET_RAW: (u32, &str) = (13, "CAP_NET_RAW");
pub(crate) const CAP_BPF: (u32, &str) = (39, "CAP_BPF");

/// Whether this process has a capability in effect.
fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    // Unreadable: do not blame a capability that may be there.
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_none_or(|caps| caps >> bit & 1 == 1)
}
