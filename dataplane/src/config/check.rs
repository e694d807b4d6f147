//! Holds a configuration against itself.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;

use super::complaint::Complaint;
use super::model::{Config, Port, PortKind, Role, ethertype};
use super::near::nearest;
use super::router::{Address, KERNEL, Route, RouteKind, RouterHost, address_and_length, next_routers};

/// Ports, wires, filters and addresses at most.
const SECTIONS_MAX: usize = 256;
/// Routes and neighbours at most.
const ROUTES_MAX: usize = 16384;

/// Everything that is wrong.
pub fn check(config: &Config) -> Vec<Complaint> {
    let mut check = Check(Vec::new());
    check.sections(config);
    if !check.0.is_empty() {
        // Everything else compares each with each.
        return check.0;
    }
    check.runtime(config);
    check.ports(config);
    check.interfaces(config);
    check.wires(config);
    check.filters(config);
    check.router(config);
    check.0
}

struct Check(Vec<Complaint>);

impl Check {
    fn say(&mut self, id: &'static str, span: Range<usize>, message: String) {
        self.0.push(Complaint::new(id, (span.end > 0).then_some(span), message));
    }

    fn bounds<T: PartialOrd + Display + Copy>(
        &mut self,
        what: &str,
        value: &Spanned<T>,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(value.as_ref()) {
            let message = format!("{what} = {}: it is {} to {}", value.as_ref(), range.start(), range.end());
            self.say("NKE-CFG-003", value.span(), message);
        }
    }

    fn power_of_two(&mut self, what: &str, value: &Spanned<u32>) {
        self.bounds(what, value, 64..=1 << 16);
        if !value.as_ref().is_power_of_two() {
            let message = format!("{what} = {}: it is a power of two", value.as_ref());
            self.say("NKE-CFG-003", value.span(), message);
        }
    }

    fn sections(&mut self, config: &Config) {
        let counts = [
            ("port", config.port.len(), SECTIONS_MAX),
            ("wire", config.wire.len(), SECTIONS_MAX),
            ("filter", config.filter.len(), SECTIONS_MAX),
            // Beside the ports there are, see `IFNETS_MAX`.
            ("interface", config.interface.len(), SECTIONS_MAX - config.port.len().min(SECTIONS_MAX)),
            ("address", config.address.len(), SECTIONS_MAX),
            ("route", config.route.len(), ROUTES_MAX),
            ("neighbor", config.neighbor.len(), ROUTES_MAX),
        ];
        for (what, n, most) in counts.into_iter().filter(|(_, n, most)| n > most) {
            self.say("NKE-CFG-003", 0..0, format!("{n} [[{what}]] sections: there are at most {most}"));
        }
    }

