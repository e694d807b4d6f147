//! From one configuration to another while traffic flows.
//!
//! The order: interfaces that have to go (with all that is on them) and come, so that names are there; then the filters, all at once,
//! so that nothing is let through by a route that is there before its filter; then what is taken away of routes, neighbours and
//! addresses, and what is added. A filter that stays keeps its instance and counters. Filters run in the order of the file: so those
//! behind a new one that the file puts before them are made anew.

use std::net::IpAddr;

use nke_filters::AttachId;

use super::{forget, take_out, with_those_made_of};
use crate::config::{Address, Config, Interface, Route, address_and_length, network, next_routers};
use crate::control_handle::Control;
use crate::entries::{self, PATIENCE};
use crate::error::Error;

/// A change under way: `config` and `filters` are what is there after each step.
pub(super) struct Steps<'a> {
    pub(super) control: &'a Control,
    pub(super) config: &'a mut Config,
    pub(super) filters: &'a mut Vec<AttachId>,
    pub(super) done: Vec<String>,
}

impl Steps<'_> {
    pub(super) fn carry_out(mut self, new: &Config) -> Result<(), Error> {
        self.interfaces(new)?;
        self.filters(new)?;
        self.routes_go(new)?;
        self.neighbors_and_addresses_go(new)?;
        self.addresses_come(new)?;
        self.neighbors_come(new)?;
        self.routes_come(new)
    }

    /// One step. After the first that fails nothing more is done.
    fn step(&mut self, what: String, step: impl FnOnce(&Control) -> Result<(), Error>) -> Result<(), Error> {
        match step(self.control) {
            Ok(()) => {
                self.done.push(what);
                Ok(())
            }
            Err(e) if self.done.is_empty() => Err(e),
            Err(e) => {
                const SHOWN: usize = 20;
                let left_out = self.done.len().saturating_sub(SHOWN);
                let mut done = self.done[left_out..].join(", ");
                if left_out > 0 {
                    done = format!("{left_out} more, {done}");
                }
                let detail = format!("{what} failed ({}): {}; done before: {done}", e.id(), e.detail());
                Err(Error::new("NKE-CFG-009", detail))
            }
        }
    }

    fn interfaces(&mut self, new: &Config) -> Result<(), Error> {
        for name in going(self.config, new).into_iter().rev() {
            let on_it = self.config.address.iter().filter(|a| *a.port.as_ref() == name).cloned().collect();
            self.routes_by_routers_on(on_it)?;
            self.step(format!("interface {name} removed"), |c| entries::remove_interface(c, &name))?;
            forget(self.config, self.filters, |filter, _| *filter.port.as_ref() == name);
            take_out(self.config, &name);
        }
        for interface in &new.interface {
            let name = interface.name.as_ref();
            let Some(at) = self.config.interface.iter().position(|i| i.name == interface.name) else {
                self.step(format!("interface {name} added"), |c| entries::make_interface(c, interface))?;
                self.config.interface.push(interface.clone());
                continue;
            };
            let old = self.config.interface[at].clone();
            if let Some(mtu) = interface.mtu.filter(|mtu| old.mtu != Some(*mtu)) {
                self.step(format!("mtu of {name} set"), |c| entries::set_mtu(c, name, mtu))?;
                self.config.interface[at].mtu = Some(mtu);
            }
            if interface.up != old.up {
                let state = if interface.up { "up" } else { "down" };
                self.step(format!("{name} {state}"), |c| entries::set_up(c, name, interface.up))?;
                self.config.interface[at].up = interface.up;
            }
        }
        Ok(())
    }

    fn filters(&mut self, new: &Config) -> Result<(), Error> {
        let old = &self.config.filter;
        // Those that stay: in the order of both, up to the first new one.
        let (mut kept, mut next) = (Vec::new(), 0);
        for filter in &new.filter {
            let Some(at) = old[next..].iter().position(|o| o == filter) else { break };
            kept.push(next + at);
            next += at + 1;
        }
        let gone: Vec<_> = (0..old.len()).filter(|i| !kept.contains(i)).map(|i| self.filters[i]).collect();
        let specs: Vec<_> = new.filter[kept.len()..].iter().map(entries::attach_spec).collect();
        if gone.is_empty() && specs.is_empty() {
            return Ok(());
        }
        let mut ids: Vec<_> = kept.iter().map(|i| self.filters[*i]).collect();
        let what = format!("{} filters attached, {} detached", specs.len(), gone.len());
        self.step(what, |control| {
            ids.extend(control.refit(specs, gone)?.wait(PATIENCE)?);
            Ok(())
        })?;
        *self.filters = ids;
        self.config.filter.clone_from(&new.filter);
        Ok(())
    }

    /// Routes whose next router is on a network that goes are taken away, and come back when it does, or another has the router.
    fn routes_by_routers_on(&mut self, addresses: Vec<Address>) -> Result<(), Error> {
        let nets: Vec<_> = addresses.iter().filter_map(|a| address_and_length(a.address.as_ref())).collect();
        let by_one = |route: &&Route| {
            let via = route.via.as_ref().and_then(|via| next_routers(via.as_ref())).unwrap_or_default();
            via.into_iter().any(|via| {
                let on = |(host, len): &(IpAddr, u8)| {
                    host.is_ipv4() == via.is_ipv4() && network(*host, *len) == network(via, *len)
                };
                nets.iter().any(on)
            })
        };
        for route in self.config.route.iter().filter(by_one).cloned().collect::<Vec<_>>() {
            self.route_goes(&route)?;
        }
        Ok(())
    }

    fn route_goes(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("route to {} removed", route.to.as_ref());
        self.step(what, |c| entries::remove_route(c, route))?;
        self.config.route.retain(|r| r.to != route.to);
        Ok(())
    }

    fn routes_go(&mut self, new: &Config) -> Result<(), Error> {
        for route in self.config.route.clone() {
            if !new.route.iter().any(|r| r.to == route.to) {
                self.route_goes(&route)?;
            }
        }
        Ok(())
    }

    fn neighbors_and_addresses_go(&mut self, new: &Config) -> Result<(), Error> {
        for neighbor in self.config.neighbor.clone() {
            let same = |n: &crate::config::Neighbor| n.port == neighbor.port && n.address == neighbor.address;
            if !new.neighbor.iter().any(same) {
                let what = format!("neighbor {} removed", neighbor.address.as_ref());
                self.step(what, |c| entries::remove_neighbor(c, &neighbor))?;
                self.config.neighbor.retain(|n| !same(n));
            }
        }
        let gone = |address: &&Address| !new.address.contains(address);
        self.routes_by_routers_on(self.config.address.iter().filter(gone).cloned().collect())?;
        for address in self.config.address.clone() {
            if !new.address.contains(&address) {
                let what = format!("address {} removed", address.address.as_ref());
                self.step(what, |c| entries::remove_address(c, &address))?;
                self.config.address.retain(|a| *a != address);
            }
        }
        Ok(())
    }

    fn addresses_come(&mut self, new: &Config) -> Result<(), Error> {
        for address in &new.address {
            if !self.config.address.contains(address) {
                let what = format!("address {} added", address.address.as_ref());
                self.step(what, |c| entries::add_address(c, address))?;
                self.config.address.push(address.clone());
            }
        }
        Ok(())
    }

    fn neighbors_come(&mut self, new: &Config) -> Result<(), Error> {
        for neighbor in &new.neighbor {
            if !self.config.neighbor.contains(neighbor) {
                let what = format!("neighbor {} set", neighbor.address.as_ref());
                self.step(what, |c| entries::set_neighbor(c, neighbor))?;
                self.config.neighbor.retain(|n| n.port != neighbor.port || n.address != neighbor.address);
                self.config.neighbor.push(neighbor.clone());
            }
        }
        Ok(())
    }

    fn routes_come(&mut self, new: &Config) -> Result<(), Error> {
        for route in &new.route {
            if !self.config.route.contains(route) {
                let what = format!("route to {} set", route.to.as_ref());
                self.step(what, |c| entries::set_route(c, route))?;
                self.config.route.retain(|r| r.to != route.to);
                self.config.route.push(route.clone());
            }
        }
        Ok(())
    }
}

