//! The hook runner: takes a burst through one chain of filters, of an interface or of IP.

use std::sync::Arc;

use nke_filters::{
    AttachId, Batch, CallEnv, Cookie, Cx, Direction, DropReason, IfIndex, IpHook, Removed, Requeue, Stage,
};
use nke_mbuf::{Burst, Cache, Mbuf, Owner};

use crate::caught::caught;
use crate::drop::FILTER_PANIC;
use crate::probes::Probes;
use crate::snapshot::{Attachment, Chain, Instance, OnPanic};
use crate::status::WorkerStatus;

/// What a chain works with: parts of the worker it runs on.
pub struct Hook<'a> {
    /// The worker's number.
    pub worker: usize,
    /// Its cache.
    pub cache: &'a mut Cache,
    /// Where dropped packets wait to be counted.
    pub removed: &'a mut Removed,
    /// Where packets wait that extensions handed on.
    pub requeue: &'a mut Requeue,
    /// Its counters.
    pub status: &'a WorkerStatus,
    /// Whoever wants to be told of drops.
    pub probes: &'a Probes,
    /// Milliseconds since the dataplane started.
    pub now_ms: u64,
}

impl Hook<'_> {
    /// Runs `burst` through `chain`; what filters dropped is counted and freed, what they took is gone.
    #[inline]
    pub fn run(&mut self, chain: &Chain, direction: Direction, burst: &mut Burst) {
        if chain.entries.is_empty() {
            return;
        }
        if chain.needs_protocol {
            demux(burst);
        }
        for entry in &chain.entries {
            if burst.is_empty() {
                break;
            }
            self.call(entry, direction, burst);
        }
        self.status.in_filter.set(0);
    }

    #[inline]
    fn call(&mut self, entry: &Attachment, direction: Direction, burst: &mut Burst) {
        let selected = match entry.protocol {
            None => u64::MAX >> (64 - burst.len()),
            Some(ethertype) => select(burst, ethertype),
        };
        let Instance::Interface(filter) = &entry.filter else { return };
        if selected == 0 {
            return;
        }
        let gone = self.show(entry, burst, selected, |cx, batch| match direction {
            Direction::Input => filter.input(cx, batch),
            Direction::Output => filter.output(cx, batch),
        });
        if gone != 0 {
            burst.compact();
        }
    }

    /// Runs the packets of `burst` at the places in `selected` through the IP filters of `chain`; returns the places that
    /// still have one. Packets keep their places.
    #[inline]
    pub fn run_ip(
        &mut self,
        chain: &[Arc<Attachment>],
        hook: IpHook,
        burst: &mut Burst,
        mut selected: u64,
    ) -> u64 {
        for entry in chain {
            let Instance::Ip(.., filter) = &entry.filter else { continue };
            if selected == 0 {
                break;
            }
            selected &= !self.show(entry, burst, selected, |cx, batch| match hook {
                IpHook::Prerouting => filter.prerouting(cx, batch),
                IpHook::Input => filter.input(cx, batch),
                IpHook::Forward => filter.forward(cx, batch),
                IpHook::Output => filter.output(cx, batch),
            });
        }
        if !chain.is_empty() {
            self.status.in_filter.set(0);
        }
        selected
    }

    /// Shows the packets at the places in `selected` to one instance; returns the places that are empty now.
    #[inline]
    fn show(
        &mut self,
        entry: &Attachment,
        burst: &mut Burst,
        selected: u64,
        call: impl FnOnce(&mut Cx<'_>, &mut Batch<'_>),
    ) -> u64 {
        self.trace(burst, selected, &Stage::Filter(entry.id));
        self.status.in_filter.set(u64::from(entry.id.0));
        let stats = &entry.stats[self.worker];
        stats.packets.add(u64::from(selected.count_ones()));
        let env = entry.env(self.worker, self.now_ms);
        let (gone, panicked) = self.guarded(env, burst, selected, call);
        if panicked {
            stats.panics.add(1);
            self.status.panicked.set(1);
            let closed = match entry.on_panic {
                OnPanic::Open => 0,
                OnPanic::Closed => self.drop_places(burst, selected & !gone, FILTER_PANIC),
            };
            self.settle(entry, gone);
            return gone | closed;
        }
        if gone != 0 {
            self.settle(entry, gone);
        }
        gone
    }

    /// Calls code of an extension with the packets at the places in `selected`. Returns the places it emptied, and whether
    /// it panicked.
    #[inline]
    fn guarded(
        &mut self,
        env: CallEnv,
        burst: &mut Burst,
        selected: u64,
        call: impl FnOnce(&mut Cx<'_>, &mut Batch<'_>),
    ) -> (u64, bool) {
        let mut batch = Batch::new(burst, selected, self.removed, env.owner);
        let mut cx = Cx::new(env, self.cache, self.requeue);
        let outcome = caught(|| call(&mut cx, &mut batch));
        (batch.gone(), outcome.is_none())
    }

    /// Calls a driver or protocol of an extension with the packets at the places in `selected`. Returns the places that are
    /// empty now: all of them after a panic.
    #[cold]
    pub fn extension(
        &mut self,
        interface: IfIndex,
        owner: Owner,
        burst: &mut Burst,
        selected: u64,
        call: impl FnOnce(&mut Cx<'_>, &mut Batch<'_>),
    ) -> u64 {
        self.status.in_filter.set(IN_INTERFACE | u64::from(interface.0));
        let (worker, now_ms) = (self.worker, self.now_ms);
        let env = CallEnv { interface, attachment: AttachId(0), cookie: Cookie(0), worker, now_ms, owner };
        let (mut gone, panicked) = self.guarded(env, burst, selected, call);
        self.free_removed();
        if panicked {
            self.status.extension_panics.add(1);
            gone |= self.drop_places(burst, selected & !gone, FILTER_PANIC);
        }
        self.status.in_filter.set(0);
        gone
    }

    /// Drops a packet.
    #[inline]
    pub fn drop(&mut self, mbuf: Mbuf, reason: DropReason) {
        self.status.drops[reason.index()].add(1);
        if !self.probes.is_empty() {
            self.tell_dropped(&mbuf, reason);
        }
        self.cache.free(mbuf);
    }

    /// Counts and frees what was dropped; how many there were.
    fn free_removed(&mut self) -> u64 {
        let mut dropped = 0;
        while let Some((mbuf, reason)) = self.removed.pop() {
            self.drop(mbuf, reason);
            dropped += 1;
        }
        dropped
    }

    /// Counts and frees what a filter dropped, counts what it took.
    #[cold]
    fn settle(&mut self, entry: &Attachment, gone: u64) {
        let dropped = self.free_removed();
        let stats = &entry.stats[self.worker];
        stats.dropped.add(dropped);
        stats.consumed.add(u64::from(gone.count_ones()) - dropped);
    }

    /// Drops the packets at these places; returns the places.
    #[cold]
    fn drop_places(&mut self, burst: &mut Burst, places: u64, reason: DropReason) -> u64 {
        for place in (0..64).filter(|place| places >> place & 1 == 1) {
            if let Some(mbuf) = burst.take(place) {
                self.drop(mbuf, reason);
            }
        }
        places
    }
}

/// In `WorkerStatus::in_filter`: the code is a driver's or protocol's of the interface in the low bits.
pub const IN_INTERFACE: u64 = 1 << 32;

fn select(burst: &Burst, ethertype: u16) -> u64 {
    let bits = burst.iter().enumerate();
    bits.fold(0, |mask, (i, m)| mask | u64::from(m.ethertype() == ethertype) << i)
}

/// Finds the network protocol of each packet: the ethertype behind at most two VLAN tags.
pub fn demux(burst: &mut Burst) {
    for mbuf in burst.iter_mut() {
        if mbuf.ethertype() == 0 {
            let ethertype = network_protocol(mbuf);
            mbuf.set_ethertype(ethertype);
        }
    }
}

fn network_protocol(mbuf: &Mbuf) -> u16 {
    let data = mbuf.data();
    let at = |offset: usize| match data.get(offset..offset + 2) {
        Some(b) => u16::from_be_bytes([b[0], b[1]]),
        None => 0,
    };
    let mut offset = 12;
    for _ in 0..2 {
        if !matches!(at(offset), 0x8100 | 0x88a8) {
            break;
        }
        offset += 4;
    }
    at(offset)
}
