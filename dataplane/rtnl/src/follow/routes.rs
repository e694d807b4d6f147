//! What the kernel's routing tables hold, from its dumps and notifications, and the best route of each prefix.
//!
//! A table may have several routes of one prefix. They are kept in the kernel's order: by priority, and among equal ones as
//! the notifications say. What NLM_F_REPLACE and NLM_F_APPEND mean there (fib_table_insert, fib6_add_rt2node; the tests
//! try it on the kernel at hand):
//!
//! - IPv4: a route is new in front of those of its priority; with APPEND, behind them; with REPLACE, in the place of the
//!   first of them. A route that is removed is described whole.
//! - IPv6: routes of equal priority with a router are legs of one ([`Record::is_leg`]). A notification of a new one names
//!   all legs, of a removed one that leg, or all if all went at once. REPLACE takes the place of all legs. Others are new
//!   behind those of their priority. What REPLACE does to a mix of legs and others is not modelled: see [`Outcome::Unsure`].
//!   A dump leaves out others that stand between legs (Linux 6.18), which are never the best.

use std::collections::HashMap;
use std::ops::Range;

use super::mirror::Limit;
use crate::change::{Change, Event, Kind, NextHop, Route, RouteKind};
use crate::parse::{Record, RouteKey};

/// How far a notification left the mirror sure of what the kernel has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Sure,
    /// Sure if everything before it was known: there are several routes of this priority, and their order matters.
    InOrder,
    /// A route that is not known is removed.
    Unknown,
    /// The kernel has to be asked.
    Unsure,
    /// There is no room.
    Refused,
}

/// The routes of one family.
pub(super) struct Routes {
    table: HashMap<RouteKey, Vec<Record>>,
    /// All records.
    len: usize,
    pub limit: Limit,
    /// There was a route with a next hop object, which the kernel changes without telling of its routes.
    pub has_objects: bool,
}

