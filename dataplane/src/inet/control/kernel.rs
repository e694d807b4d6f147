//! With the kernel's tables: addresses are its own, neighbours are as it says, and its routes decide who is on a link.
//!
//! A neighbour of which the link address is known gets a route of its own if the longest route that covers it says that it
//! is on this neighbour's link. The kernel may know others: they are routers of routes, or were on the link before its
//! routes were changed. So each change of a route looks at the known neighbours in its prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nke_filters::IfIndex;
use nke_inet::neigh::State;

use super::{InKernel, Inet, InetError, own_nets};
use crate::inet::routes::{Net, Source};
use crate::inet::tables::Way;

impl Inet {
    pub(super) fn mirrors_kernel(&self) -> bool {
        self.tables.settings.kernel
    }

    pub(super) fn kernel_neighbor(
        &mut self,
        interface: IfIndex,
        address: IpAddr,
        known: InKernel,
        now_ms: u64,
    ) -> Result<(), InetError> {
        let (interface, out) = (interface.0, &mut self.out);
        match known {
            InKernel::Known(mac, state) => {
                let id = self.neighbors.set(interface, address, Some(mac), state, now_ms, out);
                return id.map(drop).ok_or(InetError::NeighborsFull(address));
            }
            InKernel::Failed => _ = self.neighbors.set(interface, address, None, State::Failed, now_ms, out),
            InKernel::Forgotten => _ = self.neighbors.forget(interface, address, now_ms, out),
        }
        Ok(())
    }

    pub(super) fn host_behind(&mut self, interface: u16) {
        self.host = Some(interface);
        let all: Vec<_> = self.ports.values().flat_map(|port| port.addresses.clone()).collect();
        all.into_iter().for_each(|(address, len)| self.own_in_kernel(address, len));
    }

    /// An address of the kernel's came or went: packets for it that got here all the same go back to the kernel.
    pub(super) fn own_in_kernel(&mut self, address: IpAddr, len: u8) {
        let Some(host) = self.host else { return };
        for net in own_nets(address, len) {
            let mut all = self.ports.values().flat_map(|port| &port.addresses);
            let there = all.any(|(address, len)| own_nets(*address, *len).any(|own| own == net));
            if self.routes.set(net, Source::Own, there.then_some(Way::Link(host))).is_err() {
                self.rejected += 1;
            }
        }
    }

    /// A route to `net` was changed.
    pub(super) fn place_neighbors(&mut self, net: Net) {
        if !self.mirrors_kernel() {
            return;
        }
        let range = (net.address, 0, 0)..=(last_of(net), u16::MAX, u32::MAX);
        let inside: Vec<_> = self.known.range(range).map(|(address, ..)| *address).collect();
        inside.into_iter().for_each(|address| self.place_neighbor(address));
    }

    /// Gives a neighbour its route, or takes it.
    pub(super) fn place_neighbor(&mut self, address: IpAddr) {
        let on_link = match self.routes.covering(address) {
            Some(Way::Link(interface)) => {
                let at = (address, interface, 0)..=(address, interface, u32::MAX);
                self.known.range(at).next().map(|(.., id)| Way::Via(*id))
            }
            _ => None,
        };
        let net = Net::host(address);
        if self.routes.get(net, Source::Neighbor) != on_link
            && self.routes.set(net, Source::Neighbor, on_link).is_err()
        {
            self.rejected += 1;
        }
    }
}

/// The last address of a network.
fn last_of(net: Net) -> IpAddr {
    match net.address {
        IpAddr::V4(first) => {
            let hosts = u32::MAX.checked_shr(net.len.into()).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() | hosts))
        }
        IpAddr::V6(first) => {
            let hosts = u128::MAX.checked_shr(net.len.into()).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() | hosts))
        }
    }
}

#[cfg(test)]
mod tests;
