//! A script for a small table, beside what a worker would know of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::*;

const CAPACITY: u32 = 8;
const WAITING_MAX: u32 = 4;
const WAITING_PER_INTERFACE: u32 = 3;
const RATE: u64 = 2;
const BURST: u64 = 4;

type Name = (u16, IpAddr);

struct Run {
    neighbors: Neighbors,
    out: Vec<Action>,
    now_ms: u64,
    /// What workers read.
    array: [Option<(Name, EtherAddr)>; CAPACITY as usize],
    /// Gone, and not released yet.
    grace: Vec<(u32, Name)>,
    routes: Vec<(u32, Name)>,
    given: HashMap<Name, EtherAddr>,
    asked_ms: HashMap<Name, u64>,
    asked: u64,
    unrefs: u32,
}

/// Four bytes are a command.
pub fn script(data: &[u8]) {
    let mode = if data.first().is_some_and(|byte| byte & 0x80 != 0) { Mode::Kernel } else { Mode::Solicit };
    let config = Config {
        mode,
        capacity: CAPACITY,
        incomplete_max: WAITING_MAX,
        incomplete_per_interface: WAITING_PER_INTERFACE,
        solicit_per_second: RATE as u32,
        solicit_burst: BURST as u32,
        ..Config::default()
    };
    let mut run = Run {
        neighbors: Neighbors::new(config, [3, 4]),
        out: Vec::new(),
        now_ms: 1 << 32,
        array: [None; CAPACITY as usize],
        grace: Vec::new(),
        routes: Vec::new(),
        given: HashMap::new(),
        asked_ms: HashMap::new(),
        asked: 0,
        unrefs: 0,
    };
    for command in data.as_chunks::<4>().0.iter().take(4096) {
        run.step(*command);
        run.look();
    }
    run.finish();
}

fn ours(_: u16, address: IpAddr) -> Option<EtherAddr> {
    (address == IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0))).then_some(OURS)
}

impl Run {
    fn step(&mut self, [what, who, how, ms]: [u8; 4]) {
        let (interface, address) = (u16::from(who >> 7), name(who));
        let named = (interface, address);
        let mac = EtherAddr([2, 0, 0, 0, 0, how & 3]);
        let (now, out) = (self.now_ms, &mut self.out);
        let neighbors = &mut self.neighbors;
        // Who answered, is of a route or was given may not leave because a stranger came.
        let kept = |neighbors: &Neighbors| -> Vec<Name> {
            let keep = |entry: &EntryInfo| {
                matches!(entry.state, State::Reachable | State::Static) || entry.references > 0
            };
            neighbors.entries(now).filter(keep).map(|entry| (entry.interface, entry.address)).collect()
        };
        let before = kept(neighbors);
        let mut stranger = false;
        match what % 16 {
            0..=3 => {
                self.now_ms += u64::from(ms) * if how & 1 == 0 { 8 } else { 300 };
                neighbors.tick(self.now_ms, out);
            }
            4 | 5 => {
                stranger = true;
                let lookup = neighbors.resolve(interface, address, now, out);
                let entry = neighbors.entries(now).find(|entry| (entry.interface, entry.address) == named);
                match lookup {
                    Lookup::Known { id, mac } => {
                        let entry = entry.expect("it is known");
                        assert_eq!((entry.id, entry.mac), (id, Some(mac)));
                    }
                    Lookup::Waiting => assert_eq!(entry.map(|entry| entry.state), Some(State::Incomplete)),
                    Lookup::Failed => assert_eq!(entry.map(|entry| entry.state), Some(State::Failed)),
                    Lookup::Refused => assert!(entry.is_none()),
                }
            }
            6..=9 => {
                stranger = true;
                let claimed = (how & 4 == 0).then_some(mac);
                let kind = if what % 16 == 6 {
                    Kind::Request { sender: address, mac: claimed, target: name(ms) }
                } else {
                    let (solicited, override_flag) = (how & 8 != 0, how & 16 != 0);
                    Kind::Answer { address, mac: claimed, solicited, override_flag, router: false }
                };
                let known = neighbors.entries(now).count();
                neighbors.event(&Event { interface, kind }, now, ours, out);
                let for_us = matches!(kind, Kind::Request { target, .. } if ours(0, target).is_some());
                assert!(for_us || neighbors.entries(now).count() == known);
            }
            10 => {
                if let Some(id) = neighbors.gateway(interface, address, now, out) {
                    self.routes.push((id, named));
                }
            }
            11 if !self.routes.is_empty() => {
                let (id, _) = self.routes.swap_remove(usize::from(how) % self.routes.len());
                neighbors.unref(id, now);
                self.unrefs += 1;
            }
            12 => {
                if how & 4 == 0 {
                    if neighbors.insert_static(interface, address, mac, now, out).is_some() {
                        self.given.insert(named, mac);
                    }
                } else {
                    let had = self.given.remove(&named).is_some();
                    assert_eq!(neighbors.remove_static(interface, address, now, out), had);
                }
            }
            13 if how & 8 == 0 => {
                let states = [
                    State::Reachable,
                    State::Stale,
                    State::Probe,
                    State::Static,
                    State::Incomplete,
                    State::Failed,
                ];
                let state = states[usize::from(ms) % states.len()];
                neighbors.set(interface, address, (how & 4 == 0).then_some(mac), state, now, out);
            }
            13 if how & 16 == 0 => {
                neighbors.forget(interface, address, now, out);
            }
            13 if how > 0xe0 => {
                neighbors.interface_gone(interface, out);
                self.given.retain(|(on, _), _| *on != interface);
            }
            14 => neighbors.used(u32::from(how), now, out),
            _ => {
                if !self.grace.is_empty() {
                    let (id, _) = self.grace.remove(0);
                    neighbors.release(id);
                }
            }
        }
        if stranger {
            let after = kept_or_known(neighbors, now);
            assert!(before.iter().all(|named| after.contains(named)), "{before:?} {after:?}");
        }
    }

