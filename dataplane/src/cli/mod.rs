//! The command line of `nke`.

mod args;
mod capture;
mod output;
mod render;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::{Map, Value, json};

use args::{Cli, Command, ConfigCommand, InterfaceCommand};
use output::{print, print_json};

use crate::config::{self, Complaints, Config};
use crate::control::Client;
use crate::demo::{self, MemoryDemo, VethDemo};
use crate::doctor;
use crate::error::{CATALOGUE, Entry, Error, Exit, entry, more};
use crate::run;

/// Why a command ended badly.
enum Trouble {
    Error(Error),
    Config(Complaints),
    /// Said what it had to say already.
    Code(Exit),
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Trouble::Error(e)
    }
}

impl From<Complaints> for Trouble {
    fn from(complaints: Complaints) -> Self {
        Trouble::Config(complaints)
    }
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => ExitCode::from(report(&trouble, cli.json())),
    }
}

/// Tells what went wrong: people by standard error, and who asked for JSON also by standard output.
fn report(trouble: &Trouble, json: bool) -> u8 {
    let (value, code) = match trouble {
        Trouble::Code(exit) => return *exit as u8,
        Trouble::Error(e) => {
            output::complain(&e.to_string());
            (json!({ "ok": false, "error": e.to_json() }), e.exit_code())
        }
        Trouble::Config(complaints) => {
            output::complain(&complaints.to_string());
            (complaints.to_json(), complaints.to_error().exit_code())
        }
    };
    if json {
        print_json(&value);
    }
    code
}

fn carry_out(cli: &Cli) -> Result<(), Trouble> {
    match &cli.command {
        Command::Demo { veth, seconds, filters, .. } => show_demo(cli, *veth, *seconds, *filters),
        Command::Run { config } => {
            let mut config = Config::load(config)?;
            if let Some(socket) = cli.socket_given() {
                config.runtime.socket = socket.to_string_lossy().into_owned();
            }
            Ok(run::run(&config)?)
        }
        Command::Config(command) => configure(cli, command),
        Command::Address(change) => edit(cli, "address", change.request()),
        Command::Route(change) => edit(cli, "route", change.request()),
        Command::Neighbor(change) => edit(cli, "neighbor", change.request()),
        Command::Interface(command) => interface(cli, command),
        Command::Doctor { device, json } => {
            let report = doctor::examine(device.as_deref());
            if *json {
                print_json(&report.to_json())
            } else {
                print(&report.to_string())
            }
            match report.exit() {
                Exit::Ok => Ok(()),
                exit => Err(Trouble::Code(exit)),
            }
        }
        Command::Explain { id, json } => explain(id.as_deref(), *json),
        Command::Show { what, to, .. } => {
            show(cli, "show", json!({ "what": what.name(), "to": to }), render::table)
        }
        Command::Attach { kind, port, direction, protocol, cookie, args, .. } => {
            let args = object(args);
            let request = json!({
                "kind": kind, "port": port, "direction": direction.name(),
                "protocol": protocol, "cookie": cookie, "args": args,
            });
            show(cli, "attach", request, |reply| format!("attached as {}\n", reply["id"]))
        }
        Command::Capture(args) => Ok(capture::capture(cli, args)?),
        Command::Trace { expression, count, seconds, .. } => {
            Ok(capture::trace(cli, expression.as_deref(), *count, *seconds)?)
        }
        Command::Detach { id, .. } => show(cli, "detach", json!({ "id": id }), render::record),
    }
}

/// Asks the running dataplane, and prints its answer as JSON or by `render`.
fn show(cli: &Cli, verb: &str, args: Value, render: impl Fn(&Value) -> String) -> Result<(), Trouble> {
    let mut client = Client::connect(cli.socket()).map_err(Error::from)?;
    let answer = client.call(verb, args).map_err(Error::from)?;
    if cli.json() {
        print_json(&answer)
    } else {
        print(&render(&answer))
    }
    Ok(())
}

/// Arguments given as NAME=VALUE.
fn object(args: &[(String, String)]) -> Map<String, Value> {
    args.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
}

/// Changes an entry of the running configuration, and says what changed.
fn edit(cli: &Cli, section: &str, (verb, entry): (&str, Value)) -> Result<(), Trouble> {
    show(cli, verb, json!({ "section": section, "entry": entry }), changes)
}