    fn runtime(&mut self, config: &Config) {
        let runtime = &config.runtime;
        self.bounds("burst", &runtime.burst, 1..=64);
        self.bounds("stall_ms", &runtime.stall_ms, 10..=3_600_000);
        let there: Vec<_> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|c| c.id).collect();
        let cores = runtime.cores.as_ref();
        for (i, core) in cores.iter().enumerate() {
            if !there.contains(core) {
                let message = format!("core {core} is not there; there are {there:?}");
                self.say("NKE-CFG-003", runtime.cores.span(), message);
            }
            if cores[..i].contains(core) {
                self.say("NKE-CFG-005", runtime.cores.span(), format!("core {core} has two workers"));
            }
        }
        self.bounds("frames", &config.pool.frames, 64..=1 << 22);
        let size = &config.pool.frame_size;
        if !matches!(size.as_ref(), 2048 | 4096) {
            self.say(
                "NKE-CFG-003",
                size.span(),
                format!("frame_size = {}: it is 2048 or 4096", size.as_ref()),
            );
        }
    }

    fn name(&mut self, given: &Spanned<String>) {
        let name = given.as_ref();
        let well_formed = !name.is_empty()
            && name.len() <= 32
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !well_formed {
            let message = format!("name {name:?}: letters, digits, `-`, `_` and `.`, at most 32");
            self.say("NKE-CFG-003", given.span(), message);
        }
        if matches!(name.as_str(), "ip" | "ip6" | "path") {
            let message = format!("name {name:?}: IP filters or probes are attached to this name");
            self.say("NKE-CFG-003", given.span(), message);
        }
    }

    /// What an interface is made of only its kind can say, when it is made.
    fn interfaces(&mut self, config: &Config) {
        for (i, interface) in config.interface.iter().enumerate() {
            self.name(&interface.name);
            if config.interface[..i].iter().any(|other| other.name == interface.name)
                || config.port.iter().any(|port| port.name == interface.name)
            {
                let message = format!("a port or interface is called `{}` already", interface.name.as_ref());
                self.say("NKE-CFG-005", interface.name.span(), message);
            }
        }
    }

    fn ports(&mut self, config: &Config) {
        for (i, port) in config.port.iter().enumerate() {
            let name = port.name.as_ref();
            self.name(&port.name);
            if config.port[..i].iter().any(|other| other.name.as_ref() == name) {
                self.say("NKE-CFG-005", port.name.span(), format!("a second port is called `{name}`"));
            }
            self.bounds("queues", &port.queues, 1..=64);
            self.power_of_two("rx_ring", &port.rx_ring);
            self.power_of_two("tx_ring", &port.tx_ring);
            self.bounds("flows", &port.flows, 1..=1 << 20);
            self.bounds("size", &port.size, 42..=1514);
            self.keys(port);
            self.claims(port, &config.port[..i]);
        }
    }

    /// What only one port can have.
    fn claims(&mut self, port: &Port, others: &[Port]) {
        let mut say = |what: &str, name: &str, other: &Port| {
            let message = format!("{what} `{name}` is port `{}`'s already", other.name.as_ref());
            self.say("NKE-CFG-005", port.name.span(), message);
        };
        let of_xdp = |p: &&Port| p.kind == PortKind::AfXdp && port.kind == PortKind::AfXdp;
        if let Some(device) = &port.device
            && let Some(other) =
                others.iter().filter(of_xdp).find(|o| (&o.device, &o.netns) == (&port.device, &port.netns))
        {
            say("device", device, other);
        }
        if let Some(file) = &port.write
            && let Some(other) =
                others.iter().find(|o| o.write.as_ref() == Some(file) || o.read.as_ref() == Some(file))
        {
            say("file", file, other);
        }
        if port.write.is_some() && port.write == port.read {
            let message = format!("port `{}` reads the file it writes", port.name.as_ref());
            self.say("NKE-CFG-006", port.name.span(), message);
        }
    }

    /// Keys a kind of port needs, or has no use for.
    fn keys(&mut self, port: &Port) {
        let (name, span) = (port.name.as_ref().clone(), port.name.span());
        let mut need = |there: bool, key: &str| {
            if !there {
                self.say("NKE-CFG-007", span.clone(), format!("port `{name}` needs the key `{key}`"));
            }
        };
        match port.kind {
            PortKind::AfXdp => need(port.device.is_some(), "device"),
            PortKind::Memory => need(port.role.is_some(), "role"),
            PortKind::Pcap => need(port.read.is_some() || port.write.is_some(), "read` or `write"),
        }
        let foreign = [
            ("device", port.device.is_some(), PortKind::AfXdp),
            ("netns", port.netns.is_some(), PortKind::AfXdp),
            ("match", !port.select.is_empty(), PortKind::AfXdp),
            ("role", port.role.is_some(), PortKind::Memory),
            ("to_mac", port.to_mac.is_some(), PortKind::Memory),
            ("read", port.read.is_some(), PortKind::Pcap),
            ("write", port.write.is_some(), PortKind::Pcap),
        ];
        for (key, given, kind) in foreign {
            if given && kind != port.kind {
                let message = format!("port `{name}`: the key `{key}` is not for this kind of port");
                self.say("NKE-CFG-006", span.clone(), message);
            }
        }
        if port.kind != PortKind::AfXdp && *port.queues.as_ref() != 1 {
            self.say(
                "NKE-CFG-006",
                port.queues.span(),
                format!("port `{name}`: only af_xdp ports have several queues"),
            );
        }
    }

    fn wires(&mut self, config: &Config) {
        let find = |name: &Spanned<String>| config.port.iter().find(|p| p.name.as_ref() == name.as_ref());
        let mut used: Vec<&str> = Vec::new();
        for wire in &config.wire {
            for end in [&wire.a, &wire.b] {
                let name = end.as_ref().as_str();
                if find(end).is_none() {
                    self.say("NKE-CFG-004", end.span(), unknown_port(name, config));
                } else if used.contains(&name) {
                    self.say("NKE-CFG-005", end.span(), format!("port `{name}` is on a wire already"));
                }
                used.push(name);
            }
            let (Some(a), Some(b)) = (find(&wire.a), find(&wire.b)) else { continue };
            if a.queues.as_ref() != b.queues.as_ref() {
                let message = format!(
                    "ports `{}` and `{}` have {} and {} queues: both ends of a wire have the same number",
                    wire.a.as_ref(),
                    wire.b.as_ref(),
                    a.queues.as_ref(),
                    b.queues.as_ref()
                );
                self.say("NKE-CFG-006", wire.b.span(), message);
            }
            if a.role == Some(Role::Sink) && b.role == Some(Role::Sink) {
                self.say("NKE-CFG-006", wire.b.span(), "a wire between two sinks moves nothing".into());
            }
        }
    }

    fn filters(&mut self, config: &Config) {
        for filter in &config.filter {
            let port = filter.port.as_ref();
            if port == "path" {
                // Probes see all there is.
            } else if !matches!(port.as_str(), "ip" | "ip6") {
                self.port_there(&filter.port, config);
            } else if config.router.is_none() {
                let message = format!("a filter on `{port}` sees nothing without a [router]");
                self.say("NKE-CFG-006", filter.port.span(), message);
            } else if let Some(protocol) = &filter.protocol {
                let message = format!("`protocol` is for filters on ports: `{port}` is one version of IP");
                self.say("NKE-CFG-006", protocol.span(), message);
            }
            if let Some(protocol) = &filter.protocol
                && ethertype(protocol.as_ref()).is_none()
            {
                let message =
                    format!("protocol {:?}: `ip`, `ip6`, `arp`, or such as `0x88cc`", protocol.as_ref());
                self.say("NKE-CFG-003", protocol.span(), message);
            }
        }
    }
}

