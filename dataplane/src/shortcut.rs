//! The shortcut: packets between devices that no filter is to see are forwarded by the XDP programs of the ports, which read
//! the very tables that workers have. A device in copy mode costs a packet two copies and a system call's share on its way to
//! a worker and back; the shortcut has none of it.
//!
//! Each port has doors: for what it receives of each version of IP, and for what it sends. The control thread shuts them *before* it
//! publishes a snapshot in which somebody wants to see packets, and answers who asked for it when no program is at work any
//! more that began earlier: from then on every packet is seen. What a program does not forward by itself goes to the workers
//! as ever, so that a shut door loses nothing.

mod doors;
mod fence;

pub use doors::Doors;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use af_xdp::program::{self, Count, LinkMode, ShortcutSizes};
use nke_filters::IFNETS_MAX;
use nke_inet::fib::Twin;

use crate::inet::Settings;
use crate::xdp_features::{self, Features};

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
    /// Tables as large as the router's, of IPv6 if it is asked for.
    ///
    /// # Errors
    /// Without the privilege, or when they are too large for a program.
    pub fn new(settings: &Settings, ipv6: bool) -> Result<Shortcut, af_xdp::Error> {
        let tables = program::Shortcut::new(ShortcutSizes {
            nodes: settings.v4_blocks,
            nodes6: if ipv6 { settings.v6_blocks } else { 0 },
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

    /// Where routing entries of IPv4 stand a second time, for programs.
    pub fn twin4(&self) -> Box<dyn Twin> {
        Box::new(Twin4(self.clone()))
    }

    /// The same of IPv6, if it has a table.
    pub fn twin6(&self) -> Option<Box<dyn Twin>> {
        self.has_ipv6().then(|| Box::new(Twin6(self.clone())) as Box<dyn Twin>)
    }

    fn has_ipv6(&self) -> bool {
        !self.0.tables.root6().is_empty()
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

struct Twin4(Shortcut);

impl Twin for Twin4 {
    fn root(&self) -> &[AtomicU32] {
        self.0.tables().root()
    }
    fn nodes(&self) -> &[AtomicU32] {
        self.0.tables().nodes()
    }
}

struct Twin6(Shortcut);

impl Twin for Twin6 {
    fn root(&self) -> &[AtomicU32] {
        self.0.tables().root6()
    }
    fn nodes(&self) -> &[AtomicU32] {
        self.0.tables().nodes6()
    }
}

/// Before Linux 6.3 nobody can say, and what is redirected might be lost.
fn sends_redirected(device: &str) -> bool {
    xdp_features::of(device).is_ok_and(|features| features.has(Features::NDO_XMIT))
}
