//! DPDK's testpmd, from Debian's `dpdk-dev`: started, read, ended by its standard input and output.

use std::process::{Command, Stdio};

use nke_dataplane::port::frames::udp_frame;

use super::capture::Capture;
use super::program::Program;
use crate::stats::Error;

const PROGRAM: &str = "dpdk-testpmd";
/// What to say when it is not there.
pub const NOT_INSTALLED: &str = "testpmd is not installed: apt-get install dpdk-dev";

/// Whether it is there.
pub fn installed() -> bool {
    Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A running testpmd.
pub struct Testpmd(Program);

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
        let mut testpmd = Program::spawn("testpmd", command)?;
        // Without its devices it comes up as well, and forwards nothing.
        if !testpmd.wait_for(PROMPT)?.contains("Port 1: ") {
            return Err(testpmd.failure("opened no two devices"));
        }
        testpmd.command("start")?;
        testpmd.wait_for(PROMPT)?;
        Ok(Testpmd(testpmd))
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }
}

const PROMPT: &str = "testpmd> ";

/// Nanoseconds per packet of `io` forwarding from the pcap vdev with `infinite_rx`: each packet is allocated, copied in,
/// forwarded and freed.
pub fn memory(flows: usize, core: usize) -> Result<f64, Error> {
    let file = Capture::of(flows, udp_frame)?;
    let mbufs = if flows > 10_000 { 180_000 } else { 65_536 };
    let mut command = Command::new(PROGRAM);
    command.args(common(core));
    command.args(["--vdev".into(), file.vdev()]);
    // Periodic statistics, because only those are flushed into a pipe as they are printed.
    let more = format!(
        "-- --nb-cores=1 --rxq=1 --txq=1 --rxd=1024 --txd=1024 --burst=32 --total-num-mbufs={mbufs} --no-mlockall \
         --forward-mode=io --auto-start --stats-period=1"
    );
    command.args(more.split(' ').filter(|w| !w.is_empty()));
    let mut testpmd = Program::spawn("testpmd", command)?;
    // With a period it reads none.
    testpmd.takes_no_commands();
    // Once it reports it has its packets in memory.
    testpmd.ns_per_packet("Rx-pps:", || drop(file))
}
