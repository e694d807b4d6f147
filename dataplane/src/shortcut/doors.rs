//! The doors of the shortcut, as the control thread works them.

use std::time::{Duration, Instant};

use af_xdp::program::{Count, ShortcutPort};
use nke_filters::{Family, IfIndex, IpHook};

use super::fence::Fence;
use super::{GIVES, PORT, Shortcut, TAKES};
use crate::ifnet::{IfState, IfTable};
use crate::inet::Takes;
use crate::snapshot::Snapshot;

/// After a door was shut none is opened for so long: who attaches and detaches all the time waits for programs once, and packets
/// are not overtaken by later ones time and again.
const COOLING: Duration = Duration::from_secs(1);

/// Why a door is shut; `None` for an open one.
type Shut = Option<&'static str>;

/// The same of all doors of a port: for IPv4 and IPv6 that it receives, and for what it sends.
#[derive(Clone, Copy)]
struct Why {
    input: Shut,
    input6: Shut,
    output: Shut,
}

/// All of them.
pub struct Doors {
    shortcut: Shortcut,
    fence: Fence,
    /// Whether the dataplane runs: all doors are shut before and after.
    running: bool,
    said: Vec<ShortcutPort>,
    wanted: Vec<ShortcutPort>,
    /// Of ports.
    why: Vec<Option<Why>>,
    /// When the programs have passed this, all doors that were shut are.
    last_shut: u64,
    closed_until: Option<Instant>,
}

