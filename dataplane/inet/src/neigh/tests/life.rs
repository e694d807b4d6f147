//! The life of an entry: RFC 4861 section 7.3 and appendix C, RFC 826, RFC 5227.

use super::*;

const A: &str = "192.0.2.1";

#[test]
fn found_by_asking_once() {
    let mut rig = Rig::new(Config::default());
    assert_eq!(rig.resolve(A), (Lookup::Waiting, vec![solicit(A, None)]));
    assert_eq!(rig.resolve(A), (Lookup::Waiting, vec![]), "once a second");
    let id = rig.entry(A).unwrap().id;
    assert_eq!(rig.answer(A, mac(1)), [reachable(id, A, mac(1))]);
    assert_eq!(rig.resolve(A), (Lookup::Known { id, mac: mac(1) }, vec![]));
    assert_eq!(rig.answer(A, mac(1)), [], "said again");
    let info = rig.entry(A).unwrap();
    assert_eq!((info.state, info.mac, info.interface, info.age_ms), (State::Reachable, Some(mac(1)), 1, 0));
}

#[test]
fn asked_three_times_then_failed_then_forgotten() {
    let mut rig = Rig::new(Config::default());
    rig.resolve(A);
    let id = rig.entry(A).unwrap().id;
    let done = rig.pass(3200);
    let kinds: Vec<Action> = done.iter().map(|(_, action)| *action).collect();
    assert_eq!(kinds, [solicit(A, None), solicit(A, None), gone(id, A)]);
    for ((at, _), due) in done.iter().zip([1000, 2000, 3000]) {
        assert!((due..due + 200).contains(at), "{done:?}");
    }
    assert_eq!(rig.resolve(A), (Lookup::Failed, vec![]));
    assert_eq!(rig.pass(5200), [], "told once");
    assert_eq!(rig.entry(A), None);
    let (lookup, asked) = rig.resolve(A);
    assert_eq!((lookup, asked), (Lookup::Waiting, vec![solicit(A, None)]));
    let id =
        rig.entry(A).map(|entry| entry.id).filter(|new| *new != id).expect("its grace period is not over");
    // An answer that comes late is one; so is a word of its own, whatever its flags.
    rig.pass(3200);
    assert_eq!(rig.answer(A, mac(1)), [reachable(id, A, mac(1))]);
    assert_eq!(rig.state(A), Some(State::Reachable));
    rig.resolve("192.0.2.2");
    rig.pass(3200);
    assert_eq!(rig.state("192.0.2.2"), Some(State::Failed));
    assert!(!rig.hear(claim("192.0.2.2", Some(mac(2)), false, false)).is_empty());
    assert_eq!(rig.state("192.0.2.2"), Some(State::Probe));
}

#[test]
fn an_id_is_used_again_after_its_release() {
    let mut rig = Rig::new(Config { capacity: 2, ..Config::default() });
    let first = rig.prove(A, mac(1));
    let mut out = Vec::new();
    assert!(rig.neighbors.forget(1, ip(A), rig.now_ms, &mut out));
    assert_eq!(out, [gone(first, A)]);
    let second = rig.prove("192.0.2.2", mac(2));
    assert_ne!(first, second);
    assert_eq!(rig.resolve("192.0.2.3").0, Lookup::Refused);
    assert_eq!(rig.neighbors.stats().refused_full, 1);
    rig.neighbors.release(first);
    assert_eq!(rig.prove("192.0.2.3", mac(3)), first);
    rig.neighbors.release(first);
    rig.neighbors.release(second);
    rig.neighbors.release(77);
    assert_eq!(rig.resolve("192.0.2.4").0, Lookup::Refused, "a release too many frees nothing");
}

#[test]
fn asked_again_by_unicast_when_used() {
    let mut rig = Rig::new(Config::default());
    let id = rig.prove(A, mac(1));
    assert_eq!(rig.pass(29_000), []);
    rig.used(id);
    let done = rig.pass(1500);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].1, solicit(A, Some(mac(1))));
    assert_eq!(rig.resolve(A).0, Lookup::Known { id, mac: mac(1) }, "used meanwhile");
    assert_eq!(rig.answer(A, mac(1)), []);
    assert_eq!(rig.state(A), Some(State::Reachable));
}

