use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nke_mbuf::wire::TcpFlags;
use proptest::prelude::*;

use super::state::{Direction, State, Timeouts};
use super::table::{Table, TableError};
use super::{Flows, Refusal, SWEEP_TICKS};

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Two keys that cannot be mistaken for each other's side.
fn keys(a: u64, b: u64) -> [[u64; 2]; 2] {
    [[a, 1], [b, 2]]
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    Remove(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![(0..24u64, 0..24u64).prop_map(|(a, b)| Op::Insert(a, b)), (0..24u64).prop_map(Op::Remove),]
}

proptest! {
    #[test]
    fn table_equals_two_maps(ops in prop::collection::vec(op(), 1..200)) {
        let table = Table::<2, 2>::new(16);
        let (mut by_a, mut by_b) = (HashMap::new(), HashMap::new());
        for op in ops {
            match op {
                Op::Insert(a, b) => {
                    let expect = match (by_a.contains_key(&a), by_b.contains_key(&b)) {
                        _ if by_a.len() == 16 => Err(TableError::Full),
                        (true, _) => Err(TableError::Exists(0)),
                        (_, true) => Err(TableError::Exists(1)),
                        _ => Ok(()),
                    };
                    prop_assert_eq!(table.insert(&keys(a, b), a ^ b, 0, 0).map(|_| ()), expect);
                    if expect.is_ok() {
                        by_a.insert(a, b);
                        by_b.insert(b, a);
                    }
                }
                Op::Remove(a) => match table.find(&[a, 1]) {
                    Some(found) => {
                        prop_assert!(table.remove(found.index, found.life));
                        prop_assert!(!table.remove(found.index, found.life), "only once");
                        by_b.remove(&by_a.remove(&a).unwrap());
                    }
                    None => prop_assert!(!by_a.contains_key(&a)),
                },
            }
            table.check();
            prop_assert_eq!(table.len(), by_a.len());
            for key in 0..24 {
                let found = table.find(&[key, 1]).map(|f| (f.side, f.keys[1][0], f.value));
                prop_assert_eq!(found, by_a.get(&key).map(|b| (0, *b, key ^ b)));
                let found = table.find(&[key, 2]).map(|f| (f.side, f.keys[0][0]));
                prop_assert_eq!(found, by_b.get(&key).map(|a| (1, *a)));
            }
        }
    }
}

#[test]
fn a_change_meant_for_an_earlier_flow_fails() {
    let table = Table::<2, 1>::new(1);
    let first = table.insert(&[[1, 1]], 0, 0, 7).unwrap();
    assert!(table.remove(first.index, first.life));
    let second = table.insert(&[[1, 1]], 0, 0, 7).unwrap();
    assert_eq!(first.index, second.index);
    assert!(table.update(first.index, first.life, first.life.with_low(9)).is_err());
    assert!(!table.remove(first.index, first.life));
    assert_eq!(table.find(&[1, 1]).unwrap().life.low(), 7);
}

/// Workers open and end flows over few keys; every key is there once, what is found belongs together, and in the end
/// nothing is lost.
#[test]
fn workers_share_a_table() {
    const KEYS: u64 = 40;
    let table = Table::<2, 2>::new(32);
    // These stay all the time, in chains that change.
    let stable = KEYS..KEYS + 8;
    for key in stable.clone() {
        table.insert(&[[key, 1], [key, 2]], 0, 0, 0).unwrap();
    }
    let owners: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=3u64)
            .map(|worker| {
                let (table, owners) = (&table, &owners);
                scope.spawn(move || {
                    let mut random = worker.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    for _ in 0..40_000 {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let key = random % KEYS;
                        // The inside keys differ, the outside one is what they fight for.
                        let mine = [[worker << 32 | key, 1], [key, 2]];
                        match table.insert(&mine, worker, 0, 0) {
                            Ok(found) => {
                                let before = owners[key as usize].swap(worker, Ordering::SeqCst);
                                assert_eq!(before, 0, "a key was given to two");
                                owners[key as usize].store(0, Ordering::SeqCst);
                                assert!(table.remove(found.index, found.life));
                            }
                            Err(TableError::Exists(side)) => assert_eq!(side, 1),
                            Err(TableError::Full | TableError::Busy) => {}
                        }
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for key in 0..KEYS {
                    if let Some(found) = table.find(&[key, 2]) {
                        assert_eq!(found.keys[0], [found.value << 32 | key, 1]);
                        assert_eq!((found.keys[1], found.side), ([key, 2], 1));
                    }
                }
                for key in stable.clone() {
                    let found = [table.find(&[key, 1]), table.find(&[key, 2])];
                    assert!(found.iter().all(Option::is_some), "never missed, whatever changes beside it");
                }
            }
        });
        // Before any panic is passed on: the reader must end too.
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    table.adopt_all();
    table.check();
    assert_eq!(table.len(), 8);
}

/// The same flow opened by all workers at once is one flow.
#[test]
fn one_flow_is_opened_once() {
    let table = Table::<2, 1>::new(4096);
    let opened = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for key in 0..2000 {
                    loop {
                        match table.insert(&[[key, 1]], 0, 0, 0) {
                            Ok(_) => opened.fetch_add(1, Ordering::Relaxed),
                            Err(TableError::Busy) => continue,
                            Err(e) => {
                                assert_eq!(e, TableError::Exists(0));
                                0
                            }
                        };
                        break;
                    }
                    assert!(table.find(&[key, 1]).is_some());
                }
            });
        }
    });
    assert_eq!((opened.into_inner(), table.len()), (2000, 2000));
    table.check();
}

