//! Too little room, and too few solicitations.

use super::*;

fn address(last: u32) -> String {
    format!("192.0.2.{last}")
}

/// Eight entries, one id of them spare.
fn small() -> Rig {
    Rig::new(Config { capacity: 8, ..Config::default() })
}

#[test]
fn who_never_answered_goes_first_and_who_waits_next() {
    let mut rig = small();
    let proven = rig.prove(&address(1), mac(1));
    let failed = rig.prove(&address(2), mac(2));
    rig.pass(29_000);
    rig.used(failed);
    rig.pass(5000);
    assert_eq!(rig.state(&address(2)), Some(State::Failed));
    rig.neighbors.release(failed);
    rig.hear(request(&address(3), mac(3), OURS_V4));
    let heard = rig.entry(&address(3)).expect("less than half full").id;
    let mut waiting = Vec::new();
    for last in 4..8 {
        assert_eq!(rig.resolve(&address(last)).1, [solicit(&address(last), None)]);
        waiting.push(rig.entry(&address(last)).expect("it waits").id);
    }
    // One id is left. The failed one goes, of which nothing is left to tell, and its id is free at once.
    assert_eq!(rig.resolve(&address(8)).1, [solicit(&address(8), None)]);
    assert_eq!(rig.entry(&address(2)), None);
    let (lookup, done) = rig.resolve(&address(9));
    assert_eq!((lookup, done[0]), (Lookup::Waiting, gone(heard, &address(3))));
    // None is left until its grace period is over, and nobody else has to go for nothing.
    assert_eq!(rig.resolve(&address(10)), (Lookup::Refused, vec![]));
    rig.neighbors.release(heard);
    assert_eq!(rig.resolve(&address(11)).1[0], gone(waiting[0], &address(4)));
    rig.neighbors.release(waiting[0]);
    // No stranger displaces who answered, who was given, who has a route.
    let mut out = Vec::new();
    for last in 5..8 {
        rig.answer(&address(last), mac(last as u8));
    }
    rig.answer(&address(8), mac(8));
    rig.answer(&address(9), mac(9));
    rig.neighbors.gateway(1, ip(&address(11)), rig.now_ms, &mut out).expect("known");
    assert!(rig.neighbors.gateway(1, ip(&address(12)), rig.now_ms, &mut out).is_some());
    assert_eq!(rig.resolve(&address(13)), (Lookup::Refused, vec![]));
    assert_eq!(rig.neighbors.gateway(1, ip(&address(13)), rig.now_ms, &mut out), None);
    assert_eq!(rig.neighbors.insert_static(1, ip(&address(13)), mac(1), rig.now_ms, &mut out), None);
    assert_eq!(rig.entry(&address(1)).map(|entry| entry.id), Some(proven));
    assert_eq!(rig.neighbors.stats().evicted, 3);
}

#[test]
fn unanswered_entries_are_capped_here_and_in_all() {
    let config = Config { incomplete_max: 4, incomplete_per_interface: 3, ..Config::default() };
    let mut rig = Rig::new(config);
    let mut names = Vec::new();
    for (interface, last) in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1)] {
        let mut out = Vec::new();
        rig.neighbors.resolve(interface, ip(&address(last)), rig.now_ms, &mut out);
        let here = |entry: EntryInfo| (entry.interface, entry.address);
        let mut now: Vec<(u16, IpAddr)> = rig.neighbors.entries(0).map(here).collect();
        now.sort();
        names.push(now);
    }
    let expect = |names: &[(u16, u32)]| -> Vec<(u16, IpAddr)> {
        names.iter().map(|(interface, last)| (*interface, ip(&address(*last)))).collect()
    };
    assert_eq!(names[3], expect(&[(1, 2), (1, 3), (1, 4)]));
    assert_eq!(names[4], expect(&[(1, 2), (1, 3), (1, 4), (2, 1)]));
    assert_eq!(names[5], expect(&[(1, 3), (1, 4), (2, 1), (2, 2)]));
    assert_eq!(names[6], expect(&[(1, 4), (2, 1), (2, 2), (3, 1)]));
}

/// When there are too few solicitations, a route's neighbour is not given up before it was asked three times, and one
/// that nobody knows is, whether it was asked or not.
#[test]
fn who_is_known_is_not_given_up_for_want_of_solicitations() {
    let mut rig = Rig::new(Config { solicit_per_second: 2, solicit_burst: 8, ..Config::default() });
    assert_eq!(rig.resolve(&address(100)).0, Lookup::Waiting);
    let unknown = rig.entry(&address(100)).expect("it waits").id;
    rig.hear(request(&address(101), mac(101), OURS_V4));
    let mut asked: Vec<Action> = Vec::new();
    for last in 1..=10 {
        asked.extend(rig.gateway(&address(last)).1);
    }
    assert_eq!(asked.len(), 7, "and no more are left");
    assert!(matches!(rig.resolve(&address(101)).0, Lookup::Known { .. }));
    let mut done = rig.pass(4000);
    assert_eq!(rig.state(&address(101)), Some(State::Probe), "used, as it was not asked yet");
    done.extend(rig.pass(60_000));
    asked.extend(done.iter().map(|(_, action)| *action));
    let at = done.iter().position(|(_, action)| *action == gone(unknown, &address(100))).expect("given up");
    assert!(done[at].0 < 3500);
    assert!(!asked.contains(&solicit(&address(100), None)), "asked no second time");
    for last in 1..=10 {
        let name = address(last);
        let gone = |action: &Action| matches!(action, Action::Gone { address, .. } if *address == ip(&name));
        let at = asked.iter().position(gone).expect("nobody answers");
        assert_eq!(asked[..at].iter().filter(|action| **action == solicit(&name, None)).count(), 3);
    }
}
