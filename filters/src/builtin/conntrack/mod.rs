//! `conntrack`: follows connections, and drops what belongs to none if it is told to. `docs/nat.md` says how to use it.
//!
//! TCP, UDP and ICMP queries are flows between two endpoints, other protocols between two addresses; an ICMP error
//! belongs to the flow whose packet it quotes.
//!
//! With `scope = "forward"` it sees forwarded packets once, at the `forward` hook: between the two halves of `nat`, so it
//! sees inside endpoints whatever the order of attachment. With `scope = "host"` it sees what this host receives and
//! sends; forwarded packets pass the `output` hook too, and take room in the table there. Attach it twice for both.

mod engine;
mod packet;
mod policy;
#[cfg(test)]
mod tests;

use std::time::Instant;

use engine::{Engine, Tally, Why};
use policy::{Config, Origin};

use crate::flow::packet::{V4, V6};
use crate::{
    Args, Batch, Counter, CreateError, Cx, DropReason, Family, FlowEntry, HostError, IfIndex, IpAttachEnv,
    IpFilter, IpFilterKind, IpHooks, PerWorker,
};

/// The kind.
pub struct Conntrack;

impl IpFilterKind for Conntrack {
    fn name(&self) -> &str {
        "conntrack"
    }

    fn create(&self, env: &IpAttachEnv, args: &Args) -> Result<Box<dyn IpFilter>, CreateError> {
        let reason = |name: &str| env.host.drop_reason(env.owner, name);
        Conntrack::instance(env.family, env.workers, args, reason, |name| env.host.interface_by_name(name))
    }
}

impl Conntrack {
    /// An instance without a dataplane, for measurements: `reason` makes drop reasons, `port` finds interfaces.
    pub fn instance(
        family: Family,
        workers: usize,
        args: &Args,
        reason: impl Fn(&str) -> Result<DropReason, HostError>,
        port: impl Fn(&str) -> Option<IfIndex>,
    ) -> Result<Box<dyn IpFilter>, CreateError> {
        let Config { policy, hooks, flows, timeouts } = Config::from_args(args, port)?;
        let mut reasons = [DropReason::from_index(0); 3];
        for (slot, name) in reasons.iter_mut().zip(Why::NAMES) {
            *slot = reason(name).map_err(|e| {
                CreateError::new(e.to_string(), "detach filters with drop reasons of their own")
            })?;
        }
        let engine = match family {
            Family::V4 => Tracker::V4(Engine::new(flows, timeouts, policy)),
            Family::V6 => Tracker::V6(Engine::new(flows, timeouts, policy)),
        };
        let tally = PerWorker::new(workers, Tally::default);
        Ok(Box::new(Instance { engine, hooks, reasons, tally, started: Instant::now() }))
    }
}

enum Tracker {
    V4(Engine<V4, 2>),
    V6(Engine<V6, 5>),
}

struct Instance {
    engine: Tracker,
    hooks: IpHooks,
    reasons: [DropReason; 3],
    tally: PerWorker<Tally>,
    started: Instant,
}

impl Instance {
    fn run(&self, cx: &Cx<'_>, batch: &mut Batch<'_>, origin: Origin) {
        let tally = self.tally.of(cx.worker);
        match &self.engine {
            Tracker::V4(engine) => engine.run(batch, origin, tally, &self.reasons),
            Tracker::V6(engine) => engine.run(batch, origin, tally, &self.reasons),
        }
    }
}

impl IpFilter for Instance {
    fn hooks(&self) -> IpHooks {
        self.hooks
    }

    fn forward(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx, batch, Origin::Received);
    }

    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx, batch, Origin::Received);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx, batch, Origin::Local);
    }

    fn tick(&self) {
        let now_s = self.started.elapsed().as_secs() as u32;
        match &self.engine {
            Tracker::V4(engine) => engine.flows.age(now_s, |_| ()),
            Tracker::V6(engine) => engine.flows.age(now_s, |_| ()),
        }
    }

    fn flows(&self, most: usize) -> Vec<FlowEntry> {
        match &self.engine {
            Tracker::V4(engine) => engine.entries(most),
            Tracker::V6(engine) => engine.entries(most),
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let sum = |counter: fn(&Tally) -> &Counter| self.tally.iter().map(|t| counter(t).get()).sum();
        let mut figures = vec![
            ("tracked", sum(|t| &t.tracked)),
            ("related", sum(|t| &t.related)),
            ("untracked", sum(|t| &t.untracked)),
            ("invalid", sum(|t| &t.invalid)),
        ];
        figures.extend(match &self.engine {
            Tracker::V4(engine) => engine.flows.figures(),
            Tracker::V6(engine) => engine.flows.figures(),
        });
        figures
    }
}
