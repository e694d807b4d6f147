//! What is known, and how messages change it; no system calls.

use std::net::IpAddr;

use super::Stats;
use super::mirror::{Mirror, Put};
use super::routes::{Outcome, Routes};
use crate::change::{Address, Change, Event, Kind, Link, Neighbor};
use crate::config::Config;
use crate::parse::{self, RouteMessage};
use crate::wire::{Malformed, Message};

// Not in libc (linux/rtnetlink.h).
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// A dump to be made; they are made in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Links,
    Addresses,
    RoutesV4,
    RoutesV6,
    Neighbors,
}

impl Step {
    pub const ALL: [Step; 5] =
        [Step::Links, Step::Addresses, Step::RoutesV4, Step::RoutesV6, Step::Neighbors];
    /// All routes, as they are when the change under way is over. The kernel tells of a link or an address before it does
    /// what follows from it for routes, all of it under one lock (RTNL). A dump of links waits for that lock; one of
    /// routes does not, and would come too early.
    pub const SETTLED_ROUTES: [Step; 3] = [Step::Links, Step::RoutesV4, Step::RoutesV6];
}

type AddressKey = (u32, IpAddr, u8, Option<IpAddr>);

pub(crate) struct State {
    tables: Vec<u32>,
    links: Mirror<u32, Link>,
    addresses: Mirror<AddressKey, Address>,
    neighbors: Mirror<(u32, IpAddr), Neighbor>,
    /// Of IPv6, and of IPv4.
    routes: [Routes; 2],
    /// Number of the latest dump; what it does not see is swept away at its end.
    generation: u32,
    /// Dumps to be made, by [`Step`].
    wanted: [bool; 5],
    /// From the start of a dump of routes until the socket was empty after it: notifications may be of changes that the
    /// dump has already.
    window: bool,
    pub stats: Stats,
}

impl State {
    pub fn new(config: &Config) -> State {
        State {
            tables: config.tables.clone(),
            links: Mirror::new(config.links_max),
            addresses: Mirror::new(config.addresses_max),
            neighbors: Mirror::new(config.neighbors_max),
            routes: [Routes::new(config.routes_max), Routes::new(config.routes_max)],
            generation: 0,
            wanted: [true; 5],
            window: false,
            stats: Stats::default(),
        }
    }

