//! Overruns, and more than there is room for.

use std::time::Duration;

use nke_rtnl::{Change, Config, Kind};

use crate::lab::Netns;
use crate::seen::Seen;

fn routes(verb: &str, range: std::ops::Range<u32>, via: u32) -> String {
    let line = |i: u32| {
        let (a, b, c) = (i >> 14 & 0xff, i >> 6 & 0xff, i << 2 & 0xff);
        format!("route {verb} {}.{a}.{b}.{c}/30 via 10.0.0.{via}\n", 20)
    };
    range.map(line).collect()
}

#[test]
fn after_an_overrun_only_the_difference_is_told() {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("addr add 10.0.0.1/24 dev a0");
    let config = Config { receive_buffer_bytes: 4096, ..Config::default() };
    let (mut follower, mut seen) = (netns.follower(config), Seen::default());
    netns.batch(&routes("add", 0..5000, 2));
    seen.settle(&mut follower);
    seen.assert_routes(&mut follower, &netns, "the start");
    let before = follower.overruns();
    seen.log.clear();
    // Of 5000 known routes, 1000 change, 1000 go, and 16,000 come: 18,000 notifications and none of them read.
    netns.batch(&(routes("replace", 0..1000, 3) + &routes("del", 1000..2000, 2)));
    netns.batch(&routes("add", 5000..21_000, 4));
    seen.settle(&mut follower);
    assert!(follower.overruns() > before && follower.resyncs() > 0, "{:?}", follower.stats());
    seen.assert_routes(&mut follower, &netns, "the overrun");
    let told = seen.log.iter().filter(|change| matches!(change, Change::Route(..))).count();
    assert_eq!(told, 18_000, "each difference once");
    // ff00::/8 is there once for each end of the pair.
    assert_eq!(follower.routes_known(), seen.routes.len() + 1);

    // While changes go on, it reads along; in the end it is right, whatever was lost on the way.
    std::thread::scope(|scope| {
        let batch =
            scope.spawn(|| netns.batch(&(routes("del", 5000..15_000, 4) + &routes("replace", 0..9000, 5))));
        while !batch.is_finished() {
            follower.poll(Duration::from_millis(5), |change| seen.take(change)).unwrap();
        }
    });
    seen.settle(&mut follower);
    seen.assert_routes(&mut follower, &netns, "changes under way");
    assert_eq!((follower.malformed(), follower.stats().foreign), (0, 0));
}

#[test]
fn no_more_routes_than_there_is_room_for() {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("addr add 10.0.0.1/24 dev a0");
    let (mut follower, mut seen) =
        (netns.follower(Config { routes_max: 100, ..Config::default() }), Seen::default());
    netns.batch(&routes("add", 0..200, 2));
    seen.settle(&mut follower);
    let told = |seen: &Seen| seen.log.iter().filter(|c| **c == Change::TooMany(Kind::Routes, 100)).count();
    let v4 = |seen: &Seen| seen.routes.keys().filter(|(_, dst, _)| dst.is_ipv4()).count();
    assert_eq!((v4(&seen), told(&seen)), (100, 1));
    assert!(follower.stats().refused >= 100);
    // With fewer than the maximum there, all are known again.
    netns.batch(&routes("del", 0..150, 2));
    seen.settle(&mut follower);
    seen.assert_routes(&mut follower, &netns, "removal");
    assert_eq!(told(&seen), 1);
    netns.batch(&routes("add", 0..150, 2));
    seen.settle(&mut follower);
    assert_eq!((v4(&seen), told(&seen)), (100, 2));
}

#[test]
fn what_a_link_takes_with_it_is_not_asked_for_too_early() {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("addr add 10.0.0.1/24 dev a0");
    // The other end goes down once and for all: nothing else happens to the link then.
    netns.ip("link set a1 down");
    let (mut follower, mut seen) = (netns.follower(Config::default()), Seen::default());
    for round in 0..10 {
        netns.batch(&routes("add", 0..5000, 2));
        seen.settle(&mut follower);
        // The kernel tells of the link first, and removes the routes then.
        std::thread::scope(|scope| {
            let down = scope.spawn(|| netns.ip("link set a0 down"));
            while !down.is_finished() {
                follower.poll(Duration::from_millis(1), |change| seen.take(change)).unwrap();
            }
        });
        seen.assert_routes(&mut follower, &netns, &format!("down {round}"));
        assert!(!seen.routes.keys().any(|(_, dst, _)| dst.to_string().starts_with("20.")));
        netns.ip("link set a0 up");
    }
}
