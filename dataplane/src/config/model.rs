//! The sections of a configuration. Values that others refer to, or that have bounds, keep their place in the text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::router::{Address, Interface, Neighbor, Route, Router};

/// The whole file.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Workers and control socket.
    pub runtime: Runtime,
    /// Memory for packets.
    pub pool: Pool,
    /// Where packets come from and go to.
    pub port: Vec<Port>,
    /// Pairs of ports that are joined.
    pub wire: Vec<Wire>,
    /// Filters attached at the start, in this order.
    pub filter: Vec<Filter>,
    /// Ports without a wire route, if this is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// Virtual interfaces, made in this order.
    pub interface: Vec<Interface>,
    /// Addresses of routed ports and interfaces.
    pub address: Vec<Address>,
    /// Routes.
    pub route: Vec<Route>,
    /// Neighbours known from the start.
    pub neighbor: Vec<Neighbor>,
}

/// Workers and control socket.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// One worker per entry, pinned to that core; empty for one worker that is not pinned.
    pub cores: Spanned<Vec<usize>>,
    /// Poll always, or sleep when idle.
    pub mode: Mode,
    /// Packets per burst, 1 to 64.
    pub burst: Spanned<usize>,
    /// Path of the control socket.
    pub socket: String,
    /// A worker whose round takes longer is reported, in milliseconds.
    pub stall_ms: Spanned<u64>,
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime {
            cores: Spanned::new(0..0, Vec::new()),
            mode: Mode::Poll,
            burst: Spanned::new(0..0, 64),
            socket: crate::DEFAULT_SOCKET.into(),
            stall_ms: Spanned::new(0..0, 1000),
        }
    }
}

/// How workers spend their time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Never sleep.
    #[default]
    Poll,
    /// Sleep in poll(2) when nothing arrives.
    Adaptive,
}

/// Memory for packets.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Number of frames.
    pub frames: Spanned<u32>,
    /// Bytes per frame: 2048 or 4096.
    pub frame_size: Spanned<u32>,
    /// Use huge pages.
    pub hugepages: HugePages,
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            frames: Spanned::new(0..0, 16384),
            frame_size: Spanned::new(0..0, 2048),
            hugepages: HugePages::Auto,
        }
    }
}

/// Whether to use huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// If there are any.
    #[default]
    Auto,
    /// Or fail.
    Require,
    /// No.
    Never,
}

/// What is behind a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// A network device.
    AfXdp,
    /// A source or sink in memory.
    Memory,
    /// Files.
    Pcap,
}

/// A port. Which keys it may have depends on its kind.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name in NKE.
    pub name: Spanned<String>,
    /// What is behind it.
    pub kind: PortKind,
    /// af_xdp: the device.
    pub device: Option<String>,
    /// af_xdp: name of the network namespace the device is in.
    pub netns: Option<String>,
    /// af_xdp: queues to use, from 0 on.
    #[serde(default = "one")]
    pub queues: Spanned<u32>,
    /// af_xdp: where the XDP program runs.
    #[serde(default)]
    pub xdp: Xdp,
    /// af_xdp: copy or zero-copy.
    #[serde(default)]
    pub bind: Bind,
    /// af_xdp: entries of the receive ring.
    #[serde(default = "ring")]
    pub rx_ring: Spanned<u32>,
    /// af_xdp: entries of the transmit ring.
    #[serde(default = "ring")]
    pub tx_ring: Spanned<u32>,
    /// af_xdp: packets may take several frames.
    #[serde(default)]
    pub jumbo: bool,
    /// af_xdp: let the kernel say when it needs a kick.
    #[serde(default = "yes")]
    pub need_wakeup: bool,
    /// af_xdp: busy polling for so many microseconds per kick; 0 for none.
    #[serde(default)]
    pub busy_poll_us: u32,
    /// af_xdp: take the device although the default route or this SSH session goes through it.
    #[serde(default)]
    pub force: bool,
    /// af_xdp: take only what one of these fits.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub select: Vec<Match>,
    /// memory: source or sink.
    pub role: Option<Role>,
    /// memory source: different flows.
    #[serde(default = "flows")]
    pub flows: Spanned<usize>,
    /// memory source: bytes per frame, without the frame check sequence.
    #[serde(default = "size")]
    pub size: Spanned<usize>,
    /// memory source: link address its packets are sent to; needed for a routed port to take them.
    pub to_mac: Option<String>,
    /// memory source: packets per second; 0 for as fast as possible.
    #[serde(default)]
    pub rate_pps: u64,
    /// pcap: file to replay.
    pub read: Option<String>,
    /// pcap: file to record to.
    pub write: Option<String>,
    /// pcap: start over at the end of the file.
    #[serde(default, rename = "loop")]
    pub looped: bool,
}

fn one() -> Spanned<u32> {
    Spanned::new(0..0, 1)
}
fn ring() -> Spanned<u32> {
    Spanned::new(0..0, 2048)
}
fn flows() -> Spanned<usize> {
    Spanned::new(0..0, 256)
}
fn size() -> Spanned<usize> {
    Spanned::new(0..0, 60)
}
fn yes() -> bool {
    true
}

/// Where an XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Xdp {
    #[default]
    Auto,
    Native,
    Generic,
}

/// How frames get to the UMEM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Bind {
    #[default]
    Auto,
    Copy,
    ZeroCopy,
}

/// What a memory port does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Makes packets.
    Source,
    /// Takes packets.
    Sink,
}

/// Conditions on packets to take from the kernel; all given ones must hold.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Network protocol, behind VLAN tags.
    pub ethertype: Option<u16>,
    /// VLAN id of either tag.
    pub vlan: Option<u16>,
    /// Transport protocol.
    pub protocol: Option<u8>,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
}

/// Two ports that are joined: what one receives the other sends.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wire {
    /// One end.
    pub a: Spanned<String>,
    /// The other.
    pub b: Spanned<String>,
}

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Direction {
    Input,
    Output,
    #[default]
    Both,
}

/// A filter attached at the start.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Kind of filter.
    pub kind: String,
    /// Port it is attached to, or `ip` or `ip6`.
    pub port: Spanned<String>,
    /// What it sees.
    #[serde(default)]
    pub direction: Direction,
    /// Only this protocol: `ip`, `ip6`, `arp`, or an ethertype such as `0x88cc`.
    pub protocol: Option<Spanned<String>>,
    /// Handed back to the filter.
    #[serde(default)]
    pub cookie: u64,
    /// For the filter kind.
    #[serde(default)]
    pub args: BTreeMap<String, Arg>,
}

/// An argument of a filter.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Arg {
    Switch(bool),
    Number(i64),
    Text(String),
}

/// The ethertype a protocol's name stands for.
pub fn ethertype(name: &str) -> Option<u16> {
    match name {
        "ip" => Some(0x0800),
        "ip6" => Some(0x86dd),
        "arp" => Some(0x0806),
        _ => name.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok()),
    }
}
