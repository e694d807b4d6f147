//! Any bytes as a script of dumps and notifications, taken by a small mirror; asserts what must hold for every script. Run
//! by the property tests and the fuzz target. Not part of the API; compiled for tests and fuzzing only.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;

use crate::follow::state::{State, Step};
use crate::wire::{Answer, HEADER, Messages, Request};
use crate::{Address, Change, Config, Event, Kind, Link, Neighbor, Route, RouteKind};

/// What a consumer knows from the changes it was told.
#[derive(Default)]
pub struct Told {
    pub links: HashMap<u32, Link>,
    pub addresses: HashMap<(u32, IpAddr, u8, Option<IpAddr>), Address>,
    pub routes: HashMap<(u32, IpAddr, u8), Route>,
    pub neighbors: HashMap<(u32, IpAddr), Neighbor>,
    pub too_many: usize,
}

impl Told {
    pub fn take(&mut self, change: Change) {
        match change {
            Change::Link(event, l) => put(&mut self.links, event, l.ifindex, l),
            Change::Address(event, a) => {
                put(&mut self.addresses, event, (a.ifindex, a.addr, a.prefix_len, a.peer), a);
            }
            Change::Route(event, r) => {
                assert!(!r.kind.is_reject() || r.next_hops.is_empty());
                assert!(r.kind != RouteKind::Unicast || !r.next_hops.is_empty());
                put(&mut self.routes, event, (r.table, r.dst, r.prefix_len), r);
            }
            Change::Neighbor(event, n) => put(&mut self.neighbors, event, (n.ifindex, n.addr), n),
            Change::TooMany(kind, max) => {
                assert!(kind != Kind::Routes || max == ROUTES_MAX);
                self.too_many += 1;
            }
        }
    }
}

fn put<K: Eq + Hash + Debug, V: PartialEq + Debug>(map: &mut HashMap<K, V>, event: Event, key: K, value: V) {
    match event {
        Event::Added => assert_eq!(map.insert(key, value), None, "added, but was known"),
        Event::Changed => assert!(map.insert(key, value).is_some(), "changed, but was not known"),
        Event::Removed => assert_eq!(map.remove(&key), Some(value), "removed as it was"),
    }
}

const ROUTES_MAX: usize = 12;

pub fn config() -> Config {
    let (links_max, addresses_max, neighbors_max) = (3, 4, 4);
    Config { links_max, addresses_max, neighbors_max, routes_max: ROUTES_MAX, ..Config::default() }
}

/// A route message.
#[derive(Clone, Debug)]
pub struct RouteShape {
    pub v6: bool,
    /// The prefix, by a number.
    pub prefix: u8,
    pub priority: u32,
    /// `RTN_*`.
    pub kind: u8,
    /// Last bytes of the routers' addresses; 0: on the link.
    pub hops: Vec<u8>,
    pub dead: bool,
}

impl RouteShape {
    pub(crate) fn request(&self, kind: u16, flags: i32) -> Request {
        let family = if self.v6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
        let dead = u8::from(self.dead);
        let fixed = [family, if self.v6 { 48 } else { 16 }, 0, 0, 254, 3, 0, self.kind, dead, 0, 0, 0];
        let network = |last: u8| match self.v6 {
            true => [&[0x20, 1, 0xd, 0xb8, 0, self.prefix][..], &[0; 9], &[last]].concat(),
            false => vec![10, self.prefix, 0, last],
        };
        let request = Request::new(kind, flags, 0, &fixed)
            .attribute(libc::RTA_DST, &network(0))
            .attribute(libc::RTA_PRIORITY, &self.priority.to_ne_bytes());
        let ifindex = 3u32.to_ne_bytes();
        match self.hops[..] {
            [] => request,
            [0] => request.attribute(libc::RTA_OIF, &ifindex),
            [via] => request.attribute(libc::RTA_GATEWAY, &network(via)).attribute(libc::RTA_OIF, &ifindex),
            _ => {
                let hop = |via: &u8| {
                    let gateway = Request::new(0, 0, 0, &[]).attribute(libc::RTA_GATEWAY, &network(*via));
                    let gateway = &gateway.bytes()[HEADER..];
                    let len = (8 + gateway.len()) as u16;
                    [&len.to_ne_bytes(), &[dead, 0][..], &ifindex, gateway].concat()
                };
                let hops: Vec<u8> = self.hops.iter().flat_map(hop).collect();
                request.attribute(libc::RTA_MULTIPATH, &hops)
            }
        }
    }
}

