//! The filters that come with NKE. Each is small, uses nothing but the contract, and is meant to be copied.

pub mod acl;
mod checksum;
pub mod cipher;
mod conntrack;
mod count;
mod drop;
mod mirror;
mod nat;
pub mod policer;

use std::sync::Arc;

pub use acl::Acl;
pub use checksum::ChecksumFilter;
pub use cipher::Cipher;
pub use conntrack::Conntrack;
pub use count::Count;
pub use drop::Drop;
pub use mirror::Mirror;
pub use nat::Nat;
pub use policer::Policer;

use crate::expr::Expr;
use crate::ip::IpFilterKind;
use crate::kind::{Args, CreateError, FilterKind};

/// All kinds of interface filters, to be registered.
pub fn all() -> Vec<Arc<dyn FilterKind>> {
    vec![
        // One line for each.
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
        Arc::new(Conntrack),
        Arc::new(Nat),
        Arc::new(Policer),
    ]
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
