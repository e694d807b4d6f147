//! The routes, as the control thread keeps them: who wants what for a prefix, and which of them the workers are given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nke_inet::fib::{Fib, Full, Prefix, Retired, Way};

/// A prefix of either version, its host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Net {
    /// First address.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub len: u8,
}

impl Net {
    /// The network `address` is in.
    pub fn of(address: IpAddr, len: u8) -> Net {
        Net { address: crate::config::network(address, len), len }
    }

    /// One address.
    pub fn host(address: IpAddr) -> Net {
        Net { address, len: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && crate::config::network(address, self.len) == self.address
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// Whose word a route is, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// An address of an interface, or a broadcast address of its network.
    Own = 0,
    /// Configuration, extension, or the kernel's table.
    Route = 1,
    /// The network an interface is on.
    Connected = 2,
    /// A neighbour that was resolved.
    Neighbor = 3,
}

impl Source {
    const ALL: [Source; 4] = [Source::Own, Source::Route, Source::Connected, Source::Neighbor];

    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            Source::Own => "own",
            Source::Route => "route",
            Source::Connected => "connected",
            Source::Neighbor => "neighbor",
        }
    }
}

/// The tables.
pub struct Routes {
    fib4: Fib<Ipv4Addr>,
    fib6: Fib<Ipv6Addr>,
    wanted: HashMap<Net, [Option<Way>; 4]>,
    /// How many prefixes of each length are wanted, of IPv6 and of IPv4.
    lengths: [[u32; 129]; 2],
}

/// Nodes of the tries that are out of use, to be reclaimed after a grace period.
#[derive(Default)]
pub struct RetiredNodes(Retired, Retired);

impl RetiredNodes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }
}

impl Routes {
    /// Without routes.
    pub fn new(v4_blocks: u32, v6_blocks: u32) -> Routes {
        let lengths = [[0; 129]; 2];
        Routes { fib4: Fib::new(v4_blocks), fib6: Fib::new(v6_blocks), wanted: HashMap::new(), lengths }
    }

    /// What workers look up in.
    pub fn tries(&self) -> (std::sync::Arc<nke_inet::fib::Trie>, std::sync::Arc<nke_inet::fib::Trie>) {
        (self.fib4.trie().clone(), self.fib6.trie().clone())
    }

    /// Prefixes workers know.
    pub fn len(&self) -> usize {
        self.fib4.len() + self.fib6.len()
    }

    /// What `source` wants for `net`.
    pub fn get(&self, net: Net, source: Source) -> Option<Way> {
        self.wanted.get(&net).and_then(|all| all[source as usize])
    }

    /// The way to `address`, were no neighbour resolved.
    pub fn covering(&self, address: IpAddr) -> Option<Way> {
        let (lengths, most) = match address {
            IpAddr::V4(_) => (&self.lengths[1], 32),
            IpAddr::V6(_) => (&self.lengths[0], 128),
        };
        (0..=most).rev().filter(|len| lengths[usize::from(*len)] > 0).find_map(|len| {
            let all = self.wanted.get(&Net::of(address, len))?;
            all[..Source::Neighbor as usize].iter().flatten().next().copied()
        })
    }

    /// Sets what `source` wants for `net`; returns what it wanted before. When the table is full nothing changes.
    pub fn set(&mut self, net: Net, source: Source, way: Option<Way>) -> Result<Option<Way>, Full> {
        let all = self.wanted.entry(net).or_default();
        let (before, best_before) = (all[source as usize], best(all));
        all[source as usize] = way;
        let now = best(all);
        if now.is_none() {
            self.wanted.remove(&net);
        }
        if now == best_before {
            return Ok(before);
        }
        let outcome = match now {
            Some((_, way)) => self.install(net, way),
            None => {
                self.uninstall(net);
                Ok(())
            }
        };
        if let Err(full) = outcome {
            let all = self.wanted.entry(net).or_default();
            all[source as usize] = before;
            if best(all).is_none() {
                self.wanted.remove(&net);
            }
            return Err(full);
        }
        let count = &mut self.lengths[usize::from(net.address.is_ipv4())][usize::from(net.len)];
        match (best_before, now) {
            (None, Some(_)) => *count += 1,
            (Some(_), None) => *count -= 1,
            _ => (),
        }
        Ok(before)
    }

    fn install(&mut self, net: Net, way: Way) -> Result<(), Full> {
        match net.address {
            IpAddr::V4(a) => self.fib4.insert(Prefix::of(a, net.len), way).map(drop),
            IpAddr::V6(a) => self.fib6.insert(Prefix::of(a, net.len), way).map(drop),
        }
    }

    fn uninstall(&mut self, net: Net) {
        match net.address {
            IpAddr::V4(a) => _ = self.fib4.remove(Prefix::of(a, net.len)),
            IpAddr::V6(a) => _ = self.fib6.remove(Prefix::of(a, net.len)),
        }
    }

    /// Nodes that went out of use since the last call.
    pub fn take_retired(&mut self) -> RetiredNodes {
        RetiredNodes(self.fib4.take_retired(), self.fib6.take_retired())
    }

