//! Routes, as `ip route` changes them.

use nke_rtnl::{Change, Config};

use crate::lab::Netns;
use crate::seen::Seen;

/// Runs each line and compares. Those that begin with `?` may make the follower ask the kernel; others must not, so that
/// what notifications mean is put to the test.
fn run(lines: &str) {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("addr add 10.0.0.1/24 dev a0");
    netns.ip("addr add 2001:db8::1/64 dev a0 nodad");
    let (mut follower, mut seen) = (netns.follower(Config::default()), Seen::default());
    seen.settle(&mut follower);
    seen.assert_routes(&mut follower, &netns, "the start");
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let dumps = follower.stats().dumps;
        seen.log.clear();
        netns.ip(line.trim_start_matches(['?', ' ']));
        seen.settle(&mut follower);
        seen.assert_routes(&mut follower, &netns, line);
        // A link may still be on its way up or down by a line before.
        let link = seen.log.iter().any(|change| matches!(change, Change::Link(..)));
        if !line.starts_with('?') && !link {
            assert_eq!(follower.stats().dumps, dumps, "after `{line}`: {:?}", follower.stats());
        }
    }
    let stats = follower.stats();
    assert_eq!((stats.surprises, stats.malformed, stats.overruns), (0, 0, 0), "{stats:?}");
}

