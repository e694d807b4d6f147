//! What happens without being asked: solicitations, and ends of times.

use super::action::{Action, State};
use super::neighbors::Neighbors;
use super::table::Entry;
use crate::icmp::limit::TOKEN;

/// Entries looked at in one tick at most.
const TICK_MAX: usize = 1024;
/// When a solicitation that did not fit the rate is tried again.
const RETRY_MS: u64 = 100;

impl Neighbors {
    /// Goes on: retransmits, ages, gives up. Bounded work; call it every few ten milliseconds.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        for _ in 0..TICK_MAX {
            let Some(id) = self.wheel.due(now_ms) else { return };
            match self.table.at(id).deadline_ms {
                over if over <= now_ms => self.time_is_over(id, now_ms, out),
                later => self.wheel.set(id, later),
            }
        }
    }

    pub(super) fn arm(&mut self, id: u32, at_ms: u64) {
        self.table.at_mut(id).deadline_ms = at_ms;
        self.wheel.set(id, at_ms);
    }

    fn time_is_over(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        let entry = *self.table.at(id);
        match entry.state {
            None | Some(State::Static) => {}
            Some(State::Incomplete | State::Probe) if entry.mac.is_none() || !self.mirrors_kernel() => {
                if entry.tries < self.config.tries {
                    self.attempt(id, now_ms, out);
                } else {
                    self.fail(id, now_ms, out);
                }
            }
            Some(State::Failed) if entry.refs > 0 => {
                let sent = self.solicit(id, now_ms, out);
                let tries = entry.tries.saturating_add(u8::from(sent));
                self.table.at_mut(id).tries = tries;
                self.arm(id, now_ms + if sent { self.backoff_ms(tries) } else { RETRY_MS });
            }
            Some(State::Failed) => self.remove(id, out),
            // The kernel ages what is its own. It does not see our packets, so it is told of them.
            Some(_) if self.mirrors_kernel() => {
                if self.is_wanted(&entry, now_ms) {
                    self.solicit(id, now_ms, out);
                }
                self.arm(id, now_ms + self.config.reachable_ms);
            }
            Some(State::Stale) => self.remove(id, out),
            Some(_) => {
                self.enter(id, State::Stale, now_ms);
                self.settle(id, now_ms, out);
            }
        }
    }

    fn backoff_ms(&self, tries: u8) -> u64 {
        let delay = self.config.retransmit_ms.saturating_mul(1 << tries.min(16));
        delay.min(self.config.backoff_max_ms).max(self.config.retransmit_ms)
    }

    fn is_wanted(&self, entry: &Entry, now_ms: u64) -> bool {
        let recent = |used: u64| now_ms.saturating_sub(used) < self.config.reachable_ms;
        entry.refs > 0 || entry.used_ms.is_some_and(recent)
    }

    /// An entry became stale: it is asked for if it is wanted, and else has its time to be.
    pub(super) fn settle(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        if self.is_wanted(self.table.at(id), now_ms) {
            self.doubt(id, now_ms, out);
        } else {
            self.arm(id, now_ms + self.config.stale_ms);
        }
    }

    /// Asks a stale neighbour whether it is still there.
    pub(super) fn doubt(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        if self.mirrors_kernel() {
            self.solicit(id, now_ms, out);
        } else {
            self.enter(id, State::Probe, now_ms);
            self.attempt(id, now_ms, out);
        }
    }

    /// Looks for a neighbour from the beginning.
    pub(super) fn restart(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        self.without_mac(id, State::Incomplete, now_ms, out);
        self.attempt(id, now_ms, out);
    }

    /// The neighbour does not answer.
    pub(super) fn fail(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        self.stats.failed += 1;
        self.without_mac(id, State::Failed, now_ms, out);
        let kept = self.table.at(id).refs > 0;
        self.arm(id, now_ms + if kept { self.config.retransmit_ms } else { self.config.failed_ms });
    }

    fn without_mac(&mut self, id: u32, state: State, now_ms: u64, out: &mut Vec<Action>) {
        if self.table.at(id).mac.is_some() || state == State::Failed {
            self.gone(id, out);
        }
        let entry = self.table.at_mut(id);
        entry.mac = None;
        entry.proven = false;
        entry.given = false;
        self.enter(id, state, now_ms);
    }

    /// Solicits once more. A turn without a solicitation counts for those that never answered, so that their time is
    /// over all the same; the others get their tries.
    pub(super) fn attempt(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) {
        let sent = self.solicit(id, now_ms, out);
        let entry = self.table.at_mut(id);
        let counts = sent || !is_preferred(entry);
        entry.tries += u8::from(counts);
        self.arm(id, now_ms + if counts { self.config.retransmit_ms } else { RETRY_MS });
    }

    /// Whether one more solicitation fits the rate (RFC 6583 section 7.1: what is known is asked for first).
    pub(super) fn may_solicit(&mut self, preferred: bool, now_ms: u64) -> bool {
        let depth = u64::from(self.config.solicit_burst) * TOKEN;
        self.solicits.fill(now_ms, self.config.solicit_per_second, depth);
        self.solicits.tokens() >= TOKEN + if preferred { 0 } else { depth / 4 }
    }

    /// Sends a solicitation, unless one was sent a moment ago or there are too many.
    fn solicit(&mut self, id: u32, now_ms: u64, out: &mut Vec<Action>) -> bool {
        let entry = *self.table.at(id);
        let soon = |sent: u64| now_ms < sent.saturating_add(self.config.retransmit_ms);
        if entry.solicited_ms.is_some_and(soon) {
            return false;
        }
        if !self.may_solicit(is_preferred(&entry), now_ms) || !self.solicits.take() {
            self.stats.rate_limited += 1;
            return false;
        }
        self.stats.solicited += 1;
        self.table.at_mut(id).solicited_ms = Some(now_ms);
        let Entry { interface, address, .. } = entry;
        out.push(if self.mirrors_kernel() {
            Action::AskKernel { interface, address }
        } else {
            // The last try goes to all: the neighbour may have moved without saying so (RFC 7048 section 2).
            let last = entry.tries + 1 >= self.config.tries;
            let to = entry.mac.filter(|_| entry.state == Some(State::Probe) && !last);
            Action::Solicit { interface, address, to }
        });
        true
    }
}

fn is_preferred(entry: &Entry) -> bool {
    entry.proven || entry.refs > 0
}