#[test]
fn gone_when_it_does_not_answer_the_probe() {
    let mut rig = Rig::new(Config::default());
    let id = rig.prove(A, mac(1));
    rig.pass(29_000);
    rig.used(id);
    let done: Vec<Action> = rig.pass(5000).into_iter().map(|(_, action)| action).collect();
    let probe = solicit(A, Some(mac(1)));
    assert_eq!(done, [probe, probe, solicit(A, None), gone(id, A)], "the last try by multicast");
    assert_eq!(rig.state(A), Some(State::Failed));
}

#[test]
fn unused_it_ages_without_a_word() {
    let mut rig = Rig::new(Config::default());
    let id = rig.prove(A, mac(1));
    assert_eq!(rig.pass(31_000), []);
    assert_eq!(rig.state(A), Some(State::Stale));
    let done = rig.pass(60_000);
    assert_eq!(done.iter().map(|(_, action)| *action).collect::<Vec<_>>(), [gone(id, A)]);
    assert!(done[0].0 > 58_500);
    assert_eq!(rig.entry(A), None);
}

#[test]
fn a_stale_one_is_asked_when_it_is_used() {
    let mut rig = Rig::new(Config::default());
    let id = rig.prove(A, mac(1));
    rig.pass(45_000);
    assert_eq!(rig.used(id), [solicit(A, Some(mac(1)))]);
    assert_eq!(rig.used(id), []);
    assert_eq!(rig.state(A), Some(State::Probe));
}

/// Appendix C of RFC 4861: every answer in every state with a link address. Two deviations, both to the safe side: an
/// answer nobody waits for confirms nothing, and what is not awaited changes nothing within a second.
#[test]
fn every_answer_in_every_state() {
    use State::{Probe, Reachable, Stale};
    let table = [
        // state, solicited, override, another address -> state, address changed
        (Reachable, false, false, false, Reachable, false),
        (Reachable, false, true, false, Reachable, false),
        (Reachable, true, true, false, Reachable, false),
        (Reachable, false, false, true, Stale, false),
        (Reachable, true, false, true, Stale, false),
        (Reachable, false, true, true, Stale, true),
        (Stale, false, false, false, Stale, false),
        (Stale, false, true, false, Stale, false),
        (Stale, true, true, false, Stale, false), // the RFC: Reachable
        (Stale, false, false, true, Stale, false),
        (Stale, true, false, true, Stale, false),
        (Stale, false, true, true, Stale, true),
        (Probe, false, false, false, Probe, false),
        (Probe, false, true, false, Probe, false),
        (Probe, true, false, false, Reachable, false),
        (Probe, true, true, false, Reachable, false),
        (Probe, false, false, true, Probe, false),
        (Probe, true, false, true, Probe, false),
        (Probe, true, true, true, Reachable, true),
    ];
    for row in table {
        let (state, solicited, override_flag, other, then, changed) = row;
        let mut rig = Rig::new(Config::default());
        let id = rig.prove(A, mac(1));
        rig.neighbors.table.at_mut(id).used_ms = None; // else doubt asks at once
        rig.pass(if state == Reachable { 2000 } else { 45_000 });
        if state == Probe {
            rig.used(id);
        }
        assert_eq!(rig.state(A), Some(state));
        let claimed = if other { mac(2) } else { mac(1) };
        let told = rig.hear(claim(A, Some(claimed), solicited, override_flag));
        assert_eq!(rig.state(A), Some(then), "{row:?}");
        assert_eq!(told.contains(&reachable(id, A, mac(2))), changed, "{row:?}");
        assert_eq!(rig.entry(A).unwrap().mac, Some(if changed { mac(2) } else { mac(1) }), "{row:?}");
    }
    // An answer may leave its link address out, to who knows it.
    let mut rig = Rig::new(Config::default());
    let id = rig.prove(A, mac(1));
    rig.pass(45_000);
    rig.used(id);
    rig.hear(claim(A, None, true, false));
    assert_eq!(rig.state(A), Some(Reachable));
    rig.resolve("192.0.2.2");
    rig.hear(claim("192.0.2.2", None, true, true));
    assert_eq!(rig.state("192.0.2.2"), Some(State::Incomplete));
}

