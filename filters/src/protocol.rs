//! Protocols of interfaces, and the plumbers that attach them (KPI: `ifnet_attach_protocol`, `<net/kpi_protocol.h>`).
//!
//! A protocol is attached to an interface under its family and is found by what its demux descriptors say. A plumber is
//! registered for a pair of protocol family and interface family, and is asked when the first address of that protocol
//! family is given to an interface of that family: it answers with what to attach. So IPv4, IPv6 and ARP come to an
//! interface type that the core has never heard of.

use nke_mbuf::Mbuf;
use nke_mbuf::wire::EtherAddr;

use crate::batch::Batch;
use crate::ifnet::{IfIoctl, IoctlAnswer};
use crate::interface::{Cx, IfEvent, IfIndex};

/// Protocols of one interface at most.
pub const PROTOCOLS_MAX: usize = 16;

/// Family of a protocol (KPI: `protocol_family_t`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProtocolFamily(pub u32);

impl ProtocolFamily {
    /// IPv4, and ARP with it (`PF_INET`).
    pub const INET: ProtocolFamily = ProtocolFamily(2);
    /// IPv6 (`PF_INET6` of the KPI).
    pub const INET6: ProtocolFamily = ProtocolFamily(30);
    /// VLAN (`PF_VLAN`).
    pub const VLAN: ProtocolFamily = ProtocolFamily(0x766c_616e);

    /// As shown to users.
    pub fn name(self) -> String {
        match self {
            ProtocolFamily::INET => "inet".into(),
            ProtocolFamily::INET6 => "inet6".into(),
            ProtocolFamily::VLAN => "vlan".into(),
            ProtocolFamily(n) => format!("{n:#x}"),
        }
    }
}

/// How frames of a protocol are told from others (KPI: `ifnet_demux_desc`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DemuxDesc {
    /// By ethertype (`DLIL_DESC_ETYPE2`).
    EtherType(u16),
    /// By something only the driver knows.
    Driver(u32),
}

/// Where on its link a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkDest {
    /// To a station. Ethernet's framer puts it into the header.
    Station(EtherAddr),
    /// To the only other end there is.
    OtherEnd,
}

/// What a protocol says before a packet is framed (KPI: `pre_output`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreOutput {
    /// Frame it with this ethertype, for this station.
    Frame(u16, LinkDest),
    /// Drop it: the destination is not known.
    Unresolved,
}

/// A protocol of an extension on one interface. `input` and `pre_output` run on workers under the rules of filters, the
/// others on the control thread.
pub trait IfProtocol: Send + Sync {
    /// Frames of the protocol, data at the link header; interface input filters have seen them. The protocol takes each
    /// ([`Batch::take`]) or drops it; what it leaves is dropped as `no_protocol`.
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>);

    /// Which frame to build for a packet to `dest`.
    fn pre_output(&self, packet: &Mbuf, dest: LinkDest) -> PreOutput {
        let _ = (packet, dest);
        PreOutput::Unresolved
    }

    /// An event of the interface, after its filters heard of it.
    fn event(&self, event: &IfEvent) {
        let _ = event;
    }

    /// A request that no filter kept.
    fn ioctl(&self, request: &mut IfIoctl<'_>) -> IoctlAnswer {
        let _ = request;
        IoctlAnswer::NotMine
    }

    /// The last call.
    fn detached(&self, interface: IfIndex) {
        let _ = interface;
    }
}

/// Who gets the packets.
pub enum ProtocolHandler {
    /// The core's IPv4, and its ARP where the descriptors name ethertype 0x0806.
    Inet,
    /// The core's IPv6, with neighbour discovery.
    Inet6,
    /// The extension itself.
    Own(Box<dyn IfProtocol>),
}

/// What is attached to an interface (KPI: `ifnet_attach_proto_param`).
pub struct ProtocolSpec {
    /// How its frames are found.
    pub demux: Vec<DemuxDesc>,
    /// Who gets them.
    pub handler: ProtocolHandler,
}

/// Attaches a protocol to interfaces of a family. On the control thread, which does nothing else meanwhile: a plumber
/// answers, and does not wait for anything.
pub trait Plumber: Send + Sync {
    /// What to attach to `interface`; an error is told to whoever gave it the address.
    fn plumb(&self, interface: IfIndex, family: ProtocolFamily) -> Result<ProtocolSpec, String>;

    /// The protocol was detached: the interface goes, or its last address did.
    fn unplumb(&self, interface: IfIndex, family: ProtocolFamily) {
        let _ = (interface, family);
    }
}
