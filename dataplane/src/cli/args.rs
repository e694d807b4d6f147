//! What can be said on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

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
            | Command::Explain { json, .. }
            | Command::Config(ConfigCommand::Check { json, .. } | ConfigCommand::Diff { json, .. }) => *json,
            Command::Run { .. } | Command::Config(ConfigCommand::Show { .. }) => false,
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
    /// Look at configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
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
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Attach a filter to a port.
    Attach {
        /// Kind of filter: count, drop, mirror.
        kind: String,
        /// The port.
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
    /// Explain an error by its id, or list them all.
    Explain {
        /// The id.
        id: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
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
    /// Print a file with every default filled in.
    Show {
        /// The file.
        file: PathBuf,
    },
    /// Say what changes from one file to another.
    Diff {
        /// The one.
        old: PathBuf,
        /// The other.
        new: PathBuf,
        /// As an array of lines.
        #[arg(long)]
        json: bool,
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
