//! The IP layer on the control thread: addresses, routes and neighbours, and how they get into the tables of the workers.

mod groups;
mod kernel;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use nke_filters::IfIndex;
use nke_inet::neigh::{Action, Lookup, Neighbors, State};
use nke_mbuf::wire::EtherAddr;

use groups::{GroupNumbers, Members};

use super::routes::{Net, RetiredNodes, Routes, Source};
use crate::shortcut::Shortcut;

use super::tables::{Adjacency, Notice, Settings, Tables, Way};

/// A next hop of a route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NextHop {
    /// The router; `None` when destinations are on the link itself.
    pub via: Option<IpAddr>,
    /// The interface; may be left out when the router is on a network of ours.
    pub interface: Option<IfIndex>,
    /// Its share among next hops of the same route.
    pub weight: u32,
}

/// What a route does with packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteTo {
    /// Sends them on by one of these.
    Via(Vec<NextHop>),
    /// They are for this host.
    Local,
    /// Drops them.
    Blackhole,
    /// Drops them, and says that the host is unreachable.
    Unreachable,
    /// Drops them, and says that it is forbidden.
    Prohibit,
}

/// A change of routes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteChange {
    /// Which destinations.
    pub net: Net,
    /// What becomes of packets to them; `None` takes the route away.
    pub to: Option<RouteTo>,
}

/// A change of the layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Routes, in order.
    Routes(Vec<RouteChange>),
    /// A neighbour that is not asked for: its link address, or `None` to forget it.
    Neighbor(IfIndex, IpAddr, Option<EtherAddr>),
    /// A neighbour as the kernel knows it.
    KernelNeighbor(IfIndex, IpAddr, InKernel),
    /// Packets for addresses of ours go out by this interface: they are the kernel's, and it is behind it.
    HostBehind(IfIndex),
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InKernel {
    /// Its link address, in a state that has one.
    Known(EtherAddr, State),
    /// It did not answer.
    Failed,
    /// Nothing any more.
    Forgotten,
}

/// Why a change was not made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InetError {
    /// The routing table has no block left for a longer prefix.
    RoutesFull(Net),
    /// More groups of equal-cost next hops than there is room for.
    GroupsFull(Net),
    /// The table of neighbours is full.
    NeighborsFull(IpAddr),
    /// No network of ours has this router.
    NoSuchRouter(Net, IpAddr),
    /// A route without next hop.
    NoNextHop(Net),
    /// There is no such route.
    NoRoute(Net),
}

impl fmt::Display for InetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InetError::RoutesFull(net) => write!(f, "no block is free for the route to {net}"),
            InetError::GroupsFull(net) => write!(f, "no group of next hops is free for the route to {net}"),
            InetError::NeighborsFull(a) => write!(f, "no place is free for the neighbour {a}"),
            InetError::NoSuchRouter(net, via) => {
                write!(f, "the route to {net} goes via {via}, which is on no network of ours")
            }
            InetError::NoNextHop(net) => write!(f, "the route to {net} has no next hop"),
            InetError::NoRoute(net) => write!(f, "there is no route to {net}"),
        }
    }
}

impl std::error::Error for InetError {}

/// What a route holds while it is there.
struct Route {
    to: RouteTo,
    /// Neighbours it refers to.
    neighbors: Vec<u32>,
    group: Option<Members>,
}

