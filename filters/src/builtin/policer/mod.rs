//! `policer`: holds packets to a rate, by dropping or by marking what exceeds it. For interfaces and for IP.
//!
//! Arguments:
//!
//! | name | means |
//! |---|---|
//! | `rate` | `10mbit`, `2gbit` (bits per second), `1000pps`, `1mpps` (packets per second) |
//! | `burst` | what may come at once: bytes, or packets for a rate in packets; default 20 ms, at least 16 frames |
//! | `per` | what has the rate for itself: `all` (default: everything together), `flow`, `source`, `destination`, `dscp` |
//! | `keys` | flows or addresses told apart, default 65536 (16 bytes each, and each way): four times what is expected |
//! | `action` | `drop` (default; reason `policer:exceeded`) or `mark` |
//! | `dscp` | the code point that `mark` sets, 0 to 63 |
//! | `match` | expression, on interfaces only: the rest is not looked at |
//!
//! Each direction (on IP: what comes for this host, and what leaves it, forwarded or not) has the rate for itself. Bytes
//! are those of the frame without FCS on interfaces, those of the IP packet on IP. A packet larger than the burst always
//! exceeds it. What is not IP shares one bucket, unless `per` is `all`, and goes on when it cannot be marked.
//!
//! How exact it is says `bucket.rs`; what a stranger with many addresses can do says `buckets.rs`.

mod bucket;
mod buckets;
mod packet;
#[cfg(test)]
mod tests;

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{EtherType, Layers};

pub use bucket::Rate;
pub use buckets::{Buckets, Judgement, Per};

use super::match_arg;
use crate::expr::Expr;
use crate::{
    ArgValue, Args, AttachEnv, Batch, Counter, CreateError, Cx, Direction, DropReason, FilterKind, Host,
    InterfaceFilter, IpAttachEnv, IpFilter, IpFilterKind, PerWorker,
};

/// The kind, at both layers.
pub struct Policer;

impl FilterKind for Policer {
    fn name(&self) -> &str {
        "policer"
    }

    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        let exceeded = exceeded(&*env.host, env.owner)?;
        Ok(Box::new(Framed(Instance::new(args, Layer::Link(match_arg(args)?), env.workers, exceeded)?)))
    }
}

impl IpFilterKind for Policer {
    fn name(&self) -> &str {
        "policer"
    }

    fn create(&self, env: &IpAttachEnv, args: &Args) -> Result<Box<dyn IpFilter>, CreateError> {
        let exceeded = exceeded(&*env.host, env.owner)?;
        Ok(Box::new(Routed(Instance::new(args, Layer::Ip, env.workers, exceeded)?)))
    }
}

fn exceeded(host: &dyn Host, owner: nke_mbuf::Owner) -> Result<DropReason, CreateError> {
    host.drop_reason(owner, "exceeded")
        .map_err(|e| CreateError::new(e.to_string(), "unload extensions: their drop reasons fill the table"))
}

/// Where packets start.
enum Layer {
    /// At the link header; only those that match are looked at.
    Link(Option<Expr>),
    /// At the IP header.
    Ip,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Drop,
    Mark(u8),
}

#[derive(Default)]
struct Tally {
    within_packets: Counter,
    within_bytes: Counter,
    exceeded_packets: Counter,
    exceeded_bytes: Counter,
    excess_keys: Counter,
}

struct Instance {
    layer: Layer,
    per: Per,
    action: Action,
    input: Buckets,
    output: Buckets,
    exceeded: DropReason,
    tally: PerWorker<Tally>,
}

