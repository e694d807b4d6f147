//! What captures at all places have in common: which packets, how many, and the account.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use nke_mbuf::Mbuf;

use crate::builtin::stay::Stay;
use crate::expr::Expr;
use crate::{AttachId, Batch, Counter, Cx, Direction, Host, Layer, PerWorker, Recorder, Remark};

/// When it is enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// 0: any time.
    pub(super) seconds: u64,
}

#[derive(Default)]
struct Tally {
    /// Given to the recorder.
    handed: Counter,
    missed: Counter,
}

pub(super) struct Taker {
    stay: Stay,
    expr: Option<Expr>,
    limits: Limits,
    snaplen: u64,
    recorder: Box<dyn Recorder>,
    /// Places in the file that were given out, and bytes.
    packets: AtomicU64,
    bytes: AtomicU64,
    closed: AtomicBool,
    tally: PerWorker<Tally>,
}

impl Taker {
    pub(super) fn new(
        host: Arc<dyn Host>,
        attachment: AttachId,
        workers: usize,
        expr: Option<Expr>,
        limits: Limits,
        snaplen: u64,
        recorder: Box<dyn Recorder>,
    ) -> Taker {
        Taker {
            stay: Stay::new(host, attachment, limits.seconds),
            expr,
            limits,
            snaplen,
            recorder,
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            tally: PerWorker::new(workers, Tally::default),
        }
    }

    /// Takes copies of the packets of a batch.
    pub(super) fn take_batch(
        &self,
        cx: &mut Cx<'_>,
        batch: &Batch<'_>,
        layer: Layer,
        direction: Option<Direction>,
        place: &'static str,
    ) {
        let mut remark = Remark { direction, place, ..Remark::default() };
        for mbuf in batch.iter() {
            if self.stay.has_ended() {
                break;
            }
            remark.at_ns = self.take(cx, mbuf, layer, remark, Ok);
        }
    }

    /// Takes a copy of a packet, which `finish` may change. A remark without a time gets one; it is returned for the packets
    /// that were seen with it.
    pub(super) fn take(
        &self,
        cx: &mut Cx<'_>,
        mbuf: &Mbuf,
        layer: Layer,
        mut remark: Remark,
        finish: impl FnOnce(Mbuf) -> Result<Mbuf, Mbuf>,
    ) -> u64 {
        if self.stay.has_ended() || !self.matches(mbuf, layer) {
            return remark.at_ns;
        }
        let tally = self.tally.of(cx.worker);
        let len = (mbuf.len() as u64).min(self.snaplen);
        if !self.reserve(len) {
            return remark.at_ns;
        }
        if remark.at_ns == 0 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            remark.at_ns = now.as_nanos() as u64;
        }
        let outcome = match cx.dup(mbuf).map(finish) {
            None => Err(None),
            Some(Err(copy)) => Err(Some(copy)),
            Some(Ok(copy)) => self.recorder.record(copy, remark).map_err(Some),
        };
        match outcome {
            Ok(()) => tally.handed.add(1),
            Err(copy) => {
                copy.into_iter().for_each(|copy| cx.free(copy));
                tally.missed.add(1);
                // Its place is for another one.
                self.packets.fetch_sub(1, Ordering::Relaxed);
                self.bytes.fetch_sub(len, Ordering::Relaxed);
            }
        }
        remark.at_ns
    }

    fn matches(&self, mbuf: &Mbuf, layer: Layer) -> bool {
        self.expr.as_ref().is_none_or(|expr| match layer {
            Layer::Frame => expr.matches(mbuf.data()),
            Layer::Ip => expr.matches_ip(mbuf.data()),
        })
    }

    /// A place in the file for a packet, if there is one left.
    fn reserve(&self, len: u64) -> bool {
        if self.packets.fetch_add(1, Ordering::Relaxed) >= self.limits.packets {
            self.packets.fetch_sub(1, Ordering::Relaxed);
            // Until all are written, one of those may be missed yet.
            if self.recorder.written() >= self.limits.packets {
                self.stay.end();
            }
            return false;
        }
        if self.bytes.fetch_add(len, Ordering::Relaxed) + len > self.limits.bytes {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
            self.packets.fetch_sub(1, Ordering::Relaxed);
            self.stay.end();
            return false;
        }
        true
    }

    fn is_complete(&self) -> bool {
        self.stay.has_ended() || self.recorder.written() >= self.limits.packets
    }

    /// On the control thread, about once a second.
    pub(super) fn tick(&self) {
        self.stay.tick(self.is_complete());
    }

    /// Closes the file.
    pub(super) fn finish(&self) {
        self.stay.end();
        self.recorder.finish();
        self.closed.store(true, Ordering::Relaxed);
    }

    pub(super) fn figures(&self) -> Vec<(&'static str, u64)> {
        let sum = |f: fn(&Tally) -> &Counter| self.tally.iter().map(|t| f(t).get()).sum::<u64>();
        let captured = self.recorder.written();
        // What was handed over before the file was closed and is not in it: the disk was full.
        let lost = match self.closed.load(Ordering::Relaxed) {
            true => sum(|t| &t.handed).saturating_sub(captured),
            false => 0,
        };
        vec![
            ("captured", captured),
            ("missed", sum(|t| &t.missed) + lost),
            ("complete", self.is_complete().into()),
        ]
    }
}