/// An interface as this layer sees it.
#[derive(Clone, Default, Debug)]
pub struct Port {
    /// Its link address.
    pub mac: EtherAddr,
    /// Whether neighbours are to be resolved on it.
    pub resolves: bool,
    /// Its addresses.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What is out of use and waits for a grace period.
#[derive(Default)]
pub struct Garbage {
    nodes: RetiredNodes,
    neighbors: Vec<u32>,
    groups: Vec<u32>,
}

/// The layer's state on the control thread.
pub struct Inet {
    tables: Arc<Tables>,
    routes: Routes,
    by_net: HashMap<Net, Route>,
    neighbors: Neighbors,
    ports: HashMap<u16, Port>,
    groups: GroupNumbers,
    out: Vec<Action>,
    garbage: Garbage,
    next_refresh_ms: u64,
    /// With the kernel's tables: the interface behind which it is, as host; and the neighbours that are known.
    host: Option<u16>,
    known: BTreeSet<(IpAddr, u16, u32)>,
    /// Routes that found no room.
    pub rejected: u64,
}

/// Something to be sent, or asked, for the layer.
#[derive(Clone, Copy, Debug)]
pub enum Send {
    /// An ARP request or neighbour solicitation.
    Solicit {
        /// By which interface.
        interface: u16,
        /// Our link address there.
        mac: EtherAddr,
        /// Our address.
        source: IpAddr,
        /// Whom it asks for.
        target: IpAddr,
        /// To whom; `None` for all.
        to: Option<EtherAddr>,
    },
    /// The kernel is to look for a neighbour.
    AskKernel(u16, IpAddr),
}

impl Inet {
    /// With its tables, for `workers` workers.
    pub fn new(mut settings: Settings, workers: usize, key: [u64; 2]) -> (Inet, Arc<Tables>) {
        let routes = Routes::new(settings.v4_blocks, settings.v6_blocks);
        let (fib4, fib6) = routes.tries();
        // Refused are tables of another size, or those of another router.
        let joined = |shortcut: &Shortcut| {
            fib4.join(shortcut.twin4()).is_ok() && shortcut.twin6().is_none_or(|twin| fib6.join(twin).is_ok())
        };
        settings.shortcut = settings.shortcut.filter(joined);
        let config = nke_inet::neigh::Config {
            capacity: settings.neighbors,
            mode: if settings.kernel {
                nke_inet::neigh::Mode::Kernel
            } else {
                nke_inet::neigh::Mode::Solicit
            },
            ..nke_inet::neigh::Config::default()
        };
        let groups = settings.groups as u32;
        let tables = Arc::new(Tables::new(fib4, fib6, settings, workers, key));
        let inet = Inet {
            tables: tables.clone(),
            routes,
            by_net: HashMap::new(),
            neighbors: Neighbors::new(config, [key[1], key[0]]),
            ports: HashMap::new(),
            groups: GroupNumbers::new(groups),
            out: Vec::new(),
            garbage: Garbage::default(),
            next_refresh_ms: 0,
            host: None,
            known: BTreeSet::new(),
            rejected: 0,
        };
        (inet, tables)
    }

    /// Tells what an interface is like now, its addresses among it.
    pub fn set_port(&mut self, interface: IfIndex, port: Port) {
        let old = self.ports.insert(interface.0, port.clone()).unwrap_or_default();
        for (address, len) in old.addresses.iter().filter(|a| !port.addresses.contains(a)) {
            self.own(interface, *address, *len, false);
        }
        for (address, len) in port.addresses.iter().filter(|a| !old.addresses.contains(a)) {
            self.own(interface, *address, *len, true);
        }
    }

    /// An interface goes: its addresses, its neighbours, and the routes by it.
    pub fn remove_port(&mut self, interface: IfIndex, now_ms: u64) {
        self.set_port(interface, Port::default());
        self.ports.remove(&interface.0);
        let by_it = |to: &RouteTo| match to {
            RouteTo::Via(hops) => hops.iter().any(|h| h.interface == Some(interface)),
            _ => false,
        };
        let nets: Vec<_> = self.by_net.iter().filter(|(_, r)| by_it(&r.to)).map(|(net, _)| *net).collect();
        for net in nets {
            // Next hops by other interfaces stay.
            let Some(RouteTo::Via(hops)) = self.by_net.get(&net).map(|r| r.to.clone()) else { continue };
            let left: Vec<_> = hops.into_iter().filter(|h| h.interface != Some(interface)).collect();
            let to = (!left.is_empty()).then_some(RouteTo::Via(left));
            let _ = self.change(&RouteChange { net, to }, now_ms);
        }
        self.neighbors.interface_gone(interface.0, &mut self.out);
        self.carry_out();
    }

    /// The routes an address brings: itself, the broadcast addresses of its network, the network.
    fn own(&mut self, interface: IfIndex, address: IpAddr, len: u8, there: bool) {
        if self.mirrors_kernel() {
            return self.own_in_kernel(address, len);
        }
        let net = Net::of(address, len);
        let local = there.then_some(Way::Local);
        let mut wanted: Vec<_> = own_nets(address, len).map(|net| (net, Source::Own, local)).collect();
        // Another interface, or address, may be on the same network: it takes over.
        let other = self.ports.iter().find_map(|(port, p)| {
            let on_it =
                |(a, l): &(IpAddr, u8)| Net::of(*a, *l) == net && (*a, *port) != (address, interface.0);
            p.addresses.iter().any(on_it).then_some(Way::Link(*port))
        });
        let link = if there { Some(Way::Link(interface.0)) } else { other };
        if len < if address.is_ipv4() { 32 } else { 128 } {
            wanted.push((net, Source::Connected, link));
        }
        for (net, source, way) in wanted {
            if self.routes.set(net, source, way).is_err() {
                self.rejected += 1;
            }
        }
    }

