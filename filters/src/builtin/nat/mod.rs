//! `nat`: network address translation, as an IP filter. `docs/nat.md` says how to use it.
//!
//! Attached for IPv4 it lets inside hosts share outside addresses ([`nat44`]): endpoint-independent mappings (RFC 4787,
//! RFC 5382, RFC 5508), port forwards, hairpins. Attached for IPv6 it exchanges one prefix for another ([`prefix`],
//! RFC 6296).
//!
//! A filter does not know by which interface a packet will leave, so *outside* is said by address: a packet is outbound
//! when its source is inside and its destination is not.
//!
//! * [`args`], [`ranges`]: what is written in the configuration.
//! * [`mappings`]: which outside endpoint stands for which inside one; ports.
//! * [`nat44`]: what becomes of a packet. [`error`]: of an ICMP error.
//! * [`rewrite`]: addresses, ports and checksums in the bytes of a packet.

mod args;
mod error;
mod mappings;
mod nat44;
mod prefix;
mod ranges;
mod rewrite;
mod tally;
#[cfg(test)]
mod tests;

use std::time::Instant;

use args::Config;
use nat44::Nat44;
use prefix::Nat66;
use tally::{Tally, Why};

use crate::{
    Args, Batch, CreateError, Cx, DropReason, Family, FlowEntry, HostError, IpAttachEnv, IpFilter,
    IpFilterKind, IpHook, IpHooks, PerWorker,
};

/// The kind.
pub struct Nat;

impl IpFilterKind for Nat {
    fn name(&self) -> &str {
        "nat"
    }

    fn create(&self, env: &IpAttachEnv, args: &Args) -> Result<Box<dyn IpFilter>, CreateError> {
        Nat::instance(env.family, env.workers, args, |name| env.host.drop_reason(env.owner, name))
    }
}

impl Nat {
    /// An instance without a dataplane, for measurements: `reason` makes drop reasons.
    pub fn instance(
        family: Family,
        workers: usize,
        args: &Args,
        reason: impl Fn(&str) -> Result<DropReason, HostError>,
    ) -> Result<Box<dyn IpFilter>, CreateError> {
        let translator = match family {
            Family::V4 => Translator::V4(Box::new(nat44(&Config::from_args(args)?)?)),
            Family::V6 => Translator::V6(Nat66::from_args(args)?),
        };
        Ok(Box::new(Instance {
            translator,
            reasons: Why::reasons(reason)?,
            tally: PerWorker::new(workers, Tally::default),
            started: Instant::now(),
        }))
    }
}

fn nat44(config: &Config) -> Result<Nat44, CreateError> {
    Nat44::new(config)
        .ok_or_else(|| CreateError::new("the forwards do not fit", "give each forward ends of its own"))
}

enum Translator {
    V4(Box<Nat44>),
    V6(Nat66),
}

struct Instance {
    translator: Translator,
    reasons: [DropReason; Why::COUNT],
    tally: PerWorker<Tally>,
    started: Instant,
}

impl IpFilter for Instance {
    fn hooks(&self) -> IpHooks {
        let hooks = IpHooks::NONE.with(IpHook::Prerouting).with(IpHook::Output);
        match self.translator {
            // A later fragment has no ports to tell it by.
            Translator::V4(_) => hooks.reassemble(),
            Translator::V6(_) => hooks,
        }
    }

    fn prerouting(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let tally = self.tally.of(cx.worker);
        match &self.translator {
            Translator::V4(nat) => nat.prerouting(batch, tally, &self.reasons),
            Translator::V6(nat) => nat.prerouting(batch, tally, &self.reasons),
        }
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let tally = self.tally.of(cx.worker);
        match &self.translator {
            Translator::V4(nat) => nat.output(batch, tally, &self.reasons),
            Translator::V6(nat) => nat.output(batch, tally, &self.reasons),
        }
    }

    fn tick(&self) {
        if let Translator::V4(nat) = &self.translator {
            nat.age(self.started.elapsed().as_secs() as u32);
        }
    }

    fn flows(&self, most: usize) -> Vec<FlowEntry> {
        match &self.translator {
            Translator::V4(nat) => nat.entries(most),
            // Prefixes are translated without a table.
            Translator::V6(_) => Vec::new(),
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let mut figures: Vec<_> = Tally::default().named().map(|(name, _)| (name, 0)).into();
        for tally in self.tally.iter() {
            for ((_, sum), (_, counter)) in figures.iter_mut().zip(tally.named()) {
                *sum += counter.get();
            }
        }
        if let Translator::V4(nat) = &self.translator {
            figures.push(("mappings", nat.mappings.len() as u64));
            figures.extend(nat.sessions.figures());
        }
        figures
    }
}
