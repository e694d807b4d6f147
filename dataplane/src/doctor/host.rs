//! The machine: kernel, privileges, memory, processors.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::{Diagnosis, State, number, text};

pub(super) fn examine(d: &mut Diagnosis) {
    kernel(d);
    capabilities(d);
    memory(d);
    bpf(d);
    processors(d);
}

fn kernel(d: &mut Diagnosis) {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into());
    let good = version(&release).is_some_and(|v| v >= (5, 11));
    let cure = "shared UMEM, need_wakeup and bpf_link for XDP are all there from Linux 5.11 on";
    d.add("kernel", State::warn_unless(good), release, cure);
    match af_xdp_socket() {
        Ok(()) => d.add("af-xdp", State::Ok, "sockets can be made", ""),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
            let found = "sockets may not be made by this user".into();
            d.add_privilege("af-xdp", State::Fail, found, "run as root, or grant CAP_NET_RAW");
        }
        Err(e) => {
            let cure = "needs a kernel with CONFIG_XDP_SOCKETS, and a sandbox that allows them";
            d.add("af-xdp", State::Fail, format!("no sockets can be made: {e}"), cure);
        }
    }
}

/// Major and minor number.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn af_xdp_socket() -> io::Result<()> {
    // SAFETY: no memory is passed; the result is checked and owned.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// The capabilities of this process.
#[derive(Clone, Copy)]
struct Capabilities(u64);

impl Capabilities {
    fn own() -> Capabilities {
        let status = text("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
        Capabilities(effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// By name, what AF_XDP needs and is not there.
    fn missing(self) -> Vec<&'static str> {
        let needed = [
            ("CAP_NET_ADMIN", self.has(CAP_NET_ADMIN)),
            ("CAP_NET_RAW", self.has(CAP_NET_RAW)),
            // The one was split off the other, which still does.
            ("CAP_BPF", self.has(CAP_BPF) || self.has(CAP_SYS_ADMIN)),
        ];
        needed.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }
}

fn capabilities(d: &mut Diagnosis) {
    let missing = Capabilities::own().missing();
    let state = if missing.is_empty() { State::Ok } else { State::Fail };
    let found =
        if missing.is_empty() { "all there".into() } else { format!("missing: {}", missing.join(", ")) };
    let cure = "run as root, or grant them (AmbientCapabilities= in the unit file)";
    d.add_privilege("capabilities", state, found, cure);
}

fn memory(d: &mut Diagnosis) {
    let limits = text("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max locked memory")).unwrap_or_default();
    let soft = line.split_whitespace().nth(3).unwrap_or("unknown");
    let unbounded = Capabilities::own().has(CAP_IPC_LOCK);
    let enough = unbounded || soft == "unlimited" || soft.parse::<u64>().is_ok_and(|n| n >= 64 << 20);
    let found =
        format!("{soft} bytes{}", if unbounded { ", and CAP_IPC_LOCK, which needs no limit" } else { "" });
    d.add("memlock", State::warn_unless(enough), found, "grant CAP_IPC_LOCK, or `ulimit -l unlimited`");
    let pages = number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").unwrap_or(0);
    let free = number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or(0);
    let cure = if pages > 0 {
        "all of them are in use: sysctl vm.nr_hugepages with a larger number"
    } else {
        "works without; for large pools: sysctl vm.nr_hugepages=64"
    };
    let found = format!("{free} of {pages} free, of 2 MiB each");
    d.add("hugepages", State::warn_unless(free > 0), found, cure);
}

fn bpf(d: &mut Diagnosis) {
    // Shown only in the first network namespace, and by kernels that have a compiler: elsewhere there is nothing to say.
    if let Some(jit) = text("/proc/sys/net/core/bpf_jit_enable") {
        let found = format!("net.core.bpf_jit_enable = {jit}");
        d.add("bpf-jit", State::warn_unless(jit != "0"), found, "sysctl net.core.bpf_jit_enable=1");
    }
    let Some(disabled) = number("/proc/sys/kernel/unprivileged_bpf_disabled") else { return };
    let cure =
        "everybody may load programs: sysctl kernel.unprivileged_bpf_disabled=1 (NKE does not need it)";
    let found = format!("kernel.unprivileged_bpf_disabled = {disabled}");
    d.add("unprivileged-bpf", State::warn_unless(disabled != 0), found, cure);
}

fn processors(d: &mut Diagnosis) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let found = format!("{} for this process", cores.len());
    let cure = "a polling worker wants a core of its own; with one core use mode = \"adaptive\"";
    d.add("cores", State::warn_unless(cores.len() > 1), found, cure);
    let isolated = text("/sys/devices/system/cpu/isolated").filter(|cores| !cores.is_empty());
    let good = isolated.is_some();
    let found = isolated.map_or("no core is isolated".into(), |cores| format!("isolated: {cores}"));
    let cure = "for steady latency boot with isolcpus=, nohz_full= and rcu_nocbs= for the workers' cores";
    d.add("isolation", State::warn_unless(good), found, cure);
    let clock = text("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let clock = clock.unwrap_or_else(|| "unknown".into());
    // Reading one of these costs a microsecond and a trip into the kernel or the hypervisor.
    let slow = matches!(clock.as_str(), "hpet" | "acpi_pm" | "jiffies" | "xen");
    let cure = "a slow clock: timestamps and rates will cost time; see dmesg for why tsc was not taken";
    d.add("clock", State::warn_unless(!slow), clock, cure);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v509"), Some((6, 18)));
        assert!(version("5.4.0-150-generic") < Some((5, 11)) && version("5.11") >= Some((5, 11)));
        assert_eq!((version(""), version("linux")), (None, None));
    }

    #[test]
    fn missing_capabilities_are_named() {
        let all = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"];
        assert_eq!(Capabilities(0).missing(), all);
        assert_eq!(Capabilities(u64::MAX).missing(), [""; 0]);
        assert_eq!(Capabilities(1 << CAP_SYS_ADMIN).missing(), all[..2]);
        assert_eq!(Capabilities(1 << CAP_NET_ADMIN | 1 << CAP_BPF).missing(), ["CAP_NET_RAW"]);
    }
}
