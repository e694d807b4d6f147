//! Interfaces on the control thread: what is attached to each, their addresses, and what workers are shown of them.

use std::net::IpAddr;
use std::sync::Arc;

use nke_filters::{
    DemuxDesc, HoldKind, IfError, IfEvent, IfEventKind, IfFamily, IfFlags, IfIndex, IfIoctl, IoctlAnswer,
    PROTOCOLS_MAX, Plumber, ProtocolFamily, ProtocolHandler, ProtocolSpec,
};
use nke_mbuf::Owner;

use crate::caught::{caught, guarded};
use crate::ifnet::{IfState, Ifnet};
use crate::inet::{Handler, Inet, Link, LinkMore, Plumbed, Port, Takes};
use crate::shared::Shared;

/// Addresses of one interface at most.
pub const ADDRESSES_MAX: usize = 64;
/// Groups one interface is in at most.
pub const GROUPS_MAX: usize = 64;
/// Plumbers at most.
pub const PLUMBERS_MAX: usize = 64;

/// A plumber and the pair it is registered for.
struct Registered {
    family: ProtocolFamily,
    interfaces: IfFamily,
    owner: Owner,
    plumber: Arc<dyn Plumber>,
    _hold: nke_filters::Hold,
}

/// A protocol out of the links, waiting for the last worker to leave it.
pub struct Unplumbed {
    /// The interface it was attached to.
    pub interface: IfIndex,
    /// The protocol.
    pub protocol: Arc<Plumbed>,
}

/// All interfaces.
pub struct Interfaces {
    shared: Arc<Shared>,
    /// What workers are shown, by index.
    pub links: Vec<Link>,
    plumbers: Vec<Registered>,
    /// The IP layer.
    pub inet: Inet,
    /// Protocols taken off since the last publication.
    pub unplumbed: Vec<Unplumbed>,
}

impl Interfaces {
    /// Those there are already, without protocols.
    pub fn new(shared: Arc<Shared>, inet: Inet) -> Interfaces {
        let links = shared.interfaces.iter().map(bare_link).collect();
        Interfaces { shared, links, plumbers: Vec::new(), inet, unplumbed: Vec::new() }
    }

    /// The interfaces whose injection queues each worker drains.
    pub fn drains(&self) -> Vec<Vec<u16>> {
        let of = |worker| {
            let mine = self
                .shared
                .interfaces
                .iter()
                .filter(move |i| i.worker() == worker && i.state().is_attached());
            mine.map(|i| i.index.0).collect()
        };
        (0..self.shared.workers.len()).map(of).collect()
    }

    fn attached(&self, interface: IfIndex) -> Result<&Ifnet, IfError> {
        let ifnet = self.shared.interfaces.get(interface).filter(|i| i.state().is_attached());
        ifnet.ok_or(IfError::NotAttached)
    }

    /// An allocated interface becomes known (KPI: `ifnet_attach`).
    pub fn attach(&mut self, interface: IfIndex) -> Result<(), IfError> {
        let ifnet = self.shared.interfaces.get(interface).ok_or(IfError::NotAttached)?;
        match ifnet.state() {
            IfState::Embryonic => (),
            state if state.is_attached() => return Err(IfError::Exists),
            _ => return Err(IfError::NotAttached),
        }
        let up = ifnet.identity().params.flags.contains(IfFlags::UP);
        ifnet.set_state(if up { IfState::Up } else { IfState::Down });
        let link = bare_link(ifnet);
        let i = usize::from(interface.0);
        if self.links.len() <= i {
            self.links.resize_with(i + 1, Link::default);
        }
        self.links[i] = link;
        self.tell_inet(interface);
        Ok(())
    }

    /// An attached interface is taken out of everything new; what has to wait for a grace period stands in `unplumbed`
    /// (KPI: `ifnet_detach`).
    pub fn detach(&mut self, interface: IfIndex, now_ms: u64) {
        let i = usize::from(interface.0);
        self.inet.remove_port(interface, now_ms);
        let Some(link) = self.links.get_mut(i) else { return };
        let old = std::mem::take(link);
        self.unplumbed.extend(
            old.more.protocols.iter().map(|protocol| Unplumbed { interface, protocol: protocol.clone() }),
        );
    }