fn interface(cli: &Cli, command: &InterfaceCommand) -> Result<(), Trouble> {
    match command {
        InterfaceCommand::Add { kind, name, args, mtu } => {
            let entry = json!({ "kind": kind, "name": name, "args": object(args), "mtu": mtu });
            edit(cli, "interface", ("add", entry))
        }
        InterfaceCommand::Del { name } => edit(cli, "interface", ("del", json!({ "name": name }))),
        InterfaceCommand::Set { name, mtu, up, down } => {
            let up = (*up || *down).then_some(*up);
            show(cli, "set", json!({ "interface": name, "mtu": mtu, "up": up }), changes)
        }
    }
}

/// The lines of a change.
fn changes(answer: &Value) -> String {
    let lines = answer["changes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    if text.is_empty() { "nothing to change\n".into() } else { text }
}

fn configure(cli: &Cli, command: &ConfigCommand) -> Result<(), Trouble> {
    // Complaints are about the file here, with their places in it.
    let apply = |file: &Path, dry: bool, render: &dyn Fn(&Value) -> String| {
        let text = Config::load(file)?.to_toml();
        show(cli, "apply", json!({ "config": text, "dry": dry }), render)
    };
    match command {
        ConfigCommand::Check { file, json } => {
            Config::load(file)?;
            if *json {
                print_json(&json!({ "ok": true, "mistakes": [] }));
            } else {
                print(&format!("{}: no mistakes\n", file.display()));
            }
        }
        ConfigCommand::Show { file: Some(file) } => print(&Config::load(file)?.to_toml()),
        ConfigCommand::Show { file: None } => {
            let text = |answer: &Value| answer["config"].as_str().unwrap_or_default().to_owned();
            show(cli, "config", Value::Null, text)?;
        }
        ConfigCommand::Diff { old: file, new: None, .. } => apply(file, true, &changes)?,
        ConfigCommand::Diff { old, new: Some(new), json } => {
            let lines = config::diff(&Config::load(old)?, &Config::load(new)?);
            if *json {
                print_json(&json!(lines));
            } else {
                print(&lines.iter().map(|l| format!("{l}\n")).collect::<String>());
            }
        }
        ConfigCommand::Apply { config, dry_run, .. } => apply(config, *dry_run, &changes)?,
    }
    Ok(())
}

fn show_demo(cli: &Cli, veth: bool, duration: Duration, filters: usize) -> Result<(), Trouble> {
    let failed = |e: io::Error| Error::new("NKE-RT-005", e.to_string());
    let report = if veth {
        demo::run_veth(&VethDemo { duration, cycles: u64::MAX })?
    } else {
        let demo = MemoryDemo { duration, cycles: u64::MAX, filters };
        demo::run_memory(&demo).map_err(failed)?.map_err(Error::from)?
    };
    if cli.json() {
        print_json(&serde_json::to_value(&report).map_err(|e| Error::new("NKE-RT-005", e.to_string()))?);
    } else {
        print(&format!("{report}\n"));
    }
    if report.is_clean() { Ok(()) } else { Err(Trouble::Code(Exit::Failed)) }
}

fn explain(id: Option<&str>, json: bool) -> Result<(), Trouble> {
    let as_json = |e: &Entry| {
        json!({
            "id": e.id, "title": e.title, "cause": e.cause, "cure": e.cure, "exit": e.exit as u8, "more": more(e.id),
        })
    };
    let Some(id) = id else {
        if json {
            print_json(&CATALOGUE.iter().map(as_json).collect());
        } else {
            print(&CATALOGUE.iter().map(|e| format!("{:<26} {}\n", e.id, e.title)).collect::<String>());
        }
        return Ok(());
    };
    let Some(e) = entry(id) else {
        let near = config::nearest(&id.to_ascii_uppercase(), CATALOGUE.iter().map(|e| e.id));
        let hint = near.map_or("`nke explain` lists them all".into(), |near| format!("did you mean {near}?"));
        output::complain(&format!("no error is called {id:?}; {hint}"));
        return Err(Trouble::Code(Exit::Usage));
    };
    if json {
        print_json(&as_json(e));
        return Ok(());
    }
    let more = more(e.id).map_or(String::new(), |text| format!("\n{text}\n"));
    let (id, title, cause, cure, exit) = (e.id, e.title, e.cause, e.cure, e.exit as u8);
    print(&format!("{id}: {title}\n  cause: {cause}\n  cure:  {cure}\n  exit:  {exit}\n{more}"));
    Ok(())
}
