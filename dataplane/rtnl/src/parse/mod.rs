//! What messages say: from bytes to the things that are followed. `Ok(None)` is a message about something else.

mod route;

use std::net::IpAddr;

use crate::change::{Address, Link, Neighbor};
use crate::wire::{Malformed, Message, u16_at, u32_at};

pub(crate) use route::{Hop, Record, RouteKey, RouteMessage, route};

/// An address of `family` (`AF_*`) from the bytes of an attribute.
fn address_of(family: u8, bytes: &[u8]) -> Result<IpAddr, Malformed> {
    let wrong = Malformed("an address's length is wrong");
    match i32::from(family) {
        libc::AF_INET => <[u8; 4]>::try_from(bytes).map(IpAddr::from).map_err(|_| wrong),
        libc::AF_INET6 => <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| wrong),
        _ => Err(Malformed("an address of a family without any")),
    }
}

fn is_ip(family: u8) -> bool {
    matches!(i32::from(family), libc::AF_INET | libc::AF_INET6)
}

fn number(value: &[u8]) -> Result<u32, Malformed> {
    u32_at(value, 0).ok_or(Malformed("a number is short"))
}

fn ethernet(value: &[u8]) -> Option<[u8; 6]> {
    value.try_into().ok()
}

/// A link; its MTU is `None` in the messages of wireless events, which leave it out.
pub(crate) fn link(message: &Message<'_>) -> Result<Option<(Link, Option<u32>)>, Malformed> {
    // ifinfomsg: family, padding, hardware (2), ifindex (4), flags (4), what changed (4).
    let (fixed, attributes) = message.split(16)?;
    // A bridge tells of its ports by messages of its own family: a port that leaves is not a link that goes.
    if i32::from(fixed[0]) != libc::AF_UNSPEC {
        return Ok(None);
    }
    let (hardware, ifindex, flags) = (u16_at(fixed, 2), u32_at(fixed, 4), u32_at(fixed, 8));
    let (hardware, ifindex, flags) =
        (hardware.unwrap_or_default(), ifindex.unwrap_or_default(), flags.unwrap_or_default());
    let mut link =
        Link { ifindex, name: String::new(), mac: None, mtu_bytes: 0, flags, hardware, master: None };
    let mut mtu = None;
    for attribute in attributes {
        match attribute? {
            (libc::IFLA_IFNAME, value) => {
                let name = value.split(|b| *b == 0).next().unwrap_or_default();
                if name.len() >= libc::IFNAMSIZ {
                    return Err(Malformed("a device's name is too long"));
                }
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            (libc::IFLA_ADDRESS, value) => link.mac = ethernet(value),
            (libc::IFLA_MTU, value) => mtu = Some(number(value)?),
            (libc::IFLA_MASTER, value) => link.master = Some(number(value)?).filter(|master| *master != 0),
            _ => {}
        }
    }
    Ok(Some((link, mtu)))
}

/// An address of this host.
pub(crate) fn address(message: &Message<'_>) -> Result<Option<Address>, Malformed> {
    // ifaddrmsg: family, prefix length, flags, scope, ifindex (4).
    let (fixed, attributes) = message.split(8)?;
    let (family, prefix_len) = (fixed[0], fixed[1]);
    if !is_ip(family) {
        return Ok(None);
    }
    let ifindex = u32_at(fixed, 4).unwrap_or_default();
    let (mut address, mut local, mut flags) = (None, None, u32::from(fixed[2]));
    for attribute in attributes {
        match attribute? {
            (libc::IFA_ADDRESS, value) => address = Some(address_of(family, value)?),
            (libc::IFA_LOCAL, value) => local = Some(address_of(family, value)?),
            (libc::IFA_FLAGS, value) => flags = number(value)?,
            _ => {}
        }
    }
    // With a local address, the other one is the peer's, which is this host's own on links without a peer.
    let (addr, peer) = match (local, address) {
        (Some(local), peer) => (local, peer.filter(|peer| *peer != local)),
        (None, Some(address)) => (address, None),
        (None, None) => return Err(Malformed("an address message without an address")),
    };
    if prefix_len > bits(addr) {
        return Err(Malformed("a prefix is longer than an address"));
    }
    Ok(Some(Address { ifindex, addr, prefix_len, peer, flags }))
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// A neighbour. Proxied ones are others' and not told.
pub(crate) fn neighbor(message: &Message<'_>) -> Result<Option<Neighbor>, Malformed> {
    // ndmsg: family, padding (3), ifindex (4), state (2), flags, type.
    let (fixed, attributes) = message.split(12)?;
    if !is_ip(fixed[0]) || fixed[10] & libc::NTF_PROXY != 0 {
        return Ok(None);
    }
    let (ifindex, state) = (u32_at(fixed, 4).unwrap_or_default(), u16_at(fixed, 8).unwrap_or_default());
    let (mut addr, mut mac) = (None, None);
    for attribute in attributes {
        match attribute? {
            (libc::NDA_DST, value) => addr = Some(address_of(fixed[0], value)?),
            (libc::NDA_LLADDR, value) => mac = ethernet(value),
            _ => {}
        }
    }
    let addr = addr.ok_or(Malformed("a neighbour without an address"))?;
    Ok(Some(Neighbor { ifindex, addr, mac, state }))
}

#[cfg(test)]
mod tests;