    /// Does what a control thread does, and looks at all that is to be seen.
    fn look(&mut self) {
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::Reachable { id, interface, address, mac } => {
                    let named = (interface, address);
                    self.holds_only(id, named);
                    self.array[id as usize] = Some((named, mac));
                }
                Action::Gone { id, interface, address } => {
                    let named = (interface, address);
                    self.holds_only(id, named);
                    self.array[id as usize] = None;
                    self.grace.push((id, named));
                }
                Action::Solicit { interface, address, .. } | Action::AskKernel { interface, address } => {
                    let kernel = matches!(action, Action::AskKernel { .. });
                    assert_eq!(kernel, self.neighbors.mirrors_kernel());
                    let last = self.asked_ms.insert((interface, address), self.now_ms);
                    assert!(last.is_none_or(|last| last + 1000 <= self.now_ms), "{action:?}");
                    self.asked += 1;
                }
                Action::Conflict { interface, address, mac } => {
                    assert!(ours(interface, address).is_some_and(|our_mac| our_mac != mac));
                }
            }
        }
        assert!(self.asked <= BURST + (self.now_ms - (1 << 32)) * RATE / 1000);
        let entries: Vec<EntryInfo> = self.neighbors.entries(self.now_ms).collect();
        // An entry that left may come back, and ask at once.
        let here = |named: &Name| entries.iter().any(|entry| (entry.interface, entry.address) == *named);
        self.asked_ms.retain(|named, _| here(named));
        let mut waiting = [0; 2];
        for entry in &entries {
            let named = (entry.interface, entry.address);
            let same = |other: &&EntryInfo| (other.interface, other.address) == named;
            assert_eq!(entries.iter().filter(same).count(), 1);
            assert_eq!(entry.mac.is_some(), entry.state.has_mac());
            let shown = self.array[entry.id as usize];
            assert_eq!(shown.map(|(_, mac)| mac), entry.mac);
            assert!(shown.is_none_or(|(held, _)| held == named));
            let routes = self.routes.iter().filter(|route| **route == (entry.id, named)).count();
            assert_eq!(entry.references as usize, routes);
            waiting[usize::from(entry.interface)] +=
                u32::from(entry.state == State::Incomplete && entry.references == 0);
        }
        let all: u32 = waiting.iter().sum();
        assert!(all <= WAITING_MAX + self.unrefs);
        assert!(waiting.iter().all(|count| *count <= WAITING_PER_INTERFACE + self.unrefs));
        let shown = self.array.iter().filter(|held| held.is_some()).count();
        assert_eq!(shown, entries.iter().filter(|entry| entry.mac.is_some()).count());
        for (named, mac) in &self.given {
            let entry = entries.iter().find(|entry| (entry.interface, entry.address) == *named);
            assert_eq!(entry.map(|entry| (entry.state, entry.mac)), Some((State::Static, Some(*mac))));
        }
    }

    /// Nobody else has this id: not in the array, not in a grace period, not by a route.
    fn holds_only(&self, id: u32, named: Name) {
        assert!(self.array[id as usize].is_none_or(|(held, _)| held == named));
        let held = self.grace.iter().chain(&self.routes);
        assert!(held.filter(|(held, _)| *held == id).all(|(_, held)| *held == named));
    }

    /// No id is lost.
    fn finish(mut self) {
        for interface in 0..2 {
            self.neighbors.interface_gone(interface, &mut self.out);
        }
        self.given.clear();
        for (id, _) in std::mem::take(&mut self.routes) {
            self.neighbors.unref(id, self.now_ms);
        }
        self.look();
        for (id, _) in self.grace {
            self.neighbors.release(id);
        }
        assert_eq!(self.neighbors.table.free(), CAPACITY);
    }
}

fn name(who: u8) -> IpAddr {
    let low = who & 0xf;
    if who & 0x40 == 0 {
        Ipv4Addr::new(192, 0, 2, low).into()
    } else {
        IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low])
    }
}

fn kept_or_known(neighbors: &Neighbors, now_ms: u64) -> Vec<Name> {
    neighbors.entries(now_ms).map(|entry| (entry.interface, entry.address)).collect()
}
