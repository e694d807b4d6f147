//! `acl`: permits and denies packets by a list of rules, first match wins. An IP filter, for IPv4 or IPv6.
//!
//! Arguments: `rules` (path of a file that is read again when it changes) or `rule` (the rules themselves); `hook`
//! (prerouting, input, forward, output; several with commas; default `forward,input`); `default` (`permit` or `deny`,
//! default `deny`: what no rule matches); `fragments` (`match`, `permit` or `deny`, default `match`: what becomes of
//! fragments without ports). The language of rules, and what else is dropped, is described in `docs/acl.md`.
//!
//! ```text
//!   packet.rs   burst of packets ──▶ keys
//!   classify/                        keys ──▶ numbers of rules     no locks, no allocation, no flow cache
//!   table.rs                                  numbers ──▶ verdicts, counters
//!   list/       text ──▶ rules  ┐
//!   watch.rs    file ──▶ text   ┴ on the control thread; the new table is published through `Swap`
//! ```

pub mod classify;
pub mod list;
mod packet;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Mutex, PoisonError};

use classify::{Key, MISS};
use packet::{Packets, Seen};
use table::{Table, Verdict};
use watch::Watch;

use super::hook_arg;
use crate::swap::Swap;
use crate::{
    Args, Batch, Counter, CreateError, Cx, DropReason, Family, IpAttachEnv, IpFilter, IpFilterKind, IpHooks,
    PerWorker,
};

/// Most packets of a batch.
const BATCH: usize = nke_mbuf::BURST_MAX;

/// The kind.
pub struct Acl;

impl IpFilterKind for Acl {
    fn name(&self) -> &str {
        "acl"
    }

    fn create(&self, env: &IpAttachEnv, args: &Args) -> Result<Box<dyn IpFilter>, CreateError> {
        Ok(match env.family {
            Family::V4 => Box::new(Filter::<u32>::new(env, args)?),
            Family::V6 => Box::new(Filter::<u128>::new(env, args)?),
        })
    }
}

/// What becomes of fragments without upper header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragments {
    Match,
    Permit,
    Deny,
}

/// Drop reasons, each with its counter.
struct Reasons {
    deny: DropReason,
    default: DropReason,
    fragment: DropReason,
}

#[derive(Default)]
struct Tally {
    permitted: Counter,
    denied: Counter,
}

/// Of the file, on the control thread.
#[derive(Default)]
struct Reloads {
    done: u64,
    failed: u64,
    /// The line with the mistake that keeps the old rules in force; 0 if there is none.
    line: u64,
    /// The mistake itself.
    error: Option<CreateError>,
}

/// An instance, for IPv4 with addresses as `u32` and for IPv6 with addresses as `u128`.
pub struct Filter<A> {
    hooks: IpHooks,
    default_deny: bool,
    fragments: Fragments,
    reasons: Reasons,
    workers: usize,
    table: Swap<Table<A>>,
    tally: PerWorker<Tally>,
    watch: Option<Watch>,
    reloads: Mutex<Reloads>,
}

impl<A: Packets> Filter<A> {
    /// As [`Acl`] makes them.
    pub fn new(env: &IpAttachEnv, args: &Args) -> Result<Filter<A>, CreateError> {
        let reason = |name: &str| {
            env.host
                .drop_reason(env.owner, name)
                .map_err(|e| CreateError::new(e.to_string(), "unload extensions with reasons of their own"))
        };
        Filter::with_reasons(args, env.workers, reason)
    }

    /// For `workers` workers, with drop reasons from `reason`.
    fn with_reasons(
        args: &Args,
        workers: usize,
        reason: impl Fn(&str) -> Result<DropReason, CreateError>,
    ) -> Result<Filter<A>, CreateError> {
        args.only(&["rules", "rule", "hook", "default", "fragments"])?;
        let (watch, text) = match (args.text("rules")?, args.text("rule")?) {
            (Some(path), None) => {
                let watch = Watch::new(path);
                let text = watch.read().map_err(unreadable)?;
                (Some(watch), text)
            }
            (None, Some(text)) => (None, text.to_owned()),
            _ => {
                let cure = "give either `rules` (path of a file) or `rule` (the rules themselves)";
                return Err(CreateError::new("an acl needs its rules from one place", cure));
            }
        };
        let table = build(watch.as_ref(), &text, workers).map_err(|(error, _)| error)?;
        Ok(Filter {
            hooks: hook_arg(args, "forward,input")?,
            default_deny: match args.text("default")? {
                None | Some("deny") => true,
                Some("permit") => false,
                Some(other) => return Err(unknown("default", other, "permit, deny")),
            },
            fragments: match args.text("fragments")? {
                None | Some("match") => Fragments::Match,
                Some("permit") => Fragments::Permit,
                Some("deny") => Fragments::Deny,
                Some(other) => return Err(unknown("fragments", other, "match, permit, deny")),
            },
            reasons: Reasons {
                deny: reason("deny")?,
                default: reason("default")?,
                fragment: reason("fragment")?,
            },
            workers,
            table: Swap::new(workers, table),
            tally: PerWorker::new(workers, Tally::default),
            watch,
            reloads: Mutex::default(),
        })
    }

