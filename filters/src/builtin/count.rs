//! `count`: counts packets and bytes, all or those that match an expression. The smallest useful filter.
//!
//! Arguments: `match` (expression, optional).

use nke_mbuf::Mbuf;

use super::match_arg;
use crate::expr::Expr;
use crate::{Args, AttachEnv, Batch, Counter, CreateError, Cx, FilterKind, InterfaceFilter, PerWorker};

/// The kind.
pub struct Count;

impl FilterKind for Count {
    fn name(&self) -> &str {
        "count"
    }

    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        args.only(&["match"])?;
        Ok(Box::new(Instance {
            expr: match_arg(args)?,
            input: PerWorker::new(env.workers, Tally::default),
            output: PerWorker::new(env.workers, Tally::default),
        }))
    }
}

#[derive(Default)]
struct Tally {
    packets: Counter,
    bytes: Counter,
}

struct Instance {
    expr: Option<Expr>,
    input: PerWorker<Tally>,
    output: PerWorker<Tally>,
}

impl Instance {
    fn count(&self, tally: &Tally, batch: &Batch<'_>) {
        let wanted = |m: &&Mbuf| self.expr.as_ref().is_none_or(|e| e.matches(m.data()));
        let (mut packets, mut bytes) = (0, 0);
        for mbuf in batch.iter().filter(wanted) {
            packets += 1;
            bytes += mbuf.len() as u64;
        }
        tally.packets.add(packets);
        tally.bytes.add(bytes);
    }
}

impl InterfaceFilter for Instance {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.count(self.input.of(cx.worker), batch);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.count(self.output.of(cx.worker), batch);
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let sum = |side: &PerWorker<Tally>, f: fn(&Tally) -> &Counter| side.iter().map(|t| f(t).get()).sum();
        vec![
            ("input_packets", sum(&self.input, |t| &t.packets)),
            ("input_bytes", sum(&self.input, |t| &t.bytes)),
            ("output_packets", sum(&self.output, |t| &t.packets)),
            ("output_bytes", sum(&self.output, |t| &t.bytes)),
        ]
    }
}
