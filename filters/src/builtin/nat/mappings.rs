//! Which outside endpoint stands for which inside endpoint, and who may send to it.
//!
//! A mapping does not depend on the remote end (RFC 4787 REQ-1): all sessions of an inside endpoint share it. It lives as
//! long as a session holds it; the mappings of forwards live for ever. Its outside key being there once in the table *is*
//! the allocation of the port, so two workers cannot give one port away twice.
//!
//! With address-dependent filtering there is also a permit for each outside endpoint and remote address, which the
//! sessions between the two hold in the same way.

use nke_mbuf::hash::scale;
use nke_mbuf::wire::Protocol;

use super::args::{Config, Endpoint, Filtering};
use crate::flow::{Found, Table, TableError};

/// Records beyond one for each session: for those in the making, and for orphans.
const SPARE: usize = 256;
/// The count of holders of what lives for ever.
const FOR_EVER: u32 = u32::MAX;
/// Ports tried on one address.
const PROBES: u32 = 64;
/// Outside addresses tried, the one that the inside address is paired with first.
const ADDRESSES: u32 = 4;
/// Tries when other workers make or end the same mapping.
const TRIES: usize = 4;
/// In place of a permit, with endpoint-independent filtering.
const NO_PERMIT: u32 = u32::MAX;

/// Why no mapping was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoMapping {
    /// All ports that were tried are taken.
    NoPort,
    /// There is no room for a mapping.
    Full,
    /// Other workers were at work on the same ones all the time.
    Busy,
}

/// A mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    /// Number of its record.
    pub(super) index: u32,
    pub(super) inside: Endpoint,
    pub(super) outside: Endpoint,
    /// It is a forward's.
    pub(super) for_ever: bool,
}

impl Mapping {
    fn of(found: &Found<1, 2>) -> Mapping {
        Mapping {
            index: found.index,
            inside: end_of(found.keys[0]),
            outside: end_of(found.keys[1]),
            for_ever: found.life.low() == FOR_EVER,
        }
    }
}

pub(super) struct Mappings {
    /// By inside endpoint (side 0) and outside endpoint (side 1); the low half of the life word counts holders.
    table: Table<1, 2>,
    permits: Option<Table<2, 1>>,
    pool: super::ranges::Ranges,
    ports: (u16, u16),
}

impl Mappings {
    /// Room for the mappings of `config.flows` sessions, and the forwards. `None` if the forwards do not fit, which takes
    /// two with an end in common.
    pub(super) fn new(config: &Config) -> Option<Mappings> {
        let mappings = Mappings {
            table: Table::new(config.flows + config.forwards.len() + SPARE),
            permits: (config.filtering == Filtering::Address).then(|| Table::new(config.flows + SPARE)),
            pool: config.pool.clone(),
            ports: config.ports,
        };
        for forward in &config.forwards {
            let keys = [key(forward.protocol.0, forward.inside), key(forward.protocol.0, forward.outside)];
            mappings.table.insert(&keys, 0, 0, FOR_EVER).ok()?;
        }
        Some(mappings)
    }

