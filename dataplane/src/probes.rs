//! What workers tell probes.

use std::sync::Arc;
use std::time::Instant;

use nke_filters::{Cx, DropReason, IfIndex, Layer, Probe, Stage};
use nke_mbuf::wire::{Ipv4, Ipv6};
use nke_mbuf::{Burst, Flags, Mbuf};

use crate::caught::caught;
use crate::pfil::Hook;
use crate::snapshot::{Attachment, Instance};

/// Attached probes, in a snapshot.
#[derive(Default)]
pub struct Probes {
    all: Vec<Arc<Attachment>>,
    /// Whether any of them traces.
    trace: bool,
}

impl Probes {
    /// Those among `attachments`.
    pub fn of(attachments: &[Arc<Attachment>]) -> Probes {
        let is_probe = |a: &&Arc<Attachment>| matches!(a.filter, Instance::Probe(_));
        let all: Vec<_> = attachments.iter().filter(is_probe).cloned().collect();
        let trace = all.iter().any(|a| traces(a));
        Probes { all, trace }
    }

    /// Whether none is attached.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any wants to follow packets.
    #[inline(always)]
    pub fn trace(&self) -> bool {
        self.trace
    }
}

/// Whether this is a probe that follows packets. On the control thread.
pub(crate) fn traces(attachment: &Attachment) -> bool {
    match &attachment.filter {
        Instance::Probe(probe) => caught(|| probe.traces()).unwrap_or(false),
        _ => false,
    }
}

impl Hook<'_> {
    /// Tells of a packet that is about to be freed.
    #[cold]
    pub(crate) fn tell_dropped(&mut self, mbuf: &Mbuf, reason: DropReason) {
        let (probes, layer) = (self.probes, layer_of(mbuf));
        for entry in &probes.all {
            self.tell(entry, |probe, cx| probe.dropped(cx, mbuf, layer, reason));
        }
    }

    /// The packets at the places of `mask` are at `stage`.
    #[inline(always)]
    pub(crate) fn trace(&mut self, burst: &Burst, mask: u64, stage: &Stage) {
        if self.probes.trace {
            self.tell_stage(burst, mask, stage);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_stage(&mut self, burst: &Burst, mask: u64, stage: &Stage) {
        self.tell_passing(burst, mask, |_| *stage);
    }

    /// The packets at the places of `mask` are each at its stage.
    pub(crate) fn tell_passing(&mut self, burst: &Burst, mask: u64, stage: impl Fn(usize) -> Stage) {
        let (probes, at) = (self.probes, Instant::now());
        for (place, slot) in burst.slots().iter().enumerate().filter(|(place, _)| mask >> place & 1 == 1) {
            let Some(mbuf) = slot.as_ref().filter(|m| m.flags().contains(Flags::TRACED)) else { continue };
            for entry in &probes.all {
                self.tell(entry, |probe, cx| probe.passes(cx, mbuf, stage(place), at));
            }
        }
    }

    /// An interface received these: probes may mark them.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell_received(&mut self, burst: &mut Burst, interface: IfIndex) {
        let probes = self.probes;
        for mbuf in burst.iter_mut().filter(|m| !m.flags().contains(Flags::TRACED)) {
            let layer = layer_of(mbuf);
            for entry in &probes.all {
                self.tell(entry, |probe, cx| probe.received(cx, mbuf, layer));
            }
        }
        self.tell_stage(burst, u64::MAX, &Stage::Input(interface));
    }

    fn tell(&mut self, entry: &Attachment, call: impl FnOnce(&dyn Probe, &mut Cx<'_>)) {
        let Instance::Probe(probe) = &entry.filter else { return };
        // A filter may be the one that drops.
        let around = self.status.in_filter.get();
        self.status.in_filter.set(u64::from(entry.id.0));
        let env = entry.env(self.worker, self.now_ms);
        let mut cx = Cx::new(env, self.cache, self.requeue);
        let stats = &entry.stats[self.worker];
        stats.packets.add(1);
        if caught(|| call(&**probe, &mut cx)).is_none() {
            stats.panics.add(1);
            self.status.panicked.set(1);
        }
        self.status.in_filter.set(around);
    }
}

/// Nothing in a packet says how far it got, so its bytes do: in the IP layer, headers and lengths were checked. A frame can
/// look like that only if its destination address was made for it.
fn layer_of(mbuf: &Mbuf) -> Layer {
    let data = mbuf.data();
    let holds = match data.first().map(|first| first >> 4) {
        Some(4) => {
            Ipv4::new_quoted(data).is_ok_and(|ip| ip.total_len() == mbuf.len() && ip.verify_checksum())
        }
        Some(6) => Ipv6::new_quoted(data).is_ok_and(|ip| ip.total_len() == mbuf.len()),
        _ => false,
    };
    if holds { Layer::Ip } else { Layer::Frame }
}
