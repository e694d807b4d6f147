//! The configuration of a running dataplane: the file it was started with, and every change since.
//!
//! A change by a verb is an entry of the configuration that is added, replaced or taken out; a file that is applied is a whole new
//! configuration. Both are checked as a file is, before anything is done, and carried out as the difference: what is the same in both
//! is not touched. So the running configuration can be printed at any time, and is a file that makes the same dataplane.
//!
//! What extensions do by themselves, and filters attached to interfaces that are not in the configuration, are not part of it.

mod edit;
mod steps;

use nke_filters::AttachId;

use crate::config::{self, Arg, Complaints, Config, Filter, Interface};
use crate::control_handle::Control;
use crate::entries::{self, PATIENCE};
use crate::error::Error;
use crate::report::DetachReport;
use crate::views::View;

pub use edit::Edit;
use steps::Steps;

/// The running configuration.
pub struct Running {
    control: Control,
    config: Config,
    /// Numbers of the configuration's filters, in its order.
    filters: Vec<AttachId>,
}

impl Running {
    /// Of a dataplane that was made of `config`.
    pub fn new(control: Control, config: Config, filters: Vec<AttachId>) -> Running {
        Running { control, config, filters }
    }

    /// As it is now.
    pub fn config(&mut self) -> Result<&Config, Error> {
        self.forget_gone()?;
        Ok(&self.config)
    }

    /// What would change if `new` were applied, a line each.
    pub fn difference(&mut self, new: &Config) -> Result<Vec<String>, Error> {
        self.forget_gone()?;
        Ok(config::diff(&self.config, &self.with_socket(new)))
    }

    /// Makes the dataplane what `new` says. Returns the differences there were.
    pub fn apply(&mut self, new: &Config) -> Result<Vec<String>, Error> {
        self.forget_gone()?;
        self.carry_out(new)
    }

    /// As [`Running::apply`], when filters that are gone are forgotten.
    fn carry_out(&mut self, new: &Config) -> Result<Vec<String>, Error> {
        let new = self.with_socket(new);
        let lines = config::diff(&self.config, &new);
        let fixed = config::diff(&fixed_part(&self.config), &fixed_part(&new));
        if !fixed.is_empty() {
            return Err(Error::new("NKE-CFG-008", fixed.join("; ")));
        }
        Steps {
            control: &self.control,
            config: &mut self.config,
            filters: &mut self.filters,
            done: Vec::new(),
        }
        .carry_out(&new)?;
        self.config = new;
        Ok(lines)
    }

    /// Adds, replaces or takes out an entry, and carries that out.
    pub fn edit(&mut self, edit: &Edit) -> Result<Vec<String>, Error> {
        self.forget_gone()?;
        let new = edit.on(&self.config)?;
        self.carry_out(&new)
    }

    /// Sets the MTU of an interface, and whether it is up. What a port is set to is not kept: its device says it anew at the next start.
    pub fn set(&mut self, name: &str, mtu: Option<u32>, up: Option<bool>) -> Result<Vec<String>, Error> {
        if let Some(at) = self.config.interface.iter().position(|i| i.name.as_ref() == name) {
            // A copy made before would attach them anew.
            self.forget_gone()?;
            let mut new = self.config.clone();
            let interface = &mut new.interface[at];
            interface.mtu = mtu.or(interface.mtu);
            interface.up = up.unwrap_or(interface.up);
            return self.carry_out(&new);
        }
        let mut lines = Vec::new();
        if let Some(mtu) = mtu {
            entries::set_mtu(&self.control, name, mtu)?;
            lines.push(format!("~ port {name}: mtu = {mtu}"));
        }
        if let Some(up) = up {
            entries::set_up(&self.control, name, up)?;
            lines.push(format!("~ port {name}: up = {up}"));
        }
        Ok(lines)
    }

    /// Attaches a filter behind all others.
    pub fn attach(&mut self, filter: &Filter) -> Result<AttachId, Error> {
        let id = self.control.attach(entries::attach_spec(filter))?.wait(PATIENCE)?;
        let port = filter.port.as_ref();
        let known = ["ip", "ip6"].contains(&port.as_str())
            || self.config.port.iter().any(|p| p.name.as_ref() == port)
            || self.config.interface.iter().any(|i| i.name.as_ref() == port);
        if known {
            self.config.filter.push(filter.clone());
            self.filters.push(id);
        }
        Ok(id)
    }

    /// Detaches a filter.
    pub fn detach(&mut self, id: AttachId) -> Result<DetachReport, Error> {
        let ticket = self.control.detach(id)?;
        // Whether or not it is gone in time: it is on its way out.
        forget(&mut self.config, &mut self.filters, |_, filter| filter == id);
        Ok(ticket.wait(PATIENCE)?)
    }

    /// Filters that panicked, detached themselves, or went with their interface.
    fn forget_gone(&mut self) -> Result<(), Error> {
        let table = self.control.view(View::Filters)?.wait(PATIENCE)?;
        let live: Vec<_> =
            table.as_array().into_iter().flatten().filter_map(|row| row["id"].as_u64()).collect();
        forget(&mut self.config, &mut self.filters, |_, id| !live.contains(&id.0.into()));
        Ok(())
    }

    /// The control socket is where it is, whatever a file says.
    fn with_socket(&self, new: &Config) -> Config {
        let mut new = new.clone();
        new.runtime.socket.clone_from(&self.config.runtime.socket);
        new
    }
}

/// Takes filters out of a configuration, and their numbers out of `ids`.
fn forget(config: &mut Config, ids: &mut Vec<AttachId>, which: impl Fn(&Filter, AttachId) -> bool) {
    let pairs = std::mem::take(&mut config.filter).into_iter().zip(std::mem::take(ids));
    (config.filter, *ids) = pairs.filter(|(filter, id)| !which(filter, *id)).unzip();
}

/// Takes an interface out of a configuration, with all that is on it.
fn take_out(config: &mut Config, name: &str) {
    config.interface.retain(|i| *i.name.as_ref() != name);
    config.address.retain(|a| *a.port.as_ref() != name);
    config.neighbor.retain(|n| *n.port.as_ref() != name);
    config.route.retain(|r| r.port.as_ref().is_none_or(|port| *port.as_ref() != name));
    config.filter.retain(|f| *f.port.as_ref() != name);
}

/// The interfaces that `goes` picks and those made of them, in the order they were made.
fn with_those_made_of(config: &Config, goes: impl Fn(&Interface) -> bool) -> Vec<String> {
    let mut going: Vec<String> = Vec::new();
    // What one is made of was made before it.
    for interface in &config.interface {
        let of = |arg: &Arg| matches!(arg, Arg::Text(name) if going.contains(name));
        if goes(interface) || interface.args.values().any(of) {
            going.push(interface.name.as_ref().clone());
        }
    }
    going
}

/// What can only be changed by a restart.
fn fixed_part(config: &Config) -> Config {
    Config {
        runtime: config.runtime.clone(),
        pool: config.pool.clone(),
        port: config.port.clone(),
        wire: config.wire.clone(),
        router: config.router.clone(),
        ..Config::default()
    }
}

/// Everything that is wrong, in one message: the text it is about was made here.
pub(crate) fn all_of(complaints: &Complaints) -> Error {
    let id = complaints.list.first().map_or("NKE-CFG-002", |c| c.id);
    let messages: Vec<_> = complaints.list.iter().map(|c| c.message.as_str()).collect();
    Error::new(id, messages.join("; "))
}
