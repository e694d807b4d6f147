//! DPDK's testpmd, from Debian's `dpdk`: started, read, ended by its standard input and output.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nke_dataplane::port::frames::udp_frame;

use crate::stats::{Error, median};

const PROGRAM: &str = "dpdk-testpmd";

/// Whether it is there.
pub fn installed() -> bool {
    Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A running testpmd. Dropping it ends it.
pub struct Testpmd {
    child: Child,
    stdin: Option<ChildStdin>,
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
        command.args("-- --nb-cores=1 --forward-mode=io --auto-start --no-mlockall".split(' '));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Testpmd::of(child))
    }

    fn of(mut child: Child) -> Testpmd {
        let stdin = child.stdin.take();
        Testpmd { child, stdin }
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // It ends when it reads a line.
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let end = Instant::now() + Duration::from_secs(5);
        while self.is_running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
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
    let more = format!(
        "-- --nb-cores=1 --rxq=1 --txq=1 --rxd=1024 --txd=1024 --burst=32 --total-num-mbufs={mbufs} --no-mlockall \
         --forward-mode=io --auto-start --stats-period=1"
    );
    command.args(more.split(' ').filter(|w| !w.is_empty()));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let _running = Testpmd::of(child);
    let mut rates = Vec::new();
    for line in BufReader::new(stdout).lines() {
        // "  Rx-pps:     83412345          Rx-bps: ..."
        let line = line?;
        let Some(rest) = line.trim().strip_prefix("Rx-pps:") else { continue };
        let pps: f64 = rest.split_whitespace().next().unwrap_or_default().parse()?;
        rates.push(pps);
        // The first says nothing, the second is the first whole second.
        if rates.len() == 4 {
            break;
        }
    }
    match rates.get(2..) {
        Some(rates) if median(rates) > 0.0 => Ok(1e9 / median(rates)),
        _ => Err("testpmd forwarded nothing".into()),
    }
}

/// A capture file of UDP frames; gone when dropped.
struct Capture(PathBuf);

impl Capture {
    fn of(flows: usize) -> Result<Capture, Error> {
        let path = std::env::temp_dir().join(format!("nke-bench-{}-{flows}.pcap", std::process::id()));
        let mut bytes = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for flow in 0..flows {
            let mut frame = [0; 60];
            udp_frame(&mut frame, flow as u32);
            for word in [0, 0, 60, 60u32] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(frame);
        }
        fs::write(&path, bytes)?;
        Ok(Capture(path))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