impl Routes {
    pub fn new(max: usize) -> Routes {
        Routes { table: HashMap::new(), len: 0, limit: Limit::new(max), has_objects: false }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The best route of each prefix.
    pub fn best(&self) -> impl Iterator<Item = Route> {
        self.table.iter().filter_map(|(key, list)| best(key, list))
    }

    /// Takes a route of a dump; it goes behind those of its priority that this dump has brought before.
    pub fn dumped(&mut self, key: RouteKey, record: Record, tell: &mut dyn FnMut(Change)) -> Outcome {
        let list = self.table.get_mut(&key).map(Vec::as_mut_slice).unwrap_or_default();
        match list {
            [only] if only.is_same(&record) && only.hops == record.hops => {
                only.generation = record.generation;
                return Outcome::Sure;
            }
            _ => {}
        }
        if !list.iter().any(|known| known.is_same(&record)) && !self.has_room(tell) {
            return Outcome::Refused;
        }
        self.edit(key, tell, |list| {
            list.retain(|known| !known.is_same(&record));
            let seen = |known: &Record| {
                known.priority < record.priority
                    || known.priority == record.priority && known.generation == record.generation
            };
            let at = list.iter().take_while(|known| seen(known)).count();
            list.insert(at, record);
        });
        Outcome::Sure
    }

    /// Takes a notification of a new route; `flags` are the message's.
    pub fn added(
        &mut self,
        key: RouteKey,
        record: Record,
        flags: u16,
        tell: &mut dyn FnMut(Change),
    ) -> Outcome {
        let list = self.table.get(&key).map(Vec::as_slice).unwrap_or_default();
        let replace = i32::from(flags) & libc::NLM_F_REPLACE != 0;
        let group = &list[equal(list, record.priority)];
        let all_legs = key.dst.is_ipv6() && record.is_leg() && (replace || record.hops.len() > 1);
        let grows = if all_legs {
            !group.iter().any(Record::is_leg)
        } else if replace {
            group.is_empty()
        } else {
            !group.iter().any(|known| known.is_same(&record))
        };
        if grows && !self.has_room(tell) {
            return Outcome::Refused;
        }
        self.edit(key, tell, |list| {
            if key.dst.is_ipv4() {
                added_v4(list, record, replace, i32::from(flags) & libc::NLM_F_APPEND != 0)
            } else {
                added_v6(list, record, replace)
            }
        })
    }

    /// Takes a notification of a removed route.
    pub fn removed(&mut self, key: RouteKey, record: &Record, tell: &mut dyn FnMut(Change)) -> Outcome {
        if !self.table.contains_key(&key) {
            return Outcome::Unknown;
        }
        self.edit(key, tell, |list| {
            let before = equal(list, record.priority).len();
            let found = if key.dst.is_ipv6() && record.is_leg() {
                remove_legs(list, record)
            } else {
                let at = list.iter().position(|known| known.is_same(record));
                at.map(|at| list.remove(at)).is_some()
            };
            match found {
                false => Outcome::Unknown,
                true if before > 1 => Outcome::InOrder,
                true => Outcome::Sure,
            }
        })
    }

    /// Removes the routes that the dump of this generation did not see. Whether to dump again.
    pub fn sweep(&mut self, generation: u32, tell: &mut dyn FnMut(Change)) -> bool {
        for (key, list) in &mut self.table {
            let kept = |known: &Record| known.generation == generation;
            if !list.iter().all(kept) {
                let (was, len) = (best(key, list), list.len());
                list.retain(kept);
                self.len -= len - list.len();
                tell_difference(was, best(key, list), tell);
            }
        }
        self.table.retain(|_, list| !list.is_empty());
        self.limit.finish(self.len)
    }

    fn has_room(&mut self, tell: &mut dyn FnMut(Change)) -> bool {
        if self.len < self.limit.max {
            return true;
        }
        if self.limit.refuse() {
            tell(Change::TooMany(Kind::Routes, self.limit.max));
        }
        false
    }

    /// Changes the list of a prefix, and tells if another route is its best then.
    fn edit<R>(
        &mut self,
        key: RouteKey,
        tell: &mut dyn FnMut(Change),
        edit: impl FnOnce(&mut Vec<Record>) -> R,
    ) -> R {
        let list = self.table.entry(key).or_default();
        let (was, len) = (best(&key, list), list.len());
        let result = edit(list);
        self.len = self.len - len + list.len();
        tell_difference(was, best(&key, list), tell);
        if list.is_empty() {
            self.table.remove(&key);
        }
        result
    }
}

/// Where the routes of a priority are in a list.
fn equal(list: &[Record], priority: u32) -> Range<usize> {
    let start = list.partition_point(|known| known.priority < priority);
    start..list.partition_point(|known| known.priority <= priority)
}

fn added_v4(list: &mut Vec<Record>, record: Record, replace: bool, append: bool) -> Outcome {
    let range = equal(list, record.priority);
    let several = if range.len() > 1 { Outcome::InOrder } else { Outcome::Sure };
    if let Some(known) = list[range.clone()].iter_mut().find(|known| known.is_same(&record)) {
        // It is told anew when marks on its next hops change, and when it is older than a dump that has it.
        *known = record;
        return several;
    }
    if replace && !range.is_empty() {
        list[range.start] = record;
        return several;
    }
    list.insert(if append { range.end } else { range.start }, record);
    if range.is_empty() { Outcome::Sure } else { Outcome::InOrder }
}

fn added_v6(list: &mut Vec<Record>, record: Record, replace: bool) -> Outcome {
    let range = equal(list, record.priority);
    let (legs, others): (Vec<usize>, Vec<usize>) = range.clone().partition(|at| list[*at].is_leg());
    let alike = if record.is_leg() { &legs } else { &others };
    let outcome = match (replace, alike.len(), range.len()) {
        // Something of the other sort was replaced, or there were both.
        (true, alike, all) if alike < all => Outcome::Unsure,
        (true, 2.., _) if !record.is_leg() => Outcome::Unsure,
        (_, _, 0 | 1) => Outcome::Sure,
        _ => Outcome::InOrder,
    };
    if replace
        && !record.is_leg()
        && let Some(first) = range.clone().next()
    {
        list[*others.first().unwrap_or(&first)] = record;
        return outcome;
    }
    if record.is_leg() && (replace || record.hops.len() > 1) {
        // All legs there are.
        let at = legs.first().copied().unwrap_or(range.end);
        for leg in legs.iter().rev() {
            list.remove(*leg);
        }
        list.insert(at, record);
        return outcome;
    }
    match list[range.clone()].iter_mut().find(|known| known.is_same(&record)) {
        Some(known) => *known = record,
        None => list.insert(range.end, record),
    }
    outcome
}

/// Removes legs from the routes of their priority; whether all were there.
fn remove_legs(list: &mut Vec<Record>, gone: &Record) -> bool {
    let mut missing = gone.hops.clone();
    for known in list.iter_mut().filter(|known| known.priority == gone.priority && known.is_leg()) {
        known.hops.retain(|hop| {
            let same =
                |gone: &&crate::parse::Hop| (gone.to.ifindex, gone.to.via) == (hop.to.ifindex, hop.to.via);
            let Some(at) = missing.iter().position(|gone| same(&gone)) else { return true };
            missing.swap_remove(at);
            false
        });
    }
    list.retain(|known| known.kind != RouteKind::Unicast || !known.hops.is_empty());
    missing.is_empty()
}

/// The route that packets take.
fn best(key: &RouteKey, list: &[Record]) -> Option<Route> {
    let first = list.iter().find(|record| record.is_alive())?;
    let mut next_hops: Vec<NextHop> = Vec::new();
    if !first.kind.is_reject() {
        // Legs may be routes of their own, in kernels before 4.11.
        let joined = key.dst.is_ipv6() && first.is_leg();
        let leg = |record: &&Record| joined && record.priority == first.priority && record.is_leg();
        let rest = list.iter().filter(leg).filter(|record| !std::ptr::eq(*record, first));
        let hops = std::iter::once(first).chain(rest).flat_map(|record| &record.hops);
        next_hops.extend(hops.filter(|hop| !hop.dead || first.kind != RouteKind::Unicast).map(|hop| hop.to));
        next_hops.sort_unstable();
        if joined {
            next_hops.dedup_by_key(|hop| (hop.ifindex, hop.via));
        }
    }
    Some(Route {
        table: key.table,
        dst: key.dst,
        prefix_len: key.prefix_len,
        kind: first.kind,
        priority: first.priority,
        protocol: first.protocol,
        next_hops,
    })
}

fn tell_difference(was: Option<Route>, is: Option<Route>, tell: &mut dyn FnMut(Change)) {
    match (was, is) {
        (None, Some(is)) => tell(Change::Route(Event::Added, is)),
        (Some(was), None) => tell(Change::Route(Event::Removed, was)),
        (Some(was), Some(is)) if was != is => tell(Change::Route(Event::Changed, is)),
        _ => {}
    }
}