    /// Tells the IP layer what an interface is like now.
    fn tell_inet(&mut self, interface: IfIndex) {
        let Some(link) = self.links.get(usize::from(interface.0)) else { return };
        let port =
            Port { mac: link.mac.into(), resolves: link.resolves(), addresses: link.more.addresses.clone() };
        self.inet.set_port(interface, port);
    }

    fn change_more(&mut self, interface: IfIndex, change: impl FnOnce(&mut LinkMore)) {
        if let Some(link) = self.links.get_mut(usize::from(interface.0)) {
            let mut more = LinkMore::clone(&link.more);
            change(&mut more);
            link.takes = takes(&more.protocols);
            link.more = Arc::new(more);
        }
        self.tell_inet(interface);
    }

    /// The addresses of an interface.
    pub fn addresses(&self, interface: IfIndex) -> &[(IpAddr, u8)] {
        self.links.get(usize::from(interface.0)).map_or(&[], |link| &link.more.addresses)
    }

    /// Gives an interface an address; with the first one of its family the protocol is plumbed.
    pub fn add_address(&mut self, interface: IfIndex, address: IpAddr, len: u8) -> Result<(), IfError> {
        self.attached(interface)?;
        let all = self.links.iter().flat_map(|link| &link.more.addresses);
        if all.clone().any(|(a, _)| *a == address && !matches!(a, IpAddr::V6(a) if a.is_unicast_link_local()))
        {
            return Err(IfError::Exists);
        }
        if self.addresses(interface).len() == ADDRESSES_MAX {
            return Err(IfError::Full("addresses", ADDRESSES_MAX));
        }
        self.plumb(interface, family_of(address))?;
        self.change_more(interface, |more| more.addresses.push((address, len)));
        Ok(())
    }

    /// Takes an address away; with the last one of its family the protocol goes.
    pub fn remove_address(&mut self, interface: IfIndex, address: IpAddr) -> Result<(), IfError> {
        self.attached(interface)?;
        if !self.addresses(interface).iter().any(|(a, _)| *a == address) {
            return Err(IfError::NotAttached);
        }
        self.change_more(interface, |more| more.addresses.retain(|(a, _)| *a != address));
        let family = family_of(address);
        if !self.addresses(interface).iter().any(|(a, _)| family_of(*a) == family) {
            self.detach_protocol(interface, family)?;
        }
        Ok(())
    }

