//! `drop`: drops what matches an expression, with a policy drop reason of its own.
//!
//! Arguments: `match` (expression; without it everything is dropped), `reason` (name of the drop reason; default
//! `match`).

use super::match_arg;
use crate::expr::Expr;
use crate::{Args, AttachEnv, Batch, CreateError, Cx, DropReason, FilterKind, InterfaceFilter};

/// The kind.
pub struct Drop;

impl FilterKind for Drop {
    fn name(&self) -> &str {
        "drop"
    }

    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        args.only(&["match", "reason"])?;
        let name = args.text("reason")?.unwrap_or("match");
        let reason = env.host.drop_reason(env.owner, name).map_err(|e| {
            CreateError::new(e.to_string(), "use a reason that another drop filter already has")
        })?;
        Ok(Box::new(Instance { expr: match_arg(args)?, reason }))
    }
}

struct Instance {
    expr: Option<Expr>,
    reason: DropReason,
}

impl Instance {
    fn run(&self, batch: &mut Batch<'_>) {
        batch.each(|mbuf| match &self.expr {
            Some(expr) if !expr.matches(mbuf.data()) => Ok(()),
            _ => Err(self.reason),
        });
    }
}

impl InterfaceFilter for Instance {
    fn input(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(batch);
    }

    fn output(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(batch);
    }
}
