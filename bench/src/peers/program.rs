//! A peer that runs: what it prints is read, and it is ended with us.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::output::{Missed, Output};
use crate::stats::{Error, median};

/// To start: DPDK maps and clears a gigabyte of huge pages first.
const START: Duration = Duration::from_secs(60);
/// To stop: sockets are closed, threads joined.
const STOP: Duration = Duration::from_secs(5);
/// Reports of its rate that are left out: the first says nothing, the second is the first whole period.
const WARM_UP: usize = 2;
/// Reports that count.
const REPORTS: usize = 2;

/// A running program. Dropping it ends it. Should we be killed, it ends as well: its input does, or nobody reads its output.
pub struct Program {
    name: &'static str,
    child: Child,
    /// For commands, and thus for a clean end; none if it takes no commands.
    stdin: Option<ChildStdin>,
    output: Output,
}

impl Program {
    /// Starts `command`, called `name` in messages.
    pub fn spawn(name: &'static str, mut command: Command) -> Result<Program, Error> {
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        // Not in our process group: a ^C is for us, and we end it in order.
        let mut child = command.process_group(0).spawn()?;
        // It holds our copies of the pipe's other end.
        drop(command);
        let stdin = child.stdin.take();
        Ok(Program { name, child, stdin, output: Output::read(reader) })
    }

    /// It reads no commands, and holds nothing that outlives it: it is killed in the end.
    pub fn takes_no_commands(&mut self) {
        self.stdin = None;
    }

    /// Writes a line to its input.
    pub fn command(&mut self, line: &str) -> Result<(), Error> {
        let stdin = self.stdin.as_mut().ok_or_else(|| format!("{} takes no commands", self.name))?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// What it said before `text`.
    pub fn wait_for(&self, text: &str) -> Result<String, Error> {
        self.output.wait_for(text, START).map_err(|missed| self.missed(missed))
    }

    fn missed(&self, missed: Missed) -> Error {
        self.failure(match missed {
            Missed::Ended => "has ended",
            Missed::Timeout => "does not answer",
        })
    }

    /// An error with its last words.
    pub fn failure(&self, what: &str) -> Error {
        format!("{} {what}; its last words:\n{}", self.name, self.output.tail()).into()
    }

    /// The number behind `label` in its next report.
    pub fn report(&self, label: &str) -> Result<f64, Error> {
        // "  Rx-pps:     83412345          Rx-bps: ..."
        self.wait_for(label)?;
        let line = self.output.line(START).map_err(|missed| self.missed(missed))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// Nanoseconds per packet by its reports of `label`, packets per second.
    pub fn ns_per_packet(&self, label: &str, first_seen: impl FnOnce()) -> Result<f64, Error> {
        let mut rates = vec![self.report(label)?];
        first_seen();
        while rates.len() < WARM_UP + REPORTS {
            rates.push(self.report(label)?);
        }
        match median(&rates[WARM_UP..]) {
            pps if pps > 0.0 => Ok(1e9 / pps),
            _ => Err(self.failure("forwarded nothing")),
        }
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.stdin.is_some() && self.command("quit").is_ok() {
            let end = Instant::now() + STOP;
            while self.is_running() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