fn figure<const W: usize, const S: usize>(flows: &Flows<W, S>, name: &str) -> u64 {
    flows.figures().into_iter().find(|(n, _)| *n == name).unwrap().1
}

fn find(flows: &Flows<2, 1>, key: u64) -> Option<super::Found<2, 1>> {
    flows.find_in(flows.table().bucket(&[key, 1]), &[key, 1], |_| ())
}

fn answered(flows: &Flows<2, 1>, key: u64) {
    let found = find(flows, key).unwrap();
    flows.touch(&found, Direction::Reply, TcpFlags(0));
}

#[test]
fn a_full_table_evicts_the_oldest_that_is_not_established() {
    let flows = Flows::<2, 1>::new(16, Timeouts::default());
    for key in 0..16 {
        flows.age(key as u32, |_| ());
        flows.open(&[[key, 1]], 0, State::opened(UDP), |_| ()).unwrap();
    }
    [0, 1, 2].into_iter().for_each(|key| answered(&flows, key));
    assert_eq!(figure(&flows, "established"), 3);
    let gone = std::cell::RefCell::new(Vec::new());
    for key in 100..113 {
        flows.open(&[[key, 1]], 0, State::opened(UDP), |f| gone.borrow_mut().push(f.keys[0][0])).unwrap();
        flows.age(40 + key as u32, |_| ());
        answered(&flows, key);
    }
    assert_eq!(gone.into_inner(), (3..16).collect::<Vec<_>>(), "oldest first");
    assert_eq!((figure(&flows, "evicted"), figure(&flows, "established")), (13, 16));
    let refused = flows.open(&[[200, 1]], 0, State::opened(UDP), |_| ());
    assert_eq!(refused.map(|_| ()), Err(Refusal::Full));
    assert_eq!(figure(&flows, "table_full"), 1);
    flows.table().check();
}

#[test]
fn flows_end_in_time_at_lookup_and_by_sweep() {
    let flows = Flows::<2, 1>::new(64, Timeouts::default());
    for key in 0..64 {
        flows.open(&[[key, 1]], 0, State::opened(UDP), |_| ()).unwrap();
    }
    flows.age(300, |_| ());
    assert!(find(&flows, 0).is_some(), "not yet");
    answered(&flows, 0);
    flows.age(301, |_| ());
    assert!(find(&flows, 63).is_none(), "ended at lookup");
    (0..SWEEP_TICKS).for_each(|_| flows.age(301, |_| ()));
    assert_eq!((flows.table().len(), figure(&flows, "expired")), (1, 63));
    (0..SWEEP_TICKS).for_each(|_| flows.age(601, |_| ()));
    assert_eq!((flows.table().len(), figure(&flows, "established")), (0, 0));
}

#[test]
fn tcp_states_and_their_timeouts() {
    use Direction::{Original, Reply};
    const SYN: TcpFlags = TcpFlags::SYN;
    const ACK: TcpFlags = TcpFlags::ACK;
    const FIN_ACK: TcpFlags = TcpFlags(0x11);
    const SYN_ACK: TcpFlags = TcpFlags(0x12);
    const RST: TcpFlags = TcpFlags::RST;
    let after = |steps: &[(Direction, TcpFlags)]| {
        let state = steps.iter().fold(State::opened(TCP), |state, (dir, flags)| state.after(*dir, *flags));
        (state.is_established(), state.is_closing(), Timeouts::default().of(state))
    };
    let opening = (false, false, 240);
    let established = (true, false, 7440);
    let closing = (false, true, 240);
    let handshake = [(Original, SYN), (Reply, SYN_ACK), (Original, ACK)];
    assert_eq!(after(&handshake[..1]), opening);
    assert_eq!(after(&handshake[..2]), opening);
    assert_eq!(after(&handshake), established);
    let then = |more: &[(Direction, TcpFlags)]| after(&[&handshake[..], more].concat());
    assert_eq!(then(&[(Original, FIN_ACK), (Reply, ACK)]), established, "half closed");
    assert_eq!(then(&[(Original, FIN_ACK), (Reply, FIN_ACK), (Original, ACK)]), closing);
    assert_eq!(then(&[(Reply, RST)]), closing);
    assert_eq!(then(&[(Reply, RST), (Original, ACK)]), established, "a reset nobody believed");
    assert_eq!(then(&[(Reply, RST), (Original, SYN)]), opening, "opened anew");
    assert_eq!(after(&[(Original, SYN), (Reply, TcpFlags(0x14))]), closing, "refused");
    let udp = State::opened(UDP);
    assert!(!udp.after(Original, TcpFlags(0)).is_established());
    assert!(udp.after(Reply, TcpFlags(0)).is_established());
    assert_eq!(Timeouts::default().of(State::opened(1)), 60);
}
