//! Links, addresses and neighbours, as `ip` changes them.

use std::net::IpAddr;

use nke_rtnl::{Asker, Change, Config, Event, Neighbor};

use crate::lab::Netns;
use crate::seen::Seen;

#[test]
fn links_come_change_and_go() {
    let Some(netns) = Netns::new() else { return };
    let (mut follower, mut seen) = (netns.follower(Config::default()), Seen::default());
    seen.settle(&mut follower);
    assert_eq!(seen.links.len(), 1, "lo");
    netns.ip("link add a0 address 02:00:00:00:00:01 mtu 1400 type veth peer name a1");
    seen.settle(&mut follower);
    let a0 = seen.ifindex("a0");
    let link = seen.links[&a0].clone();
    assert_eq!((link.mac, link.mtu_bytes, link.hardware), (Some([2, 0, 0, 0, 0, 1]), 1400, 1));
    assert!(!link.is_up());
    netns.ip("link set a0 up");
    netns.ip("link set a1 up");
    netns.ip("link set a0 mtu 9000");
    netns.ip("link set a1 name b1");
    seen.settle(&mut follower);
    assert_eq!(seen.links[&a0].mtu_bytes, 9000);
    assert!(seen.until(&mut follower, |seen| seen.links[&a0].is_running()));
    let b1 = seen.ifindex("b1");
    netns.ip("link add v0 type bridge");
    netns.ip("link set b1 master v0");
    seen.settle(&mut follower);
    assert_eq!(seen.links[&b1].master, Some(seen.ifindex("v0")));
    netns.ip("link set b1 nomaster");
    seen.settle(&mut follower);
    assert_eq!(seen.links[&b1].master, None);
    seen.log.clear();
    netns.ip("link del a0");
    seen.settle(&mut follower);
    let gone = |change: &&Change| matches!(change, Change::Link(Event::Removed, _));
    assert_eq!(seen.log.iter().filter(gone).count(), 2);
    let left = |ifindex: u32| [a0, b1].contains(&ifindex);
    assert!(!seen.addresses.keys().any(|key| left(key.0)) && !seen.neighbors.keys().any(|key| left(key.0)));
}

#[test]
fn addresses_come_and_go() {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("addr add 10.0.0.1/24 dev a0");
    let (mut follower, mut seen) = (netns.follower(Config::default()), Seen::default());
    seen.settle(&mut follower);
    let a0 = seen.ifindex("a0");
    let key = |text: &str, len| (a0, text.parse::<IpAddr>().unwrap(), len);
    assert!(seen.addresses.contains_key(&key("10.0.0.1", 24)), "by the dump");
    netns.ip("addr add 10.0.1.1 peer 10.0.1.2/30 dev a0");
    netns.ip("addr add 2001:db8::1/64 dev a0 nodad");
    let v6 = key("2001:db8::1", 64);
    assert!(seen.until(&mut follower, |seen| seen.addresses.contains_key(&v6)));
    assert_eq!(seen.addresses[&key("10.0.1.1", 30)].peer, Some("10.0.1.2".parse().unwrap()));
    assert!(!seen.addresses[&v6].is_tentative());
    netns.ip("addr add 2001:db8::2/64 dev a0");
    let v6 = key("2001:db8::2", 64);
    let tentative =
        |change: &Change| matches!(change, Change::Address(_, a) if a.addr == v6.1 && a.is_tentative());
    assert!(seen.until(&mut follower, |seen| seen.addresses.get(&v6).is_some_and(|a| !a.is_tentative())));
    assert!(seen.log.iter().any(tentative), "as long as it was looked for duplicates");
    netns.ip("addr flush dev a0");
    seen.settle(&mut follower);
    assert!(!seen.addresses.keys().any(|(ifindex, ..)| *ifindex == a0));
    seen.assert_routes(&mut follower, &netns, "flush");
}

