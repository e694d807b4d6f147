//! Entries of a configuration, carried out on a dataplane: each function is one `[[section]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use nke_filters::{ArgValue, Args, Cookie, Host, IfFlags, IfIndex};

use crate::command::OwnedIoctl;
use crate::config::{self, address_and_length, next_routers};
use crate::control_handle::{AttachSpec, Control};
use crate::error::Error;
use crate::fault::Fault;
use crate::inet::{Net, NextHop, Request, RouteChange, RouteTo};
use crate::snapshot::Directions;

/// How long a change may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

fn index(control: &Control, name: &str) -> Result<IfIndex, Error> {
    let found = control.shared().interface(name).map(|i| i.index);
    found.ok_or_else(|| Fault::NoInterface(name.to_owned()).into())
}

/// Text that the check of a configuration has let through is what it should be.
fn parsed<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
    parse(text).ok_or_else(|| Error::new("NKE-CFG-003", format!("{text:?}")))
}

/// Makes a virtual interface. Those before it are there already: it may name them.
pub fn make_interface(control: &Control, interface: &config::Interface) -> Result<(), Error> {
    let name = interface.name.as_ref();
    control.create_interface(&interface.kind, name, args(&interface.args))?.wait(PATIENCE)?;
    if let Some(mtu) = interface.mtu {
        set_mtu(control, name, mtu)?;
    }
    if !interface.up {
        set_up(control, name, false)?;
    }
    Ok(())
}

/// Sets the largest packet of an interface, in bytes.
pub fn set_mtu(control: &Control, name: &str, mtu: u32) -> Result<(), Error> {
    Ok(control.ioctl(name, OwnedIoctl::SetMtu(mtu))?.wait(PATIENCE)?)
}

/// Lets an interface send and receive, or not.
pub fn set_up(control: &Control, name: &str, up: bool) -> Result<(), Error> {
    let now = control.shared().ifnet_info(index(control, name)?).map_or(IfFlags::default(), |i| i.flags);
    let flags = if up { now.with(IfFlags::UP) } else { now.without(IfFlags::UP) };
    Ok(control.ioctl(name, OwnedIoctl::SetFlags(flags))?.wait(PATIENCE)?)
}

/// Takes a virtual interface away, with all that is on it.
pub fn remove_interface(control: &Control, name: &str) -> Result<(), Error> {
    Ok(control.detach_interface(name)?.wait(PATIENCE)?)
}

/// Gives an interface an address.
pub fn add_address(control: &Control, address: &config::Address) -> Result<(), Error> {
    let (host, len) = parsed(address.address.as_ref(), address_and_length)?;
    Ok(control.add_address(address.port.as_ref(), host, len)?.wait(PATIENCE)?)
}

/// Takes it away.
pub fn remove_address(control: &Control, address: &config::Address) -> Result<(), Error> {
    let (host, _) = parsed(address.address.as_ref(), address_and_length)?;
    Ok(control.remove_address(address.port.as_ref(), host)?.wait(PATIENCE)?)
}

/// Makes a neighbour known, or another one.
pub fn set_neighbor(control: &Control, neighbor: &config::Neighbor) -> Result<(), Error> {
    let mac = parsed(neighbor.mac.as_ref(), |mac| mac.parse().ok())?;
    neighbor_request(control, neighbor, Some(mac))
}

/// Forgets it.
pub fn remove_neighbor(control: &Control, neighbor: &config::Neighbor) -> Result<(), Error> {
    neighbor_request(control, neighbor, None)
}

fn neighbor_request(
    control: &Control,
    neighbor: &config::Neighbor,
    mac: Option<nke_mbuf::wire::EtherAddr>,
) -> Result<(), Error> {
    let interface = index(control, neighbor.port.as_ref())?;
    let address = parsed(neighbor.address.as_ref(), |a| a.parse::<IpAddr>().ok())?;
    Ok(control.inet(Request::Neighbor(interface, address, mac))?.wait(PATIENCE)?)
}

/// Makes a route, or changes the one there is to the same destinations.
pub fn set_route(control: &Control, route: &config::Route) -> Result<(), Error> {
    let to = match route.kind {
        config::RouteKind::Blackhole => RouteTo::Blackhole,
        config::RouteKind::Unreachable => RouteTo::Unreachable,
        config::RouteKind::Prohibit => RouteTo::Prohibit,
        config::RouteKind::Unicast => {
            let interface = route.port.as_ref().map(|port| index(control, port.as_ref())).transpose()?;
            let hop = |via| NextHop { via, interface, weight: 1 };
            RouteTo::Via(match &route.via {
                None => vec![hop(None)],
                Some(via) => {
                    let routers = parsed(via.as_ref(), next_routers)?;
                    routers.into_iter().map(|router| hop(Some(router))).collect()
                }
            })
        }
    };
    route_request(control, route, Some(to))
}

/// Takes it away.
pub fn remove_route(control: &Control, route: &config::Route) -> Result<(), Error> {
    route_request(control, route, None)
}

fn route_request(control: &Control, route: &config::Route, to: Option<RouteTo>) -> Result<(), Error> {
    let (address, len) = parsed(route.to.as_ref(), address_and_length)?;
    let change = RouteChange { net: Net { address, len }, to };
    Ok(control.inet(Request::Routes(vec![change]))?.wait(PATIENCE)?)
}

/// What attaches a filter.
pub fn attach_spec(filter: &config::Filter) -> AttachSpec {
    let mut spec = AttachSpec::kind(&filter.kind, filter.port.as_ref());
    spec.directions = match filter.direction {
        config::Direction::Input => Directions::INPUT,
        config::Direction::Output => Directions::OUTPUT,
        config::Direction::Both => Directions::BOTH,
    };
    spec.protocol = filter.protocol.as_ref().and_then(|p| config::ethertype(p.as_ref()));
    spec.cookie = Cookie(filter.cookie);
    spec.args = args(&filter.args);
    spec
}

fn args(given: &BTreeMap<String, config::Arg>) -> Args {
    let args = given.iter().map(|(name, value)| {
        let value = match value {
            config::Arg::Switch(on) => ArgValue::Switch(*on),
            config::Arg::Number(n) => ArgValue::Number(*n),
            config::Arg::Text(text) => ArgValue::Text(text.clone()),
        };
        (name.clone(), value)
    });
    Args(args.collect())
}
