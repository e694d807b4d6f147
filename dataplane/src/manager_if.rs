//! Interfaces that come and go: the control thread's side of the Interface KPI, in the order the KPI promises.

use std::net::IpAddr;
use std::sync::Arc;

use nke_filters::{
    Args, AttachId, Cookie, Direction, HoldKind, IfError, IfEventKind, IfIndex, IfIoctl, IfnetDriver,
    IoctlAnswer,
};
use nke_mbuf::Owner;

use crate::caught::{caught, guarded};
use crate::command::{OwnedIoctl, Reply, answer};
use crate::control_handle::Point;
use crate::fault::Fault;
use crate::ifnet::IfState;
use crate::manager::Manager;
use crate::snapshot::{Attachment, Instance};

/// An interface on its way out, waiting for the last worker to leave it.
pub(crate) struct Detaching {
    interface: IfIndex,
    pub(crate) owner: Owner,
    generation: u64,
    driver: Option<Arc<dyn IfnetDriver>>,
    reply: Reply<()>,
}

impl Manager {
    /// Attaches an instance an extension made itself.
    pub(crate) fn attach_instance(
        &mut self,
        id: AttachId,
        owner: Owner,
        name: String,
        interface: IfIndex,
        filter: Instance,
    ) {
        let place = match &filter {
            Instance::Ip(family, ..) => Some(family.name().to_owned()),
            Instance::Probe(_) => Some(Point::Path.name().to_owned()),
            Instance::Interface(_) => {
                let ifnet = self.shared.interfaces.get(interface).filter(|i| i.state().is_attached());
                ifnet.map(|i| i.name())
            }
        };
        let Some(place) = place.filter(|_| self.has_room() && !self.stopping) else {
            eprintln!(
                "nke: {name} ({id}) was not attached: its interface is gone, the table of filters is full, or all is ending"
            );
            // It was promised its last call.
            return guarded(move || {
                filter.detached(interface, Cookie(0));
                drop(filter);
            });
        };
        let hold = self.shared.ledger.hold(owner, HoldKind::Attachment, format!("{name} on {place} ({id})"));
        let workers = self.shared.workers.len();
        let attachment = Attachment::new(id, name, owner, interface, filter, workers, hold);
        self.attachments.push(Arc::new(attachment));
        self.publish();
    }

    /// An allocated interface becomes known.
    pub(crate) fn if_attach(&mut self, interface: IfIndex) {
        let outcome = match self.stopping {
            false => self.interfaces.attach(interface),
            true => Err(IfError::NotAttached),
        };
        self.changed(interface, IfEventKind::Attached, outcome);
    }

    /// Publishes a change of an interface and tells of it; says what went wrong.
    pub(crate) fn changed(&mut self, interface: IfIndex, kind: IfEventKind, outcome: Result<(), IfError>) {
        match outcome {
            Ok(()) => {
                self.publish();
                self.tell(interface, kind);
            }
            Err(e) => eprintln!("nke: interface {}: {}: {e}", interface.0, kind.name()),
        }
    }

    /// Takes an interface away (KPI: `ifnet_detach`): the event, then no new calls; the rest after a grace period.
    pub(crate) fn if_detach(&mut self, interface: IfIndex, reply: Reply<()>) {
        let Some(ifnet) = self.shared.interfaces.get(interface).filter(|i| i.state().is_attached()) else {
            return answer(reply, Err(Fault::Interface(IfError::NotAttached)));
        };
        self.tell(interface, IfEventKind::Detaching);
        ifnet.set_state(IfState::Detaching);
        let identity = ifnet.identity();
        let (driver, owner) = (identity.driver.clone(), identity.owner);
        let now_ms = self.now_ms();
        self.interfaces.detach(interface, now_ms);
        let on_it: Vec<_> =
            self.attachments.iter().filter(|a| a.interface == interface).map(|a| a.id).collect();
        for id in on_it {
            self.detach(id, None);
        }
        let generation = self.publish();
        self.detaching.push(Detaching { interface, owner, generation, driver, reply });
    }

    /// Detaches the protocols of an extension from interfaces that stay.
    pub(crate) fn detach_protocols_of(&mut self, owner: Owner) {
        let links = self.interfaces.links.iter().enumerate();
        let mine: Vec<_> = links
            .flat_map(|(i, link)| link.more.protocols.iter().map(move |p| (i, p)))
            .filter(|(_, p)| p.owner == owner)
            .map(|(i, p)| (IfIndex(i as u16), p.family))
            .collect();
        for (interface, family) in mine {
            let outcome = self.interfaces.detach_protocol(interface, family);
            self.changed(interface, IfEventKind::ProtocolDetached, outcome);
        }
    }

