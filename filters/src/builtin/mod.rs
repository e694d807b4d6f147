//! The filters that come with NKE. Each is small, uses nothing but the contract, and is meant to be copied.

pub mod acl;
mod capture;
mod checksum;
pub mod cipher;
mod conntrack;
mod count;
mod drop;
mod mirror;
mod nat;
pub mod policer;
mod stay;
mod trace;

use std::sync::Arc;

pub use acl::Acl;
pub use capture::Capture;
pub use checksum::ChecksumFilter;
pub use cipher::Cipher;
pub use conntrack::Conntrack;
pub use count::Count;
pub use drop::Drop;
pub use mirror::Mirror;
pub use nat::Nat;
pub use policer::Policer;
pub use trace::Trace;

use crate::expr::Expr;
use crate::ip::{IpFilterKind, IpHook, IpHooks};
use crate::kind::{Args, CreateError, FilterKind};
use crate::probe::ProbeKind;

/// All kinds of interface filters, to be registered.
pub fn all() -> Vec<Arc<dyn FilterKind>> {
    vec![
        // One line for each.
        Arc::new(Capture),
        Arc::new(ChecksumFilter),
        Arc::new(Cipher),
        Arc::new(Count),
        Arc::new(Drop),
        Arc::new(Mirror),
        Arc::new(Policer),
    ]
}

/// All kinds of IP filters.
pub fn all_ip() -> Vec<Arc<dyn IpFilterKind>> {
    vec![
        // One line for each.
        Arc::new(Acl),
        Arc::new(Capture),
        Arc::new(Conntrack),
        Arc::new(Nat),
        Arc::new(Policer),
    ]
}

/// All kinds of probes.
pub fn all_probes() -> Vec<Arc<dyn ProbeKind>> {
    vec![
        // One line for each.
        Arc::new(Capture),
        Arc::new(Trace),
    ]
}

/// The argument `hook`: names of hooks with commas between them; `default` when it is not given.
fn hook_arg(args: &Args, default: &str) -> Result<IpHooks, CreateError> {
    let mut names = args.text("hook")?.unwrap_or(default).split(',').map(str::trim);
    names.try_fold(IpHooks::NONE, |hooks, name| {
        let hook = IpHook::ALL.into_iter().find(|hook| hook.name() == name);
        hook.map(|hook| hooks.with(hook)).ok_or_else(|| {
            CreateError::new(
                format!("`hook` cannot be `{name}`"),
                "write one of: prerouting, input, forward, output; several with commas",
            )
        })
    })
}

/// The argument `match`, as an expression; `None` when it is not given.
fn match_arg(args: &Args) -> Result<Option<Expr>, CreateError> {
    let Some(text) = args.text("match")? else { return Ok(None) };
    Expr::parse(text).map(Some).map_err(|e| {
        CreateError::new(
            format!("`match` does not parse: {e}"),
            "see docs/expressions.md for what can be written",
        )
    })
}