#[test]
fn found_by_what_it_says_unasked_but_not_proven() {
    let mut rig = Rig::new(Config::default());
    rig.resolve(A);
    let id = rig.entry(A).unwrap().id;
    assert_eq!(rig.announce(A, mac(1)), [reachable(id, A, mac(1))]);
    assert_eq!(rig.state(A), Some(State::Probe), "a packet waits, so it is asked");
    let done = rig.pass(1200);
    assert_eq!(done[0].1, solicit(A, Some(mac(1))));
    rig.answer(A, mac(1));
    assert_eq!(rig.state(A), Some(State::Reachable));
}

#[test]
fn a_question_to_us_makes_an_entry_and_no_other_packet_does() {
    let mut rig = Rig::new(Config::default());
    assert_eq!(rig.announce(A, mac(1)), []);
    assert_eq!(rig.answer(A, mac(1)), []);
    assert_eq!(rig.hear(request(A, mac(1), "192.0.2.9")), []);
    assert_eq!(rig.hear(Kind::Request { sender: ip(A), mac: None, target: ip(OURS_V4) }), []);
    assert_eq!(rig.hear(request("0.0.0.0", mac(1), OURS_V4)), []);
    assert_eq!(rig.hear(Kind::Other), []);
    assert_eq!(rig.neighbors.entries(0).count(), 0);
    assert_eq!(rig.neighbors.stats().unknown, 4);
    let told = rig.hear(request(A, mac(1), OURS_V4));
    let entry = rig.entry(A).unwrap();
    assert_eq!(told, [reachable(entry.id, A, mac(1))]);
    assert_eq!(entry.state, State::Stale);
    // A question tells of a new address too.
    rig.pass(2000);
    assert_eq!(rig.hear(request(A, mac(2), "192.0.2.9")), [reachable(entry.id, A, mac(2))]);
}

#[test]
fn a_claim_changes_an_entry_once_a_second() {
    let mut rig = Rig::new(Config::default());
    let id = rig.prove(A, mac(1));
    assert_eq!(rig.announce(A, mac(2)), [], "just proven");
    rig.pass(1000);
    // Still used, so that it is asked for at once: at the new address, as RFC 4861 wants it.
    assert_eq!(rig.announce(A, mac(2)), [reachable(id, A, mac(2)), solicit(A, Some(mac(2)))]);
    for _ in 0..1000 {
        assert_eq!(rig.announce(A, mac(3)), []);
    }
    assert_eq!(rig.neighbors.stats().locked, 1001);
    assert_eq!(rig.neighbors.stats().changed, 1);
}

#[test]
fn who_claims_our_address_is_told_and_not_learned() {
    let mut rig = Rig::new(Config::default());
    let conflict = |address: &str| Action::Conflict { interface: 1, address: ip(address), mac: mac(6) };
    assert_eq!(rig.announce(OURS_V4, mac(6)), [conflict(OURS_V4)]);
    assert_eq!(rig.answer(OURS_V6, mac(6)), [conflict(OURS_V6)]);
    assert_eq!(rig.hear(request(OURS_V4, mac(6), A)), [conflict(OURS_V4)]);
    assert_eq!(rig.announce(OURS_V4, OUR_MAC), [], "our own words come back");
    let told: usize = (0..1000).map(|_| rig.announce(OURS_V4, mac(6)).len()).sum();
    assert_eq!((told, rig.neighbors.stats().conflicts), (7, 1003));
    assert_eq!(rig.neighbors.entries(0).count(), 0);
}

#[test]
fn a_route_keeps_its_neighbour_and_asks_ever_more_slowly() {
    let mut rig = Rig::new(Config::default());
    let (id, asked) = rig.gateway(A);
    assert_eq!(asked, [solicit(A, None)]);
    assert_eq!(rig.gateway(A), (id, vec![]));
    let done = rig.pass(200_000);
    let at = |wanted: Action| -> Vec<u64> {
        done.iter().filter(|(_, action)| *action == wanted).map(|(at, _)| at / 1000).collect()
    };
    assert_eq!(at(gone(id, A)).len(), 1, "told once");
    let times = at(solicit(A, None));
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(times[..2], [1, 2]);
    assert!(gaps.is_sorted() && gaps.ends_with(&[30, 30]), "{gaps:?}");
    assert_eq!(rig.resolve(A), (Lookup::Failed, vec![]));
    assert_eq!(rig.gateway(A), (id, vec![]), "one more route is no reason to hurry");
    rig.neighbors.unref(id, rig.now_ms);
    assert_eq!(rig.answer(A, mac(1)), [reachable(id, A, mac(1))]);
    // Reachable: asked again without packets, since a route wants it.
    let done = rig.pass(31_000);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].1, solicit(A, Some(mac(1))));
    rig.answer(A, mac(1));
    rig.neighbors.unref(id, rig.now_ms);
    rig.pass(31_000);
    assert_eq!(rig.state(A), Some(State::Probe), "one route is left");
    rig.answer(A, mac(1));
    rig.neighbors.unref(id, rig.now_ms);
    rig.neighbors.unref(id, rig.now_ms);
    rig.pass(125_000);
    assert_eq!(rig.entry(A), None);
}

