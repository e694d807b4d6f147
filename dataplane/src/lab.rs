//! Network namespaces and veth pairs of our own: for `nke demo --veth`, tests and benches.
//!
//! A namespace is called `nke-lab-PID-START-NUMBER-ROLE`, with the process that made it and that process's start time in the
//! name. It is removed when its [`Lab`] is dropped; what a killed process left behind is found by its name and removed
//! by the next [`Lab::new`].

use std::fs;
use std::io;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netdev::{self, Offload};

const PREFIX: &str = "nke-lab-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Namespaces that belong together.
pub struct Lab {
    stem: String,
    namespaces: Vec<String>,
    ipv6: bool,
}

/// How to make a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct Veth {
    /// Queues each way.
    pub queues: u32,
    /// MTU of both ends.
    pub mtu: u32,
}

impl Default for Veth {
    fn default() -> Self {
        Veth { queues: 1, mtu: 1500 }
    }
}

impl Lab {
    /// An empty lab, after removing what killed processes left. Needs root, and `ip` of iproute2.
    pub fn new() -> io::Result<Lab> {
        sweep()?;
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let start =
            start_time(pid).ok_or_else(|| io::Error::other("the start time of this process is unknown"))?;
        Ok(Lab { stem: format!("{PREFIX}{pid}-{start}-{number}-"), namespaces: Vec::new(), ipv6: false })
    }

    /// Leaves IPv6 on in the namespaces made from here on, without duplicate address detection, whose second of silence
    /// would be waited for.
    pub fn with_ipv6(mut self) -> Lab {
        self.ipv6 = true;
        self
    }

    /// Adds a namespace for `role`; returns its name. IPv6 is off in it unless the lab is
    /// [`Lab::with_ipv6`], so that nothing is sent that was not asked for.
    pub fn netns(&mut self, role: &str) -> io::Result<String> {
        let name = format!("{}{role}", self.stem);
        ip(&["netns", "add", &name])?;
        self.namespaces.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        // Through /proc of a thread inside: sysctl files show the namespace of who opens them.
        let (key, value) = if self.ipv6 { ("accept_dad", "0") } else { ("disable_ipv6", "1") };
        netdev::in_netns(Some(&name), || {
            for scope in ["all", "default"] {
                // Absent where the kernel has no IPv6: fine.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/{key}"), value);
            }
        })?;
        Ok(name)
    }

    /// Joins device `a` in namespace `ns_a` and device `b` in `ns_b` by a veth pair, both up.
    ///
    /// Both ends leave checksums and segmentation to nobody: frames go out as they would on a wire. Both receive by NAPI,
    /// without which a veth end silently drops what AF_XDP sends to it.
    pub fn veth(&self, (ns_a, a): (&str, &str), (ns_b, b): (&str, &str), veth: Veth) -> io::Result<()> {
        let (queues, mtu) = (veth.queues.to_string(), veth.mtu.to_string());
        let shape = ["mtu", &mtu, "numtxqueues", &queues, "numrxqueues", &queues];
        let mut words = vec!["link", "add", a, "netns", ns_a];
        words.extend(shape);
        words.extend(["type", "veth", "peer", "name", b, "netns", ns_b]);
        words.extend(shape);
        ip(&words)?;
        for (ns, device) in [(ns_a, a), (ns_b, b)] {
            ip(&["-n", ns, "link", "set", device, "up"])?;
            netdev::in_netns(Some(ns), || {
                for offload in [Offload::TxChecksum, Offload::Tso, Offload::Gso] {
                    netdev::set_offload(device, offload, false)?;
                }
                netdev::set_offload(device, Offload::Gro, true)
            })??;
        }
        Ok(())
    }

    /// Gives `device` an address, such as `10.0.0.1/24`.
    pub fn address(&self, ns: &str, device: &str, address: &str) -> io::Result<()> {
        ip(&["-n", ns, "addr", "add", address, "dev", device]).map(drop)
    }

    /// A command to be run in namespace `ns`.
    pub fn command(&self, ns: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", ns, program]);
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.namespaces {
            if let Err(e) = remove(name) {
                eprintln!("nke: namespace {name} stays behind: {e}");
            }
        }
    }
}

/// Removes a namespace and with it every device made in it.
fn remove(name: &str) -> io::Result<()> {
    ip(&["netns", "del", name]).map(drop)
}

/// Runs `ip` with these words.
pub fn ip(words: &[&str]) -> io::Result<Output> {
    let output = Command::new("ip")
        .args(words)
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("`ip` cannot be run ({e}): install iproute2")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("ip {}: {said}", words.join(" "))));
    }
    Ok(output)
}

/// Removes namespaces of labs whose process has ended.
pub fn sweep() -> io::Result<usize> {
    let entries = match fs::read_dir("/run/netns") {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut removed = 0;
    for name in names.filter(|n| is_orphan(n)) {
        // Another process may sweep at the same time.
        removed += usize::from(remove(&name).is_ok());
    }
    Ok(removed)
}

fn is_orphan(name: &str) -> bool {
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().splitn(3, '-');
    let (Some(pid), Some(start)) = (parts.next(), parts.next()) else { return false };
    match (pid.parse(), start.parse()) {
        (Ok(pid), Ok(start)) => start_time(pid) != Some(start),
        _ => false,
    }
}

/// When a process started, in clock ticks since boot; `None` if there is no such process, or only what is left of it for a
/// parent that does not ask: in a container nobody may ever do.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which is in parentheses and may hold anything: the state first, the start time as 20th field.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
