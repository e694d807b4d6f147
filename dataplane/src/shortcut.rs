//! The shortcut: packets between devices that no filter is to see are forwarded by the XDP programs of the ports, which read
//! the very tables that workers have. A device in copy mode costs a packet two copies and a system call's share on its way to
//! a worker and back; the shortcut has none of it.
//!
//! Each interface has two doors, one for what it receives and one for what it sends. The control thread shuts them *before* it
//! publishes a snapshot in which somebody wants to see packets, and answers who asked for it when no program is at work any
//! more that began earlier: from then on every packet is seen. What a program does not forward by itself goes to the workers
//! as ever, so that a shut door loses nothing.

mod fence;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use af_xdp::program::{self, Count, LinkMode, ShortcutPort, ShortcutSizes};
use nke_filters::{Family, IFNETS_MAX, IfIndex, IpHook};
use nke_inet::fib::Twin;

use crate::ifnet::{IfState, IfTable};
use crate::inet::{Settings, Takes};
use crate::snapshot::Snapshot;
use crate::xdp_features::{self, Features};
use fence::Fence;

/// The tables, and what devices can. Cloning gives another handle.
#[derive(Clone)]
pub struct Shortcut(Arc<Inner>);

struct Inner {
    tables: program::Shortcut,
    /// By interface: [`TAKES`], [`GIVES`].
    able: Box<[AtomicU8]>,
}

/// The kind of interface it is for.
pub const PORT: &str = "af_xdp";

/// Its program runs in the driver.
const TAKES: u8 = 1;
/// It sends what programs redirect to it.
const GIVES: u8 = 2;

impl fmt::Debug for Shortcut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shortcut")
    }
}

impl Shortcut {
    /// Tables as large as the router's.
    ///
    /// # Errors
    /// Without the privilege, or when they are too large for a program.
    pub fn new(settings: &Settings) -> Result<Shortcut, af_xdp::Error> {
        let tables = program::Shortcut::new(ShortcutSizes {
            nodes: settings.v4_blocks,
            hops: settings.neighbors,
            interfaces: IFNETS_MAX as u32,
        })?;
        let able = (0..IFNETS_MAX).map(|_| AtomicU8::new(0)).collect();
        Ok(Shortcut(Arc::new(Inner { tables, able })))
    }

    /// For programs to be loaded.
    pub fn tables(&self) -> &program::Shortcut {
        &self.0.tables
    }

    /// Where routing entries stand a second time, for programs.
    pub fn twin(&self) -> Box<dyn Twin> {
        Box::new(self.clone())
    }

    /// A neighbour's word, as workers have it.
    pub fn set_hop(&self, id: u32, word: u64) {
        if let Some(hop) = self.0.tables.hops().get(id as usize) {
            hop.store(word, Ordering::Release);
        }
    }

    /// A device was opened, whose program runs in `mode`; to be called in its network namespace.
    pub fn opened(&self, interface: u16, device: &str, ifindex: u32, mode: LinkMode) {
        let mut able = 0;
        if mode == LinkMode::Native {
            able |= TAKES;
            match self.0.tables.set_device(interface.into(), ifindex) {
                Ok(()) if sends_redirected(device) => able |= GIVES,
                Ok(()) => (),
                Err(e) => eprintln!("nke: no shortcut to {device}: {e}"),
            }
        }
        if let Some(word) = self.0.able.get(usize::from(interface)) {
            word.store(able, Ordering::Release);
        }
    }

    /// Looks again whether a device sends what is redirected to it: of a veth that depends on its other end. True if that has
    /// changed. To be called in its network namespace.
    pub fn look(&self, interface: u16, device: &str) -> bool {
        let Some(word) = self.0.able.get(usize::from(interface)) else { return false };
        let before = word.load(Ordering::Acquire);
        if before & TAKES == 0 {
            return false;
        }
        let now = if sends_redirected(device) { before | GIVES } else { before & !GIVES };
        word.store(now, Ordering::Release);
        now != before
    }

    /// A device is gone.
    pub fn gone(&self, interface: u16) {
        if let Some(word) = self.0.able.get(usize::from(interface)) {
            word.store(0, Ordering::Release);
        }
    }

    /// Packets of an interface that were forwarded, and that were sent by it.
    pub fn counts(&self, interface: u16) -> (Count, Count) {
        self.0.tables.counts(interface.into()).unwrap_or_default()
    }

    fn able(&self, interface: usize, what: u8) -> bool {
        self.0.able.get(interface).is_some_and(|word| word.load(Ordering::Acquire) & what != 0)
    }
}

impl Twin for Shortcut {
    fn root(&self) -> &[AtomicU32] {
        self.0.tables.root()
    }
    fn nodes(&self) -> &[AtomicU32] {
        self.0.tables.nodes()
    }
}

