//! Putting ways together.

use nke_mbuf::wire::Layers;

use super::journal::{Event, Example, Journal, Rings};
use crate::{DropReason, IfIndex, Stage};

const IN: Stage = Stage::Input(IfIndex(0));
const OUT: Stage = Stage::Transmit(IfIndex(1));

fn event(packet: u32, stage: Stage, at_ns: u64) -> Event {
    Event { packet, stage, at_ns }
}

#[test]
fn packets_of_one_way_are_one_group() {
    let rings = Rings::new(2, 5);
    let drop = Stage::Drop(DropReason::from_index(9));
    // The last one was marked a moment ago: it has been nowhere.
    for packet in 0..5 {
        rings.example(Example { packet, layers: Layers::default(), len_bytes: 60 + packet as usize });
    }
    rings.put(0, event(0, IN, 100));
    rings.put(0, event(1, IN, 100));
    rings.put(0, event(0, drop, 150));
    // The other worker's ring is emptied later, and holds what came between.
    rings.put(1, event(1, Stage::Demux, 110));
    rings.put(0, event(1, OUT, 130));
    for (at, packet) in [(200, 2), (300, 3)] {
        rings.put(1, event(packet, IN, at));
        rings.put(1, event(packet, Stage::Demux, at + 20));
        rings.put(1, event(packet, OUT, at + 50));
    }
    let mut journal = Journal::default();
    rings.empty_into(&mut journal);
    let paths = journal.paths();
    assert_eq!(paths.len(), 2);
    assert_eq!((paths[0].packets, paths[0].example_len), (3, 61));
    // 10, 20, 20 and 20, 30, 30 on average.
    assert_eq!(paths[0].stages, [(IN, 0), (Stage::Demux, 16), (OUT, 26)]);
    assert_eq!((paths[1].packets, paths[1].example_len), (1, 60));
    assert_eq!(paths[1].stages, [(IN, 0), (drop, 50)]);
    assert_eq!(rings.missed(), 0);
}

#[test]
fn rings_and_journal_are_bounded() {
    let rings = Rings::new(1, 1);
    let mut journal = Journal::default();
    for round in 0..20 {
        for at in 0..40 {
            rings.put(0, event(0, Stage::Demux, round * 40 + at));
        }
        rings.empty_into(&mut journal);
    }
    assert_eq!(rings.missed(), 20 * 8);
    let paths = journal.paths();
    assert_eq!((paths.len(), paths[0].stages.len()), (1, 256));
}
