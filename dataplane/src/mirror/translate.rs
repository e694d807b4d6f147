//! What the kernel's changes mean for NKE. No system calls, no threads: changes go in, steps come out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use nke_filters::IfIndex;
use nke_inet::neigh::State;
use nke_mbuf::wire::EtherAddr;
use nke_rtnl::{Address, Change, Event, LOCAL_TABLE, Link, MAIN_TABLE, Neighbor, Route, RouteKind};

use crate::inet::{InKernel, Net, NextHop, RouteChange, RouteTo};

/// A port of NKE and the kernel's device it is on.
#[derive(Clone, Debug)]
pub struct Port {
    /// The device's name: a port is on whatever device has it.
    pub device: String,
    /// Its interface.
    pub interface: IfIndex,
    /// Link address and MTU, as NKE knows them.
    pub mac: EtherAddr,
    /// Bytes behind the link header.
    pub mtu: u32,
}

/// Something to be carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A route.
    Route(RouteChange),
    /// A neighbour.
    Neighbor(IfIndex, IpAddr, InKernel),
    /// All addresses of an interface.
    Addresses(IfIndex, Vec<(IpAddr, u8)>),
    /// An interface has another link address.
    Lladdr(IfIndex, EtherAddr),
    /// An interface has another MTU.
    Mtu(IfIndex, u32),
    /// An address of the kernel's came, or went.
    Local(IpAddr, bool),
    /// There is something an administrator should know.
    Warn(String),
}

type AddressKey = (IpAddr, u32, u8, Option<IpAddr>);

/// Knows which device is which port, and what that depends on.
pub struct Translator {
    ports: Vec<Port>,
    /// Where packets go that only the kernel can send on.
    punt: IfIndex,
    /// The port on each device that has one, by the kernel's number.
    on: HashMap<u32, usize>,
    neighbors: HashMap<(u32, IpAddr), InKernel>,
    /// With whether errors can be sent from it.
    addresses: BTreeSet<(AddressKey, bool)>,
    /// Addresses in the local table.
    local_routes: HashSet<IpAddr>,
    /// What was said of addresses.
    said_local: HashSet<IpAddr>,
    said_addresses: HashMap<IfIndex, Vec<(IpAddr, u8)>>,
    /// A device became a port's, or ceased to be: what was told of it before means something else.
    again: bool,
}

impl Translator {
    /// For these ports.
    pub fn new(ports: Vec<Port>, punt: IfIndex) -> Translator {
        Translator {
            ports,
            punt,
            on: HashMap::new(),
            neighbors: HashMap::new(),
            addresses: BTreeSet::new(),
            local_routes: HashSet::new(),
            said_local: HashSet::new(),
            said_addresses: HashMap::new(),
            again: false,
        }
    }

    /// Whether all that is known has to be told again; asks once.
    pub fn wants_all_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// What the kernel is to be asked for a neighbour with: the device, and what was heard of it last.
    pub fn question(&self, interface: IfIndex, address: IpAddr) -> Option<(u32, Option<InKernel>)> {
        let (ifindex, _) = self.on.iter().find(|(_, port)| self.ports[**port].interface == interface)?;
        Some((*ifindex, self.neighbors.get(&(*ifindex, address)).copied()))
    }

    /// Takes a change.
    pub fn take(&mut self, change: Change, step: &mut dyn FnMut(Step)) {
        match change {
            Change::Link(event, link) => self.link(event, &link, step),
            Change::Address(event, address) => self.address(event, &address, step),
            Change::Route(event, route) => self.route(event, &route, step),
            Change::Neighbor(event, neighbor) => self.neighbor(event, &neighbor, step),
            Change::TooMany(kind, most) => {
                step(Step::Warn(format!("the kernel has more than {most} {kind:?}: some are not followed")));
            }
        }
    }