    /// Last calls of protocols and interfaces that no worker is in any more. Filters had theirs.
    pub(crate) fn finish_interfaces(&mut self) {
        let publisher = &self.publisher;
        let over: Vec<_> =
            self.unplumbed.extract_if(.., |(generation, _)| publisher.passed(*generation)).collect();
        for (_, unplumbed) in over {
            self.interfaces.finish_unplumbed(unplumbed);
        }
        let (draining, unplumbed, publisher) = (&self.draining, &self.unplumbed, &self.publisher);
        let over = |d: &mut Detaching| {
            publisher.passed(d.generation)
                && publisher.retired() == 0
                && !draining.iter().any(|f| f.attachment.interface == d.interface)
                && !unplumbed.iter().any(|(_, u)| u.interface == d.interface)
        };
        let gone: Vec<_> = self.detaching.extract_if(.., over).collect();
        for Detaching { interface, driver, reply, .. } in gone {
            if let Some(ifnet) = self.shared.interfaces.get(interface) {
                for direction in [Direction::Input, Direction::Output] {
                    while ifnet.injected(direction).pop().is_some() {}
                }
                ifnet.set_state(IfState::Detached);
                ifnet.let_go();
            }
            if let Some(driver) = driver {
                let event =
                    nke_filters::IfEvent { interface, cookie: Cookie(0), kind: IfEventKind::Detached };
                guarded(|| driver.event(&event));
                guarded(|| driver.detached());
                guarded(|| drop(driver));
            }
            answer(reply, Ok(()));
        }
        self.shared.interfaces.sweep();
    }

    /// Makes an interface of a registered kind, and attaches it.
    pub(crate) fn create(&mut self, kind: &str, name: String, args: &Args) -> Result<IfIndex, Fault> {
        if self.stopping {
            return Err(Fault::Ended);
        }
        let shared = self.shared.clone();
        let registered = self.kinds.find(kind)?;
        let ifnet = registered.make_interface(&shared, name, args)?;
        let index = ifnet.index();
        self.interfaces.attach(index).map_err(Fault::Interface)?;
        self.publish();
        self.tell(index, IfEventKind::Attached);
        Ok(index)
    }

    /// Gives or takes an address.
    pub(crate) fn address(
        &mut self,
        interface: &str,
        address: IpAddr,
        len: u8,
        add: bool,
    ) -> Result<(), Fault> {
        let found = self.shared.interface(interface).map(|i| i.index);
        let index = found.ok_or_else(|| Fault::NoInterface(interface.to_owned()))?;
        let outcome = match add {
            true => self.interfaces.add_address(index, address, len),
            false => self.interfaces.remove_address(index, address),
        };
        outcome.map_err(Fault::Interface)?;
        self.publish();
        self.tell(index, IfEventKind::AddressesChanged);
        Ok(())
    }

    /// The kernel's addresses on an interface, all of them.
    pub(crate) fn host_addresses(
        &mut self,
        interface: IfIndex,
        addresses: Vec<(IpAddr, u8)>,
    ) -> Result<(), IfError> {
        self.interfaces.set_host_addresses(interface, addresses)?;
        self.publish();
        self.tell(interface, IfEventKind::AddressesChanged);
        Ok(())
    }

    /// A request to an interface: filters, protocols, driver (KPI: `ifnet_ioctl`).
    pub(crate) fn ioctl(&mut self, interface: IfIndex, request: OwnedIoctl) -> Result<(), IfError> {
        let mut request = match request {
            OwnedIoctl::SetMtu(mtu) => IfIoctl::SetMtu(mtu),
            OwnedIoctl::SetFlags(flags) => IfIoctl::SetFlags(flags),
            OwnedIoctl::SetLladdr(mac) => IfIoctl::SetLladdr(mac),
            OwnedIoctl::AddMulti(group) => IfIoctl::AddMulti(group),
            OwnedIoctl::DelMulti(group) => IfIoctl::DelMulti(group),
        };
        for attachment in self.attachments.iter().filter(|a| a.interface == interface) {
            let Instance::Interface(filter) = &attachment.filter else { continue };
            match caught(|| filter.ioctl(&mut request)).unwrap_or(IoctlAnswer::NotMine) {
                IoctlAnswer::NotMine | IoctlAnswer::Handled => (),
                IoctlAnswer::Done => return Ok(()),
                IoctlAnswer::Refuse(why) => return Err(IfError::Refused(why)),
            }
        }
        if let Some(event) = self.interfaces.ioctl(interface, &mut request)? {
            self.publish();
            self.tell(interface, event);
        } else {
            self.publish();
        }
        Ok(())
    }
}