    /// A burst sees one table from its first packet to its last.
    fn run(&self, worker: usize, batch: &mut Batch<'_>) {
        let before = batch.len() as u64;
        self.table.read(worker, |table| self.judge(table, worker, batch));
        let tally = self.tally.of(worker);
        let denied = before - batch.len() as u64;
        tally.denied.add(denied);
        tally.permitted.add(before - denied);
    }

    fn judge(&self, table: &Table<A>, worker: usize, batch: &mut Batch<'_>) {
        let none = Key {
            src: A::MIN,
            dst: A::MIN,
            sport: 0,
            dport: 0,
            protocol: 0,
            upper: false,
            flags: 0,
            rcvif: 0,
        };
        let (mut keys, mut places, mut count) = ([none; BATCH], [0u8; BATCH], 0);
        for place in batch.places() {
            let Some(mbuf) = batch.get(place) else { continue };
            let key = match (A::read(mbuf), self.fragments) {
                (Seen::Packet(key), _) | (Seen::LaterFragment(key), Fragments::Match) => key,
                (Seen::LaterFragment(_), Fragments::Permit) => continue,
                (Seen::LaterFragment(_), Fragments::Deny) | (Seen::Evasive, _) => {
                    batch.drop(place, self.reasons.fragment);
                    continue;
                }
            };
            (keys[count], places[count]) = (key, place as u8);
            count += 1;
        }
        let mut answers = [MISS; BATCH];
        table.classify(&keys[..count], &mut answers[..count]);
        for i in 0..count {
            match table.verdict(&keys[i], answers[i], worker) {
                Verdict::Permit => {}
                Verdict::Deny => batch.drop(places[i].into(), self.reasons.deny),
                Verdict::Default if self.default_deny => batch.drop(places[i].into(), self.reasons.default),
                Verdict::Default => {}
            }
        }
    }

    /// Takes the rules from the file anew if it changed. A list with mistakes leaves the old one in force.
    fn reload(&self) {
        let Some((watch, read)) = self.watch.as_ref().and_then(|w| Some((w, w.read_if_changed()?))) else {
            return;
        };
        let built = read
            .map_err(|cause| (unreadable(cause), 0))
            .and_then(|text| build::<A>(Some(watch), &text, self.workers));
        let mut reloads = self.reloads();
        match built {
            Ok(table) => {
                self.table.publish(table);
                *reloads = Reloads { done: reloads.done + 1, failed: reloads.failed, ..Reloads::default() };
            }
            Err((error, line)) => {
                *reloads =
                    Reloads { done: reloads.done, failed: reloads.failed + 1, line, error: Some(error) };
            }
        }
    }

    fn reloads(&self) -> std::sync::MutexGuard<'_, Reloads> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every rule in force, and how many packets matched it since it was read.
    pub fn hits(&self) -> Vec<(String, u64)> {
        self.table.newest(Table::hits)
    }

    /// What is wrong with the file, if it changed and the rules read before are still in force.
    pub fn last_error(&self) -> Option<CreateError> {
        self.reloads().error.clone()
    }
}

impl<A: Packets> IpFilter for Filter<A> {
    fn hooks(&self) -> IpHooks {
        self.hooks
    }

    fn prerouting(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx.worker, batch);
    }

    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx.worker, batch);
    }

    fn forward(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx.worker, batch);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.run(cx.worker, batch);
    }

    fn tick(&self) {
        self.reload();
        self.table.collect();
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let sum = |f: fn(&Tally) -> &Counter| self.tally.iter().map(|tally| f(tally).get()).sum();
        let (rules, bytes) = self.table.newest(|table| (table.len() as u64, table.len_bytes() as u64));
        let reloads = self.reloads();
        vec![
            ("permitted", sum(|tally| &tally.permitted)),
            ("denied", sum(|tally| &tally.denied)),
            ("rules", rules),
            ("table_bytes", bytes),
            ("reloads", reloads.done),
            ("reload_errors", reloads.failed),
            ("reload_error_line", reloads.line),
        ]
    }
}

/// The table of `text`, or what is wrong with it and in which line.
fn build<A: Packets>(
    watch: Option<&Watch>,
    text: &str,
    workers: usize,
) -> Result<Table<A>, (CreateError, u64)> {
    Table::build(text, workers).map_err(|e| {
        let place = watch.map_or("rule".into(), |watch| watch.path().display().to_string());
        let cause = format!("{place}:{}:{}: {}", e.line, e.column, e.message);
        (CreateError::new(cause, e.cure), e.line as u64)
    })
}

fn unreadable(cause: String) -> CreateError {
    CreateError::new(cause, "name a regular file of UTF-8 text that can be read")
}

fn unknown(argument: &str, value: &str, known: &str) -> CreateError {
    CreateError::new(format!("`{argument}` cannot be `{value}`"), format!("write one of: {known}"))
}