    /// Mappings there are, those of forwards too.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn by_inside(&self, protocol: u8, inside: Endpoint) -> Option<Mapping> {
        self.table
            .find(&key(protocol, inside))
            .filter(|found| found.side == 0)
            .map(|found| Mapping::of(&found))
    }

    pub(super) fn by_outside(&self, protocol: u8, outside: Endpoint) -> Option<Mapping> {
        self.table
            .find(&key(protocol, outside))
            .filter(|found| found.side == 1)
            .map(|found| Mapping::of(&found))
    }

    /// The mapping of an inside endpoint, made if need be, and held: give it back with [`Mappings::release`].
    pub(super) fn hold(&self, protocol: u8, inside: Endpoint) -> Result<Mapping, NoMapping> {
        for _ in 0..TRIES {
            match self.table.find(&key(protocol, inside)) {
                Some(found) if found.side == 0 => {
                    if hold(&self.table, &found) {
                        return Ok(Mapping::of(&found));
                    }
                }
                _ => {
                    if let Some(mapping) = self.make(protocol, inside)? {
                        return Ok(mapping);
                    }
                }
            }
        }
        Err(NoMapping::Busy)
    }

    /// `None` if another worker has just made one.
    fn make(&self, protocol: u8, inside: Endpoint) -> Result<Option<Mapping>, NoMapping> {
        let mine = key(protocol, inside);
        for outside in self.candidates(protocol, inside) {
            let theirs = key(protocol, outside);
            if self.table.find(&theirs).is_some() {
                continue;
            }
            match self.table.insert(&[mine, theirs], 0, 0, 1) {
                Ok(found) => return Ok(Some(Mapping::of(&found))),
                Err(TableError::Exists(0)) => return Ok(None),
                Err(TableError::Exists(_)) => {}
                Err(TableError::Full) => return Err(NoMapping::Full),
                Err(TableError::Busy) => return Err(NoMapping::Busy),
            }
        }
        Err(NoMapping::NoPort)
    }

    /// Outside endpoints to try, in order. An inside address is paired with one outside address (RFC 4787 REQ-2), by
    /// hash; others are tried when its ports are gone. The port is kept if it can be, else it is drawn by hash, so that
    /// nobody outside can foresee it (RFC 6056).
    fn candidates(&self, protocol: u8, inside: Endpoint) -> impl Iterator<Item = Endpoint> + '_ {
        let addresses = self.pool.len() as u32;
        let hash = move |salt: u64| self.table.hash().words([key(protocol, inside)[0], salt]);
        let home = if addresses == 0 {
            0
        } else {
            scale(self.table.hash().words([u64::from(inside.0)]), addresses as usize) as u32
        };
        let (first, last) = self.ports;
        let count = u32::from(last - first) + 1;
        let has_ports = matches!(Protocol(protocol), Protocol::TCP | Protocol::UDP | Protocol::ICMP);
        (0..addresses.min(ADDRESSES)).flat_map(move |nth| {
            let address = self.pool.get((home + nth) % addresses);
            let kept = has_ports && (first..=last).contains(&inside.1);
            let start = scale(hash(u64::from(nth) << 32), count as usize) as u32;
            let drawn = (0..if has_ports { PROBES.min(count) } else { 0 }).map(move |probe| {
                let offset = match count <= PROBES {
                    true => (start + probe) % count,
                    false => scale(hash(u64::from(nth) << 32 | u64::from(probe)), count as usize) as u32,
                };
                first + offset as u16
            });
            let whole = (!has_ports).then_some(0);
            kept.then_some(inside.1).into_iter().chain(whole).chain(drawn).map(move |port| (address, port))
        })
    }

    /// The number of the permit to send to `outside` for a remote address, made if need be, and held.
    pub(super) fn permit(&self, protocol: u8, outside: Endpoint, remote: u32) -> Result<u32, NoMapping> {
        let Some(permits) = &self.permits else { return Ok(NO_PERMIT) };
        let key = permit_key(protocol, outside, remote);
        for _ in 0..TRIES {
            if let Some(found) = permits.find(&key) {
                if hold(permits, &found) {
                    return Ok(found.index);
                }
                continue;
            }
            match permits.insert(&[key], 0, 0, 1) {
                Ok(found) => return Ok(found.index),
                Err(TableError::Exists(_)) => {}
                Err(TableError::Full) => return Err(NoMapping::Full),
                Err(TableError::Busy) => return Err(NoMapping::Busy),
            }
        }
        Err(NoMapping::Busy)
    }

    /// Whether a remote address may send to `outside` although there is no session.
    pub(super) fn is_permitted(&self, protocol: u8, outside: Endpoint, remote: u32) -> bool {
        let permit = permit_key(protocol, outside, remote);
        self.permits.as_ref().is_none_or(|permits| permits.find(&permit).is_some())
    }

    /// Gives a mapping back, and the permit if there is one. Who gives back the last hold ends it.
    pub(super) fn release(&self, mapping: u32, permit: Option<u32>) {
        release(&self.table, mapping);
        if let (Some(permits), Some(permit)) = (&self.permits, permit.filter(|permit| *permit != NO_PERMIT)) {
            release(permits, permit);
        }
    }

    /// Frees what workers could not. For the control thread.
    pub(super) fn tidy(&self) {
        self.table.adopt_all();
        if let Some(permits) = &self.permits {
            permits.adopt_all();
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.table.check();
        if let Some(permits) = &self.permits {
            permits.check();
        }
    }

    #[cfg(test)]
    pub(super) fn permits_len(&self) -> usize {
        self.permits.as_ref().map_or(0, Table::len)
    }
}

/// One more holder; `false` if it has ended meanwhile. Each turn of the loop means that another worker got on.
fn hold<const W: usize, const S: usize>(table: &Table<W, S>, found: &Found<W, S>) -> bool {
    let mut life = found.life;
    while life.low() != FOR_EVER {
        match table.update(found.index, life, life.with_low(life.low() + 1)) {
            Ok(()) => break,
            Err(now) if Table::is_same(found, now) => life = now,
            Err(_) => return false,
        }
    }
    true
}

/// One holder less. The record cannot be another's meanwhile: the caller holds it.
fn release<const W: usize, const S: usize>(table: &Table<W, S>, index: u32) {
    while let Some(found) = table.at(index) {
        let done = match found.life.low() {
            FOR_EVER => true,
            1 => table.remove(index, found.life),
            more => table.update(index, found.life, found.life.with_low(more - 1)).is_ok(),
        };
        if done {
            return;
        }
    }
}

fn key(protocol: u8, end: Endpoint) -> [u64; 1] {
    [u64::from(end.0) << 32 | u64::from(end.1) << 16 | u64::from(protocol)]
}

fn end_of(key: [u64; 1]) -> Endpoint {
    ((key[0] >> 32) as u32, (key[0] >> 16) as u16)
}

fn permit_key(protocol: u8, outside: Endpoint, remote: u32) -> [u64; 2] {
    [u64::from(remote) << 32 | u64::from(outside.0), u64::from(outside.1) << 16 | u64::from(protocol)]
}
