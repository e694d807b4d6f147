//! What workers tell probes.

use std::sync::Arc;

use nke_filters::{Cx, DropReason, Layer};
use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Ipv4, Ipv6};

use crate::caught::caught;
use crate::pfil::Hook;
use crate::snapshot::{Attachment, Instance};

/// Attached probes, in a snapshot.
#[derive(Default)]
pub struct Probes(Vec<Arc<Attachment>>);

impl Probes {
    /// Those among `attachments`.
    pub fn of(attachments: &[Arc<Attachment>]) -> Probes {
        Probes(attachments.iter().filter(|a| matches!(a.filter, Instance::Probe(_))).cloned().collect())
    }

    /// Whether none is attached.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Hook<'_> {
    /// Tells of a packet that is about to be freed.
    #[cold]
    pub(crate) fn tell_dropped(&mut self, mbuf: &Mbuf, reason: DropReason) {
        let (probes, layer) = (self.probes, layer_of(mbuf));
        for entry in &probes.0 {
            self.tell(entry, |probe, cx| probe.dropped(cx, mbuf, layer, reason));
        }
    }

    fn tell(&mut self, entry: &Attachment, call: impl FnOnce(&dyn nke_filters::Probe, &mut Cx<'_>)) {
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
