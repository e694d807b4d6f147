//! What workers saw, and how it is put together: events into ways, ways into groups.

use std::collections::HashMap;

use crossbeam::queue::ArrayQueue;
use nke_mbuf::wire::Layers;

use crate::{Counter, PathReport, PerWorker, Stage};

/// Events for each packet that rings have room for: a forwarded packet without filters makes nine.
const EVENTS_PER_PACKET: usize = 32;
/// Places in the ring of a worker at most.
const RING_MAX: usize = 1 << 16;
/// Stages that are kept of a packet: one that goes round for as long as it may passes fewer.
const STAGES_MAX: usize = 256;

/// A packet was at a stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) packet: u32,
    pub(super) stage: Stage,
    pub(super) at_ns: u64,
}

/// What a packet is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    pub(super) packet: u32,
    pub(super) layers: Layers,
    pub(super) len_bytes: usize,
}

struct Ring {
    events: ArrayQueue<Event>,
    missed: Counter,
}

/// From workers to the control thread.
pub(super) struct Rings {
    of: PerWorker<Ring>,
    examples: ArrayQueue<Example>,
}

impl Rings {
    pub(super) fn new(workers: usize, packets: usize) -> Rings {
        let places = (packets * EVENTS_PER_PACKET).min(RING_MAX);
        Rings {
            of: PerWorker::new(workers, || Ring {
                events: ArrayQueue::new(places),
                missed: Counter::default(),
            }),
            examples: ArrayQueue::new(packets),
        }
    }

    pub(super) fn put(&self, worker: usize, event: Event) {
        let ring = self.of.of(worker);
        if ring.events.push(event).is_err() {
            ring.missed.add(1);
        }
    }

    /// As many as packets, so that there is room.
    pub(super) fn example(&self, example: Example) {
        let full = self.examples.push(example);
        debug_assert!(full.is_ok(), "one for each packet");
    }

    pub(super) fn miss(&self, worker: usize) {
        self.of.of(worker).missed.add(1);
    }

    pub(super) fn missed(&self) -> u64 {
        self.of.iter().map(|ring| ring.missed.get()).sum()
    }

    pub(super) fn empty_into(&self, journal: &mut Journal) {
        while let Some(example) = self.examples.pop() {
            journal.example(example);
        }
        for ring in self.of.iter() {
            // Workers go on meanwhile: not more than a ring holds.
            for _ in 0..ring.events.capacity() {
                let Some(event) = ring.events.pop() else { break };
                journal.event(event);
            }
        }
    }
}

/// A packet's example, and where it was when.
type Known = (Option<Example>, Vec<(u64, Stage)>);

/// All that came out of the rings. As many entries as packets are followed, each of bounded length.
#[derive(Default)]
pub(super) struct Journal(HashMap<u32, Known>);

impl Journal {
    pub(super) fn example(&mut self, example: Example) {
        self.0.entry(example.packet).or_default().0 = Some(example);
    }

    pub(super) fn event(&mut self, event: Event) {
        let (_, stages) = self.0.entry(event.packet).or_default();
        if stages.len() < STAGES_MAX {
            stages.push((event.at_ns, event.stage));
        }
    }

    /// Groups packets by the stages they passed. One that was just marked, or whose stages were all missed, has no way yet.
    pub(super) fn paths(&self) -> Vec<PathReport> {
        struct Group {
            packets: u64,
            ns: Vec<u64>,
            first: u32,
        }
        let mut groups: HashMap<Vec<Stage>, Group> = HashMap::new();
        for (packet, (_, seen)) in self.0.iter().filter(|(_, (_, seen))| !seen.is_empty()) {
            let mut seen = seen.clone();
            // Events of several workers: each worker's are in order already, and a stable sort leaves those of one time so.
            seen.sort_by_key(|(at_ns, _)| *at_ns);
            let stages = seen.iter().map(|(_, stage)| *stage).collect::<Vec<_>>();
            let group = groups.entry(stages).or_insert_with(|| Group {
                packets: 0,
                ns: vec![0; seen.len()],
                first: *packet,
            });
            group.packets += 1;
            group.first = group.first.min(*packet);
            for (sum, pair) in group.ns.iter_mut().skip(1).zip(seen.windows(2)) {
                *sum += pair[1].0 - pair[0].0;
            }
        }
        let report = |(stages, group): (Vec<Stage>, Group)| {
            let example = self.0.get(&group.first).and_then(|(example, _)| *example);
            let ns = group.ns.into_iter().map(|sum| sum / group.packets);
            let report = PathReport {
                packets: group.packets,
                stages: stages.into_iter().zip(ns).collect(),
                example: example.map_or_else(Layers::default, |e| e.layers),
                example_len: example.map_or(0, |e| e.len_bytes),
            };
            (group.first, report)
        };
        let mut all: Vec<_> = groups.into_iter().map(report).collect();
        all.sort_by_key(|(first, report)| (std::cmp::Reverse(report.packets), *first));
        all.into_iter().map(|(_, report)| report).collect()
    }
}