/// Before Linux 6.3 nobody can say, and what is redirected might be lost.
fn sends_redirected(device: &str) -> bool {
    xdp_features::of(device).is_ok_and(|features| features.has(Features::NDO_XMIT))
}

/// After a door was shut none is opened for so long: who attaches and detaches all the time waits for programs once, and packets
/// are not overtaken by later ones time and again.
const COOLING: Duration = Duration::from_secs(1);

/// Why a door is shut; `None` for an open one.
type Shut = Option<&'static str>;

/// The doors, as the control thread works them.
pub struct Doors {
    shortcut: Shortcut,
    fence: Fence,
    /// Whether the dataplane runs: all doors are shut before and after.
    running: bool,
    said: Vec<ShortcutPort>,
    wanted: Vec<ShortcutPort>,
    /// Of ports: of what they receive, of what they send.
    why: Vec<Option<[Shut; 2]>>,
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
                gives: said.gives && wanted.gives,
                ..*said
            };
            shut |= now != *said;
            *said = now;
            self.shortcut.0.tables.set_port(i as u32, now);
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
                self.shortcut.0.tables.set_port(i as u32, *port);
            }
        }
        self.said.clone_from(&self.wanted);
    }

    /// What to wait for before it is said that packets are seen.
    pub fn last_shut(&self) -> u64 {
        self.last_shut
    }

    /// What to wait for before memory is used again that programs may be reading.
    pub fn barrier(&mut self) -> u64 {
        if self.said.iter().any(|port| port.takes) { self.fence.ask() } else { self.last_shut }
    }

    /// Whether programs have passed it.
    pub fn passed(&self, ticket: u64) -> bool {
        self.fence.passed(ticket)
    }

    /// The state of an interface's doors, for users; `None` if it is no port with a program.
    pub fn describe(&self, interface: u16) -> Option<String> {
        let i = usize::from(interface);
        let [input, output] = (*self.why.get(i)?)?;
        let said = self.said.get(i).copied().unwrap_or_default();
        let soon = |why: Shut, open: bool| why.or((!open).then_some("opens in a moment"));
        let (input, output) = (soon(input, said.takes), soon(output, said.gives));
        Some(match (input, output) {
            (None, None) => "open".into(),
            (Some(a), Some(b)) if a == b => format!("shut: {a}"),
            (Some(a), Some(b)) => format!("shut: input {a}, output {b}"),
            (Some(a), None) => format!("input shut: {a}"),
            (None, Some(b)) => format!("output shut: {b}"),
        })
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
        let everywhere = if self.running { somebody_looks(snapshot) } else { Some("not running") };
        let ifnet = |i: usize| interfaces.get(IfIndex(i as u16));
        let up = |i: usize| ifnet(i).is_some_and(|ifnet| ifnet.state() == IfState::Up);
        // Another interface may have the number of a port that was detached.
        let port = |i: usize| ifnet(i).is_some_and(|ifnet| ifnet.identity().params.kind == PORT);
        self.why.clear();
        self.wanted.clear();
        for (i, (link, chains)) in snapshot.links.iter().zip(&snapshot.chains).enumerate() {
            let down = (!link.up || !link.ethernet || !up(i)).then_some("down");
            let cannot = |what, why| (!self.shortcut.able(i, what) || !port(i)).then_some(why);
            let filtered = |empty: bool| (!empty).then_some("a filter of the interface");
            let no_ip = (!link.takes.has(Takes::INET)).then_some("no IPv4");
            let why = [
                cannot(TAKES, "not in the port's program")
                    .or(down)
                    .or(no_ip)
                    .or(filtered(chains.input.entries.is_empty()))
                    .or(everywhere),
                cannot(GIVES, "the device sends nothing that is redirected")
                    .or(down)
                    .or(filtered(chains.output.entries.is_empty()))
                    .or(everywhere),
            ];
            self.why.push(port(i).then_some(why));
            self.wanted.push(ShortcutPort {
                mac: link.mac.bytes(),
                mtu: link.mtu,
                takes: why[0].is_none(),
                gives: why[1].is_none(),
            });
        }
    }
}

/// Whether somebody wants to see packets of IPv4 that are forwarded, whichever interface they come by.
fn somebody_looks(snapshot: &Snapshot) -> Shut {
    let chains = &snapshot.ip[Family::V4 as usize];
    let passed = [IpHook::Prerouting, IpHook::Forward, IpHook::Output];
    if chains.wants_whole || passed.iter().any(|hook| !chains.at(*hook).is_empty()) {
        return Some("a filter of IP");
    }
    (!snapshot.probes.is_empty()).then_some("a probe")
}
