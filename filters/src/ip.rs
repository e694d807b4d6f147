//! IP filters: see whole, validated IP packets (KPI: `<netinet/kpi_ipfilter.h>`).
//!
//! ```text
//!   interface input ─▶ [prerouting] ─▶ route ─┬─ ours ─▶ reassemble ─▶ [input] ─▶ transport
//!                                             └─ not ours ─▶ [forward] ──┐
//!   transport / inject ─────────────────────────▶ route ─────────────────┴▶ [output] ─▶ fragment ─▶ interface output
//! ```
//!
//! `input` and `output` are the reference's hooks: `input` sees whole datagrams addressed to this host and nothing
//! forwarded; `output` sees every packet that leaves, forwarded ones too, after routing and before fragmentation.
//! `prerouting` and `forward` are ours: they see packets as they came, before and after the route is known, and cost
//! nothing when no filter asks for them.
//!
//! Data starts at the IP header; the frame header before it is gone for good. The header was validated: version,
//! lengths and checksum are right, and at least the IP header is contiguous. The interface a packet came in by is
//! [`Mbuf::rcvif`](nke_mbuf::Mbuf::rcvif).
//!
//! Order: the filter attached last sees packets first, at every hook (the reverse of interface filters).

use std::net::IpAddr;
use std::sync::Arc;

use nke_mbuf::Owner;

use crate::batch::Batch;
use crate::host::Host;
use crate::interface::{Cookie, Cx};
use crate::kind::{Args, AttachId, CreateError};

/// Version of the internet protocol. Filters are attached for one (KPI: `ipf_addv4`, `ipf_addv6`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As shown to users: `ip` or `ip6`.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }
}

/// Where on its way a packet is seen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum IpHook {
    /// Everything received, before routing. Fragments are seen as they came unless a filter asked for
    /// [`IpHooks::reassemble`].
    Prerouting,
    /// Whole datagrams for this host, before their transport.
    Input,
    /// Packets for others, after routing.
    Forward,
    /// Everything that is sent, after routing and before fragmentation.
    Output,
}

impl IpHook {
    /// All, in the order of [`IpHook::index`].
    pub const ALL: [IpHook; 4] = [IpHook::Prerouting, IpHook::Input, IpHook::Forward, IpHook::Output];

    /// A number below 4.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            IpHook::Prerouting => "prerouting",
            IpHook::Input => "input",
            IpHook::Forward => "forward",
            IpHook::Output => "output",
        }
    }
}

/// Which hooks an instance wants to be called at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpHooks {
    bits: u8,
}

impl IpHooks {
    const REASSEMBLE: u8 = 1 << 4;

    /// None.
    pub const NONE: IpHooks = IpHooks { bits: 0 };
    /// The reference's two: `input` and `output`.
    pub const INPUT_OUTPUT: IpHooks = IpHooks::NONE.with(IpHook::Input).with(IpHook::Output);

    /// These and `hook`.
    #[must_use]
    pub const fn with(self, hook: IpHook) -> IpHooks {
        IpHooks { bits: self.bits | 1 << hook.index() }
    }

    /// These, and fragments of forwarded datagrams are put together before `prerouting` (virtual reassembly); they are
    /// fragmented again on output.
    #[must_use]
    pub const fn reassemble(self) -> IpHooks {
        IpHooks { bits: self.bits | IpHooks::REASSEMBLE }
    }

    /// Whether `hook` is among them.
    #[inline]
    pub const fn has(self, hook: IpHook) -> bool {
        self.bits >> hook.index() & 1 == 1
    }

    /// Whether [`IpHooks::reassemble`] was asked for.
    pub const fn wants_whole(self) -> bool {
        self.bits & IpHooks::REASSEMBLE != 0
    }

    /// Whether no hook is among them.
    pub const fn is_empty(self) -> bool {
        self.bits & !IpHooks::REASSEMBLE == 0
    }
}

/// A flow that an instance keeps, as users are shown it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowEntry {
    /// Number of the protocol above IP.
    pub protocol: u8,
    /// Who opened it: address, and port or identifier.
    pub src: (IpAddr, u16),
    /// To whom.
    pub dst: (IpAddr, u16),
    /// What the source is seen as at the other end, if it is translated.
    pub translated: Option<(IpAddr, u16)>,
    /// How far it is: `opening`, `replied`, `established`, `closing`.
    pub state: &'static str,
    /// Seconds since its last packet, and how many it may be silent in all.
    pub idle_s: u32,
    /// See `idle_s`.
    pub timeout_s: u32,
}

/// An instance of an IP filter. The rules of [`crate::InterfaceFilter`] hold: calls come from several workers at once,
/// neither block nor call the kernel, and a panic is caught.
///
/// In [`Cx`], `interface` is [`crate::IfIndex::NONE`].
pub trait IpFilter: Send + Sync {
    /// Which hooks to call. Asked once, when the instance is attached.
    fn hooks(&self) -> IpHooks {
        IpHooks::INPUT_OUTPUT
    }

    /// See [`IpHook::Prerouting`]. What is changed here is what gets routed.
    fn prerouting(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let _ = (cx, batch);
    }

    /// See [`IpHook::Input`].
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let _ = (cx, batch);
    }

    /// See [`IpHook::Forward`].
    fn forward(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let _ = (cx, batch);
    }

    /// See [`IpHook::Output`]. The route is chosen: changing the destination does not change it; to have it routed
    /// anew, take the packet and use [`Host::ip_inject_output`].
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let _ = (cx, batch);
    }

    /// About once a second, on the control thread: to age tables. Runs beside the other calls.
    fn tick(&self) {}

    /// The last call, on the control thread (KPI: `ipf_detach`).
    fn detached(&self, cookie: Cookie) {
        let _ = cookie;
    }

    /// Up to `most` of the flows it keeps, in no order, for `nke show conntrack`. On the control thread, while workers go on.
    fn flows(&self, most: usize) -> Vec<FlowEntry> {
        let _ = most;
        Vec::new()
    }

    /// Figures of this instance for `nke show filters`: name and value.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Where an IP filter is about to be attached.
pub struct IpAttachEnv {
    /// The dataplane, for everything an instance may ask of it.
    pub host: Arc<dyn Host>,
    /// Who is charged for what the instance takes.
    pub owner: Owner,
    /// The instance to be.
    pub attachment: AttachId,
    /// Which packets it will see.
    pub family: Family,
    /// The attacher's cookie.
    pub cookie: Cookie,
    /// How many workers may call at the same time.
    pub workers: usize,
}

/// A kind of IP filter (KPI: what `ipf_addv4` gets as function pointers).
pub trait IpFilterKind: Send + Sync {
    /// The name it is registered and attached by.
    fn name(&self) -> &str;

    /// Makes an instance. On the control thread: may allocate, open files, start threads.
    fn create(&self, env: &IpAttachEnv, args: &Args) -> Result<Box<dyn IpFilter>, CreateError>;

    /// After the last `detached` of the last instance, when the kind was unregistered. On the control thread.
    fn unregistered(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_a_set() {
        assert!(IpHooks::NONE.is_empty() && IpHooks::NONE.reassemble().is_empty());
        let hooks = IpHooks::INPUT_OUTPUT;
        let has: Vec<_> = IpHook::ALL.iter().filter(|h| hooks.has(**h)).map(|h| h.name()).collect();
        assert_eq!(has, ["input", "output"]);
        assert!(hooks.reassemble().wants_whole() && !hooks.wants_whole());
    }
}