impl Instance {
    fn new(args: &Args, layer: Layer, workers: usize, exceeded: DropReason) -> Result<Instance, CreateError> {
        const KNOWN: [&str; 7] = ["rate", "burst", "per", "keys", "action", "dscp", "match"];
        args.only(if matches!(layer, Layer::Ip) { &KNOWN[..6] } else { &KNOWN })?;
        let Some(rate) = args.text("rate")? else {
            return Err(CreateError::new(
                "a policer needs a rate",
                "write rate = \"10mbit\" or rate = \"1000pps\"",
            ));
        };
        let burst = match args.0.get("burst") {
            None => None,
            Some(ArgValue::Number(n)) => Some(n.to_string()),
            Some(_) => args.text("burst")?.map(str::to_owned),
        };
        let rate = Rate::parse(rate, burst.as_deref())?;
        let per = match args.text("per")? {
            None | Some("all") => Per::All,
            Some("flow") => Per::Flow,
            Some("source") => Per::Source,
            Some("destination") => Per::Destination,
            Some("dscp") => Per::Dscp,
            Some(other) => {
                return Err(CreateError::new(
                    format!("`per` cannot be {other}"),
                    "write all, flow, source, destination or dscp",
                ));
            }
        };
        let keys = args.number("keys", 8..=1 << 22, 65536)? as usize;
        let action = match (args.text("action")?, args.0.contains_key("dscp")) {
            (None | Some("drop"), false) => Action::Drop,
            (Some("mark"), true) => Action::Mark(args.number("dscp", 0..=63, 8)? as u8),
            (Some("mark"), false) => {
                return Err(CreateError::new(
                    "nothing says what to mark with",
                    "write dscp = 8, or another code point",
                ));
            }
            (None | Some("drop"), true) => {
                return Err(CreateError::new(
                    "`dscp` is given, and nothing is marked",
                    "write action = \"mark\"",
                ));
            }
            (Some(other), _) => {
                return Err(CreateError::new(format!("`action` cannot be {other}"), "write drop or mark"));
            }
        };
        Ok(Instance {
            layer,
            per,
            action,
            input: Buckets::new(rate, per, keys),
            output: Buckets::new(rate, per, keys),
            exceeded,
            tally: PerWorker::new(workers, Tally::default),
        })
    }

    fn run(&self, direction: Direction, worker: usize, now_ms: u64, batch: &mut Batch<'_>) {
        let buckets = match direction {
            Direction::Input => &self.input,
            Direction::Output => &self.output,
        };
        let tally = self.tally.of(worker);
        batch.each(|mbuf| {
            let Some(ip_offset) = self.ip_offset(mbuf) else { return Ok(()) };
            let len_bytes = mbuf.len();
            let ip = ip_offset.and_then(|offset| mbuf.data().get(offset..));
            let judgement = buckets.judge(now_ms, len_bytes, ip);
            if judgement.excess_key {
                tally.excess_keys.add(1);
            }
            if judgement.within {
                tally.within_packets.add(1);
                tally.within_bytes.add(len_bytes as u64);
                return Ok(());
            }
            tally.exceeded_packets.add(1);
            tally.exceeded_bytes.add(len_bytes as u64);
            let Action::Mark(dscp) = self.action else { return Err(self.exceeded) };
            if let Some(ip) = ip_offset.and_then(|offset| mbuf.data_mut().get_mut(offset..)) {
                packet::mark(ip, dscp);
            }
            Ok(())
        });
    }

    /// Where the IP header starts, if there is one. `None` for a packet that is not to be looked at.
    #[inline]
    fn ip_offset(&self, mbuf: &Mbuf) -> Option<Option<usize>> {
        let expr = match &self.layer {
            Layer::Ip => return Some(Some(0)),
            Layer::Link(None) if self.per == Per::All && self.action == Action::Drop => return Some(None),
            Layer::Link(expr) => expr,
        };
        let layers = Layers::parse(mbuf.data());
        if expr.as_ref().is_some_and(|expr| !expr.matches_layers(&layers, mbuf.len())) {
            return None;
        }
        let is_ip = matches!(layers.ethertype, EtherType::IPV4 | EtherType::IPV6);
        Some(is_ip.then_some(usize::from(layers.l3_offset)))
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let sum = |f: fn(&Tally) -> &Counter| self.tally.iter().map(|t| f(t).get()).sum();
        vec![
            ("within_packets", sum(|t| &t.within_packets)),
            ("within_bytes", sum(|t| &t.within_bytes)),
            ("exceeded_packets", sum(|t| &t.exceeded_packets)),
            ("exceeded_bytes", sum(|t| &t.exceeded_bytes)),
            ("excess_keys", sum(|t| &t.excess_keys)),
        ]
    }
}

/// On an interface.
struct Framed(Instance);

impl InterfaceFilter for Framed {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.0.run(Direction::Input, cx.worker, cx.now_ms, batch);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.0.run(Direction::Output, cx.worker, cx.now_ms, batch);
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        self.0.figures()
    }
}

/// On IP.
struct Routed(Instance);

impl IpFilter for Routed {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.0.run(Direction::Input, cx.worker, cx.now_ms, batch);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.0.run(Direction::Output, cx.worker, cx.now_ms, batch);
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        self.0.figures()
    }
}
