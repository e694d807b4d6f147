//! The Interface KPI: interfaces made by extensions (KPI: `<net/kpi_interface.h>`, Rust form).
//!
//! ```text
//!   Host::ifnet_allocate ─▶ Ifnet, embryonic ── attach ─▶ Attached event ─▶ packets
//!                                                                             │
//!      any worker:      output(frames)         what the stack sends by it     │
//!      any worker:      demux, framer          for links that are not Ethernet│
//!      control thread:  add_proto, del_proto, check_multi, ioctl, event       │
//!                                                                             │
//!   detach ─▶ Detaching event ─▶ no new calls ─▶ grace period ─▶ filters detached, protocols unplumbed ─▶ Detached event
//!          ─▶ detached (the driver's last call) ─▶ the slot is free when the last reference is released
//! ```
//!
//! An interface has no thread of its own: the worker that sends a packet runs `output`, which hands the packet on: to
//! another interface ([`Cx::output`], [`Cx::input`]), into IP ([`Cx::ip_output`]), or to a thread of the extension. What
//! an interface receives is put in by [`Cx::input`] on a worker, by [`Host::inject_input`] elsewhere.
//!
//! A frame of an Ethernet interface starts with its 14-byte header, and the core does demux and framing. Other families
//! do both themselves.

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use nke_mbuf::Mbuf;
use nke_mbuf::wire::EtherAddr;

use crate::batch::Batch;
use crate::host::Host;
use crate::interface::{Cx, IfEvent, IfIndex};
use crate::kind::{Args, CreateError};
use crate::protocol::{DemuxDesc, LinkDest, ProtocolFamily};
use nke_mbuf::Owner;

/// Longest name of an interface in bytes.
pub const IFNAME_MAX: usize = 32;
/// Interfaces at most, those of ports included. What is detached gives its place back.
pub const IFNETS_MAX: usize = 256;

/// Family of an interface (KPI: `ifnet_family_t`): which plumbers fit it, and how its frames are built.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IfFamily(pub u32);

impl IfFamily {
    /// Loopback (`IFNET_FAMILY_LOOPBACK`).
    pub const LOOPBACK: IfFamily = IfFamily(1);
    /// Ethernet (`IFNET_FAMILY_ETHERNET`): the core does demux and framing.
    pub const ETHERNET: IfFamily = IfFamily(2);
    /// Packets without a link header to one other end (`IFNET_FAMILY_TUN`).
    pub const TUN: IfFamily = IfFamily(4);
    /// A VLAN (`IFNET_FAMILY_VLAN`): Ethernet frames, like [`IfFamily::ETHERNET`].
    pub const VLAN: IfFamily = IfFamily(5);

    /// Whether frames have an Ethernet header, which the core reads and writes.
    pub const fn is_ethernet(self) -> bool {
        matches!(self, IfFamily::ETHERNET | IfFamily::VLAN)
    }
}

/// Flags of an interface, with the KPI's values.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct IfFlags(pub u16);

impl IfFlags {
    /// `IFF_UP`: sends and receives.
    pub const UP: IfFlags = IfFlags(0x1);
    /// `IFF_BROADCAST`.
    pub const BROADCAST: IfFlags = IfFlags(0x2);
    /// `IFF_LOOPBACK`.
    pub const LOOPBACK: IfFlags = IfFlags(0x8);
    /// `IFF_POINTOPOINT`: one other end, no neighbours to resolve.
    pub const POINTOPOINT: IfFlags = IfFlags(0x10);
    /// `IFF_NOARP`: neighbours are not resolved.
    pub const NOARP: IfFlags = IfFlags(0x80);
    /// `IFF_MULTICAST`.
    pub const MULTICAST: IfFlags = IfFlags(0x8000);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: IfFlags) -> bool {
        self.0 & other.0 == other.0
    }
    /// Whether a bit of `other` is set.
    pub const fn any(self, other: IfFlags) -> bool {
        self.0 & other.0 != 0
    }
    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: IfFlags) -> IfFlags {
        IfFlags(self.0 | other.0)
    }
    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: IfFlags) -> IfFlags {
        IfFlags(self.0 & !other.0)
    }
}

