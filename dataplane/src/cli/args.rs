//! What can be said on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

/// Network kernel extensions for Linux, in user space, at poll-mode speed.
#[derive(Parser, Debug)]
#[command(name = "nke", version, about)]
pub(super) struct Cli {
    /// Control socket of the dataplane; for `run` instead of the one in the configuration.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Cli {
    /// The control socket, if the command line names one.
    pub(super) fn socket_given(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The control socket to ask.
    pub(super) fn socket(&self) -> &Path {
        self.socket_given().unwrap_or(Path::new(crate::DEFAULT_SOCKET))
    }

    /// Whether the answer is to be JSON.
    pub(super) fn json(&self) -> bool {
        match &self.command {
            Command::Demo { json, .. }
            | Command::Doctor { json, .. }
            | Command::Show { json, .. }
            | Command::Attach { json, .. }
            | Command::Detach { json, .. }
            | Command::Capture(CaptureArgs { json, .. })
            | Command::Trace { json, .. }
            | Command::Explain { json, .. }
            | Command::Config(
                ConfigCommand::Check { json, .. }
                | ConfigCommand::Diff { json, .. }
                | ConfigCommand::Apply { json, .. },
            ) => *json,
            Command::Run { .. }
            | Command::Config(ConfigCommand::Show { .. })
            | Command::Address(_)
            | Command::Route(_)
            | Command::Neighbor(_)
            | Command::Interface(_) => false,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Show traffic, filters that come and go under load, and the account at the end.
    Demo {
        /// Over real AF_XDP on veth, in network namespaces of its own (root).
        #[arg(long)]
        veth: bool,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        /// How long, 0.1 to 3600.
        #[arg(long, value_name = "N", default_value = "5", value_parser = seconds)]
        seconds: Duration,
        /// Filters that stay attached meanwhile.
        #[arg(long, value_name = "N", default_value_t = 1)]
        filters: usize,
    },
    /// Carry out a configuration until SIGINT or SIGTERM.
    Run {
        /// The file.
        #[arg(short, long)]
        config: PathBuf,
    },
    /// Look at configurations, and apply one to the running dataplane.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Change addresses of the running dataplane.
    #[command(subcommand)]
    Address(Change<PortAddress, PortAddress>),
    /// Change routes of the running dataplane.
    #[command(subcommand)]
    Route(Change<Route, RouteTo>),
    /// Change neighbours of the running dataplane that need not be asked for.
    #[command(subcommand)]
    Neighbor(Change<Neighbor, PortAddress>),
    /// Change virtual interfaces of the running dataplane.
    #[command(subcommand)]
    Interface(InterfaceCommand),
    /// Look for what would keep NKE from working, on this machine or with this device.
    Doctor {
        /// The device.
        device: Option<String>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show tables of the running dataplane.
    Show {
        /// Which one.
        what: What,
        /// Of `routes`: only the one to this address.
        #[arg(long, value_name = "ADDRESS")]
        to: Option<std::net::IpAddr>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Attach a filter to a port.
    Attach {
        /// Kind of filter: of interfaces checksum, cipher, count, drop, mirror, policer; of IP acl, conntrack, nat, policer; of the path capture, trace.
        kind: String,
        /// The port or interface; `ip` or `ip6` for filters of IP.
        #[arg(long)]
        port: String,
        /// What it sees.
        #[arg(long, default_value = "both")]
        direction: Direction,
        /// Only this protocol: ip, ip6, arp, or an ethertype such as 0x88cc.
        #[arg(long)]
        protocol: Option<String>,
        /// Handed back to the filter.
        #[arg(long, default_value_t = 0)]
        cookie: u64,
        /// Argument of the filter, NAME=VALUE.
        #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = name_value)]
        args: Vec<(String, String)>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Detach a filter, and say what it did.
    Detach {
        /// Its number, as `show filters` tells.
        id: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write packets to a file, until the limit, the time or SIGINT.
    Capture(CaptureArgs),
    /// Follow packets through the stages, until the limit, the time or SIGINT, and show the ways they took.
    Trace {
        /// Only what this expression matches, as it is received.
        #[arg(long = "match", value_name = "EXPR")]
        expression: Option<String>,
        /// Packets at most, 1 to 10,000.
        #[arg(short, long, value_name = "N", default_value_t = 100)]
        count: u32,
        /// How long at most, 0.1 to 3600.
        #[arg(long, value_name = "S", value_parser = seconds)]
        seconds: Option<Duration>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Explain an error by its id, or list them all.
    Explain {
        /// The id.
        id: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args, Debug)]
pub(super) struct CaptureArgs {
    /// An interface; `ip` or `ip6`; `drops`.
    pub(super) place: String,
    /// The pcapng file. The process that runs the dataplane makes it, with its rights.
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: PathBuf,
    /// Only what this expression matches.
    #[arg(long = "match", value_name = "EXPR")]
    pub(super) expression: Option<String>,
    /// Packets at most.
    #[arg(short, long, value_name = "N", default_value_t = 10_000)]
    pub(super) count: u64,
    /// Bytes of packets at most.
    #[arg(long, value_name = "N", default_value_t = 64 << 20)]
    pub(super) bytes: u64,
    /// How long at most, 0.1 to 3600.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(super) seconds: Option<Duration>,
    /// Bytes kept of each packet; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) snaplen: u32,
    /// Of an interface: which way.
    #[arg(long, default_value = "both")]
    pub(super) direction: Direction,
    /// Of IP: at which hooks, such as prerouting,output.
    #[arg(long, value_name = "LIST")]
    pub(super) hook: Option<String>,
    /// Write over a file that is there.
    #[arg(long)]
    pub(super) overwrite: bool,
    /// One JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Say everything that is wrong with a file.
    Check {
        /// The file.
        file: PathBuf,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print a file, or the running configuration, with every default filled in.
    Show {
        /// The file; without, the running configuration.
        file: Option<PathBuf>,
    },
    /// Say what changes from one file to another, or from the running configuration to a file.
    Diff {
        /// The one; the other, if it is the only one given.
        old: PathBuf,
        /// The other.
        new: Option<PathBuf>,
        /// As an array of lines.
        #[arg(long)]
        json: bool,
    },
    /// Make the running dataplane what a file says, without stopping it.
    Apply {
        /// The file.
        #[arg(short, long)]
        config: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A change of one entry: `A` says all of it, `D` which one.
#[derive(Subcommand, Debug)]
pub(super) enum Change<A: clap::Args, D: clap::Args> {
    /// Add one that is not there.
    Add(A),
    /// Add one, or put it in the place of the one that is there.
    Replace(A),
    /// Take one away.
    Del(D),
}

/// An entry of a configuration, as the control socket takes it.
pub(super) trait Entry {
    fn entry(&self) -> Value;
}

impl<A: clap::Args + Entry, D: clap::Args + Entry> Change<A, D> {
    /// Verb and entry.
    pub(super) fn request(&self) -> (&'static str, Value) {
        match self {
            Change::Add(all) => ("add", all.entry()),
            Change::Replace(all) => ("replace", all.entry()),
            Change::Del(which) => ("del", which.entry()),
        }
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct PortAddress {
    /// The port or interface.
    port: String,
    /// The address; of the router itself with the length of its network's prefix: 192.0.2.1/24.
    address: String,
}

impl Entry for PortAddress {
    fn entry(&self) -> Value {
        json!({ "port": self.port, "address": self.address })
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct RouteTo {
    /// Where to: 198.51.100.0/24.
    to: String,
}

impl Entry for RouteTo {
    fn entry(&self) -> Value {
        json!({ "to": self.to })
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct Route {
    #[command(flatten)]
    to: RouteTo,
    /// The next router, or several, with commas: flows are spread over them.
    #[arg(long)]
    via: Option<String>,
    /// The port or interface; needed without `--via`, or when it is link-local.
    #[arg(long)]
    port: Option<String>,
    /// What to do: unicast, blackhole, unreachable, prohibit.
    #[arg(long)]
    kind: Option<String>,
}

impl Entry for Route {
    fn entry(&self) -> Value {
        json!({ "to": self.to.to, "via": self.via, "port": self.port, "kind": self.kind })
    }
}

#[derive(clap::Args, Debug)]
pub(super) struct Neighbor {
    #[command(flatten)]
    at: PortAddress,
    /// Its link address: 02:00:00:00:00:01.
    mac: String,
}

impl Entry for Neighbor {
    fn entry(&self) -> Value {
        json!({ "port": self.at.port, "address": self.at.address, "mac": self.mac })
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum InterfaceCommand {
    /// Make one.
    Add {
        /// Kind: vlan, vxlan, gre, tap, pair, loopback.
        kind: String,
        /// Its name.
        name: String,
        /// Argument of the kind, NAME=VALUE.
        #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = name_value)]
        args: Vec<(String, String)>,
        /// Largest packet behind the link header, in bytes.
        #[arg(long)]
        mtu: Option<u32>,
    },
    /// Take one away, with its addresses and filters and the routes by it.
    Del {
        /// Its name.
        name: String,
    },
    /// Change one, or a port.
    Set {
        /// Its name.
        name: String,
        /// Largest packet behind the link header, in bytes.
        #[arg(long)]
        mtu: Option<u32>,
        /// Let it send and receive.
        #[arg(long, conflicts_with = "down")]
        up: bool,
        /// Let it neither send nor receive.
        #[arg(long)]
        down: bool,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum What {
    Interfaces,
    Filters,
    Workers,
    Drops,
    Ledger,
    Routes,
    Neighbors,
    Protocols,
    Inet,
    Kernel,
    Reassembly,
    Conntrack,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            What::Interfaces => "interfaces",
            What::Filters => "filters",
            What::Workers => "workers",
            What::Drops => "drops",
            What::Ledger => "ledger",
            What::Routes => "routes",
            What::Neighbors => "neighbors",
            What::Protocols => "protocols",
            What::Inet => "inet",
            What::Kernel => "kernel",
            What::Reassembly => "reassembly",
            What::Conntrack => "conntrack",
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum Direction {
    Input,
    Output,
    Both,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Direction::Input => "input",
            Direction::Output => "output",
            Direction::Both => "both",
        }
    }
}

fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.1..=3600.0).contains(&n) => Ok(Duration::from_secs_f64(n)),
        _ => Err("0.1 to 3600".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert_eq!(name_value("match=udp port=5"), Ok(("match".into(), "udp port=5".into())));
        assert!(name_value("x").is_err() && name_value("=x").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["nan", "inf", "-1", "0", "1e300", "", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
