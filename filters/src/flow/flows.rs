//! A table whose records are flows: they age, and make room when it is full.
//!
//! Time is a count of seconds that [`Flows::age`] sets, about once a second; workers only read it. A flow is touched at
//! most once a second, so packets of one flow on several workers do not fight for its cache line.
//!
//! When the table is full, a flow that is not established is evicted (for TCP: no handshake, or ended; else: never
//! answered): the oldest of a sample that is spread over the table. So under a flood of openings it is the flood that makes
//! room for itself. If the sample has none, the new flow is refused.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::record::{Found, Life};
use super::state::{Direction, State, Timeouts};
use super::table::{Table, TableError};
use crate::FlowEntry;
use nke_mbuf::wire::TcpFlags;

/// Records looked at to make room for one. If one in twenty can be evicted, one opening in thirty is refused.
const EVICT_LOOKS: u32 = 64;
/// Records that can be evicted, of which the oldest is.
const EVICT_CHOICES: usize = 16;
/// Calls of [`Flows::age`] for one round through the table.
pub(crate) const SWEEP_TICKS: usize = 16;
/// Tries to change a flow that others change too. A change that is lost is made by the next packet.
const TOUCH_TRIES: usize = 4;

/// Why a flow was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The key of this side is there already: another worker was faster.
    Exists(usize),
    /// The table is full of flows that are not evicted.
    Full,
    /// Another worker was changing the same bucket all the time.
    Busy,
}

/// Whose a flow is, in the form for users.
pub(crate) struct Ends {
    pub(crate) protocol: u8,
    pub(crate) src: (IpAddr, u16),
    pub(crate) dst: (IpAddr, u16),
    pub(crate) translated: Option<(IpAddr, u16)>,
}

/// Figures since the table was made.
#[derive(Default)]
struct Tally {
    established: AtomicU64,
    created: AtomicU64,
    expired: AtomicU64,
    evicted: AtomicU64,
    table_full: AtomicU64,
    busy: AtomicU64,
}

/// Flows with `S` keys of `W` words. `low` of a record is the second it was last seen in, the flags are its [`State`].
pub(crate) struct Flows<const W: usize, const S: usize> {
    table: Table<W, S>,
    timeouts: Timeouts,
    now_s: AtomicU32,
    /// How far the rounds of eviction and of ageing are.
    evict_at: AtomicU32,
    /// Of the round of eviction: records beside each other are of the same age, or all established.
    stride: u64,
    sweep_at: AtomicU32,
    tally: Tally,
}

impl<const W: usize, const S: usize> Flows<W, S> {
    pub(crate) fn new(capacity: usize, timeouts: Timeouts) -> Flows<W, S> {
        Flows {
            table: Table::new(capacity),
            timeouts,
            now_s: AtomicU32::new(0),
            evict_at: AtomicU32::new(0),
            stride: stride(capacity as u64),
            sweep_at: AtomicU32::new(0),
            tally: Tally::default(),
        }
    }

    pub(crate) fn table(&self) -> &Table<W, S> {
        &self.table
    }

    /// The flow with this key. One that timed out is ended (`gone` is told) and not found.
    #[inline(always)]
    pub(crate) fn find_in(
        &self,
        bucket: u32,
        key: &[u64; W],
        gone: impl FnOnce(&Found<W, S>),
    ) -> Option<Found<W, S>> {
        let found = self.table.find_in(bucket, key)?;
        if self.is_over(found.life) {
            self.expire(&found, gone);
            return None;
        }
        Some(found)
    }

    /// Notes one more packet of a flow, and the state after it.
    #[inline(always)]
    pub(crate) fn touch(&self, found: &Found<W, S>, direction: Direction, tcp: TcpFlags) {
        let now_s = self.now_s.load(Ordering::Relaxed);
        let next = State(found.life.flags()).after(direction, tcp);
        if found.life.low() != now_s || found.life.flags() != next.0 {
            self.change(found, now_s, direction, tcp);
        }
    }

    #[cold]
    #[inline(never)]
    fn change(&self, found: &Found<W, S>, now_s: u32, direction: Direction, tcp: TcpFlags) {
        let mut life = found.life;
        for _ in 0..TOUCH_TRIES {
            let (was, is) = (State(life.flags()), State(life.flags()).after(direction, tcp));
            match self.table.update(found.index, life, life.with_flags(is.0).with_low(now_s)) {
                Ok(()) => return self.count_established(was.is_established(), is.is_established()),
                Err(now) if Table::is_same(found, now) => life = now,
                Err(_) => return,
            }
        }
    }