/// What an interface is made of (KPI: `ifnet_init_params`).
#[derive(Clone, Debug)]
pub struct IfParams {
    /// Its name: letters, digits, `-`, `_`, `.`; 1 to [`IFNAME_MAX`] bytes.
    pub name: String,
    /// What users are shown as its kind: `vlan`, `tap` ...
    pub kind: &'static str,
    /// Its family.
    pub family: IfFamily,
    /// Its first flags.
    pub flags: IfFlags,
    /// Largest packet behind the link header, in bytes.
    pub mtu: u32,
    /// Length of the link header in bytes (KPI: `ifnet_hdrlen`): 14 for Ethernet.
    pub hdrlen: u8,
    /// Its link address; `None` for links without.
    pub lladdr: Option<EtherAddr>,
}

/// Why a call of the Interface KPI failed. In brackets the KPI's error number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IfError {
    /// An argument cannot be: which one (`EINVAL`).
    Invalid(&'static str),
    /// The name is in use (`EBUSY`).
    NameTaken(String),
    /// There is no place for another one: what, and how many there are (`ENOMEM`).
    Full(&'static str, usize),
    /// It is attached, or registered, already (`EEXIST`).
    Exists,
    /// The interface is not attached, or on its way out; or there is nothing of that name (`ENXIO`).
    NotAttached,
    /// Nobody handled it (`EOPNOTSUPP`).
    NotSupported,
    /// The driver, protocol or plumber refused, with its words.
    Refused(String),
}

impl fmt::Display for IfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IfError::Invalid(what) => write!(f, "{what} is not valid"),
            IfError::NameTaken(name) => write!(f, "an interface is called {name:?} already"),
            IfError::Full(what, size) => write!(f, "the table of {what} is full ({size})"),
            IfError::Exists => f.write_str("it is there already"),
            IfError::NotAttached => f.write_str("the interface is not attached"),
            IfError::NotSupported => f.write_str("nobody here handles that request"),
            IfError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for IfError {}

/// What a frame is for (KPI: result of `demux`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demux {
    /// A protocol; its packet begins at this many bytes into the frame.
    Protocol(ProtocolFamily, u8),
    /// None that is known; filters have seen it, and it is dropped as `no_protocol`.
    Unknown,
}

/// A request to change or ask an interface (KPI: `ifnet_ioctl`).
pub enum IfIoctl<'a> {
    /// Largest packet behind the link header, in bytes (`SIOCSIFMTU`).
    SetMtu(u32),
    /// All flags anew (`SIOCSIFFLAGS`).
    SetFlags(IfFlags),
    /// The link address (`SIOCSIFLLADDR`).
    SetLladdr(EtherAddr),
    /// The interface joins a group (`SIOCADDMULTI`).
    AddMulti(IpAddr),
    /// The interface leaves a group (`SIOCDELMULTI`).
    DelMulti(IpAddr),
    /// Anything between an extension and those who know it (`SIOCSIFKPI`, `SIOCGIFKPI`): a number and a value.
    Private(u32, &'a mut (dyn Any + Send)),
}

/// What became of a request at one of those asked: filters first, then the protocol, then the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IoctlAnswer {
    /// Not mine (`EOPNOTSUPP`): the next one is asked.
    NotMine,
    /// Handled; the next ones are told as well (0).
    Handled,
    /// Handled, and nobody else is asked (`EJUSTRETURN`): the caller gets success.
    Done,
    /// No, and nobody else is asked.
    Refuse(String),
}

