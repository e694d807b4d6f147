//! The command line of `nke`.

mod args;
mod render;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::{Map, Value, json};

use args::{Cli, Command, ConfigCommand};

use crate::config::{Complaints, Config};
use crate::control::Client;
use crate::demo::{self, MemoryDemo, VethDemo};
use crate::doctor;
use crate::error::{CATALOGUE, Error, Exit, entry};
use crate::run;

/// Why a command ended badly.
enum Trouble {
    Error(Error),
    Config(Complaints),
    /// Said what it had to say already.
    Code(u8),
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Trouble::Error(e)
    }
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Code(code)) => ExitCode::from(code),
        Err(Trouble::Error(e)) => {
            eprintln!("{e}");
            ExitCode::from(e.exit_code())
        }
        Err(Trouble::Config(complaints)) => {
            eprintln!("{complaints}");
            ExitCode::from(Exit::Config as u8)
        }
    }
}

fn carry_out(cli: &Cli) -> Result<(), Trouble> {
    match &cli.command {
        Command::Demo { veth, json, seconds, filters } => {
            show_demo(*veth, *json, Duration::from_secs_f64(seconds.clamp(0.1, 3600.0)), *filters)
        }
        Command::Run { config } => {
            let config = Config::load(config).map_err(Trouble::Config)?;
            Ok(run::run(&config)?)
        }
        Command::Config(ConfigCommand::Check { file }) => {
            Config::load(file).map_err(Trouble::Config)?;
            print(&format!("{}: no mistakes\n", file.display()));
            Ok(())
        }
        Command::Config(ConfigCommand::Show { file }) => {
            let config = Config::load(file).map_err(Trouble::Config)?;
            let text = toml::to_string_pretty(&config)
                .map_err(|e| Error::new("NKE-CFG-002", format!("cannot be written as TOML: {e}")))?;
            print(&text);
            Ok(())
        }
        Command::Doctor { device, json } => {
            let report = doctor::examine(device.as_deref());
            if *json {
                print_json(&report.to_json())
            } else {
                print(&report.to_string())
            }
            match report.exit() {
                Exit::Ok => Ok(()),
                exit => Err(Trouble::Code(exit as u8)),
            }
        }
        Command::Explain { id } => explain(id.as_deref()),
        Command::Show { what, json } => {
            let table = ask(&cli.socket, "show", json!({ "what": what.name() }))?;
            if *json {
                print_json(&table)
            } else {
                print(&render::table(&table))
            }
            Ok(())
        }
        Command::Attach { kind, port, direction, protocol, cookie, args, json } => {
            let args: Map<String, Value> = args.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            let request = json!({
                "kind": kind, "port": port, "direction": direction.name(),
                "protocol": protocol, "cookie": cookie, "args": args,
            });
            let reply = ask(&cli.socket, "attach", request)?;
            if *json {
                print_json(&reply)
            } else {
                print(&format!("attached as {}\n", reply["id"]))
            }
            Ok(())
        }
        Command::Detach { id, json } => {
            let report = ask(&cli.socket, "detach", json!({ "id": id }))?;
            if *json {
                print_json(&report)
            } else {
                print(&render::record(&report))
            }
            Ok(())
        }
    }
}

fn ask(socket: &Path, verb: &str, args: Value) -> Result<Value, Error> {
    let mut client = Client::connect(socket).map_err(Error::from)?;
    client.call(verb, args).map_err(Error::from)
}

fn show_demo(veth: bool, json: bool, duration: Duration, filters: usize) -> Result<(), Trouble> {
    let failed = |e: io::Error| Error::new(if veth { "NKE-LAB-001" } else { "NKE-RT-005" }, e.to_string());
    let report = if veth {
        demo::run_veth(&VethDemo { duration, cycles: u64::MAX })?
    } else {
        demo::run_memory(&MemoryDemo { duration, cycles: u64::MAX, filters })
            .map_err(failed)?
            .map_err(Error::from)?
    };
    if json {
        print_json(&serde_json::to_value(&report).map_err(|e| Error::new("NKE-RT-005", e.to_string()))?);
    } else {
        print(&format!("{report}\n"));
    }
    if report.is_clean() { Ok(()) } else { Err(Trouble::Code(Exit::Failed as u8)) }
}

fn explain(id: Option<&str>) -> Result<(), Trouble> {
    let Some(id) = id else {
        let rows: Vec<_> = CATALOGUE.iter().map(|e| format!("{:<26} {}\n", e.id, e.title)).collect();
        print(&rows.concat());
        return Ok(());
    };
    let Some(e) = entry(id) else {
        eprintln!("no error is called {id}; `nke explain` lists them all");
        return Err(Trouble::Code(Exit::Usage as u8));
    };
    let text = format!(
        "{}: {}\n  cause: {}\n  cure:  {}\n  exit code of a command that ends with it: {}\n",
        e.id, e.title, e.cause, e.cure, e.exit as u8
    );
    print(&text);
    Ok(())
}

fn print_json(value: &Value) {
    print(&format!("{value:#}\n"));
}

/// Prints; a reader that has gone is no error.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(Exit::Failed as i32);
    }
}
