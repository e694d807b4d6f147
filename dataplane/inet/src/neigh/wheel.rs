//! A timing wheel (Varghese and Lauck, 1987): one time for each entry, set and cleared in constant time.
//!
//! A time further ahead than the wheel turns comes early; who set it looks again and sets it anew. So each entry costs a
//! look in [`SLOTS`] slots at most, and no time comes more than a slot late but by the caller's budget.

use crate::reass::list::{Link, Linked, List};

/// Milliseconds of a slot.
pub(super) const SLOT_MS: u64 = 64;
/// Slots of the wheel: 32 s.
const SLOTS: u64 = 512;
/// Place of an entry without a time.
const NOWHERE: u16 = u16::MAX;

/// The links of a list through all entries.
pub(super) struct Links(Box<[Link]>);

impl Links {
    pub(super) fn new(entries: u32) -> Links {
        Links(vec![Link::UNLINKED; entries as usize].into())
    }

    /// The entry after this one in its list.
    pub(super) fn next(&self, at: u32) -> Option<u32> {
        self.0[at as usize].next()
    }
}

impl Linked for Links {
    fn link(&mut self, at: u32) -> &mut Link {
        &mut self.0[at as usize]
    }
}

/// The times of the entries.
pub(super) struct Wheel {
    slots: Box<[List]>,
    links: Links,
    /// In which slot an entry is.
    places: Box<[u16]>,
    /// The first slot that may hold entries, counted from time 0.
    cursor: u64,
}

impl Wheel {
    pub(super) fn new(entries: u32) -> Wheel {
        Wheel {
            slots: vec![List::EMPTY; SLOTS as usize].into(),
            links: Links::new(entries),
            places: vec![NOWHERE; entries as usize].into(),
            cursor: 0,
        }
    }

    /// Wakes `id` at `at_ms`, and not at the time set before.
    pub(super) fn set(&mut self, id: u32, at_ms: u64) {
        self.clear(id);
        let slot = (at_ms / SLOT_MS).clamp(self.cursor, self.cursor + SLOTS - 1) % SLOTS;
        self.places[id as usize] = slot as u16;
        self.slots[slot as usize].push_back(&mut self.links, id);
    }

    /// Does not wake `id`.
    pub(super) fn clear(&mut self, id: u32) {
        let place = std::mem::replace(&mut self.places[id as usize], NOWHERE);
        if place != NOWHERE {
            self.slots[usize::from(place)].remove(&mut self.links, id);
        }
    }

    /// The next entry whose slot is over; it has no time then.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<u32> {
        let end = now_ms / SLOT_MS;
        // After a pause of more than a turn every slot is over, and looked into once.
        self.cursor = self.cursor.max(end.saturating_sub(SLOTS));
        while self.cursor < end {
            if let Some(id) = self.slots[(self.cursor % SLOTS) as usize].oldest() {
                self.clear(id);
                return Some(id);
            }
            self.cursor += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        /// Beside a map: what is woken is woken once, in its slot or the next, unless it lies beyond the turn.
        #[test]
        fn wakes_what_a_map_would(steps in prop::collection::vec((0u32..8, 0u64..40_000, 0u8..8), 1..200)) {
            let mut wheel = Wheel::new(8);
            let mut oracle = [None::<u64>; 8];
            let mut now = 1 << 40; // the first look comes late
            for (id, ms, what) in steps {
                match what {
                    0 => {
                        wheel.clear(id);
                        oracle[id as usize] = None;
                    }
                    1..=4 => {
                        wheel.set(id, now + ms);
                        oracle[id as usize] = Some(now + ms);
                    }
                    _ => {
                        now += ms * u64::from(what - 4);
                        let mut turns = 0;
                        while let Some(woken) = wheel.due(now) {
                            turns += 1;
                            prop_assert!(turns <= 16 + 8);
                            let at = oracle[woken as usize].take().expect("it had a time");
                            if at / SLOT_MS >= now / SLOT_MS {
                                wheel.set(woken, at); // early: beyond the turn
                                oracle[woken as usize] = Some(at);
                            }
                        }
                        for at in oracle.into_iter().flatten() {
                            prop_assert!(at / SLOT_MS >= now / SLOT_MS);
                        }
                    }
                }
            }
        }
    }
}
