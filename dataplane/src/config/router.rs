//! The sections of a router: what ports without a wire do with packets of IP.

use std::net::IpAddr;

use std::collections::BTreeMap;

use nke_inet::fib::MEMBERS_MAX;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::model::{Arg, Config, Port};

/// Ports without a wire route.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Router {
    /// Who has addresses, resolves neighbours and answers.
    pub host: RouterHost,
    /// Second-level blocks of the IPv4 table: prefixes longer than /24 take one for each /24 they are in.
    pub v4_blocks: Spanned<u32>,
    /// Neighbours at most.
    pub neighbors: Spanned<u32>,
    /// Bytes that fragments waiting for the rest may hold, in frames.
    pub reassembly_bytes: Spanned<u64>,
    /// ICMP errors per second at most.
    pub icmp_errors_per_second: Spanned<u32>,
    /// Let the programs of af_xdp ports forward what no filter is to see.
    pub shortcut: bool,
}

impl Default for Router {
    fn default() -> Self {
        Router {
            host: RouterHost::Nke,
            v4_blocks: Spanned::new(0..0, 4096),
            neighbors: Spanned::new(0..0, 4096),
            reassembly_bytes: Spanned::new(0..0, 4 << 20),
            icmp_errors_per_second: Spanned::new(0..0, 1000),
            shortcut: true,
        }
    }
}

/// Who is the host on the routed devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouterHost {
    /// NKE itself: addresses, routes and neighbours of this file.
    #[default]
    Nke,
    /// The kernel: NKE forwards what is not for one of its addresses by its routes and neighbours, which it follows; all
    /// else the kernel gets.
    Kernel,
}

/// A virtual interface. Addresses, routes, neighbours and filters name it like a port.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: Spanned<String>,
    /// Kind of interface.
    pub kind: String,
    /// Largest packet behind the link header, in bytes; the kind's own without.
    pub mtu: Option<u32>,
    /// Whether it sends and receives from the start.
    #[serde(default = "yes")]
    pub up: bool,
    /// For the interface kind.
    #[serde(default)]
    pub args: BTreeMap<String, Arg>,
}

fn yes() -> bool {
    true
}

/// An address of a port or virtual interface, and the network it is in.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The port.
    pub port: Spanned<String>,
    /// Address and length of the network's prefix: `192.0.2.1/24`.
    pub address: Spanned<String>,
}

/// A route.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to: `198.51.100.0/24`.
    pub to: Spanned<String>,
    /// The next router, or several of equal cost, with commas between them: flows are spread over those.
    pub via: Option<Spanned<String>>,
    /// The port; needed without `via`, or when `via` is link-local.
    pub port: Option<Spanned<String>>,
    /// What to do.
    #[serde(default)]
    pub kind: RouteKind,
}

/// What a route does with packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// Forwards them.
    #[default]
    Unicast,
    /// Drops them.
    Blackhole,
    /// Drops them and says that the host is unreachable.
    Unreachable,
    /// Drops them and says that an administrator forbids it.
    Prohibit,
}

/// A neighbour that need not be asked for its address.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbor {
    /// The port it is at.
    pub port: Spanned<String>,
    /// Its address.
    pub address: Spanned<String>,
    /// Its link address: `02:00:00:00:00:01`.
    pub mac: Spanned<String>,
}

/// The interface behind which the kernel is, when it is the host.
pub const KERNEL: &str = "kernel";

impl Config {
    /// Ports that route: those on no wire.
    pub fn routed_ports(&self) -> impl Iterator<Item = &Port> {
        let wired = |port: &Port| self.wire.iter().any(|w| w.a == port.name || w.b == port.name);
        self.port.iter().filter(move |port| !wired(port))
    }

    /// The network namespace of the kernel that is the host; `None` for this one.
    pub fn kernel_netns(&self) -> Option<&str> {
        self.routed_ports().next()?.netns.as_deref()
    }
}

/// An address with the length of a prefix, as in `192.0.2.1/24`.
pub fn address_and_length(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    // No signs, no leading zeros.
    let length = length.parse().ok().filter(|n: &u8| *n <= most && length == n.to_string())?;
    Some((address, length))
}

/// Next routers, as in `192.0.2.1` or `192.0.2.1, 192.0.2.2`: all of one version of IP, none twice.
pub fn next_routers(text: &str) -> Option<Vec<IpAddr>> {
    let all: Vec<IpAddr> = text.split(',').map(|one| one.trim().parse().ok()).collect::<Option<_>>()?;
    let fit = |a: &IpAddr| !a.is_unspecified() && !a.is_multicast() && a.is_ipv4() == all[0].is_ipv4();
    let twice = (1..all.len()).any(|i| all[..i].contains(&all[i]));
    (all.iter().all(fit) && !twice && all.len() <= MEMBERS_MAX).then_some(all)
}

/// The network `address` is in: its first `length` bits, the rest zero.
pub fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(a) & mask).into())
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(a) & mask).into())
        }
    }
}
