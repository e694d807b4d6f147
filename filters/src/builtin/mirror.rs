//! `mirror`: sends a copy of what matches to another port, or records it in a pcapng file. The original goes on.
//!
//! Arguments: `port` (name of the port) or `file` (path of the pcapng file), one of them; `match` (expression,
//! optional). A copy that finds no frame, or whose target is behind, is counted as missed; the original never waits.

use std::sync::Arc;

use nke_mbuf::{Mbuf, TagId};

use super::match_arg;
use crate::expr::Expr;
use crate::{
    Args, AttachEnv, Batch, Counter, CreateError, Cx, FilterKind, Host, IfIndex, InterfaceFilter, PerWorker,
    RecordFile, Recorder, Remark,
};

/// The kind.
pub struct Mirror;

impl FilterKind for Mirror {
    fn name(&self) -> &str {
        "mirror"
    }

    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        args.only(&["port", "file", "match"])?;
        let target = match (args.text("port")?, args.text("file")?) {
            (Some(port), None) => Target::Port(env.host.interface_by_name(port).ok_or_else(|| {
                CreateError::new(format!("no port is called `{port}`"), "see `nke show interfaces`")
            })?),
            (None, Some(file)) => {
                let recorder =
                    env.host.recorder(env.owner, &RecordFile { overwrite: true, ..RecordFile::new(file) });
                Target::File(
                    recorder
                        .map_err(|e| CreateError::new(e.to_string(), "name a file that can be written"))?,
                )
            }
            _ => return Err(CreateError::new("a mirror needs one target", "give either `port` or `file`")),
        };
        let tag = env
            .host
            .tag_id("nke.mirror")
            .map_err(|e| CreateError::new(e.to_string(), "unload extensions"))?;
        Ok(Box::new(Instance {
            host: env.host.clone(),
            expr: match_arg(args)?,
            target,
            tag,
            tally: PerWorker::new(env.workers, Tally::default),
        }))
    }
}

enum Target {
    Port(IfIndex),
    File(Box<dyn Recorder>),
}

#[derive(Default)]
struct Tally {
    copied: Counter,
    missed: Counter,
}

struct Instance {
    host: Arc<dyn Host>,
    expr: Option<Expr>,
    target: Target,
    /// Marks copies, so that a mirror attached to the port that copies leave by does not copy copies.
    tag: TagId,
    tally: PerWorker<Tally>,
}

impl Instance {
    fn run(&self, cx: &mut Cx<'_>, batch: &Batch<'_>) {
        let tally = self.tally.of(cx.worker);
        let wanted = |m: &&Mbuf| {
            m.tag_find(self.tag, 0).is_none() && self.expr.as_ref().is_none_or(|e| e.matches(m.data()))
        };
        for mbuf in batch.iter().filter(wanted) {
            let copied = cx.dup(mbuf).is_some_and(|copy| self.send(cx, copy));
            if copied { tally.copied.add(1) } else { tally.missed.add(1) }
        }
    }

    fn send(&self, cx: &mut Cx<'_>, mut copy: Mbuf) -> bool {
        let refused = match &self.target {
            Target::File(recorder) => recorder.record(copy, Remark::default()).err(),
            Target::Port(port) => {
                if copy.tag_add(self.tag, 0, 0).is_err() {
                    Some(copy)
                } else {
                    self.host.inject_output(*port, copy).err().map(|refused| refused.into_mbuf())
                }
            }
        };
        match refused {
            None => true,
            Some(mbuf) => {
                cx.free(mbuf);
                false
            }
        }
    }
}

impl InterfaceFilter for Instance {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx, batch);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx, batch);
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("copied", self.tally.iter().map(|t| t.copied.get()).sum()),
            ("missed", self.tally.iter().map(|t| t.missed.get()).sum()),
        ]
    }
}