    fn count_established(&self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => self.tally.established.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.tally.established.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    /// Opens a flow; makes room for it if need be, by ending another one, of which `gone` is told.
    pub(crate) fn open(
        &self,
        keys: &[[u64; W]; S],
        value: u64,
        state: State,
        gone: impl Fn(&Found<W, S>),
    ) -> Result<Found<W, S>, Refusal> {
        let now_s = self.now_s.load(Ordering::Relaxed);
        let mut outcome = self.table.insert(keys, value, state.0, now_s);
        if outcome.as_ref().is_err_and(|e| *e == TableError::Full) && self.evict(&gone) {
            outcome = self.table.insert(keys, value, state.0, now_s);
        }
        let counter = match &outcome {
            Ok(_) => &self.tally.created,
            Err(TableError::Full) => &self.tally.table_full,
            Err(TableError::Busy) => &self.tally.busy,
            Err(TableError::Exists(side)) => return Err(Refusal::Exists(*side)),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome.map_err(|e| if e == TableError::Full { Refusal::Full } else { Refusal::Busy })
    }

    /// Ends the oldest flow of some that is not established; true if there was one.
    #[cold]
    fn evict(&self, gone: &impl Fn(&Found<W, S>)) -> bool {
        let mut oldest: Option<Found<W, S>> = None;
        let mut choices = 0;
        for found in self.next(&self.evict_at, EVICT_LOOKS, self.stride).filter_map(|i| self.table.at(i)) {
            if self.is_over(found.life) {
                if self.expire(&found, gone) {
                    return true;
                }
                continue;
            }
            if State(found.life.flags()).is_established() {
                continue;
            }
            if oldest.as_ref().is_none_or(|oldest| self.age_s(found.life) > self.age_s(oldest.life)) {
                oldest = Some(found);
            }
            choices += 1;
            if choices == EVICT_CHOICES {
                break;
            }
        }
        let evicted = oldest.is_some_and(|found| self.end(&found, gone));
        if evicted {
            self.tally.evicted.fetch_add(1, Ordering::Relaxed);
        }
        evicted
    }

    /// Numbers of the next `count` records of the round at `hand`, which takes steps of `stride`.
    fn next(&self, hand: &AtomicU32, count: u32, stride: u64) -> impl Iterator<Item = u32> + use<W, S> {
        let capacity = self.table.capacity() as u64;
        let start = hand.fetch_add(count, Ordering::Relaxed);
        (0..count.min(capacity as u32))
            .map(move |i| (u64::from(start.wrapping_add(i)) * stride % capacity) as u32)
    }

    fn age_s(&self, life: Life) -> u32 {
        // A worker may have read the time just before it went on.
        self.now_s.load(Ordering::Relaxed).saturating_sub(life.low())
    }

    #[inline(always)]
    fn is_over(&self, life: Life) -> bool {
        self.age_s(life) > self.timeouts.of(State(life.flags()))
    }

    #[cold]
    fn expire(&self, found: &Found<W, S>, gone: impl FnOnce(&Found<W, S>)) -> bool {
        let ended = self.end(found, gone);
        if ended {
            self.tally.expired.fetch_add(1, Ordering::Relaxed);
        }
        ended
    }

    /// Ends a flow, unless it was touched since it was found; tells `gone` if so.
    pub(crate) fn end(&self, found: &Found<W, S>, gone: impl FnOnce(&Found<W, S>)) -> bool {
        if !self.table.remove(found.index, found.life) {
            return false;
        }
        self.count_established(State(found.life.flags()).is_established(), false);
        gone(found);
        true
    }

    /// Sets the time and ends flows that timed out, in the next part of the table. For the control thread.
    pub(crate) fn age(&self, now_s: u32, gone: impl Fn(&Found<W, S>)) {
        self.now_s.store(now_s, Ordering::Relaxed);
        let part = self.table.capacity().div_ceil(SWEEP_TICKS) as u32;
        for index in self.next(&self.sweep_at, part, 1) {
            match self.table.at(index) {
                Some(found) if self.is_over(found.life) => {
                    self.expire(&found, &gone);
                }
                Some(_) => {}
                None => {
                    self.table.adopt(index);
                }
            }
        }
    }

    /// Up to `most` flows as users see them: `ends` says whose the keys are.
    pub(crate) fn entries(&self, most: usize, ends: impl Fn(&Found<W, S>) -> Ends) -> Vec<FlowEntry> {
        let records = (0..self.table.capacity() as u32).filter_map(|index| self.table.at(index));
        let entry = |found: Found<W, S>| {
            let Ends { protocol, src, dst, translated } = ends(&found);
            let state = State(found.life.flags());
            let (idle_s, timeout_s) = (self.age_s(found.life), self.timeouts.of(state));
            FlowEntry { protocol, src, dst, translated, state: state.name(), idle_s, timeout_s }
        };
        records.filter(|found| !self.is_over(found.life)).take(most).map(entry).collect()
    }

    /// Figures, for `nke show filters`.
    pub(crate) fn figures(&self) -> Vec<(&'static str, u64)> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("flows", self.table.len() as u64),
            ("flows_max", self.table.capacity() as u64),
            ("established", get(&self.tally.established)),
            ("created", get(&self.tally.created)),
            ("expired", get(&self.tally.expired)),
            ("evicted", get(&self.tally.evicted)),
            ("table_full", get(&self.tally.table_full)),
            ("busy", get(&self.tally.busy)),
        ]
    }
}

/// A step that visits all of `capacity` records, each few of them far apart: near the golden section, without a divisor in
/// common.
fn stride(capacity: u64) -> u64 {
    let common = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (capacity * 618 / 1000..).find(|step| common(*step, capacity) == 1).unwrap_or(1)
}