#[test]
fn neighbors_come_change_and_go() {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev a0 nud permanent");
    let (mut follower, mut seen) = (netns.follower(Config::default()), Seen::default());
    seen.settle(&mut follower);
    let a0 = seen.ifindex("a0");
    let v4: IpAddr = "10.0.0.2".parse().unwrap();
    let v6: IpAddr = "2001:db8::2".parse().unwrap();
    let permanent = |addr, last| Neighbor {
        ifindex: a0,
        addr,
        mac: Some([2, 0, 0, 0, 0, last]),
        state: libc::NUD_PERMANENT,
    };
    assert_eq!(seen.neighbors[&(a0, v4)], permanent(v4, 2));
    netns.ip("neigh change 10.0.0.2 lladdr 02:00:00:00:00:03 dev a0");
    netns.ip("neigh add 2001:db8::2 lladdr 02:00:00:00:00:04 dev a0 nud permanent");
    netns.ip("neigh add proxy 10.0.0.77 dev a0");
    seen.settle(&mut follower);
    assert_eq!(seen.neighbors[&(a0, v4)], permanent(v4, 3));
    assert_eq!(seen.neighbors[&(a0, v6)], permanent(v6, 4));
    assert!(seen.neighbors[&(a0, v6)].is_valid());
    assert!(!seen.neighbors.contains_key(&(a0, "10.0.0.77".parse().unwrap())));
    netns.ip("neigh del 10.0.0.2 dev a0");
    seen.settle(&mut follower);
    assert!(!seen.neighbors.get(&(a0, v4)).is_some_and(Neighbor::is_valid));
}

#[test]
fn the_kernel_resolves_a_neighbor_when_asked() {
    let (Some(near), Some(far)) = (Netns::new(), Netns::new()) else { return };
    near.ip(&format!("link add a0 type veth peer name a1 address 02:00:00:00:00:09 netns {}", far.name));
    near.ip("link set a0 up");
    far.ip("link set a1 up");
    near.ip("addr add 10.0.0.1/24 dev a0");
    far.ip("addr add 10.0.0.2/24 dev a1");
    near.ip("addr add 2001:db8::1/64 dev a0 nodad");
    far.ip("addr add 2001:db8::2/64 dev a1 nodad");
    let (mut follower, mut seen) = (near.follower(Config::default()), Seen::default());
    let mut asker = near.inside(|| Asker::new().unwrap());
    seen.settle(&mut follower);
    let a0 = seen.ifindex("a0");
    for addr in ["10.0.0.2", "2001:db8::2"].map(|text| text.parse::<IpAddr>().unwrap()) {
        asker.probe_neighbor(a0, addr).unwrap();
        let valid = |seen: &Seen| seen.neighbors.get(&(a0, addr)).is_some_and(Neighbor::is_valid);
        assert!(seen.until(&mut follower, valid));
        assert_eq!(seen.neighbors[&(a0, addr)].mac, Some([2, 0, 0, 0, 0, 9]), "{addr}");
    }
    let error = asker.probe_neighbor(9999, "10.0.0.2".parse().unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), None, "it has words: {error}");
    assert!(error.to_string().contains("device 9999"), "{error}");
}

#[test]
fn all_that_is_known_is_told_once_more_when_asked_for() {
    let Some(netns) = Netns::with_pair() else { return };
    netns.ip("addr add 10.0.0.1/24 dev a0");
    netns.ip("route add 192.0.2.0/24 via 10.0.0.2");
    netns.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev a0");
    let (mut follower, mut seen) = (netns.follower(Config::default()), Seen::default());
    seen.settle(&mut follower);
    let mut again = Seen::default();
    follower.tell_all(|change| {
        again.take(match change {
            Change::Link(Event::Changed, link) => Change::Link(Event::Added, link),
            Change::Address(Event::Changed, address) => Change::Address(Event::Added, address),
            Change::Route(Event::Changed, route) => Change::Route(Event::Added, route),
            Change::Neighbor(Event::Changed, neighbor) => Change::Neighbor(Event::Added, neighbor),
            other => panic!("{other:?}"),
        })
    });
    assert_eq!((again.links, again.addresses), (seen.links, seen.addresses));
    assert_eq!((&again.routes, &again.neighbors), (&seen.routes, &seen.neighbors));
    assert!(seen.routes.len() > 2 && !seen.neighbors.is_empty());
}