    fn link(&mut self, event: Event, link: &Link, step: &mut dyn FnMut(Step)) {
        let there = event != Event::Removed;
        let port = self.ports.iter().position(|port| there && port.device == link.name);
        let before = match port {
            Some(port) => self.on.insert(link.ifindex, port),
            None => self.on.remove(&link.ifindex),
        };
        if before != port {
            self.again |= event == Event::Changed;
            if let Some(before) = before {
                self.left(link.ifindex, self.ports[before].interface, step);
            }
            if let Some(port) = port {
                // Takes IP from now on, with addresses or without.
                self.said_addresses.remove(&self.ports[port].interface);
                self.say_addresses(link.ifindex, step);
                if link.master.is_some() {
                    step(Step::Warn(format!(
                        "{} belongs to a bridge, bond or VRF, which NKE knows nothing of: packets for others are lost there",
                        link.name
                    )));
                }
            }
        }
        let Some(port) = port.map(|port| &mut self.ports[port]) else { return };
        if let Some(mac) = link.mac.map(EtherAddr).filter(|mac| *mac != port.mac) {
            port.mac = mac;
            step(Step::Lladdr(port.interface, mac));
        }
        if link.mtu_bytes != port.mtu {
            port.mtu = link.mtu_bytes;
            step(Step::Mtu(port.interface, link.mtu_bytes));
        }
    }

    /// A port's device is gone, or has another name.
    fn left(&mut self, ifindex: u32, interface: IfIndex, step: &mut dyn FnMut(Step)) {
        for ((_, address), _) in self.neighbors.extract_if(|(on, _), _| *on == ifindex) {
            step(Step::Neighbor(interface, address, InKernel::Forgotten));
        }
        if self.said_addresses.insert(interface, Vec::new()).is_some_and(|said| !said.is_empty()) {
            step(Step::Addresses(interface, Vec::new()));
        }
    }

    fn address(&mut self, event: Event, address: &Address, step: &mut dyn FnMut(Step)) {
        let key = (address.addr, address.ifindex, address.prefix_len, address.peer);
        self.addresses.remove(&(key, true));
        self.addresses.remove(&(key, false));
        if event != Event::Removed {
            self.addresses.insert((key, !address.is_tentative()));
        }
        self.say_local(address.addr, step);
        self.say_addresses(address.ifindex, step);
    }

    fn say_local(&mut self, address: IpAddr, step: &mut dyn FnMut(Step)) {
        let from = ((address, 0, 0, None), false);
        let there = self.local_routes.contains(&address)
            || self.addresses.range(from..).next().is_some_and(|((next, ..), _)| *next == address);
        let news = if there { self.said_local.insert(address) } else { self.said_local.remove(&address) };
        if news {
            step(Step::Local(address, there));
        }
    }

    /// The addresses of a port that errors are sent from. Link-local ones are of no use to a router's.
    fn say_addresses(&mut self, ifindex: u32, step: &mut dyn FnMut(Step)) {
        let Some(interface) = self.on.get(&ifindex).map(|port| self.ports[*port].interface) else { return };
        let mut all = Vec::new();
        for ((address, on, len, peer), usable) in &self.addresses {
            if *on != ifindex || !usable || matches!(address, IpAddr::V6(a) if a.is_unicast_link_local()) {
                continue;
            }
            // With a peer the prefix is the peer's.
            let host = if address.is_ipv4() { 32 } else { 128 };
            all.push((*address, if peer.is_some() { host } else { *len }));
        }
        if self.said_addresses.get(&interface) != Some(&all) {
            self.said_addresses.insert(interface, all.clone());
            step(Step::Addresses(interface, all));
        }
    }