/// A neighbour message, of state reachable.
pub(crate) fn neighbor(kind: u16, last: u8, mac: u8) -> Request {
    let fixed = [libc::AF_INET as u8, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 1];
    Request::new(kind, 0, 0, &fixed)
        .attribute(libc::NDA_DST, &[10, 0, 0, last])
        .attribute(libc::NDA_LLADDR, &[2, 0, 0, 0, 0, mac])
}

/// An address message.
pub(crate) fn address(kind: u16, last: u8, flags: u8) -> Request {
    let fixed = [libc::AF_INET as u8, 24, flags, 0, 3, 0, 0, 0];
    Request::new(kind, 0, 0, &fixed)
        .attribute(libc::IFA_ADDRESS, &[10, 0, 0, last])
        .attribute(libc::IFA_LOCAL, &[10, 0, 0, last])
}

/// A link message.
pub(crate) fn link(kind: u16, ifindex: u8, flags: u8) -> Request {
    let fixed = [0, 0, 1, 0, ifindex, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0];
    Request::new(kind, 0, 0, &fixed)
        .attribute(libc::IFLA_IFNAME, b"a0\0")
        .attribute(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, ifindex])
        .attribute(libc::IFLA_MTU, &1500u32.to_ne_bytes())
}

const KINDS: [u16; 10] = [16, 17, 20, 21, 24, 25, 28, 29, 104, 105];

/// The script: a byte says what to do, the next ones how.
pub fn harness(data: &[u8]) {
    let (mut state, mut told, mut dump) = (State::new(&config()), Told::default(), None::<Step>);
    let mut rest = data;
    while let Some(([what, a, b, c], more)) = rest.split_first_chunk() {
        rest = more;
        let mut tell = |change| told.take(change);
        let (new, flags) = (*a & 1 == 0, [0, 0x100, 0x800, 0][usize::from(*a >> 1 & 3)]);
        let request = match what % 16 {
            0 => {
                let step = Step::ALL[usize::from(a % 5)];
                if dump.is_none() {
                    state.begin(step);
                    dump = Some(step);
                }
                continue;
            }
            1 => {
                if let Some(step) = dump.take() {
                    state.finish(step, &mut tell);
                }
                continue;
            }
            2 => {
                state.quiet();
                continue;
            }
            3 => {
                // A datagram of any bytes.
                let (bytes, more) = rest.split_at(rest.len().min(usize::from(*a)));
                rest = more;
                for message in Messages(bytes).flatten() {
                    let _ = Answer::of(&message);
                    state.input(&message, b & 1 != 0, &mut tell);
                }
                continue;
            }
            4 | 5 => {
                // A message of any body.
                let (bytes, more) = rest.split_at(rest.len().min(usize::from(*b)));
                rest = more;
                Request::new(KINDS[usize::from(a % 10)], i32::from(*c) << 8, 0, bytes)
            }
            6 => link(if new { 16 } else { 17 }, *b % 5, *c),
            7 => address(if new { 20 } else { 21 }, *b % 7, *c),
            8 => neighbor(if new { 28 } else { 29 }, *b % 7, *c % 3),
            _ => {
                let hops = (0..*c % 4).map(|at| (*c >> 2).wrapping_add(at * (*a >> 4)) % 5).collect();
                let shape = RouteShape {
                    v6: *b & 1 != 0,
                    prefix: *b >> 1 & 3,
                    priority: u32::from(*b >> 3 & 3),
                    kind: if *b >> 5 == 0 { 6 } else { 1 },
                    hops,
                    dead: *a & 8 != 0,
                };
                shape.request(if new { 24 } else { 25 }, flags)
            }
        };
        for message in Messages(request.bytes()).flatten() {
            state.input(&message, dump.is_some() && what & 16 != 0, &mut tell);
        }
        assert!(state.routes_known() <= 2 * ROUTES_MAX);
        assert!(told.links.len() <= 3 && told.addresses.len() <= 4 && told.neighbors.len() <= 4);
    }
    let best: HashMap<_, _> = state.best_routes().map(|r| ((r.table, r.dst, r.prefix_len), r)).collect();
    assert_eq!(told.routes, best);
    if let Some(step) = dump {
        state.finish(step, &mut |change| told.take(change));
    }
    // A dump of nothing takes away all.
    for step in Step::ALL {
        state.begin(step);
        state.finish(step, &mut |change| told.take(change));
    }
    assert!(told.links.is_empty() && told.addresses.is_empty());
    assert!(told.routes.is_empty() && told.neighbors.is_empty() && state.routes_known() == 0);
}