    /// Gives an interface the addresses that the kernel has on it, for errors to be sent from. It takes both versions of IP,
    /// with addresses or without, and no ARP: neighbours are the kernel's to find. Those beyond [`ADDRESSES_MAX`] are left
    /// out.
    pub fn set_host_addresses(
        &mut self,
        interface: IfIndex,
        mut addresses: Vec<(IpAddr, u8)>,
    ) -> Result<(), IfError> {
        let versions = [
            (ProtocolFamily::INET, 0x0800, ProtocolHandler::Inet),
            (ProtocolFamily::INET6, 0x86dd, ProtocolHandler::Inet6),
        ];
        for (family, ethertype, handler) in versions {
            self.attached(interface)?;
            if self.links[usize::from(interface.0)].protocol(family).is_none() {
                let spec = ProtocolSpec { demux: vec![DemuxDesc::EtherType(ethertype)], handler };
                self.attach_protocol(Owner::DATAPLANE, interface, family, spec)?;
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        self.change_more(interface, |more| more.addresses = addresses);
        Ok(())
    }

    /// Has a protocol attached by the plumber of the pair (KPI: `SIOCPROTOATTACH`). Without effect when it is there.
    pub fn plumb(&mut self, interface: IfIndex, family: ProtocolFamily) -> Result<(), IfError> {
        let interfaces = self.attached(interface)?.identity().params.family;
        if self.links[usize::from(interface.0)].protocol(family).is_some() {
            return Ok(());
        }
        let fits = |r: &&Registered| r.family == family && r.interfaces == interfaces;
        let (spec, owner) = match self.plumbers.iter().find(fits) {
            Some(registered) => {
                let plumber = registered.plumber.clone();
                let answer = caught(|| plumber.plumb(interface, family))
                    .unwrap_or_else(|| Err("the plumber panicked".into()));
                (answer.map_err(IfError::Refused)?, registered.owner)
            }
            None => (built_in(family, interfaces).ok_or(IfError::NotAttached)?, Owner::DATAPLANE),
        };
        self.attach_protocol(owner, interface, family, spec)
    }

    /// Attaches a protocol (KPI: `ifnet_attach_protocol`).
    pub fn attach_protocol(
        &mut self,
        owner: Owner,
        interface: IfIndex,
        family: ProtocolFamily,
        spec: ProtocolSpec,
    ) -> Result<(), IfError> {
        let ifnet = self.attached(interface)?;
        let name = format!("{} on {}", family.name(), ifnet.name());
        let link = &self.links[usize::from(interface.0)];
        if link.protocol(family).is_some() {
            return Err(IfError::Exists);
        }
        if link.more.protocols.len() == PROTOCOLS_MAX {
            return Err(IfError::Full("protocols", PROTOCOLS_MAX));
        }
        let taken = |d: &&DemuxDesc| link.more.protocols.iter().any(|p| p.demux.contains(d));
        if spec.demux.iter().any(|d| taken(&d)) {
            return Err(IfError::Exists);
        }
        if let Some(driver) = &link.more.driver {
            let answer = caught(|| driver.add_proto(family, &spec.demux))
                .unwrap_or_else(|| Err("the driver panicked".into()));
            answer.map_err(IfError::Refused)?;
        }
        let protocol = Arc::new(Plumbed {
            family,
            demux: spec.demux,
            handler: match spec.handler {
                ProtocolHandler::Inet => Handler::Inet,
                ProtocolHandler::Inet6 => Handler::Inet6,
                ProtocolHandler::Own(own) => Handler::Own(own),
            },
            owner,
            hold: self.shared.ledger.hold(owner, HoldKind::Protocol, name),
        });
        self.change_more(interface, |more| more.protocols.push(protocol));
        Ok(())
    }

    /// Detaches a protocol (KPI: `ifnet_detach_protocol`); it hears `detached` after a grace period.
    pub fn detach_protocol(&mut self, interface: IfIndex, family: ProtocolFamily) -> Result<(), IfError> {
        self.attached(interface)?;
        let link = &self.links[usize::from(interface.0)];
        let protocol = link.protocol(family).cloned().ok_or(IfError::NotAttached)?;
        if let Some(driver) = &link.more.driver {
            guarded(|| driver.del_proto(family));
        }
        self.change_more(interface, |more| more.protocols.retain(|p| p.family != family));
        self.unplumbed.push(Unplumbed { interface, protocol });
        Ok(())
    }

    /// A protocol that no worker is in any more: its last call, and its plumber's.
    pub fn finish_unplumbed(&mut self, unplumbed: Unplumbed) {
        let Unplumbed { interface, protocol } = unplumbed;
        if let Handler::Own(own) = &protocol.handler {
            guarded(|| own.detached(interface));
        }
        let interfaces = self.shared.interfaces.get(interface).map(|i| i.identity().params.family);
        let fits = |r: &&Registered| r.family == protocol.family && Some(r.interfaces) == interfaces;
        if let Some(plumber) = self.plumbers.iter().find(fits).map(|r| r.plumber.clone()) {
            guarded(|| plumber.unplumb(interface, protocol.family));
        }
        guarded(|| drop(protocol));
    }

    /// Registers a plumber (KPI: `proto_register_plumber`).
    pub fn register_plumber(
        &mut self,
        owner: Owner,
        family: ProtocolFamily,
        interfaces: IfFamily,
        plumber: Arc<dyn Plumber>,
    ) -> Result<(), IfError> {
        if self.plumbers.iter().any(|r| r.family == family && r.interfaces == interfaces) {
            return Err(IfError::Exists);
        }
        if self.plumbers.len() == PLUMBERS_MAX {
            return Err(IfError::Full("plumbers", PLUMBERS_MAX));
        }
        let name = format!("{} for interface family {}", family.name(), interfaces.0);
        let hold = self.shared.ledger.hold(owner, HoldKind::Plumber, name);
        self.plumbers.push(Registered { family, interfaces, owner, plumber, _hold: hold });
        Ok(())
    }

    /// Takes a plumber back (KPI: `proto_unregister_plumber`); silent if there is none.
    pub fn unregister_plumber(&mut self, family: ProtocolFamily, interfaces: IfFamily) {
        self.plumbers.retain(|r| (r.family, r.interfaces) != (family, interfaces));
    }

    /// Takes all plumbers of an extension back.
    pub fn unregister_plumbers_of(&mut self, owner: Owner) {
        self.plumbers.retain(|r| r.owner != owner);
    }

    /// Tells protocols, then the driver, what happened (KPI: `ifnet_event`, after the filters).
    pub fn tell(&self, interface: IfIndex, kind: IfEventKind) {
        let Some(link) = self.links.get(usize::from(interface.0)) else { return };
        let event = IfEvent { interface, cookie: nke_filters::Cookie(0), kind };
        for protocol in &link.more.protocols {
            if let Handler::Own(own) = &protocol.handler {
                guarded(|| own.event(&event));
            }
        }
        if let Some(driver) = &link.more.driver {
            guarded(|| driver.event(&event));
        }
    }

    /// The part of a request that protocols, the driver and the core have in it (KPI: `ifnet_ioctl`, after the filters).
    /// Returns what it brought about.
    pub fn ioctl(
        &mut self,
        interface: IfIndex,
        request: &mut IfIoctl<'_>,
    ) -> Result<Option<IfEventKind>, IfError> {
        let ifnet = self.attached(interface)?;
        let link = &self.links[usize::from(interface.0)];
        let mut handled = false;
        let protocols = link.more.protocols.iter().filter_map(|p| match &p.handler {
            Handler::Own(own) => Some(own),
            _ => None,
        });
        for own in protocols {
            match asked(|| own.ioctl(request)) {
                IoctlAnswer::NotMine => (),
                IoctlAnswer::Handled => handled = true,
                IoctlAnswer::Done => return Ok(None),
                IoctlAnswer::Refuse(why) => return Err(IfError::Refused(why)),
            }
        }
        if let Some(driver) = &link.more.driver {
            if let IfIoctl::AddMulti(group) = request {
                let answer = caught(|| driver.check_multi(*group))
                    .unwrap_or_else(|| Err("the driver panicked".into()));
                answer.map_err(IfError::Refused)?;
            }
            match asked(|| driver.ioctl(request)) {
                IoctlAnswer::NotMine => (),
                IoctlAnswer::Handled => handled = true,
                IoctlAnswer::Done => return Ok(None),
                IoctlAnswer::Refuse(why) => return Err(IfError::Refused(why)),
            }
        }
        let i = usize::from(interface.0);
        let event = match request {
            IfIoctl::SetMtu(mtu) => {
                if !(68..=65_535).contains(mtu) {
                    return Err(IfError::Invalid("the MTU (68 to 65535)"));
                }
                ifnet.update(|identity| identity.params.mtu = *mtu);
                self.links[i].mtu = *mtu;
                IfEventKind::MtuChanged
            }
            IfIoctl::SetFlags(flags) => {
                let up = flags.contains(IfFlags::UP);
                ifnet.update(|identity| identity.params.flags = *flags);
                ifnet.set_state(if up { IfState::Up } else { IfState::Down });
                self.links[i].up = up;
                let flags = *flags;
                self.change_more(interface, |more| more.flags = flags);
                if up { IfEventKind::LinkOn } else { IfEventKind::LinkOff }
            }
            IfIoctl::SetLladdr(mac) => {
                if !mac.is_unicast() {
                    return Err(IfError::Invalid("the link address (one station's)"));
                }
                ifnet.update(|identity| identity.params.lladdr = Some(*mac));
                self.links[i].mac = (*mac).into();
                self.tell_inet(interface);
                IfEventKind::LladdrChanged
            }
            IfIoctl::AddMulti(group) => {
                let groups = &self.links[i].more.groups;
                if !group.is_multicast() {
                    return Err(IfError::Invalid("the group"));
                }
                if groups.len() == GROUPS_MAX {
                    return Err(IfError::Full("groups", GROUPS_MAX));
                }
                let group = *group;
                self.change_more(interface, |more| more.groups.push(group));
                return Ok(None);
            }
            IfIoctl::DelMulti(group) => {
                let group = *group;
                let Some(at) = self.links[i].more.groups.iter().position(|g| *g == group) else {
                    return Err(IfError::NotAttached);
                };
                self.change_more(interface, |more| _ = more.groups.remove(at));
                return Ok(None);
            }
            IfIoctl::Private(..) if handled => return Ok(None),
            IfIoctl::Private(..) => return Err(IfError::NotSupported),
        };
        Ok(Some(event))
    }
}

/// Code of an extension: a panic there refuses.
fn asked(call: impl FnOnce() -> IoctlAnswer) -> IoctlAnswer {
    caught(call).unwrap_or_else(|| IoctlAnswer::Refuse("it panicked".into()))
}

fn family_of(address: IpAddr) -> ProtocolFamily {
    if address.is_ipv4() { ProtocolFamily::INET } else { ProtocolFamily::INET6 }
}

/// The link of an interface without protocols or addresses.
fn bare_link(ifnet: &Ifnet) -> Link {
    let identity = ifnet.identity();
    let params = &identity.params;
    let more = LinkMore {
        flags: params.flags,
        driver: identity.driver.clone(),
        owner: Some(identity.owner),
        ..LinkMore::default()
    };
    Link {
        mac: params.lladdr.map_or_else(Default::default, Into::into),
        mtu: params.mtu,
        ethernet: params.family.is_ethernet(),
        up: ifnet.state().is_attached() && params.flags.contains(IfFlags::UP),
        takes: Takes::default(),
        more: Arc::new(more),
    }
}

fn takes(protocols: &[Arc<Plumbed>]) -> Takes {
    let mut takes = Takes::default();
    for protocol in protocols {
        match protocol.handler {
            Handler::Inet => {
                takes.insert(Takes::INET);
                if protocol.demux.contains(&DemuxDesc::EtherType(0x0806)) {
                    takes.insert(Takes::ARP);
                }
            }
            Handler::Inet6 => takes.insert(Takes::INET6),
            Handler::Own(_) => takes.insert(Takes::OTHERS),
        }
    }
    takes
}

/// What the core plumbs by itself: IP on Ethernet, and on links without header whose drivers find it by its version.
fn built_in(family: ProtocolFamily, interfaces: IfFamily) -> Option<ProtocolSpec> {
    let (ethertypes, handler): (&[u16], _) = match family {
        ProtocolFamily::INET => (&[0x0800, 0x0806], ProtocolHandler::Inet),
        ProtocolFamily::INET6 => (&[0x86dd], ProtocolHandler::Inet6),
        _ => return None,
    };
    let demux = match interfaces {
        _ if interfaces.is_ethernet() => ethertypes.iter().map(|e| DemuxDesc::EtherType(*e)).collect(),
        IfFamily::TUN | IfFamily::LOOPBACK => vec![DemuxDesc::Driver(family.0)],
        _ => return None,
    };
    Some(ProtocolSpec { demux, handler })
}
