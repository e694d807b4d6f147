//! Unloading an extension: its kinds are unregistered once nothing of it is attached, and the ledger is empty.

use std::time::{Duration, Instant};

use nke_filters::HoldKind;
use nke_mbuf::Owner;

use crate::command::{Reply, answer};
use crate::fault::{Fault, Holder};
use crate::manager::{Manager, micros};
use crate::report::UnloadReport;

/// An unload waiting for instances and ledger.
pub(crate) struct Unloading {
    name: String,
    owner: Owner,
    asked: Instant,
    pub(crate) deadline: Instant,
    filters_detached: usize,
    mbufs_before: usize,
    lost_before: u64,
    reply: Reply<UnloadReport>,
}

impl Manager {
    pub(crate) fn unregister(&mut self, name: String, wait: Duration, reply: Reply<UnloadReport>) {
        let registered = match self.kinds.find(&name) {
            Ok(registered) => registered,
            Err(fault) => {
                answer(reply, Err(fault));
                return;
            }
        };
        if registered.stopping {
            answer(reply, Err(Fault::Stopping(name)));
            return;
        }
        registered.stopping = true;
        let owner = registered.owner;
        let ids: Vec<_> = self.attachments.iter().filter(|a| a.owner == owner).map(|a| a.id).collect();
        let asked = Instant::now();
        self.unloading.push(Unloading {
            name,
            owner,
            asked,
            // A wait beyond what a clock can say is a day.
            deadline: asked.checked_add(wait).unwrap_or(asked + Duration::from_secs(86_400)),
            filters_detached: ids.len(),
            mbufs_before: self.shared.pool.census().of(owner),
            lost_before: self.shared.unwanted_drops(),
            reply,
        });
        self.interfaces.unregister_plumbers_of(owner);
        let mine = |i: &&crate::ifnet::Ifnet| i.state().is_attached() && i.identity().owner == owner;
        let interfaces: Vec<_> = self.shared.interfaces.iter().filter(mine).map(|i| i.index).collect();
        for interface in interfaces {
            self.if_detach(interface, None);
        }
        self.detach_protocols_of(owner);
        for id in ids {
            self.detach(id, None);
        }
    }

    pub(crate) fn finish_unloading(&mut self) {
        let mut waiting = std::mem::take(&mut self.unloading);
        waiting.retain_mut(|unloading| {
            if self.is_leaving(unloading.owner) && !self.stuck(unloading) {
                return true;
            }
            let holders = self.holders(unloading.owner);
            if holders.is_empty() {
                self.unloaded(unloading);
                return false;
            }
            if Instant::now() < unloading.deadline {
                return true;
            }
            if let Some(kind) = self.kinds.of(unloading.owner) {
                kind.stopping = false;
            }
            answer(unloading.reply.take(), Err(Fault::Busy(holders)));
            false
        });
        self.unloading.append(&mut waiting);
    }

    /// Whether something of an extension waits for a grace period.
    fn is_leaving(&self, owner: Owner) -> bool {
        self.draining.iter().any(|d| d.attachment.owner == owner)
            || self.detaching.iter().any(|d| d.owner == owner)
            || self.unplumbed.iter().any(|(_, u)| u.protocol.owner == owner)
    }

    /// Whether an unload has waited long enough for workers to leave its filters.
    fn stuck(&self, unloading: &Unloading) -> bool {
        Instant::now() >= unloading.deadline
    }

    fn unloaded(&mut self, unloading: &mut Unloading) {
        self.kinds.remove(unloading.owner);
        let report = UnloadReport {
            name: unloading.name.clone(),
            filters_detached: unloading.filters_detached,
            mbufs_returned: unloading.mbufs_before,
            leaked: self.shared.ledger.entries(Some(unloading.owner)).len(),
            code_unmapped: false,
            packets_lost: self.shared.unwanted_drops() - unloading.lost_before,
            total_us: micros(unloading.asked),
        };
        answer(unloading.reply.take(), Ok(report));
    }

    /// What an extension holds beside its registration.
    fn holders(&self, owner: Owner) -> Vec<Holder> {
        const LISTED_MAX: usize = 64;
        let entries = self.shared.ledger.entries(Some(owner)).into_iter();
        let mut holders: Vec<_> = entries
            .filter(|e| e.kind != HoldKind::Registration)
            .map(|e| Holder {
                kind: e.kind.name(),
                name: e.name,
                age_ms: e.since.elapsed().as_millis() as u64,
                made_at: format!("{}:{}", e.made_at.file(), e.made_at.line()),
            })
            .collect();
        let now_ms = self.shared.started.elapsed().as_millis() as u64;
        holders.extend(self.shared.pool.holdings(owner, LISTED_MAX).into_iter().map(|h| Holder {
            kind: HoldKind::Mbuf.name(),
            name: format!("frame {}", h.frame),
            age_ms: now_ms.saturating_sub(h.since_ms),
            made_at: String::new(),
        }));
        holders
    }
}
