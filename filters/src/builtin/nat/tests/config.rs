//! Arguments, their errors, and the kind as the dataplane uses it.

use super::super::Nat;
use super::*;
use crate::flow::testing::{Reasons, with_cx};
use crate::*;

#[test]
fn errors_have_cause_and_cure() {
    let reasons = Reasons::default();
    let inside = ("inside", "10.0.0.0/8");
    let to = ("to", "203.0.113.1");
    for (given, cause) in [
        (vec![], "`inside` is missing"),
        (vec![("inside", "lan"), to], "`inside`: `lan` is not a set"),
        (vec![inside], "nothing to translate to"),
        (vec![inside, ("to", "10.0.0.1")], "10.0.0.1 is inside and outside"),
        (vec![inside, ("to", "172.0.0.0/8")], "`to` has 16777216 addresses"),
        (vec![inside, to, ("ports", "0-9")], "`0-9` is not a range"),
        (vec![inside, to, ("ports", "9-8")], "`9-8` is not a range"),
        (vec![inside, to, ("filtering", "none")], "`filtering` is `none`"),
        (vec![inside, to, ("mss_max", "100")], "`mss_max` 100 is too small"),
        (vec![inside, to, ("flows", "0")], "`flows` is not a number"),
        (vec![inside, to, ("udp_s", "0")], "`udp_s` is not a number"),
        (vec![inside, to, ("outside", "x")], "unknown argument `outside`"),
        (vec![inside, ("forward", "tcp 203.0.113.1:80")], "`tcp 203.0.113.1:80` is not a forward"),
        (vec![inside, ("forward", "sctp 203.0.113.1:80 -> 10.0.0.5:80")], "is not a forward"),
        (vec![inside, ("forward", "tcp 203.0.113.1:80 -> 192.0.2.5:80")], "192.0.2.5, which is not inside"),
        (
            vec![inside, ("forward", "tcp 203.0.113.1:80 -> 10.0.0.5:80, tcp 203.0.113.1:80 -> 10.0.0.6:80")],
            "share an end",
        ),
    ] {
        let error = Nat::instance(Family::V4, 2, &args(&given), |name| reasons.make(name)).err().unwrap();
        assert!(error.cause.contains(cause) && !error.cure.is_empty(), "{given:?}: {error}");
    }
    let (a, b) = (("inside_prefix", "fd00:1::/48"), ("outside_prefix", "2001:db8:1::/48"));
    for (given, cause) in [
        (vec![a], "`outside_prefix` is missing"),
        (vec![a, ("outside_prefix", "2001:db8:1::/65")], "is not such a prefix"),
        (vec![a, ("outside_prefix", "2001:db8:1::1/48")], "is not such a prefix"),
        (vec![a, ("outside_prefix", "2001:db8::/32")], "differ in length"),
        (vec![a, ("outside_prefix", "fd00:1::/48")], "are the same"),
        (vec![a, b, ("to", "x")], "unknown argument `to`"),
    ] {
        let error = Nat::instance(Family::V6, 2, &args(&given), |name| reasons.make(name)).err().unwrap();
        assert!(error.cause.contains(cause) && !error.cure.is_empty(), "{given:?}: {error}");
    }
}

#[test]
fn the_kind_makes_instances() {
    let reasons = Reasons::default();
    let given = args(&[("inside", "10.0.0.0/8"), ("to", "203.0.113.1")]);
    let nat = Nat::instance(Family::V4, 2, &given, |name| reasons.make(name)).unwrap();
    assert_eq!(
        (0..5).map(|i| reasons.name(i)).collect::<Vec<_>>().join(" "),
        "no_port table_full busy filtered invalid"
    );
    let hooks = nat.hooks();
    assert!(hooks.wants_whole() && hooks.has(IpHook::Prerouting) && hooks.has(IpHook::Output));
    assert!(!hooks.has(IpHook::Input) && !hooks.has(IpHook::Forward));
    let pool = pool();
    let packet = Packet::udp("10.0.0.5:4000", "192.0.2.1:53");
    let sent =
        with_cx(&pool, |cx| show(mbuf(&pool, &packet.bytes()), |batch| nat.output(cx, batch))).unwrap();
    let translated = packet.with_src("203.0.113.1:4000");
    assert_eq!(bytes_of(&sent), translated.bytes());
    let answer = mbuf(&pool, &translated.answer().bytes());
    with_cx(&pool, |cx| show(answer, |batch| nat.prerouting(cx, batch))).unwrap();
    nat.tick();
    let figures: std::collections::HashMap<_, _> = nat.figures().into_iter().collect();
    for name in ["outbound", "inbound", "mappings", "flows", "established", "created"] {
        assert_eq!(figures[name], 1, "{name}");
    }
}