/// Found by the fuzz target: more solicitations than a byte counts.
#[test]
fn a_route_asks_for_hours() {
    let mut rig = Rig::new(Config::default());
    rig.gateway(A);
    let asked = rig.pass(3 * 3_600_000).len();
    assert!((360..370).contains(&asked), "{asked}");
}

#[test]
fn a_failed_neighbour_of_a_new_route_is_looked_for_at_once() {
    let mut rig = Rig::new(Config::default());
    rig.resolve(A);
    rig.pass(4000);
    let (id, asked) = rig.gateway(A);
    assert_eq!(asked, [solicit(A, None)]);
    assert_eq!(rig.answer(A, mac(1)), [reachable(id, A, mac(1))]);
    // One route less while it fails: forgotten like any other.
    rig.pass(30_000);
    rig.pass(10_000);
    assert_eq!(rig.state(A), Some(State::Failed));
    rig.neighbors.unref(id, rig.now_ms);
    rig.pass(6000);
    assert_eq!(rig.entry(A), None);
}

#[test]
fn what_the_user_gave_wins() {
    let mut rig = Rig::new(Config::default());
    let mut out = Vec::new();
    let id = rig.neighbors.insert_static(1, ip(A), mac(9), rig.now_ms, &mut out).unwrap();
    assert_eq!(out, [reachable(id, A, mac(9))]);
    for heard in [claim(A, Some(mac(1)), true, true), request(A, mac(1), OURS_V4)] {
        assert_eq!(rig.hear(heard), []);
    }
    assert_eq!(rig.neighbors.stats().static_kept, 2);
    let mut out = Vec::new();
    assert_eq!(rig.neighbors.set(1, ip(A), Some(mac(1)), State::Reachable, rig.now_ms, &mut out), Some(id));
    assert!(!rig.neighbors.forget(1, ip(A), rig.now_ms, &mut out));
    assert!(out.is_empty() && rig.pass(1_000_000).is_empty());
    assert_eq!(rig.resolve(A).0, Lookup::Known { id, mac: mac(9) });
    assert!(rig.neighbors.remove_static(1, ip(A), rig.now_ms, &mut out));
    assert_eq!(out, [gone(id, A)]);
    assert!(!rig.neighbors.remove_static(1, ip(A), rig.now_ms, &mut out));
}

#[test]
fn a_route_looks_for_its_neighbour_when_the_user_takes_it_back() {
    let mut rig = Rig::new(Config::default());
    let (id, _) = rig.gateway(A);
    let mut out = Vec::new();
    assert_eq!(rig.neighbors.insert_static(1, ip(A), mac(9), rig.now_ms, &mut out), Some(id));
    rig.pass(5000);
    out.clear();
    assert!(rig.neighbors.remove_static(1, ip(A), rig.now_ms, &mut out));
    assert_eq!(out, [gone(id, A), solicit(A, None)]);
    assert!(!rig.neighbors.remove_static(1, ip(A), rig.now_ms, &mut out), "it is given no more");
    assert_eq!(rig.answer(A, mac(1)), [reachable(id, A, mac(1))]);
}

#[test]
fn addresses_of_no_host_are_refused() {
    let mut rig = Rig::new(Config::default());
    for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", "::", "::1", "ff02::1"] {
        assert_eq!(rig.resolve(address), (Lookup::Refused, vec![]), "{address}");
        let mut out = Vec::new();
        assert_eq!(rig.neighbors.gateway(1, ip(address), 0, &mut out), None);
        assert_eq!(rig.neighbors.insert_static(1, ip(address), mac(1), 0, &mut out), None);
    }
    let mut out = Vec::new();
    assert_eq!(rig.neighbors.insert_static(1, ip(A), EtherAddr::BROADCAST, 0, &mut out), None);
    assert_eq!(rig.neighbors.stats().refused_address, 7);
    assert!(out.is_empty());
}