    /// Carries a change out. Of several routes all are tried; the first error is told.
    pub fn request(&mut self, request: &Request, now_ms: u64) -> Result<(), InetError> {
        let outcome = match request {
            Request::Routes(changes) => {
                let mut first = Ok(());
                for change in changes {
                    let outcome = self.change(change, now_ms);
                    if outcome.is_err() {
                        self.rejected += 1;
                    }
                    first = first.and(outcome);
                }
                first
            }
            Request::Neighbor(interface, address, Some(mac)) => {
                let id = self.neighbors.insert_static(interface.0, *address, *mac, now_ms, &mut self.out);
                id.map(drop).ok_or(InetError::NeighborsFull(*address))
            }
            Request::Neighbor(interface, address, None) => {
                self.neighbors.remove_static(interface.0, *address, now_ms, &mut self.out);
                Ok(())
            }
            Request::KernelNeighbor(interface, address, known) => {
                self.kernel_neighbor(*interface, *address, *known, now_ms)
            }
            Request::HostBehind(interface) => {
                self.host_behind(interface.0);
                Ok(())
            }
        };
        self.carry_out();
        outcome
    }

    fn change(&mut self, change: &RouteChange, now_ms: u64) -> Result<(), InetError> {
        let net = change.net;
        let Some(to) = &change.to else {
            let old = self.by_net.remove(&net).ok_or(InetError::NoRoute(net))?;
            // Taking away needs no room.
            let _ = self.routes.set(net, Source::Route, None);
            self.let_go(old, now_ms);
            self.place_neighbors(net);
            return Ok(());
        };
        if self.by_net.get(&net).is_some_and(|old| old.to == *to) {
            return Ok(());
        }
        let mut route = Route { to: to.clone(), neighbors: Vec::new(), group: None };
        let way = match self.way(net, &mut route, now_ms) {
            Ok(way) => way,
            Err(e) => {
                self.let_go(route, now_ms);
                return Err(e);
            }
        };
        if self.routes.set(net, Source::Route, Some(way)).is_err() {
            self.let_go(route, now_ms);
            return Err(InetError::RoutesFull(net));
        }
        if let Some(old) = self.by_net.insert(net, route) {
            self.let_go(old, now_ms);
        }
        self.place_neighbors(net);
        Ok(())
    }

    /// The way of a route; what it refers to is noted in it.
    fn way(&mut self, net: Net, route: &mut Route, now_ms: u64) -> Result<Way, InetError> {
        let hops = match &route.to {
            RouteTo::Via(hops) => hops.clone(),
            RouteTo::Local => return Ok(Way::Local),
            RouteTo::Blackhole => return Ok(Way::Blackhole),
            RouteTo::Unreachable => return Ok(Way::Unreachable),
            RouteTo::Prohibit => return Ok(Way::Prohibit),
        };
        let mut members = Vec::with_capacity(hops.len());
        for hop in &hops {
            let interface = match (hop.interface, hop.via) {
                (Some(interface), _) => interface.0,
                (None, Some(via)) => self.port_of(via).ok_or(InetError::NoSuchRouter(net, via))?,
                (None, None) => return Err(InetError::NoNextHop(net)),
            };
            let resolves = self.ports.get(&interface).is_some_and(|p| p.resolves);
            let way = match hop.via.filter(|_| resolves) {
                None => Way::Link(interface),
                Some(via) => {
                    let id = self.neighbors.gateway(interface, via, now_ms, &mut self.out);
                    let id = id.ok_or(InetError::NeighborsFull(via))?;
                    self.tables.set_neighbor(id, interface, via);
                    route.neighbors.push(id);
                    Way::Via(id)
                }
            };
            members.push((way, hop.weight));
        }
        match members[..] {
            [] => Err(InetError::NoNextHop(net)),
            [(way, _)] => Ok(way),
            _ => {
                let members = Members::from(members);
                let tables = &self.tables;
                let group = self.groups.take(&members, |group| tables.groups().set(group, &members));
                let group = group.ok_or(InetError::GroupsFull(net))?;
                route.group = Some(members);
                Ok(Way::Several(group))
            }
        }
    }

