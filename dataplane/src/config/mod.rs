//! The configuration: one TOML file is the truth.
//!
//! Reading it happens in two steps: `toml` takes the text apart (keys, types), `check` holds the result against itself
//! (names, bounds, what fits together). Every complaint names file, line and column, and shows the place.

mod check;
mod complaint;
mod model;

use std::fs;
use std::path::Path;

pub use complaint::{Complaint, Complaints};
pub use model::{
    Arg, Bind, Config, Direction, Filter, HugePages, Match, Mode, Pool, Port, PortKind, Role, Runtime, Wire,
    Xdp, ethertype,
};

/// Longest file read, in bytes.
const FILE_MAX: u64 = 1 << 20;

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, Complaints> {
        let name = path.display().to_string();
        let unreadable = |why: String| Complaints::of_file(&name, Complaint::new("NKE-CFG-001", None, why));
        let len = fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if len > FILE_MAX {
            return Err(unreadable(format!("{len} bytes; a configuration has at most {FILE_MAX}")));
        }
        let text = fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
        Config::parse(&text, &name)
    }

    /// Checks `text`, which complaints call `name`.
    pub fn parse(text: &str, name: &str) -> Result<Config, Complaints> {
        let config: Config = toml::from_str(text).map_err(|e| {
            let complaint = Complaint::new("NKE-CFG-002", e.span(), e.message().to_owned());
            Complaints::new(name, text, vec![complaint])
        })?;
        let complaints = check::check(&config);
        if complaints.is_empty() { Ok(config) } else { Err(Complaints::new(name, text, complaints)) }
    }
}

#[cfg(test)]
mod tests;
