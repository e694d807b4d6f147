//! DPDK's l3fwd, from the sources in Debian's `dpdk-doc`: built in a directory of our own for this machine's processor, and
//! made to say its rate.
//!
//! What is changed in it: offloads that the pcap vdev does not have are not asked for, and there are mbufs for 65,536 frames;
//! its longest-prefix match has room for our routes (1,024 rules and 256 blocks behind /24 as it comes). Its path is as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::capture::Capture;
use super::program::Program;
use crate::stats::Error;

/// Where Debian puts the sources.
const SOURCES: &str = "/usr/share/dpdk/examples";
/// What to say when it cannot be built.
pub const NOT_INSTALLED: &str = "l3fwd is left out: apt-get install dpdk-dev dpdk-doc gcc make";

/// Says the rate.
const RATE: &str = include_str!("rate.c");

/// In file, text, replacement: each must be there.
const CHANGES: [(&str, &str, &str); 6] = [
    ("main.c", ".offloads = RTE_ETH_RX_OFFLOAD_CHECKSUM,", ".offloads = 0,"),
    ("main.c", "(unsigned)8192)", "(unsigned)180000)"),
    ("l3fwd_lpm.c", "IPV4_L3FWD_LPM_MAX_RULES         1024", "IPV4_L3FWD_LPM_MAX_RULES 131072"),
    ("l3fwd_lpm.c", "IPV4_L3FWD_LPM_NUMBER_TBL8S (1 << 8)", "IPV4_L3FWD_LPM_NUMBER_TBL8S (1 << 12)"),
    ("Makefile", "SRCS-y := ", "SRCS-y := rate.c "),
    ("Makefile", "CFLAGS += -DALLOW_EXPERIMENTAL_API", "CFLAGS += -DALLOW_EXPERIMENTAL_API -march=native"),
];

/// A built l3fwd; its directory is gone when dropped.
pub struct L3fwd(PathBuf);

/// How it finds a packet's way.
#[derive(Clone, Copy)]
pub enum Lookup {
    /// Longest-prefix match. Rules: `R203.0.113.0/24 0`.
    Lpm,
    /// A list of rules, then a route. Rules: `@` and a list's entry, `R` and a route.
    Acl,
}

impl L3fwd {
    /// Builds it; `None` when its sources or a compiler are not there.
    pub fn build() -> Result<Option<L3fwd>, Error> {
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !Path::new(SOURCES).join("l3fwd").is_dir() || !there("make") || !there("cc") {
            return Ok(None);
        }
        let l3fwd = L3fwd(std::env::temp_dir().join(format!("nke-bench-l3fwd-{}", std::process::id())));
        for part in ["common", "l3fwd"] {
            copy(&Path::new(SOURCES).join(part), &l3fwd.0.join(part))?;
        }
        let at = l3fwd.0.join("l3fwd");
        for (file, from, to) in CHANGES {
            let path = at.join(file);
            let text = fs::read_to_string(&path)?;
            if !text.contains(from) {
                return Err(format!("l3fwd is of a version that is not known: no {from:?} in {file}").into());
            }
            fs::write(&path, text.replace(from, to))?;
        }
        fs::write(at.join("rate.c"), RATE)?;
        let made = Command::new("make").arg("shared").current_dir(&at).output()?;
        if !made.status.success() {
            return Err(format!("l3fwd does not build:\n{}", String::from_utf8_lossy(&made.stderr)).into());
        }
        Ok(Some(l3fwd))
    }

    /// Nanoseconds per packet with these rules and frames: each packet is allocated, copied in, forwarded and freed.
    pub fn memory(&self, lookup: Lookup, rules: &str, frames: Capture, core: usize) -> Result<f64, Error> {
        let (lookup, rules6) = match lookup {
            Lookup::Lpm => ("lpm", "R2001:db8::/48 0\n"),
            Lookup::Acl => ("acl", "R0:0:0:0:0:0:0:0/0 0:0:0:0:0:0:0:0/0 0 : 65535 0 : 65535 0x00/0x00 0\n"),
        };
        let (v4, v6) = (self.0.join("v4.cfg"), self.0.join("v6.cfg"));
        fs::write(&v4, rules)?;
        fs::write(&v6, rules6)?;
        let mut command = Command::new(self.0.join("l3fwd/build/l3fwd"));
        let eal = format!("--lcores {core} --no-pci --in-memory --no-telemetry -m 1200 --vdev");
        command.args(eal.split(' ')).arg(frames.vdev());
        let config = format!("-- -p 0x1 -P --config=(0,0,{core}) --parse-ptype --no-numa --lookup={lookup}");
        command.args(config.split(' '));
        command.arg(format!("--rule_ipv4={}", v4.display())).arg(format!("--rule_ipv6={}", v6.display()));
        let mut l3fwd = Program::spawn("l3fwd", command)?;
        l3fwd.takes_no_commands();
        // What it sends, so that packets it drops do not count.
        l3fwd.ns_per_packet("Tx-pps:", || drop(frames))
    }
}

impl Drop for L3fwd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The plain files of a directory.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        } else if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
