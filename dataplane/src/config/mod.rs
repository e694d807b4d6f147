//! The configuration: one TOML file is the truth.
//!
//! Reading it happens in three steps, and each names everything that is wrong, not just the first: `toml` takes the text
//! apart, `shape` looks at keys and sorts of values, `check` holds the result against itself (names, bounds, what
//! fits together). Every complaint names file, line and column, and shows the place.

mod check;
mod complaint;
mod diff;
mod model;
mod near;
mod router;
mod schema;
mod shape;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

pub use complaint::{Complaint, Complaints};
pub use diff::diff;
pub use model::{
    Arg, Bind, Config, Direction, Filter, HugePages, Match, Mode, Pool, Port, PortKind, Role, Runtime, Wire,
    Xdp, ethertype,
};

pub use router::{
    Address, Interface, KERNEL, Neighbor, Route, RouteKind, Router, RouterHost, address_and_length, network,
    next_routers,
};

pub(crate) use near::nearest;

/// Longest file read, in bytes.
const FILE_MAX: u64 = 1 << 20;

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, Complaints> {
        let name = path.display().to_string();
        let unreadable = |why: String| Complaints::of_file(&name, Complaint::new("NKE-CFG-001", None, why));
        let mut bytes = Vec::new();
        // Not by the length it claims to have: a pipe has none, and /dev/zero no end.
        File::open(path)
            .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
            .map_err(|e| unreadable(e.to_string()))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(unreadable(format!("longer than {FILE_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            unreadable(format!("line {line} is not text in UTF-8"))
        })?;
        Config::parse(&text, &name)
    }

    /// Checks `text`, which complaints call `name`.
    pub fn parse(text: &str, name: &str) -> Result<Config, Complaints> {
        let because = |list| Complaints::new(name, text, list);
        let not_toml = |e: &toml::de::Error| Complaint::new("NKE-CFG-002", e.span(), e.message().to_owned());
        let (mut table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What the rest means is anybody's guess.
            return Err(because(errors.iter().map(not_toml).collect()));
        }
        let shape = shape::check(table.get_mut());
        let mut complaints = shape.complaints;
        match Config::deserialize(Deserializer::from(table)) {
            Ok(config) => {
                let more = check::check(&config);
                complaints.extend(more.into_iter().filter(|c| !shape.port_left_out || c.id != "NKE-CFG-004"));
                if complaints.is_empty() { Ok(config) } else { Err(because(complaints)) }
            }
            Err(e) => {
                complaints.push(not_toml(&e));
                Err(because(complaints))
            }
        }
    }

    /// As text that [`Config::parse`] makes the same of.
    pub fn to_toml(&self) -> String {
        // Every type in it has a form in TOML, which a test shows.
        toml::to_string(self).unwrap_or_else(|e| format!("# cannot be written: {e}\n"))
    }
}

#[cfg(test)]
mod tests;