    fn let_go(&mut self, route: Route, now_ms: u64) {
        for id in route.neighbors {
            self.neighbors.unref(id, now_ms);
        }
        self.garbage.groups.extend(route.group.and_then(|members| self.groups.let_go(&members)));
    }

    /// The interface on whose network `address` is: of several, that with the longest prefix.
    fn port_of(&self, address: IpAddr) -> Option<u16> {
        let all = self
            .ports
            .iter()
            .flat_map(|(port, p)| p.addresses.iter().map(move |(a, l)| (*port, Net::of(*a, *l))));
        all.filter(|(_, net)| net.contains(address)).max_by_key(|(_, net)| net.len).map(|(port, _)| port)
    }

    /// What workers heard and want, and what is due by now. `send` is called for what is to be sent.
    pub fn run(&mut self, now_ms: u64, mut send: impl FnMut(Send)) {
        /// Notices taken up at once, so that a flood of ARP does not keep the control thread from its other work.
        const NOTICES: usize = 512;
        for _ in 0..NOTICES {
            match self.tables.notices.pop() {
                Some(Notice::Heard(event)) => {
                    let ports = &self.ports;
                    let ours = |interface: u16, address: IpAddr| {
                        let port = ports.get(&interface)?;
                        port.addresses.iter().any(|(a, _)| *a == address).then_some(port.mac)
                    };
                    self.neighbors.event(&event, now_ms, ours, &mut self.out);
                }
                Some(Notice::Wanted { interface, address }) => self.wanted(interface, address, now_ms),
                None => break,
            }
            self.deliver(&mut send);
        }
        self.refresh(now_ms);
        self.neighbors.tick(now_ms, &mut self.out);
        self.deliver(&mut send);
    }

    /// Neighbours that workers may be sending to are asked again and again whether they are still there: nothing on the
    /// path notes which of them are in use, and one that went while it is would cost packets.
    fn refresh(&mut self, now_ms: u64) {
        const EVERY_MS: u64 = 10_000;
        if now_ms < self.next_refresh_ms {
            return;
        }
        self.next_refresh_ms = now_ms + EVERY_MS;
        for id in 0..self.tables.settings.neighbors {
            if self.tables.adjacency(id).is_some() {
                self.neighbors.used(id, now_ms, &mut self.out);
            }
        }
    }

    fn wanted(&mut self, interface: u16, address: IpAddr, now_ms: u64) {
        if let Lookup::Known { id, mac } = self.neighbors.resolve(interface, address, now_ms, &mut self.out) {
            // Known, but the worker did not find it: its route is missing.
            self.reachable(id, interface, address, mac);
        }
    }

    /// Carries out what the table of neighbours wants, but for what is to be sent: that stays.
    fn carry_out(&mut self) {
        let actions = std::mem::take(&mut self.out);
        for action in actions {
            match action {
                Action::Reachable { id, interface, address, mac } => {
                    self.reachable(id, interface, address, mac)
                }
                Action::Gone { id, interface, address } => {
                    self.tables.set_adjacency(id, None);
                    self.known.remove(&(address, interface, id));
                    // Taking away needs no room.
                    if self.routes.get(Net::host(address), Source::Neighbor) == Some(Way::Via(id)) {
                        let _ = self.routes.set(Net::host(address), Source::Neighbor, None);
                    }
                    self.garbage.neighbors.push(id);
                }
                Action::Conflict { interface, address, mac } => {
                    eprintln!("nke: {mac} on interface {interface} claims {address}, which is ours");
                }
                Action::Solicit { .. } | Action::AskKernel { .. } => self.out.push(action),
            }
        }
    }

    fn reachable(&mut self, id: u32, interface: u16, address: IpAddr, mac: EtherAddr) {
        self.tables.set_neighbor(id, interface, address);
        self.tables.set_adjacency(id, Some(Adjacency { mac: mac.into(), out: interface }));
        if self.mirrors_kernel() {
            self.known.insert((address, interface, id));
            return self.place_neighbor(address);
        }
        // Only what is on a network of the interface, or by its route on the link, gets a route of its own: a link-local
        // address may be on several.
        let of_network = self
            .ports
            .get(&interface)
            .is_some_and(|p| p.addresses.iter().any(|(a, len)| Net::of(*a, *len).contains(address)));
        let on_link = of_network || self.routes.covering(address) == Some(Way::Link(interface));
        if on_link && self.routes.set(Net::host(address), Source::Neighbor, Some(Way::Via(id))).is_err() {
            self.rejected += 1;
        }
    }