    /// No worker is in them any more.
    pub fn reclaim(&mut self, nodes: RetiredNodes) {
        self.fib4.reclaim(nodes.0);
        self.fib6.reclaim(nodes.1);
    }

    /// The route to `address` that workers were given.
    pub fn to(&self, address: IpAddr) -> Option<(Net, Source, Way)> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (0..=most).rev().find_map(|len| {
            let net = Net::of(address, len);
            best(self.wanted.get(&net)?).map(|(source, way)| (net, source, way))
        })
    }

    /// What workers were given, the first `most` in order; with whose word it is.
    pub fn best(&self, most: usize) -> Vec<(Net, Source, Way)> {
        let mut all: Vec<_> = self
            .wanted
            .iter()
            .filter_map(|(net, all)| best(all).map(|(source, way)| (*net, source, way)))
            .collect();
        if most < all.len() {
            all.select_nth_unstable_by_key(most, |(net, ..)| *net);
            all.truncate(most);
        }
        all.sort_unstable_by_key(|(net, ..)| *net);
        all
    }
}

fn best(all: &[Option<Way>; 4]) -> Option<(Source, Way)> {
    let first = Source::ALL.into_iter().find_map(|source| all[source as usize].map(|way| (source, way)));
    match (first, all[Source::Neighbor as usize]) {
        // A route to one address that is on a link leads to nobody until the neighbour is resolved.
        (Some((Source::Route | Source::Connected, Way::Link(_))), Some(way)) => Some((Source::Neighbor, way)),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_source_wins_and_the_next_one_follows() {
        let mut routes = Routes::new(8, 8);
        let host = Net::host("192.0.2.1".parse().unwrap());
        let look = |routes: &Routes| routes.tries().0.lookup4(0xc000_0201).way();
        routes.set(Net::of(host.address, 24), Source::Connected, Some(Way::Link(1))).unwrap();
        assert_eq!(look(&routes), Way::Link(1));
        routes.set(host, Source::Neighbor, Some(Way::Via(7))).unwrap();
        assert_eq!(look(&routes), Way::Via(7));
        routes.set(host, Source::Own, Some(Way::Local)).unwrap();
        assert_eq!(look(&routes), Way::Local);
        routes.set(host, Source::Route, Some(Way::Blackhole)).unwrap();
        assert_eq!(look(&routes), Way::Local);
        assert_eq!(routes.set(host, Source::Own, None).unwrap(), Some(Way::Local));
        assert_eq!(look(&routes), Way::Blackhole);
        routes.set(host, Source::Route, None).unwrap();
        routes.set(host, Source::Neighbor, None).unwrap();
        assert_eq!(look(&routes), Way::Link(1));
        assert_eq!(routes.len(), 1);
        let nodes = routes.take_retired();
        assert!(!nodes.is_empty());
        routes.reclaim(nodes);
    }

    #[test]
    fn the_covering_route_is_the_longest_that_is_no_neighbor() {
        let mut routes = Routes::new(8, 8);
        let (host, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(routes.covering(host), None);
        routes.set(Net::of("0.0.0.0".parse().unwrap(), 0), Source::Route, Some(Way::Via(1))).unwrap();
        assert_eq!((routes.covering(host), routes.covering(other)), (Some(Way::Via(1)), None));
        routes.set(Net::of(host, 24), Source::Connected, Some(Way::Link(1))).unwrap();
        routes.set(Net::host(host), Source::Neighbor, Some(Way::Via(7))).unwrap();
        assert_eq!(routes.covering(host), Some(Way::Link(1)));
        routes.set(Net::of(host, 25), Source::Route, Some(Way::Blackhole)).unwrap();
        assert_eq!(routes.covering(host), Some(Way::Blackhole));
        routes.set(Net::of(host, 25), Source::Route, None).unwrap();
        routes.set(Net::of(host, 24), Source::Connected, None).unwrap();
        assert_eq!(routes.covering(host), Some(Way::Via(1)));
        routes.set(Net::of("0.0.0.0".parse().unwrap(), 0), Source::Route, None).unwrap();
        assert_eq!(routes.covering(host), None);
    }

    #[test]
    fn a_route_to_one_address_on_a_link_gives_way_to_its_neighbor() {
        let mut routes = Routes::new(8, 8);
        let host = Net::host("192.0.2.1".parse().unwrap());
        let look = |routes: &Routes| routes.tries().0.lookup4(0xc000_0201).way();
        routes.set(host, Source::Route, Some(Way::Link(1))).unwrap();
        routes.set(host, Source::Neighbor, Some(Way::Via(7))).unwrap();
        assert_eq!(look(&routes), Way::Via(7));
        routes.set(host, Source::Route, Some(Way::Via(3))).unwrap();
        assert_eq!(look(&routes), Way::Via(3));
    }

    #[test]
    fn a_full_table_keeps_what_it_had() {
        let mut routes = Routes::new(1, 1);
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.1.1".parse().unwrap());
        routes.set(Net::host(a), Source::Route, Some(Way::Local)).unwrap();
        assert!(routes.set(Net::host(b), Source::Route, Some(Way::Local)).is_err());
        assert_eq!((routes.get(Net::host(b), Source::Route), routes.len()), (None, 1));
    }
}
