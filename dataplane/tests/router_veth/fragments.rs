//! Fragments as nobody should send them, made by scapy: to the router itself, and through it.

use serde_json::Value;

use crate::common::*;
use crate::net::*;

/// Prints what was answered, as JSON.
const SCRIPT: &str = include_str!("fragments.py");

#[test]
fn only_whole_datagrams_of_hostile_fragments_are_answered() {
    if !able(&["ping"]) || !able_scapy() {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router("");
    // By themselves, then through the router to a host that puts them together.
    for (to, ours) in ["10.0.1.1", "2001:db8:1::1"].into_iter().chain(RIGHT).zip([true, true, false, false]) {
        assert_eq!(net.ping(to, 1, &[]), 1);
        let out = python(&net.lab, &net.left, SCRIPT, &[to]);
        let answered: Value = serde_json::from_slice(&out).unwrap();
        let whole = ["in_order", "out_of_order", "tiny", "duplicate"];
        let broken = ["overlap_tail", "overlap_head", "overlap_inside", "hole", "beyond_65535"];
        for (names, expected) in [(&whole[..], true), (&broken[..], false)] {
            for name in names {
                // Linux, at the other end, takes a fragment inside another one for a duplicate.
                if *name == "overlap_inside" && !ours {
                    continue;
                }
                assert_eq!(answered[name], expected, "{name} to {to}: {answered} {:?}", nke.drops());
            }
        }
        assert_eq!(net.ping(to, 5, &["-s", "4000"]), 5, "{to} is unhurt");
    }
    let drops = nke.drops();
    println!("{drops:?}");
    for reason in ["frag_overlap", "frag_bad", "frag_duplicate", "frag_dead"] {
        assert!(drops.iter().any(|(name, n)| name == reason && *n > 0), "{reason}: {drops:?}");
    }
    nke.stop();
}
