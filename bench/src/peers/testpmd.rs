//! DPDK's testpmd, from Debian's `dpdk-dev`: started, read, ended by its standard input and output.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nke_dataplane::pcapfile::ClassicWriter;
use nke_dataplane::port::frames::udp_frame;

use super::output::{Missed, Output};
use crate::stats::{Error, median};

const PROGRAM: &str = "dpdk-testpmd";
/// What to say when it is not there.
pub const NOT_INSTALLED: &str = "testpmd is not installed: apt-get install dpdk-dev";

/// To start: DPDK maps and clears a gigabyte of huge pages first.
const START: Duration = Duration::from_secs(30);
/// To stop: sockets are closed, threads joined.
const STOP: Duration = Duration::from_secs(5);
/// Reports of its rate that are left out: the first says nothing, the second is the first whole second.
const WARM_UP: usize = 2;
/// Reports that count.
const REPORTS: usize = 2;

/// Whether it is there.
pub fn installed() -> bool {
    Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A running testpmd. Dropping it ends it. Should we be killed, it ends as well: its input does, or nobody reads its output.
pub struct Testpmd {
    child: Child,
    /// For commands, and thus for a clean end; none if it takes no commands.
    stdin: Option<ChildStdin>,
    output: Output,
}

/// Arguments every use has: main thread on the core that does not forward.
fn common(core: usize) -> Vec<String> {
    let main = if core == 0 { 1 } else { 0 };
    let eal = format!("-l {main},{core} --main-lcore {main} --no-pci --in-memory --no-telemetry -m 1024");
    eal.split(' ').map(str::to_owned).collect()
}

impl Testpmd {
    /// Forwards between the AF_XDP devices `a` and `b`, in whatever namespace `command` runs its program.
    pub fn af_xdp(mut command: Command, a: &str, b: &str, core: usize) -> Result<Testpmd, Error> {
        command.args(common(core));
        for (i, device) in [a, b].iter().enumerate() {
            command.args(["--vdev".into(), format!("net_af_xdp{i},iface={device}")]);
        }
        command.args("-- -i --nb-cores=1 --forward-mode=io --no-mlockall".split(' '));
        let mut testpmd = Testpmd::spawn(command)?;
        // Without its devices it comes up as well, and forwards nothing.
        if !testpmd.await_prompt()?.contains("Port 1: ") {
            return Err(testpmd.failure("opened no two devices"));
        }
        testpmd.command("start")?;
        testpmd.await_prompt()?;
        Ok(testpmd)
    }

    fn spawn(mut command: Command) -> Result<Testpmd, Error> {
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        // Not in our process group: a ^C is for us, and we end it in order.
        let mut child = command.process_group(0).spawn()?;
        // It holds our copies of the pipe's other end.
        drop(command);
        let stdin = child.stdin.take();
        Ok(Testpmd { child, stdin, output: Output::read(reader) })
    }

    fn command(&mut self, line: &str) -> Result<(), Error> {
        let stdin = self.stdin.as_mut().ok_or("testpmd takes no commands")?;
        Ok(writeln!(stdin, "{line}")?)
    }

    /// What it said before the prompt.
    fn await_prompt(&self) -> Result<String, Error> {
        self.output.wait_for("testpmd> ", START).map_err(|missed| self.missed(missed))
    }

    fn missed(&self, missed: Missed) -> Error {
        self.failure(match missed {
            Missed::Ended => "has ended",
            Missed::Timeout => "does not answer",
        })
    }

    fn failure(&self, what: &str) -> Error {
        format!("testpmd {what}; its last words:\n{}", self.output.tail()).into()
    }

    /// Packets per second received, of the next report.
    fn rate(&self) -> Result<f64, Error> {
        // "  Rx-pps:     83412345          Rx-bps: ..."
        let line = self.output.wait_for("Rx-pps:", START).and_then(|_| self.output.line(START));
        let line = line.map_err(|missed| self.missed(missed))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Testpmd {
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

/// Nanoseconds per packet of `io` forwarding from the pcap vdev with `infinite_rx`: each packet is allocated, copied in,
/// forwarded and freed.
pub fn memory(flows: usize, core: usize) -> Result<f64, Error> {
    let file = Capture::of(flows)?;
    let mbufs = if flows > 10_000 { 180_000 } else { 65_536 };
    let mut command = Command::new(PROGRAM);
    command.args(common(core));
    command.args(["--vdev".into(), format!("net_pcap0,rx_pcap={},infinite_rx=1", file.0.display())]);
    // Periodic statistics, because only those are flushed into a pipe as they are printed.
    let more = format!(
        "-- --nb-cores=1 --rxq=1 --txq=1 --rxd=1024 --txd=1024 --burst=32 --total-num-mbufs={mbufs} --no-mlockall \
         --forward-mode=io --auto-start --stats-period=1"
    );
    command.args(more.split(' ').filter(|w| !w.is_empty()));
    let mut testpmd = Testpmd::spawn(command)?;
    // With a period it reads no commands. It holds nothing that outlives it, so that it may be killed.
    testpmd.stdin = None;
    let mut rates = vec![testpmd.rate()?];
    // It has its packets in memory now.
    drop(file);
    while rates.len() < WARM_UP + REPORTS {
        rates.push(testpmd.rate()?);
    }
    match median(&rates[WARM_UP..]) {
        pps if pps > 0.0 => Ok(1e9 / pps),
        _ => Err(testpmd.failure("forwarded nothing")),
    }
}

/// A capture file of UDP frames; gone when dropped.
struct Capture(PathBuf);

impl Capture {
    fn of(flows: usize) -> Result<Capture, Error> {
        let path = std::env::temp_dir().join(format!("nke-bench-{}-{flows}.pcap", std::process::id()));
        let mut writer = ClassicWriter::new(BufWriter::new(File::create(&path)?))?;
        let capture = Capture(path);
        for flow in 0..flows {
            let mut frame = [0; 60];
            udp_frame(&mut frame, flow as u32);
            writer.write(0, &frame)?;
        }
        writer.flush()?;
        Ok(capture)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
