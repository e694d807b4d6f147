//! The hook runner: takes a burst through one chain of filters, of an interface or of IP.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nke_filters::{Batch, Cx, Direction, IpHook, Removed};
use nke_mbuf::{Burst, Cache, Mbuf};

use crate::drop::FILTER_PANIC;
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
    /// Its counters.
    pub status: &'a WorkerStatus,
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
        self.status.in_filter.set(u64::from(entry.id.0));
        let stats = &entry.stats[self.worker];
        stats.packets.add(u64::from(selected.count_ones()));
        let mut batch = Batch::new(burst, selected, self.removed, entry.owner);
        let mut cx = Cx::new(entry.interface, entry.id, entry.cookie, self.worker, self.cache, entry.owner);
        let outcome = catch_unwind(AssertUnwindSafe(|| call(&mut cx, &mut batch)));
        let gone = batch.gone();
        if outcome.is_err() {
            stats.panics.add(1);
            let closed = self.panicked(entry, burst, selected & !gone);
            self.settle(entry, gone);
            return gone | closed;
        }
        if gone != 0 {
            self.settle(entry, gone);
        }
        gone
    }

    /// Counts and frees what a filter dropped, counts what it took.
    #[cold]
    fn settle(&mut self, entry: &Attachment, gone: u64) {
        let mut dropped = 0;
        while let Some((mbuf, reason)) = self.removed.pop() {
            self.status.drops[reason.index()].add(1);
            self.cache.free(mbuf);
            dropped += 1;
        }
        let stats = &entry.stats[self.worker];
        stats.dropped.add(dropped);
        stats.consumed.add(u64::from(gone.count_ones()) - dropped);
    }

    /// A panic: the packets the filter left go on, or are dropped. The control thread sees the counter and detaches.
    /// Returns the places it emptied.
    #[cold]
    fn panicked(&mut self, entry: &Attachment, burst: &mut Burst, left: u64) -> u64 {
        self.status.panicked.set(1);
        if entry.on_panic == OnPanic::Closed {
            for place in (0..64).filter(|place| left >> place & 1 == 1) {
                if let Some(mbuf) = burst.take(place) {
                    self.status.drops[FILTER_PANIC.index()].add(1);
                    self.cache.free(mbuf);
                }
            }
            return left;
        }
        0
    }
}

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
