//! The filters that come with NKE. Each is small, uses nothing but the contract, and is meant to be copied.

pub mod acl;
mod count;
mod drop;
mod mirror;

use std::sync::Arc;

pub use acl::Acl;
pub use count::Count;
pub use drop::Drop;
pub use mirror::Mirror;

use crate::expr::Expr;
use crate::ip::IpFilterKind;
use crate::kind::{Args, CreateError, FilterKind};

/// All of them, to be registered.
pub fn all() -> Vec<Arc<dyn FilterKind>> {
    vec![Arc::new(Count), Arc::new(Drop), Arc::new(Mirror)]
}

/// All IP filters, to be registered.
pub fn all_ip() -> Vec<Arc<dyn IpFilterKind>> {
    vec![Arc::new(Acl)]
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