#[test]
fn replace_append_and_metric_of_ipv4() {
    run("
        route add 10.1.0.0/24 via 10.0.0.2
        route append 10.1.0.0/24 via 10.0.0.3
        route prepend 10.1.0.0/24 via 10.0.0.4
        route replace 10.1.0.0/24 via 10.0.0.5
        route del 10.1.0.0/24 via 10.0.0.2
        route change 10.1.0.0/24 via 10.0.0.6
        route add 10.1.0.0/24 via 10.0.0.7 metric 20
        route replace 10.1.0.0/24 via 10.0.0.8 metric 10
        route replace 10.1.0.0/24 via 10.0.0.9 metric 20
        route append blackhole 10.1.0.0/24 metric 10
        route del 10.1.0.0/24 via 10.0.0.6
        route del 10.1.0.0/24 via 10.0.0.3
        route del 10.1.0.0/24 via 10.0.0.8 metric 10
        route del blackhole 10.1.0.0/24 metric 10
        route replace unreachable 10.1.0.0/24 metric 20
        route replace default via 10.0.0.2
        route add 10.2.0.0/16 via inet6 fe80::9 dev a0
        route add 10.3.0.0/16 dev a1
        route add prohibit 10.4.0.0/16
        route add throw 10.5.0.0/16
        route add 10.6.0.0/16 via 10.0.0.2 table 77
        route add 10.7.0.0/24 via 10.0.0.2 mtu lock 1400
        route append 10.7.0.0/24 via 10.0.0.2 mtu lock 1300
        route append blackhole 10.7.0.0/24
        route del 10.7.0.0/24 via 10.0.0.2 mtu lock 1300
        route del 10.7.0.0/24 via 10.0.0.2 mtu lock 1400
    ");
}

#[test]
fn several_next_hops_of_ipv4() {
    run("
        route add 10.1.0.0/24 nexthop via 10.0.0.2 weight 3 nexthop via 10.0.0.3 nexthop dev a1 weight 256
        route replace 10.1.0.0/24 nexthop via 10.0.0.3 nexthop via inet6 fe80::1 dev a1
        route append 10.1.0.0/24 via 10.0.0.9
        ?link set a1 down
        ?link set a1 up
        route del 10.1.0.0/24 nexthop via 10.0.0.3 nexthop via inet6 fe80::1 dev a1
        route add 10.2.0.0/24 dev a1
        ?link set a1 down
        ?link set a1 up
        ?addr add 10.9.0.1/24 dev a0
        route add 10.3.0.0/24 via 10.0.0.9 src 10.9.0.1
        ?addr del 10.9.0.1/24 dev a0
        ?link del a0
    ");
}

#[test]
fn replace_append_and_metric_of_ipv6() {
    run("
        -6 route add 2001:db8:1::/48 via 2001:db8::2
        -6 route append 2001:db8:1::/48 via 2001:db8::3
        -6 route replace 2001:db8:1::/48 via 2001:db8::4
        -6 route add 2001:db8:1::/48 via 2001:db8::5 metric 10
        -6 route add blackhole 2001:db8:1::/48 metric 5
        -6 route replace unreachable 2001:db8:1::/48 metric 5
        -6 route del unreachable 2001:db8:1::/48 metric 5
        -6 route del 2001:db8:1::/48 via 2001:db8::5 metric 10
        -6 route replace default via fe80::9 dev a0
        -6 route add 2001:db8:2::/48 dev a1
        -6 route append 2001:db8:2::/48 dev a0
        -6 route del 2001:db8:2::/48 dev a1
        -6 route add 2001:db8:3::/48 via 2001:db8::2 mtu 1400
        -6 route replace 2001:db8:3::/48 via 2001:db8::2 mtu 1300
        -6 route add 2001:db8:4::/48 via 2001:db8::2 table 77
    ");
}

#[test]
fn several_next_hops_of_ipv6() {
    run("
        -6 route add 2001:db8:1::/48 nexthop via 2001:db8::2 weight 3 nexthop via 2001:db8::3
        -6 route append 2001:db8:1::/48 via 2001:db8::4
        -6 route append 2001:db8:1::/48 nexthop via 2001:db8::5 nexthop via fe80::1 dev a1
        -6 route del 2001:db8:1::/48 via 2001:db8::2
        -6 route del 2001:db8:1::/48 nexthop via 2001:db8::3 nexthop via 2001:db8::5
        ?link set a1 down
        ?link set a1 up
        -6 route replace 2001:db8:1::/48 nexthop via 2001:db8::6 nexthop via 2001:db8::7
        -6 route append 2001:db8:1::/48 dev a1
        ?-6 route replace 2001:db8:1::/48 nexthop via 2001:db8::8 nexthop via 2001:db8::9
        ?-6 route replace 2001:db8:1::/48 dev a1
        ?-6 route replace blackhole 2001:db8:1::/48
        ?-6 route replace 2001:db8:1::/48 via 2001:db8::2
        -6 route add 2001:db8:2::/48 nexthop via 2001:db8::2 nexthop via 2001:db8::3
        -6 route del 2001:db8:2::/48
        ?link del a0
    ");
}

#[test]
fn next_hop_objects() {
    run("
        nexthop add id 1 via 10.0.0.2 dev a0
        nexthop add id 2 via 10.0.0.3 dev a0
        nexthop add id 3 group 1/2,7
        nexthop add id 4 via 2001:db8::2 dev a0
        nexthop add id 5 blackhole
        route add 10.1.0.0/24 nhid 3
        route add 10.2.0.0/24 nhid 1
        route append 10.1.0.0/24 via 10.0.0.7
        -6 route add 2001:db8:1::/48 nhid 4
        -6 route add 2001:db8:2::/48 via 2001:db8::5
        ?nexthop replace id 1 via 10.0.0.8 dev a0
        ?nexthop del id 2
        ?nexthop del id 1
        ?nexthop del id 4
    ");
}

/// Numbers that look random; the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn whatever_is_done_the_kernel_is_the_oracle() {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("addr add 10.0.0.1/24 dev a0");
    netns.ip("addr add 2001:db8::1/64 dev a0 nodad");
    let (mut follower, mut seen) = (netns.follower(Config::default()), Seen::default());
    seen.settle(&mut follower);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut told = 0;
    for round in 0..40 {
        let mut lines = String::new();
        for _ in 0..40 {
            let v6 = numbers.below(2) == 1;
            let verb =
                ["add", "append", "prepend", "replace", "change", "del", "del"][numbers.below(7) as usize];
            let prefix = numbers.below(2);
            let mut via = || match v6 {
                true => format!("via 2001:db8::{}", numbers.below(4) + 2),
                false => format!("via 10.0.0.{}", numbers.below(4) + 2),
            };
            let ways = [via(), format!("nexthop {} nexthop {}", via(), via()), via(), "dev a1".into()];
            let way = &ways[numbers.below(if round < 20 { 3 } else { 4 }) as usize];
            let metric = numbers.below(2) * 7 + 1;
            let prefix = match v6 {
                true => format!("2001:db8:{}::/48", prefix + 1),
                false => format!("10.{}.0.0/16", prefix + 1),
            };
            lines += &format!("route {verb} {prefix} metric {metric} {way}\n");
        }
        let dumps = follower.stats().dumps;
        told += seen.log.len();
        seen.log.clear();
        netns.batch(&lines);
        seen.settle(&mut follower);
        seen.assert_routes(&mut follower, &netns, &format!("round {round}:\n{lines}"));
        // Of legs alone, the notifications tell all. A dump leaves out others that stand between legs.
        let link = seen.log.iter().any(|change| matches!(change, Change::Link(..)));
        assert!(
            round >= 20 || link || follower.stats().dumps == dumps,
            "round {round}: {:?}",
            follower.stats()
        );
    }
    assert!(told > 200, "the batches did something");
}