#[test]
fn an_interface_takes_its_entries_along_and_leaves_routes_their_ids() {
    let mut rig = Rig::new(Config { capacity: 4, ..Config::default() });
    let proven = rig.prove(A, mac(1));
    let (route, _) = rig.gateway("192.0.2.2");
    let mut out = Vec::new();
    let other = rig.neighbors.insert_static(2, ip(A), mac(3), rig.now_ms, &mut out).unwrap();
    out.clear();
    rig.neighbors.interface_gone(1, &mut out);
    out.sort_by_key(|action| match action {
        Action::Gone { id, .. } => *id,
        _ => u32::MAX,
    });
    assert_eq!(out, [gone(proven, A), gone(route, "192.0.2.2")]);
    assert_eq!(rig.neighbors.entries(0).map(|entry| entry.id).collect::<Vec<_>>(), [other]);
    assert_eq!(rig.pass(100_000), []);
    rig.neighbors.release(route);
    rig.neighbors.release(proven);
    assert_ne!(rig.gateway("192.0.2.2").0, route);
    rig.neighbors.unref(route, rig.now_ms);
    assert_eq!(rig.neighbors.table.free(), 2);
}

mod mirrored {
    use super::*;

    fn rig() -> Rig {
        Rig::new(Config { mode: Mode::Kernel, ..Config::default() })
    }

    fn set(rig: &mut Rig, mac: Option<EtherAddr>, state: State) -> Vec<Action> {
        let mut out = Vec::new();
        rig.neighbors.set(1, ip(A), mac, state, rig.now_ms, &mut out);
        out
    }

    const ASK: &str = A;

    fn ask() -> Action {
        Action::AskKernel { interface: 1, address: ip(ASK) }
    }

    #[test]
    fn the_kernel_is_asked_and_its_word_is_taken() {
        let mut rig = rig();
        assert_eq!(rig.resolve(A), (Lookup::Waiting, vec![ask()]));
        let id = rig.entry(A).unwrap().id;
        assert_eq!(rig.answer(A, mac(6)), [], "packets teach nothing");
        assert_eq!(set(&mut rig, Some(mac(1)), State::Reachable), [reachable(id, A, mac(1))]);
        assert_eq!(set(&mut rig, Some(mac(1)), State::Stale), []);
        assert_eq!(set(&mut rig, Some(mac(2)), State::Reachable), [reachable(id, A, mac(2))]);
        assert_eq!(rig.state(A), Some(State::Reachable));
        assert_eq!(set(&mut rig, None, State::Failed), [gone(id, A)]);
        assert_eq!(rig.resolve(A).0, Lookup::Failed);
    }

    #[test]
    fn it_is_told_of_packets_and_ages_by_itself() {
        let mut rig = rig();
        set(&mut rig, Some(mac(1)), State::Reachable);
        let id = rig.entry(A).unwrap().id;
        assert_eq!(rig.pass(100_000), [], "unused: its own affair");
        assert_eq!(rig.state(A), Some(State::Reachable));
        set(&mut rig, Some(mac(1)), State::Stale);
        assert_eq!(rig.used(id), [ask()]);
        assert_eq!(rig.used(id), []);
        let mut out = Vec::new();
        assert!(rig.neighbors.forget(1, ip(A), rig.now_ms, &mut out));
        assert_eq!(out, [gone(id, A)]);
    }

    #[test]
    fn what_it_does_not_find_fails() {
        let mut rig = rig();
        rig.resolve(A);
        let id = rig.entry(A).unwrap().id;
        let done: Vec<Action> = rig.pass(3500).into_iter().map(|(_, action)| action).collect();
        assert_eq!(done, [ask(), ask(), gone(id, A)]);
        assert!(set(&mut rig, None, State::Failed).is_empty(), "known by now");
        let (route, _) = rig.gateway(A);
        assert_eq!(route, id);
        assert!(
            rig.pass(60_000)
                .iter()
                .all(|(_, action)| matches!(action, Action::AskKernel { .. } | Action::Gone { .. }))
        );
        assert_eq!(set(&mut rig, Some(mac(4)), State::Reachable), [reachable(id, A, mac(4))]);
        assert_eq!(set(&mut rig, None, State::Incomplete)[0], gone(id, A));
        assert_eq!(rig.state(A), Some(State::Incomplete), "a route still wants it");
    }
}