/// Interfaces that have to go, in the order they were made: those not in `new` or made otherwise there, and those made of them.
fn going(old: &Config, new: &Config) -> Vec<String> {
    let stays = |i: &Interface| {
        let mut same = new.interface.iter().filter(|n| n.name == i.name);
        // Without `mtu` it has its kind's own, which only the kind knows.
        same.any(|n| n.kind == i.kind && n.args == i.args && (n.mtu.is_some() || i.mtu.is_none()))
    };
    with_those_made_of(old, |interface| !stays(interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(interfaces: &str) -> Config {
        let head = "[router]\n[[port]]\nname = \"a\"\nkind = \"memory\"\nrole = \"source\"\n";
        Config::parse(&format!("{head}{interfaces}"), "test").unwrap()
    }

    #[test]
    fn what_is_made_of_an_interface_goes_with_it() {
        let vlan = |name: &str, parent: &str, tag: u32| {
            format!(
                "[[interface]]\nname = \"{name}\"\nkind = \"vlan\"\nargs = {{ parent = \"{parent}\", tag = {tag} }}\n"
            )
        };
        let old = config(&(vlan("x", "a", 1) + &vlan("y", "x", 2) + &vlan("z", "a", 3)));
        assert!(going(&old, &old).is_empty());
        let other = config(&(vlan("x", "a", 7) + &vlan("y", "x", 2) + &vlan("z", "a", 3)));
        assert_eq!(going(&old, &other), ["x", "y"]);
        assert_eq!(going(&old, &config(&vlan("z", "a", 3))), ["x", "y"]);
        let mtu = config(&(vlan("x", "a", 1) + "mtu = 1400\n" + &vlan("y", "x", 2) + &vlan("z", "a", 3)));
        assert!(going(&old, &mtu).is_empty(), "a new MTU is only set");
        assert_eq!(going(&mtu, &old), ["x", "y"], "back to the kind's own");
    }
}
