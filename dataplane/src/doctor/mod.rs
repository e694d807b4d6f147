//! `nke doctor`: looks for what would keep NKE from working, and says what to do about it. Changes nothing.

mod device;
mod host;

use std::fmt;
use std::fs;

use serde_json::{Value, json};

use crate::error::Exit;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Good.
    Ok,
    /// Works, but could be better, or worse than expected.
    Warn,
    /// AF_XDP will not work.
    Fail,
}

impl State {
    /// Good if `good`, else worth a warning.
    fn warn_unless(good: bool) -> State {
        if good { State::Ok } else { State::Warn }
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// One thing looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// Stable name of what it is about.
    pub id: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub cure: String,
    /// A failure here is one of privilege, not of the device.
    privilege: bool,
}

/// All checks.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis(pub Vec<Check>);

/// Looks at the machine, and at `device` if there is one.
pub fn examine(device: Option<&str>) -> Diagnosis {
    let mut d = Diagnosis::default();
    host::examine(&mut d);
    if let Some(device) = device {
        device::examine(&mut d, device);
    }
    d
}

impl Diagnosis {
    /// Notes a check. The cure is for when it is not good.
    fn add(&mut self, id: &'static str, state: State, found: impl Into<String>, cure: impl Into<String>) {
        let cure = if state == State::Ok { String::new() } else { cure.into() };
        self.0.push(Check { id, state, found: found.into(), cure, privilege: false });
    }

    /// Notes a check that fails for want of privilege, or not at all.
    fn add_privilege(&mut self, id: &'static str, state: State, found: String, cure: &str) {
        self.add(id, state, found, cure);
        if let Some(check) = self.0.last_mut() {
            check.privilege = true;
        }
    }

    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        let failed = |privilege| self.0.iter().any(|c| c.state == State::Fail && c.privilege == privilege);
        if failed(false) {
            Exit::Device
        } else if failed(true) {
            Exit::Privilege
        } else {
            Exit::Ok
        }
    }

    /// As one JSON object.
    pub fn to_json(&self) -> Value {
        let row =
            |c: &Check| json!({ "check": c.id, "state": c.state.name(), "found": c.found, "cure": c.cure });
        json!({ "ok": self.exit() == Exit::Ok, "checks": self.0.iter().map(row).collect::<Vec<_>>() })
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in &self.0 {
            // What a failure is must not be overlooked.
            let word = if c.state == State::Fail { "FAIL" } else { c.state.name() };
            writeln!(f, "{word:<5} {:<18} {}", c.id, c.found)?;
            if !c.cure.is_empty() {
                writeln!(f, "{:>24} -> {}", "", c.cure)?;
            }
        }
        Ok(())
    }
}

/// What is in a small file, without the end of the line.
fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// A number in a small file.
fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_looked_at_and_a_missing_device_fails() {
        let d = examine(Some("nowhere0"));
        assert!(d.0.len() > 10);
        let device = d.0.iter().find(|c| c.id == "device").unwrap();
        assert_eq!((device.state, d.exit()), (State::Fail, Exit::Device));
        assert!(d.0.iter().all(|c| (c.state == State::Ok) == c.cure.is_empty()));
        assert!(d.0.iter().all(|c| !c.found.is_empty()), "{d}");
        assert_eq!(d.to_json()["ok"], json!(false));
        // A name that would lead out of /sys/class/net is no device.
        assert_eq!(examine(Some("../../../etc")).exit(), Exit::Device);
    }

    #[test]
    fn checks_have_names_of_their_own() {
        let d = examine(Some("lo"));
        let mut ids: Vec<_> = d.0.iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), d.0.len());
        assert!(ids.iter().all(|id| id.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    }
}