impl Doors {
    /// All shut.
    ///
    /// # Errors
    /// When the thread that waits for programs cannot be started.
    pub fn new(shortcut: Shortcut) -> std::io::Result<Doors> {
        let fence = Fence::start(shortcut.clone())?;
        let (said, wanted, why) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Doors { shortcut, fence, running: false, said, wanted, why, last_shut: 0, closed_until: None })
    }

    /// The dataplane begins, or ends.
    pub fn set_running(&mut self, running: bool) {
        self.running = running;
    }

    /// Shuts every door that is to be shut with this snapshot, before it is published.
    pub fn shut(&mut self, next: &Snapshot, interfaces: &IfTable) {
        self.want(next, interfaces);
        let mut shut = false;
        for (i, (said, wanted)) in self.said.iter_mut().zip(&self.wanted).enumerate() {
            let now = ShortcutPort {
                takes: said.takes && wanted.takes,
                takes6: said.takes6 && wanted.takes6,
                gives: said.gives && wanted.gives,
                ..*wanted
            };
            shut |= (now.takes, now.takes6, now.gives) != (said.takes, said.takes6, said.gives);
            *said = now;
            self.shortcut.tables().set_port(i as u32, now);
        }
        if shut {
            self.last_shut = self.fence.ask();
            self.closed_until = Some(Instant::now() + COOLING);
        }
    }

    /// Opens every door that may be open with the snapshot that was told last, and is published by now; later, if one was
    /// shut a moment ago.
    pub fn open(&mut self) {
        if self.closed_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.closed_until = None;
        for (i, port) in self.wanted.iter().enumerate() {
            if self.said.get(i) != Some(port) {
                self.shortcut.tables().set_port(i as u32, *port);
            }
        }
        self.said.clone_from(&self.wanted);
    }

    /// What to wait for before it is said that packets are seen.
    pub fn last_shut(&self) -> u64 {
        self.last_shut
    }

    /// What to wait for before memory is used again that programs may be reading.
    pub fn barrier(&self) -> u64 {
        if self.said.iter().any(|port| port.takes || port.takes6) { self.fence.ask() } else { self.last_shut }
    }

    /// Whether programs have passed it.
    pub fn passed(&self, ticket: u64) -> bool {
        self.fence.passed(ticket)
    }

    /// The state of an interface's doors, for users; `None` if it is no port with a program.
    pub fn describe(&self, interface: u16) -> Option<String> {
        let i = usize::from(interface);
        let Why { input, input6, output } = (*self.why.get(i)?)?;
        let said = self.said.get(i).copied().unwrap_or_default();
        let soon = |why: Shut, open: bool| why.or((!open).then_some("opens in a moment"));
        let (input, output) = (soon(input, said.takes), soon(output, said.gives));
        // Without a table of IPv6 there is no door for it.
        let input6 = if self.shortcut.has_ipv6() { soon(input6, said.takes6) } else { input };
        let doors = match (input, input6) {
            (Some(a), b) if Some(a) == b && output == b => return Some(format!("shut: {a}")),
            (a, b) if a == b => vec![("input", a)],
            (a, b) => vec![("IPv4", a), ("IPv6", b)],
        };
        let doors = doors.into_iter().chain([("output", output)]);
        let shut: Vec<_> = doors.filter_map(|(door, why)| Some(format!("{door} shut: {}", why?))).collect();
        Some(if shut.is_empty() { "open".into() } else { shut.join(", ") })
    }

    /// Packets of an interface that took the shortcut: received, sent.
    pub fn counts(&self, interface: u16) -> (Count, Count) {
        self.shortcut.counts(interface)
    }

    /// Packets that took it, of all interfaces.
    pub fn forwarded(&self) -> u64 {
        (0..self.said.len()).map(|i| self.counts(i as u16).0.packets).sum()
    }

    fn want(&mut self, snapshot: &Snapshot, interfaces: &IfTable) {
        let everywhere =
            |family| if self.running { somebody_looks(snapshot, family) } else { Some("not running") };
        let [everywhere, everywhere6] = [everywhere(Family::V4), everywhere(Family::V6)];
        let ifnet = |i: usize| interfaces.get(IfIndex(i as u16));
        let up = |i: usize| ifnet(i).is_some_and(|ifnet| ifnet.state() == IfState::Up);
        // Another interface may have the number of a port that was detached.
        let port = |i: usize| ifnet(i).is_some_and(|ifnet| ifnet.identity().params.kind == PORT);
        self.why.clear();
        self.wanted.clear();
        for (i, (link, chains)) in snapshot.links.iter().zip(&snapshot.chains).enumerate() {
            let down = (!link.up || !link.ethernet || !up(i)).then_some("down");
            let cannot = |what, why| (!self.shortcut.able(i, what) || !port(i)).then_some(why);
            let no = |takes, why| (!link.takes.has(takes)).then_some(why);
            let filtered = |empty: bool| (!empty).then_some("a filter of the interface");
            let receives = cannot(TAKES, "not in the port's program").or(down);
            let input = filtered(chains.input.entries.is_empty());
            let why = Why {
                input: receives.or(no(Takes::INET, "no IPv4")).or(input).or(everywhere),
                input6: receives.or(no(Takes::INET6, "no IPv6")).or(input).or(everywhere6),
                output: cannot(GIVES, "the device sends nothing that is redirected")
                    .or(down)
                    .or(filtered(chains.output.entries.is_empty())),
            };
            self.why.push(port(i).then_some(why));
            self.wanted.push(ShortcutPort {
                mac: link.mac.bytes(),
                mtu: link.mtu,
                takes: why.input.is_none(),
                takes6: why.input6.is_none() && self.shortcut.has_ipv6(),
                gives: why.output.is_none(),
            });
        }
    }
}

/// Whether somebody wants to see packets of this version that are forwarded, whichever interface they come by.
fn somebody_looks(snapshot: &Snapshot, family: Family) -> Shut {
    let chains = &snapshot.ip[family as usize];
    let passed = [IpHook::Prerouting, IpHook::Forward, IpHook::Output];
    if chains.wants_whole || passed.iter().any(|hook| !chains.at(*hook).is_empty()) {
        return Some(match family {
            Family::V4 => "a filter of ip",
            Family::V6 => "a filter of ip6",
        });
    }
    (!snapshot.probes.is_empty()).then_some("a probe")
}