impl Check {
    /// Whether a port or interface has that name; says so if not.
    fn port_there(&mut self, name: &Spanned<String>, config: &Config) -> bool {
        let found = names(config).any(|known| known == name.as_ref());
        if !found {
            self.say("NKE-CFG-004", name.span(), unknown_port(name.as_ref(), config));
        }
        found
    }

    /// A port that addresses, routes and neighbours may name.
    fn routed(&mut self, name: &Spanned<String>, config: &Config) {
        let wired = config.wire.iter().any(|w| w.a == *name || w.b == *name);
        if self.port_there(name, config) && wired {
            let message = format!("port `{}` is on a wire: what it receives is not routed", name.as_ref());
            self.say("NKE-CFG-006", name.span(), message);
        }
    }

    fn router(&mut self, config: &Config) {
        let first = config.address.first().map(|a| ("address", a.port.span()));
        let first = first.or_else(|| config.route.first().map(|r| ("route", r.to.span())));
        let first = first.or_else(|| config.neighbor.first().map(|n| ("neighbor", n.port.span())));
        let Some(router) = &config.router else {
            let first = first.or_else(|| config.interface.first().map(|i| ("interface", i.name.span())));
            if let Some((what, span)) = first {
                self.say("NKE-CFG-006", span, format!("[[{what}]] without a [router] section does nothing"));
            }
            return;
        };
        self.bounds("v4_blocks", &router.v4_blocks, 1..=1 << 20);
        self.bounds("neighbors", &router.neighbors, 16..=1 << 20);
        self.bounds("reassembly_bytes", &router.reassembly_bytes, 1 << 17..=1 << 32);
        self.bounds("icmp_errors_per_second", &router.icmp_errors_per_second, 0..=1_000_000);
        if router.host == RouterHost::Kernel {
            self.kernel_host(config);
            if let Some((what, span)) = first {
                let message =
                    format!("[[{what}]] with host = \"kernel\": it is the kernel's, set it with `ip`");
                self.say("NKE-CFG-006", span, message);
            }
            return;
        }
        for (i, address) in config.address.iter().enumerate() {
            self.routed(&address.port, config);
            let host = |a: &Address| address_and_length(a.address.as_ref()).map(|(host, _)| host);
            if config.address[..i].iter().any(|other| host(other) == host(address)) {
                let message = format!("{} is given twice", address.address.as_ref());
                self.say("NKE-CFG-005", address.address.span(), message);
            }
        }
        for (i, route) in config.route.iter().enumerate() {
            self.route(route, &config.route[..i], config);
        }
        for neighbor in &config.neighbor {
            self.routed(&neighbor.port, config);
        }
    }