    pub fn want(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.wanted[*step as usize] = true);
    }

    /// The next dump to be made.
    pub fn wanted(&self) -> Option<Step> {
        Step::ALL.into_iter().find(|step| self.wanted[*step as usize])
    }

    /// A dump begins.
    pub fn begin(&mut self, step: Step) {
        self.generation = self.generation.wrapping_add(1);
        self.wanted[step as usize] = false;
        match step {
            Step::Links => self.links.limit.begin(),
            Step::Addresses => self.addresses.limit.begin(),
            Step::Neighbors => self.neighbors.limit.begin(),
            Step::RoutesV4 | Step::RoutesV6 => {
                self.routes(step == Step::RoutesV4).limit.begin();
                self.window = true;
            }
        }
    }

    /// The dump is over and complete: what it did not see is gone.
    pub fn finish(&mut self, step: Step, tell: &mut dyn FnMut(Change)) {
        let generation = self.generation;
        let again = match step {
            Step::Links => self.links.sweep(generation, |link| tell(Change::Link(Event::Removed, link))),
            Step::Addresses => {
                self.addresses.sweep(generation, |address| tell(Change::Address(Event::Removed, address)))
            }
            Step::Neighbors => {
                self.neighbors.sweep(generation, |neighbor| tell(Change::Neighbor(Event::Removed, neighbor)))
            }
            Step::RoutesV4 => self.routes(true).sweep(generation, tell),
            Step::RoutesV6 => self.routes(false).sweep(generation, tell),
        };
        if again {
            self.want(&[step]);
        }
    }

    /// The socket was found empty while no dump was under way.
    pub fn quiet(&mut self) {
        self.window = false;
    }

    fn routes(&mut self, v4: bool) -> &mut Routes {
        &mut self.routes[usize::from(v4)]
    }

    pub fn routes_known(&self) -> usize {
        self.routes.iter().map(Routes::len).sum()
    }

    /// Tells all that is known, in the order of dumps.
    pub fn tell_all(&self, tell: &mut dyn FnMut(Change)) {
        let event = Event::Changed;
        self.links.values().for_each(|link| tell(Change::Link(event, link.clone())));
        self.addresses.values().for_each(|address| tell(Change::Address(event, address.clone())));
        self.best_routes().for_each(|route| tell(Change::Route(event, route)));
        self.neighbors.values().for_each(|neighbor| tell(Change::Neighbor(event, neighbor.clone())));
    }

    pub fn best_routes(&self) -> impl Iterator<Item = crate::Route> {
        self.routes.iter().flat_map(Routes::best)
    }

    /// Takes a message: of a dump, or a notification.
    pub fn input(&mut self, message: &Message<'_>, dump: bool, tell: &mut dyn FnMut(Change)) {
        let done = match message.kind {
            libc::RTM_NEWLINK => self.link(message, tell),
            libc::RTM_DELLINK => self.link_gone(message, tell),
            libc::RTM_NEWADDR => self.address(message, tell),
            libc::RTM_DELADDR => self.address_gone(message, tell),
            libc::RTM_NEWNEIGH => self.neighbor(message, tell),
            libc::RTM_DELNEIGH => self.neighbor_gone(message, tell),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.route(message, dump, tell),
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
                // Routes by the object change or go without notice.
                if self.routes.iter().any(|routes| routes.has_objects) {
                    self.want(&Step::SETTLED_ROUTES);
                }
                Ok(())
            }
            _ => {
                self.stats.ignored += 1;
                Ok(())
            }
        };
        if done.is_err() {
            self.stats.malformed += 1;
        }
    }

    fn refuse(&mut self, kind: Kind, max: usize, news: bool, tell: &mut dyn FnMut(Change)) {
        self.stats.refused += 1;
        if news {
            tell(Change::TooMany(kind, max));
        }
    }

    fn link(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Change)) -> Result<(), Malformed> {
        let Some((mut link, mtu)) = parse::link(message)? else {
            self.stats.ignored += 1;
            return Ok(());
        };
        let known = self.links.get(&link.ifindex);
        match (mtu, known) {
            (Some(mtu), _) => link.mtu_bytes = mtu,
            // An event of a wireless driver, which names little else.
            (None, Some(known)) => link = Link { flags: link.flags, ..known.clone() },
            (None, None) => {
                self.stats.ignored += 1;
                return Ok(());
            }
        }
        if let Some(known) = known {
            // A link that goes down takes routes of IPv4 and next hops of both with it, and the kernel says nothing of it;
            // nor when it is up again and next hops come back, or it moves to another table.
            let carries = |link: &Link| (link.is_up(), link.is_running(), link.master);
            if carries(known) != carries(&link) {
                self.want(&Step::SETTLED_ROUTES);
            }
        }
        match self.links.put(link.ifindex, link.clone(), self.generation) {
            Put::Told(event) => tell(Change::Link(event, link)),
            Put::Same => {}
            Put::Refused => {
                let news = self.links.limit.refuse();
                self.refuse(Kind::Links, self.links.limit.max, news, tell);
            }
        }
        Ok(())
    }

    fn link_gone(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Change)) -> Result<(), Malformed> {
        if let Some((link, _)) = parse::link(message)?
            && let Some(link) = self.links.remove(&link.ifindex)
        {
            self.want(&Step::SETTLED_ROUTES);
            if self.links.limit.has_room(self.links.len()) {
                self.want(&[Step::Links]);
            }
            tell(Change::Link(Event::Removed, link));
        }
        Ok(())
    }

    fn address(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Change)) -> Result<(), Malformed> {
        let Some(address) = parse::address(message)? else {
            self.stats.ignored += 1;
            return Ok(());
        };
        match self.addresses.put(address_key(&address), address.clone(), self.generation) {
            Put::Told(event) => tell(Change::Address(event, address)),
            Put::Same => {}
            Put::Refused => {
                let news = self.addresses.limit.refuse();
                self.refuse(Kind::Addresses, self.addresses.limit.max, news, tell);
            }
        }
        Ok(())
    }

    fn address_gone(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Change)) -> Result<(), Malformed> {
        let Some(address) = parse::address(message)? else { return Ok(()) };
        if let Some(address) = self.addresses.remove(&address_key(&address)) {
            // Routes of IPv4 with this source address go without notice.
            if address.addr.is_ipv4() {
                self.want(&Step::SETTLED_ROUTES);
            }
            if self.addresses.limit.has_room(self.addresses.len()) {
                self.want(&[Step::Addresses]);
            }
            tell(Change::Address(Event::Removed, address));
        }
        Ok(())
    }

    fn neighbor(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Change)) -> Result<(), Malformed> {
        let Some(neighbor) = parse::neighbor(message)? else {
            self.stats.ignored += 1;
            return Ok(());
        };
        match self.neighbors.put((neighbor.ifindex, neighbor.addr), neighbor.clone(), self.generation) {
            Put::Told(event) => tell(Change::Neighbor(event, neighbor)),
            Put::Same => {}
            Put::Refused => {
                let news = self.neighbors.limit.refuse();
                self.refuse(Kind::Neighbors, self.neighbors.limit.max, news, tell);
            }
        }
        Ok(())
    }

    fn neighbor_gone(
        &mut self,
        message: &Message<'_>,
        tell: &mut dyn FnMut(Change),
    ) -> Result<(), Malformed> {
        let Some(neighbor) = parse::neighbor(message)? else { return Ok(()) };
        if let Some(neighbor) = self.neighbors.remove(&(neighbor.ifindex, neighbor.addr)) {
            if self.neighbors.limit.has_room(self.neighbors.len()) {
                self.want(&[Step::Neighbors]);
            }
            tell(Change::Neighbor(Event::Removed, neighbor));
        }
        Ok(())
    }

    fn route(
        &mut self,
        message: &Message<'_>,
        dump: bool,
        tell: &mut dyn FnMut(Change),
    ) -> Result<(), Malformed> {
        let (key, mut record) = match parse::route(message)? {
            RouteMessage::Route(key, record) if self.tables.contains(&key.table) => (key, record),
            RouteMessage::Selective => {
                self.stats.unsupported += 1;
                return Ok(());
            }
            RouteMessage::Route(..) | RouteMessage::Other => {
                self.stats.ignored += 1;
                return Ok(());
            }
        };
        record.generation = self.generation;
        let v4 = key.dst.is_ipv4();
        let step = if v4 { Step::RoutesV4 } else { Step::RoutesV6 };
        let new = message.kind == libc::RTM_NEWROUTE;
        if new && record.kind == crate::RouteKind::Unsupported {
            self.stats.unsupported += 1;
        }
        let routes = &mut self.routes[usize::from(v4)];
        routes.has_objects |= record.object != 0;
        let outcome = match (new, dump) {
            (true, true) => routes.dumped(key, record, tell),
            (true, false) => routes.added(key, record, message.flags, tell),
            (false, _) => routes.removed(key, &record, tell),
        };
        let (full, room) = (routes.limit.is_full(), routes.limit.has_room(routes.len()));
        match outcome {
            Outcome::Sure => {}
            Outcome::InOrder if !self.window => {}
            Outcome::InOrder | Outcome::Unsure => self.want(&[step]),
            // During a dump, without room for all, or when it is known that something is not known, it is no surprise.
            Outcome::Unknown if self.window || full || self.wanted[step as usize] => {}
            Outcome::Unknown => {
                self.stats.surprises += 1;
                self.want(&[step]);
            }
            Outcome::Refused => self.stats.refused += 1,
        }
        if !new && room {
            self.want(&[step]);
        }
        Ok(())
    }
}

fn address_key(address: &Address) -> AddressKey {
    (address.ifindex, address.addr, address.prefix_len, address.peer)
}
