//! Which keys there are, and what may be written behind them. `model` has the same as types; a test holds the two
//! against each other.

use std::net::IpAddr;

use nke_mbuf::wire::EtherAddr;

use nke_inet::fib::MEMBERS_MAX;

use super::router::{address_and_length, network, next_routers};

/// What may be written behind a key.
pub(super) enum Kind {
    /// Any text.
    Text,
    /// Text that this says nothing against.
    TextThat(fn(&str) -> Option<String>),
    /// A whole number, at least the first and at most the second. Narrower bounds, with others to compare, are in `check`.
    Number(u64, u64),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Several whole numbers.
    Numbers,
    /// Several tables of these keys, so many at most, and if any are written then at least one.
    Tables(&'static [Key], usize),
    /// A table of arguments for a filter kind: text, whole numbers and switches under any name.
    Args,
}

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) needed: bool,
}

/// A section of the file.
pub(super) struct Section {
    pub(super) name: &'static str,
    /// Written `[[name]]`, any number of times.
    pub(super) repeated: bool,
    pub(super) keys: &'static [Key],
}

const fn need(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, needed: true }
}

const fn may(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, needed: false }
}

const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
/// TOML has no larger numbers.
const I64: u64 = i64::MAX as u64;

use Kind::{Args, Number, Numbers, Switch, Tables, Text, TextThat, Word};

/// All sections.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        name: "runtime",
        repeated: false,
        keys: &[
            may("cores", Numbers),
            may("mode", Word(&["poll", "adaptive"])),
            may("burst", Number(0, U32)),
            may("socket", TextThat(socket)),
            may("stall_ms", Number(0, I64)),
        ],
    },
    Section {
        name: "pool",
        repeated: false,
        keys: &[
            may("frames", Number(0, U32)),
            may("frame_size", Number(0, U32)),
            may("hugepages", Word(&["auto", "require", "never"])),
        ],
    },
    Section {
        name: "port",
        repeated: true,
        keys: &[
            need("name", Text),
            need("kind", Word(&["af_xdp", "memory", "pcap"])),
            may("device", TextThat(device)),
            may("netns", TextThat(netns)),
            may("queues", Number(0, U32)),
            may("xdp", Word(&["auto", "native", "generic"])),
            may("bind", Word(&["auto", "copy", "zerocopy"])),
            may("rx_ring", Number(0, U32)),
            may("tx_ring", Number(0, U32)),
            may("jumbo", Switch),
            may("need_wakeup", Switch),
            may("busy_poll_us", Number(0, 1_000_000)),
            may("force", Switch),
            may("match", Tables(MATCH, 64)),
            may("role", Word(&["source", "sink"])),
            may("flows", Number(0, U32)),
            may("size", Number(0, U32)),
            may("rate_pps", Number(0, I64)),
            may("to_mac", TextThat(mac)),
            may("read", TextThat(file)),
            may("write", TextThat(file)),
            may("loop", Switch),
        ],
    },
    Section { name: "wire", repeated: true, keys: &[need("a", Text), need("b", Text)] },
    Section {
        name: "filter",
        repeated: true,
        keys: &[
            need("kind", Text),
            need("port", Text),
            may("direction", Word(&["input", "output", "both"])),
            may("protocol", Text),
            may("cookie", Number(0, I64)),
            may("args", Args),
        ],
    },
    Section {
        name: "router",
        repeated: false,
        keys: &[
            may("host", Word(&["nke", "kernel"])),
            may("v4_blocks", Number(0, U32)),
            may("neighbors", Number(0, U32)),
            may("reassembly_bytes", Number(0, I64)),
            may("icmp_errors_per_second", Number(0, U32)),
            may("shortcut", Switch),
        ],
    },
    Section {
        name: "interface",
        repeated: true,
        keys: &[
            need("name", Text),
            need("kind", Text),
            may("mtu", Number(68, U16)),
            may("up", Switch),
            may("args", Args),
        ],
    },
    Section {
        name: "address",
        repeated: true,
        keys: &[need("port", Text), need("address", TextThat(interface_address))],
    },
    Section {
        name: "route",
        repeated: true,
        keys: &[
            need("to", TextThat(prefix)),
            may("via", TextThat(routers)),
            may("port", Text),
            may("kind", Word(&["unicast", "blackhole", "unreachable", "prohibit"])),
        ],
    },
    Section {
        name: "neighbor",
        repeated: true,
        keys: &[need("port", Text), need("address", TextThat(address)), need("mac", TextThat(mac))],
    },
];

const MATCH: &[Key] = &[
    may("ethertype", Number(0x0600, U16)),
    may("vlan", Number(0, 4095)),
    may("protocol", Number(0, 255)),
    may("src_port", Number(0, U16)),
    may("dst_port", Number(0, U16)),
];

/// `sockaddr_un` has room for so many bytes and an end.
const SOCKET_PATH_MAX: usize = 107;

fn socket(path: &str) -> Option<String> {
    let bad = path.is_empty() || path.len() > SOCKET_PATH_MAX || path.contains('\0');
    bad.then(|| format!("the path of a socket has 1 to {SOCKET_PATH_MAX} bytes"))
}

/// As the kernel's `dev_valid_name`.
fn device(name: &str) -> Option<String> {
    let bad = matches!(name, "" | "." | "..")
        || name.len() > 15
        || name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace());
    bad.then(|| "the name of a device has 1 to 15 bytes, without `/`, `:` and spaces".into())
}

/// A name, not a path: it is looked up under /run/netns, and nothing outside must be reached by it.
fn netns(name: &str) -> Option<String> {
    let bad = matches!(name, "" | "." | "..") || name.len() > 255 || name.contains(['/', '\0']);
    bad.then(|| "a namespace is written as `ip netns list` shows it, without `/`".into())
}

fn interface_address(text: &str) -> Option<String> {
    let fits = address_and_length(text).is_some_and(|(a, _)| !a.is_unspecified() && !a.is_multicast());
    (!fits).then(|| "an address and the length of its network's prefix, as in 192.0.2.1/24".into())
}

fn prefix(text: &str) -> Option<String> {
    match address_and_length(text) {
        Some((address, length)) if network(address, length) == address => None,
        Some((address, length)) => Some(format!(
            "bits behind the prefix are set: the network is {}/{length}",
            network(address, length)
        )),
        None => Some("a network, as in 198.51.100.0/24".into()),
    }
}

fn address(text: &str) -> Option<String> {
    let fits = text.parse::<IpAddr>().is_ok_and(|a| !a.is_unspecified() && !a.is_multicast());
    (!fits).then(|| "an address of one host, as in 192.0.2.1".into())
}

fn routers(text: &str) -> Option<String> {
    let fits = next_routers(text).is_some();
    (!fits).then(|| {
        format!("the address of one host, as in 192.0.2.1, or of up to {MEMBERS_MAX} different ones of the same version of IP, with commas")
    })
}

fn mac(text: &str) -> Option<String> {
    let fits = text.parse::<EtherAddr>().is_ok_and(EtherAddr::is_unicast);
    (!fits).then(|| "a link address of one station, as in 02:00:00:00:00:01".into())
}

fn file(path: &str) -> Option<String> {
    let bad = path.is_empty() || path.contains('\0');
    bad.then(|| "the path of a file is not empty".into())
}