    fn route(&mut self, event: Event, route: &Route, step: &mut dyn FnMut(Step)) {
        let net = Net { address: route.dst, len: route.prefix_len };
        match route.table {
            LOCAL_TABLE => {
                let for_kernel =
                    matches!(route.kind, RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast);
                if net == Net::host(net.address) && !net.address.is_multicast() {
                    match event != Event::Removed && for_kernel {
                        true => _ = self.local_routes.insert(net.address),
                        false => _ = self.local_routes.remove(&net.address),
                    }
                    self.say_local(net.address, step);
                }
            }
            MAIN_TABLE if !stays_on_link(net.address) => {
                let to = (event != Event::Removed).then(|| self.way(route));
                step(Step::Route(RouteChange { net, to }));
            }
            _ => (),
        }
    }

    fn way(&self, route: &Route) -> RouteTo {
        let punt = |weight: u16| NextHop { via: None, interface: Some(self.punt), weight: weight.into() };
        match route.kind {
            RouteKind::Blackhole => return RouteTo::Blackhole,
            RouteKind::Prohibit => return RouteTo::Prohibit,
            // The rules behind the main table have none by default.
            RouteKind::Unreachable | RouteKind::Throw => return RouteTo::Unreachable,
            RouteKind::Unicast => (),
            _ => return RouteTo::Via(vec![punt(1)]),
        }
        let several = route.next_hops.len() > 1;
        let hops = route.next_hops.iter().map(|hop| match self.on.get(&hop.ifindex) {
            // Of destinations on several links only the kernel knows where each is.
            Some(port) if hop.via.is_some() || !several => NextHop {
                via: hop.via,
                interface: Some(self.ports[*port].interface),
                weight: hop.weight.into(),
            },
            _ => punt(hop.weight),
        });
        let mut hops: Vec<_> = hops.collect();
        if hops.iter().all(|hop| hop.interface == Some(self.punt)) {
            hops = vec![punt(1)];
        }
        RouteTo::Via(hops)
    }

    /// The way of a route that finds no room in a table of its own: the kernel has it.
    pub fn to_kernel(&self) -> RouteTo {
        RouteTo::Via(vec![NextHop { via: None, interface: Some(self.punt), weight: 1 }])
    }

    /// Whether packets of a route are the kernel's.
    pub fn is_punted(&self, to: &RouteTo) -> bool {
        matches!(to, RouteTo::Via(hops) if hops.iter().any(|hop| hop.interface == Some(self.punt)))
    }

    fn neighbor(&mut self, event: Event, neighbor: &Neighbor, step: &mut dyn FnMut(Step)) {
        let Some(interface) = self.on.get(&neighbor.ifindex).map(|port| self.ports[*port].interface) else {
            return;
        };
        let broadcast = matches!(neighbor.addr, IpAddr::V4(a) if a.is_broadcast());
        if neighbor.addr.is_multicast() || broadcast {
            return;
        }
        let key = (neighbor.ifindex, neighbor.addr);
        let known = match event {
            Event::Removed => None,
            _ => in_kernel(neighbor),
        };
        let before = match known {
            Some(known) => self.neighbors.insert(key, known),
            None => self.neighbors.remove(&key),
        };
        if known.is_some() || before.is_some() {
            step(Step::Neighbor(interface, neighbor.addr, known.unwrap_or(InKernel::Forgotten)));
        }
    }
}

/// Addresses whose packets no router sends on.
fn stays_on_link(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// `None` while the kernel looks for it.
fn in_kernel(neighbor: &Neighbor) -> Option<InKernel> {
    if neighbor.state & libc::NUD_FAILED != 0 {
        return Some(InKernel::Failed);
    }
    let mac = neighbor.mac.map(EtherAddr).filter(|mac| neighbor.is_valid() && mac.is_unicast())?;
    let state = match neighbor.state {
        state if state & (libc::NUD_PERMANENT | libc::NUD_NOARP) != 0 => State::Static,
        state if state & libc::NUD_REACHABLE != 0 => State::Reachable,
        state if state & libc::NUD_STALE != 0 => State::Stale,
        _ => State::Probe,
    };
    Some(InKernel::Known(mac, state))
}