    /// With the kernel as host every routed port is a device of one kernel's.
    fn kernel_host(&mut self, config: &Config) {
        let netns = |port: &Port| port.netns.clone().unwrap_or_else(|| "that of `nke`".into());
        for port in config.routed_ports() {
            let name = port.name.as_ref();
            let mut say =
                |why: String| self.say("NKE-CFG-006", port.name.span(), format!("port `{name}` {why}"));
            if port.kind != PortKind::AfXdp {
                say("with host = \"kernel\": only af_xdp ports have routes there".into());
            }
            if !port.select.is_empty() {
                say("has `match`, but host = \"kernel\" says what is taken: what the kernel would forward"
                    .into());
            }
            if port.netns.as_deref() != config.kernel_netns() {
                let first = config.routed_ports().next().map(netns).unwrap_or_default();
                let here = netns(port);
                say(format!(
                    "is in network namespace {here}, others in {first}: with host = \"kernel\" there is one host"
                ));
            }
        }
        let interfaces = config.interface.iter().map(|interface| &interface.name);
        for name in config.port.iter().map(|port| &port.name).chain(interfaces) {
            if name.as_ref() == KERNEL {
                let message =
                    format!("with host = \"kernel\" `{KERNEL}` is the interface to the kernel itself");
                self.say("NKE-CFG-005", name.span(), message);
            }
        }
    }

    fn route(&mut self, route: &Route, others: &[Route], config: &Config) {
        if let Some(port) = &route.port {
            self.routed(port, config);
        }
        let to = route.to.as_ref();
        let mut say = |id, message: String| self.say(id, route.to.span(), message);
        if others.iter().any(|o| o.to.as_ref() == to) {
            say("NKE-CFG-005", format!("a second route to {to}"));
        }
        // All are of one version; a link-local one among them needs the port.
        let routers = route.via.as_ref().and_then(|via| next_routers(via.as_ref())).unwrap_or_default();
        let local = |a: &&IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let via = routers.iter().find(local).or(routers.first()).copied();
        let Some((network, _)) = address_and_length(to) else { return };
        match (route.kind, via) {
            (RouteKind::Unicast, None) if route.port.is_none() => {
                say("NKE-CFG-007", format!("the route to {to} needs `via` or `port`"));
            }
            (RouteKind::Unicast, Some(via)) if via.is_ipv4() != network.is_ipv4() => {
                say(
                    "NKE-CFG-006",
                    format!("the route to {to} goes via {via}, which is of the other version of IP"),
                );
            }
            (RouteKind::Unicast, Some(IpAddr::V6(via)))
                if via.is_unicast_link_local() && route.port.is_none() =>
            {
                say("NKE-CFG-007", format!("{via} is link-local: the route to {to} needs `port`"));
            }
            (RouteKind::Unicast, _) => (),
            _ if via.is_some() || route.port.is_some() => {
                say("NKE-CFG-006", format!("the route to {to} ends here: it takes no `via` and no `port`"));
            }
            _ => (),
        }
    }
}

/// What addresses, routes, neighbours and filters may name.
fn names(config: &Config) -> impl Iterator<Item = &str> {
    let ports = config.port.iter().map(|p| p.name.as_ref().as_str());
    ports.chain(config.interface.iter().map(|i| i.name.as_ref().as_str()))
}

fn unknown_port(name: &str, config: &Config) -> String {
    let known: Vec<_> = names(config).map(|name| format!("`{name}`")).collect();
    match nearest(name, names(config)) {
        Some(near) => format!("no port is called `{name}`; did you mean `{near}`?"),
        None if known.is_empty() => format!("no port is called `{name}`; there are none"),
        None => format!("no port is called `{name}`; there are {}", known.join(", ")),
    }
}
