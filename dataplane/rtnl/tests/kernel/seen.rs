//! What a consumer knows from the changes it was told, and what `ip` says there is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use nke_rtnl::{Address, Change, Event, Follower, Link, Neighbor, NextHop, Route, RouteKind};

use crate::lab::Netns;

pub type RouteKey = (u32, IpAddr, u8);

#[derive(Default)]
pub struct Seen {
    pub links: BTreeMap<u32, Link>,
    pub addresses: BTreeMap<(u32, IpAddr, u8), Address>,
    pub routes: BTreeMap<RouteKey, Route>,
    pub neighbors: BTreeMap<(u32, IpAddr), Neighbor>,
    /// Changes since it was last emptied.
    pub log: Vec<Change>,
}

impl Seen {
    /// Takes a change, which must fit what was told before.
    pub fn take(&mut self, change: Change) {
        match change.clone() {
            Change::Link(event, link) => put(&mut self.links, event, link.ifindex, link),
            Change::Address(event, a) => {
                put(&mut self.addresses, event, (a.ifindex, a.addr, a.prefix_len), a);
            }
            Change::Route(event, r) => put(&mut self.routes, event, (r.table, r.dst, r.prefix_len), r),
            Change::Neighbor(event, n) => put(&mut self.neighbors, event, (n.ifindex, n.addr), n),
            Change::TooMany(..) => {}
        }
        self.log.push(change);
    }

    /// Reads on until nothing is left to read or to ask.
    pub fn settle(&mut self, follower: &mut Follower) {
        for _ in 0..100_000 {
            let status = follower.poll(Duration::ZERO, |change| self.take(change)).expect("poll");
            if status.in_sync && !status.more {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", follower.stats());
    }

    /// Reads on until `done`; for what the kernel does in its own time: states of links, addresses of IPv6.
    pub fn until(&mut self, follower: &mut Follower, mut done: impl FnMut(&Seen) -> bool) -> bool {
        for _ in 0..100 {
            self.settle(follower);
            if done(self) {
                return true;
            }
            follower.poll(Duration::from_millis(50), |change| self.take(change)).expect("poll");
        }
        false
    }

    pub fn ifindex(&self, name: &str) -> u32 {
        self.links.values().find(|link| link.name == name).unwrap_or_else(|| panic!("no link {name}")).ifindex
    }

    /// The best routes of the main and the local table, as `ip` lists them.
    pub fn listed(&self, netns: &Netns) -> BTreeMap<RouteKey, Shape> {
        let mut best = BTreeMap::new();
        for (family, any) in [("-4", "0.0.0.0"), ("-6", "::")] {
            for table in [254, 255] {
                let text = netns.ip(&format!("-o {family} route show table {table}"));
                for line in text.lines() {
                    let (key, shape) = self.listed_line(line, table, any);
                    // In the kernel's order, the first that has a next hop alive.
                    if shape.hops.is_some() {
                        best.entry(key).or_insert(shape);
                    }
                }
            }
        }
        best
    }

    fn listed_line(&self, line: &str, table: u32, any: &str) -> (RouteKey, Shape) {
        let mut words = line.split([' ', '\t', '\\']).filter(|word| !word.is_empty()).peekable();
        let kind = match *words.peek().expect("a route") {
            "local" => RouteKind::Local,
            "broadcast" => RouteKind::Broadcast,
            "multicast" => RouteKind::Multicast,
            "anycast" => RouteKind::Anycast,
            "blackhole" => RouteKind::Blackhole,
            "unreachable" => RouteKind::Unreachable,
            "prohibit" => RouteKind::Prohibit,
            "throw" => RouteKind::Throw,
            _ => RouteKind::Unicast,
        };
        if kind != RouteKind::Unicast {
            words.next();
        }
        let prefix = words.next().expect("a prefix");
        let prefix = if prefix == "default" { format!("{any}/0") } else { prefix.to_owned() };
        let (dst, len) = prefix.split_once('/').unwrap_or((&prefix, if any == "::" { "128" } else { "32" }));
        let (mut metric, mut hops, mut dead) = (0, Vec::new(), Vec::new());
        let mut hop = NextHop { ifindex: 0, via: None, weight: 1 };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            match word {
                "metric" => metric = words.next().expect("a metric").parse().expect("a number"),
                "via" => {
                    words.next_if(|word| ["inet", "inet6"].contains(word));
                    hop.via = Some(words.next().expect("an address").parse().expect("an address"));
                }
                "dev" => {
                    hop.ifindex = self.ifindex(words.next().expect("a device"));
                    hops.push(hop);
                    dead.push(false);
                    hop = NextHop { ifindex: 0, via: None, weight: 1 };
                }
                "weight" => {
                    let weight = words.next().expect("a weight").parse().expect("a number");
                    hops.last_mut().expect("behind a device").weight = weight;
                }
                "dead" => *dead.last_mut().expect("behind a device") = true,
                _ => {}
            }
        }
        let mut live: Vec<NextHop> =
            hops.iter().zip(dead).filter(|(_, dead)| !dead).map(|(hop, _)| *hop).collect();
        live.sort();
        use RouteKind::{Blackhole, Prohibit, Throw, Unreachable};
        let hops = match kind {
            Blackhole | Prohibit | Throw | Unreachable => Some(Vec::new()),
            _ => Some(live).filter(|live| !live.is_empty()),
        };
        (
            (table, dst.parse().expect("an address"), len.parse().expect("a length")),
            Shape { kind, metric, hops },
        )
    }

    /// Reads on until what was told of routes is what `ip` lists, which must be soon.
    pub fn assert_routes(&mut self, follower: &mut Follower, netns: &Netns, when: &str) {
        let mut differences = Vec::new();
        self.until(follower, |seen| {
            differences = seen.differences(netns);
            differences.is_empty()
        });
        assert!(differences.is_empty(), "after `{when}`: {differences:#?}, {:?}", follower.stats());
    }

    fn differences(&self, netns: &Netns) -> Vec<String> {
        let told: BTreeMap<_, _> = self.routes.iter().map(|(key, route)| (*key, Shape::of(route))).collect();
        let listed = self.listed(netns);
        listed
            .keys()
            .chain(told.keys())
            .filter(|key| listed.get(key) != told.get(key))
            .map(|key| format!("{key:?}: listed {:?}, told {:?}", listed.get(key), told.get(key)))
            .collect()
    }
}

/// What `ip` shows of a route.
#[derive(PartialEq, Eq, Debug)]
pub struct Shape {
    kind: RouteKind,
    metric: u32,
    /// In order; `None`: all are dead.
    hops: Option<Vec<NextHop>>,
}

impl Shape {
    fn of(route: &Route) -> Shape {
        Shape { kind: route.kind, metric: route.priority, hops: Some(route.next_hops.clone()) }
    }
}

fn put<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    map: &mut BTreeMap<K, V>,
    event: Event,
    key: K,
    value: V,
) {
    match event {
        Event::Added => {
            let was = map.insert(key, value);
            assert!(was.is_none(), "added, but was known: {was:?}");
        }
        Event::Changed => {
            let was = map.get(&key).unwrap_or_else(|| panic!("{key:?} changed, but was not known"));
            assert_ne!(*was, value, "told twice");
            map.insert(key, value);
        }
        Event::Removed => assert_eq!(map.remove(&key).as_ref(), Some(&value), "removed as it was"),
    }
}