/// The driver of an interface.
///
/// `output`, `demux` and `framer` run on workers, several at a time, under the rules of filters: no blocking, no system
/// call. The others run on the control thread. A panic is caught and counted.
pub trait IfnetDriver: Send + Sync {
    /// Sends framed packets. The driver takes each ([`Batch::take`]) or drops it; what it leaves is dropped as `tx_full`.
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>);

    /// Which protocol a frame is for. Not called for Ethernet.
    fn demux(&self, frame: &Mbuf) -> Demux {
        let _ = frame;
        Demux::Unknown
    }

    /// Puts the link header before a packet of `family` that goes to `dest`; `false` drops it as `no_room`. Not called for
    /// Ethernet. The default is for links without a header.
    fn framer(&self, packet: &mut Mbuf, family: ProtocolFamily, dest: LinkDest) -> bool {
        let _ = (packet, family, dest);
        true
    }

    /// A protocol is about to be attached, to be found by `demux` as described. An error refuses it.
    fn add_proto(&self, family: ProtocolFamily, demux: &[DemuxDesc]) -> Result<(), String> {
        let _ = (family, demux);
        Ok(())
    }

    /// A protocol was detached.
    fn del_proto(&self, family: ProtocolFamily) {
        let _ = family;
    }

    /// Whether the interface can join this group.
    fn check_multi(&self, group: IpAddr) -> Result<(), String> {
        let _ = group;
        Ok(())
    }

    /// A request that filters and protocols left for the driver. The core carries out what is `Handled` or `NotMine` of
    /// the requests it knows; `Refuse` keeps it from that.
    fn ioctl(&self, request: &mut IfIoctl<'_>) -> IoctlAnswer {
        let _ = request;
        IoctlAnswer::NotMine
    }

    /// An event of the interface, after filters and protocols heard of it.
    fn event(&self, event: &IfEvent) {
        let _ = event;
    }

    /// The last call. The driver is dropped after it.
    fn detached(&self) {}

    /// Figures for `nke show interfaces`: name and value.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A reference to an interface (KPI: `ifnet_t`). Cloning is `ifnet_reference`, dropping `ifnet_release`: the place of a
/// detached interface is given to another one after the last is gone.
#[derive(Clone)]
pub struct Ifnet {
    index: IfIndex,
    host: Arc<dyn Host>,
    _reference: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Ifnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ifnet").field(&self.index.0).finish()
    }
}

impl Ifnet {
    /// Made by the dataplane.
    pub fn new(index: IfIndex, host: Arc<dyn Host>, reference: Arc<dyn Any + Send + Sync>) -> Ifnet {
        Ifnet { index, host, _reference: reference }
    }

    /// Its number.
    pub fn index(&self) -> IfIndex {
        self.index
    }

    /// Makes it known (KPI: `ifnet_attach`): asked for now, done by the control thread. [`IfError::Exists`] when it is
    /// attached already.
    pub fn attach(&self) -> Result<(), IfError> {
        self.host.ifnet_attach(self.index)
    }

    /// Takes it away (KPI: `ifnet_detach`): asked for now, done by the control thread; see the module for the order.
    pub fn detach(&self) -> Result<(), IfError> {
        self.host.ifnet_detach(self.index)
    }
}

/// Where an interface is about to be made.
pub struct IfnetEnv {
    /// The dataplane.
    pub host: Arc<dyn Host>,
    /// Who is charged.
    pub owner: Owner,
    /// The name it shall have.
    pub name: String,
    /// How many workers may call at the same time.
    pub workers: usize,
}

/// A kind of interface: makes instances for a configuration's `[[interface]]` and `nke interface add`.
pub trait IfnetKind: Send + Sync {
    /// The name it is registered by.
    fn name(&self) -> &str;

    /// Makes the driver of a new interface, which the core allocates and attaches then: the driver learns its number from
    /// the event [`crate::IfEventKind::Attached`], and from the context of each call. On the control thread.
    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError>;

    /// When the kind was unregistered and its last interface is gone.
    fn unregistered(&self) {}
}
