//! `trace`: follows packets from the interface they come in by through the stages, and groups them by the way they took. A
//! probe: attached to `path`.
//!
//! Arguments: `match` (expression); `packets` (so many are followed, 100 if not given, 10,000 at most); `seconds` (after so
//! many no more are marked).
//!
//! Packets are marked where they are received, before the input filters, and keep their mark as long as they are the same
//! packet: through filters, rewriting, tunnels that prepend a header, to another worker. Copies, answers that are made anew,
//! and fragments that are cut from a packet are others. Each worker writes what it sees into a ring of its own of fixed size;
//! what does not fit is counted as missed.

mod journal;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nke_mbuf::wire::Layers;
use nke_mbuf::{Flags, Mbuf, TagId};

use super::match_arg;
use super::stay::Stay;
use crate::expr::Expr;
use crate::{
    Args, AttachId, Cookie, CreateError, Cx, DropReason, Layer, PathReport, Probe, ProbeEnv, ProbeKind, Stage,
};
use journal::{Event, Example, Journal, Rings};

/// The kind.
pub struct Trace;

/// Packets that one instance follows at most.
const PACKETS_MAX: i64 = 10_000;
impl ProbeKind for Trace {
    fn name(&self) -> &str {
        "trace"
    }

    fn create(&self, env: &ProbeEnv, args: &Args) -> Result<Box<dyn Probe>, CreateError> {
        args.only(&["match", "packets", "seconds"])?;
        let tag =
            env.host.tag_id("nke.trace").map_err(|e| CreateError::new(e.to_string(), "unload extensions"))?;
        let packets = args.number("packets", 1..=PACKETS_MAX, 100)? as u32;
        Ok(Box::new(Instance {
            stay: Stay::new(env.host.clone(), env.attachment, args.number("seconds", 0..=86_400, 0)? as u64),
            attachment: env.attachment,
            expr: match_arg(args)?,
            tag,
            packets,
            began: Instant::now(),
            marked: AtomicU32::new(0),
            rings: Rings::new(env.workers, packets as usize),
            journal: Mutex::new(Journal::default()),
        }))
    }
}

struct Instance {
    stay: Stay,
    attachment: AttachId,
    expr: Option<Expr>,
    tag: TagId,
    packets: u32,
    began: Instant,
    marked: AtomicU32,
    rings: Rings,
    journal: Mutex<Journal>,
}

impl Instance {
    /// Tags of several instances do not meet: each has its kind.
    fn kind(&self) -> u16 {
        self.attachment.0 as u16
    }

    fn number(&self, mbuf: &Mbuf) -> Option<u32> {
        let bytes = mbuf.tag_find(self.tag, self.kind())?;
        Some(u32::from_ne_bytes(*bytes.first_chunk()?))
    }

    fn note(&self, worker: usize, packet: u32, stage: Stage, at: Instant) {
        let at_ns = at.saturating_duration_since(self.began).as_nanos() as u64;
        self.rings.put(worker, Event { packet, stage, at_ns });
    }

    fn is_done(&self) -> bool {
        self.stay.has_ended() || self.marked.load(Ordering::Relaxed) >= self.packets
    }

    /// What is in the rings goes to the journal.
    fn collect(&self) -> std::sync::MutexGuard<'_, Journal> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.rings.empty_into(&mut journal);
        journal
    }
}

impl Probe for Instance {
    fn traces(&self) -> bool {
        true
    }

    fn received(&self, cx: &mut Cx<'_>, mbuf: &mut Mbuf, layer: Layer) {
        if self.is_done() {
            return;
        }
        let layers = match layer {
            Layer::Frame => Layers::parse(mbuf.data()),
            Layer::Ip => Layers::parse_ip(mbuf.data()),
        };
        if self.expr.as_ref().is_some_and(|expr| !expr.matches_layers(&layers, mbuf.len())) {
            return;
        }
        let packet = self.marked.fetch_add(1, Ordering::Relaxed);
        if packet >= self.packets {
            // Another worker took the last one.
            self.marked.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        match mbuf.tag_add(self.tag, self.kind(), 4) {
            Ok(data) => data.copy_from_slice(&packet.to_ne_bytes()),
            Err(_) => return self.rings.miss(cx.worker),
        }
        mbuf.flags_mut().insert(Flags::TRACED);
        self.rings.example(Example { packet, layers, len_bytes: mbuf.len() });
    }

    fn passes(&self, cx: &mut Cx<'_>, mbuf: &Mbuf, stage: Stage, at: Instant) {
        if let Some(packet) = self.number(mbuf) {
            self.note(cx.worker, packet, stage, at);
        }
    }

    fn dropped(&self, cx: &mut Cx<'_>, mbuf: &Mbuf, _: Layer, reason: DropReason) {
        if mbuf.flags().contains(Flags::TRACED)
            && let Some(packet) = self.number(mbuf)
        {
            self.note(cx.worker, packet, Stage::Drop(reason), Instant::now());
        }
    }

    fn paths(&self) -> Vec<PathReport> {
        self.collect().paths()
    }

    fn tick(&self) {
        drop(self.collect());
        self.stay.tick(self.is_done());
    }

    fn detached(&self, _: Cookie) {
        drop(self.collect());
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("packets", self.marked.load(Ordering::Relaxed).min(self.packets).into()),
            ("missed", self.rings.missed()),
            ("complete", self.is_done().into()),
        ]
    }
}