    fn deliver(&mut self, send: &mut impl FnMut(Send)) {
        self.carry_out();
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::Solicit { interface, address: target, to } => {
                    let Some(port) = self.ports.get(&interface) else { continue };
                    let Some(source) = port.source_for(target) else { continue };
                    send(Send::Solicit { interface, mac: port.mac, source, target, to });
                }
                Action::AskKernel { interface, address } => send(Send::AskKernel(interface, address)),
                _ => (),
            }
        }
    }

    /// What went out of use since the last call: to be given to [`Inet::reclaim`] after a grace period.
    pub fn take_garbage(&mut self) -> Option<Garbage> {
        let nodes = self.routes.take_retired();
        let garbage = Garbage { nodes, ..std::mem::take(&mut self.garbage) };
        let any = !garbage.nodes.is_empty() || !garbage.neighbors.is_empty() || !garbage.groups.is_empty();
        any.then_some(garbage)
    }

    /// No worker uses it any more.
    pub fn reclaim(&mut self, garbage: Garbage) {
        self.routes.reclaim(garbage.nodes);
        garbage.neighbors.into_iter().for_each(|id| self.neighbors.release(id));
        garbage.groups.into_iter().for_each(|group| self.groups.release(group));
    }

    /// The routes, for users, `most` of them: destination, whose word it is, and where to. `name` names an interface.
    pub fn show_routes(&self, name: impl Fn(u16) -> String, most: usize) -> Vec<(Net, Source, String)> {
        let rows = self.routes.best(most).into_iter();
        rows.map(|(net, source, way)| (net, source, self.describe(net, source, way, &name))).collect()
    }

    /// The route to an address, if there is one, and what workers find for it.
    pub fn show_route_to(
        &self,
        address: IpAddr,
        name: impl Fn(u16) -> String,
    ) -> (Option<(Net, Source, String)>, String) {
        let host = Net::host(address);
        let found = self.describe(host, Source::Own, self.tables.lookup(address), &name);
        let route = self.routes.to(address);
        (route.map(|(net, source, way)| (net, source, self.describe(net, source, way, &name))), found)
    }

    /// Sizes and rates of the layer.
    pub fn settings(&self) -> &Settings {
        &self.tables.settings
    }

    /// How many routes there are.
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    fn describe(&self, net: Net, source: Source, way: Way, name: &dyn Fn(u16) -> String) -> String {
        if let (Source::Route, Some(Route { to: RouteTo::Via(hops), .. })) = (source, self.by_net.get(&net)) {
            let hop = |h: &NextHop| match (h.via, h.interface) {
                (Some(via), Some(i)) => format!("via {via} on {}", name(i.0)),
                (Some(via), None) => format!("via {via}"),
                (None, Some(i)) => format!("on {}", name(i.0)),
                (None, None) => "nowhere".into(),
            };
            return hops.iter().map(hop).collect::<Vec<_>>().join(", ");
        }
        match way {
            Way::None => "none".into(),
            Way::Via(id) => match self.tables.neighbor(id) {
                Some((interface, address)) => format!("via {address} on {}", name(interface)),
                None => "via nobody".into(),
            },
            Way::Link(interface) => format!("on {}", name(interface)),
            Way::Local => "local".into(),
            Way::Blackhole => "blackhole".into(),
            Way::Unreachable => "unreachable".into(),
            Way::Prohibit => "prohibit".into(),
            Way::Several(group) => format!("group {group}"),
        }
    }

    /// The neighbours.
    pub fn neighbors(&self) -> &Neighbors {
        &self.neighbors
    }
}

/// The addresses that an address brings: itself and, of IPv4, the broadcast addresses of its network.
fn own_nets(address: IpAddr, len: u8) -> impl Iterator<Item = Net> {
    let first = Net::of(address, len).address;
    let others = match first {
        IpAddr::V4(first) if len < 31 => {
            let last = first.to_bits() | u32::MAX.checked_shr(len.into()).unwrap_or(0);
            [Some(IpAddr::V4(last.into())), Some(first.into())]
        }
        _ => [None, None],
    };
    std::iter::once(address).chain(others.into_iter().flatten()).map(Net::host)
}

impl Port {
    /// Our address to ask for `target` from: one on its network, or any of its version.
    fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        let alike = || self.addresses.iter().filter(|(a, _)| a.is_ipv4() == target.is_ipv4());
        let on_net = alike().find(|(a, len)| Net::of(*a, *len).contains(target));
        on_net.or_else(|| alike().next()).map(|(a, _)| *a)
    }
}
