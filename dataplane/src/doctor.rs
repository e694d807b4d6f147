//! `nke doctor`: looks for what would keep NKE from working, and says what to do about it. Changes nothing.

use std::fmt;
use std::fs;

use serde_json::{Value, json};

use crate::error::Exit;
use crate::{guard, netdev};

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Good.
    Ok,
    /// Works, but could be better, or worse than expected.
    Warn,
    /// AF_XDP will not work.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it is about.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub cure: String,
    /// A failure here is one of privilege, not of the device.
    privilege: bool,
}

/// All checks.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis(pub Vec<Check>);

/// Looks at the machine, and at `device` if there is one.
pub fn examine(device: Option<&str>) -> Diagnosis {
    let mut d = Diagnosis::default();
    machine(&mut d);
    if let Some(device) = device {
        look_at(&mut d, device);
    }
    d
}

impl Diagnosis {
    fn add(&mut self, name: &'static str, state: State, found: impl Into<String>, cure: impl Into<String>) {
        let cure = if state == State::Ok { String::new() } else { cure.into() };
        self.0.push(Check { name, state, found: found.into(), cure, privilege: false });
    }

    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        let failed = |privilege| self.0.iter().any(|c| c.state == State::Fail && c.privilege == privilege);
        if failed(false) {
            Exit::Device
        } else if failed(true) {
            Exit::Privilege
        } else {
            Exit::Ok
        }
    }

    /// As one JSON object.
    pub fn to_json(&self) -> Value {
        let row =
            |c: &Check| json!({ "check": c.name, "state": word(c.state), "found": c.found, "cure": c.cure });
        json!({ "ok": self.exit() == Exit::Ok, "checks": self.0.iter().map(row).collect::<Vec<_>>() })
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "FAIL",
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in &self.0 {
            writeln!(f, "{:<5} {:<18} {}", word(c.state), c.name, c.found)?;
            if !c.cure.is_empty() {
                writeln!(f, "{:>24} -> {}", "", c.cure)?;
            }
        }
        Ok(())
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

fn machine(d: &mut Diagnosis) {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: Vec<u32> =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok()).take(2).collect();
    let state = match version[..] {
        [major, minor] if (major, minor) >= (5, 11) => State::Ok,
        _ => State::Warn,
    };
    d.add(
        "kernel",
        state,
        &*release,
        "shared UMEM, need_wakeup and bpf_link for XDP are all there from Linux 5.11 on",
    );
    capabilities(d);
    let memlock = text("/proc/self/limits").unwrap_or_default();
    let memlock = memlock.lines().find(|l| l.starts_with("Max locked memory")).unwrap_or_default();
    let soft = memlock.split_whitespace().nth(3).unwrap_or("unknown");
    let enough =
        soft == "unlimited" || soft.parse::<u64>().is_ok_and(|n| n >= 64 << 20) || has_capability(14);
    let state = if enough { State::Ok } else { State::Warn };
    d.add("memlock", state, format!("{soft} bytes"), "grant CAP_IPC_LOCK, or `ulimit -l unlimited`");
    let pages = text("/proc/sys/vm/nr_hugepages").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let state = if pages > 0 { State::Ok } else { State::Warn };
    d.add(
        "hugepages",
        state,
        format!("{pages} reserved"),
        "works without; for large pools: sysctl vm.nr_hugepages=64",
    );
    let jit = text("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    let state = if jit == "0" { State::Warn } else { State::Ok };
    d.add("bpf jit", state, format!("net.core.bpf_jit_enable = {jit}"), "sysctl net.core.bpf_jit_enable=1");
    let cores = core_affinity::get_core_ids().unwrap_or_default().len();
    let state = if cores > 1 { State::Ok } else { State::Warn };
    d.add("cores", state, format!("{cores} for this process"), "a polling worker wants a core of its own");
    let isolated = text("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let state = if isolated.is_empty() { State::Warn } else { State::Ok };
    let found = if isolated.is_empty() { "none isolated".into() } else { format!("isolated: {isolated}") };
    d.add(
        "isolation",
        state,
        found,
        "for steady latency boot with isolcpus=, nohz_full= and rcu_nocbs= for the workers' cores",
    );
}

fn has_capability(bit: u32) -> bool {
    let status = text("/proc/self/status").unwrap_or_default();
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    caps.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps >> bit & 1 == 1)
}

fn capabilities(d: &mut Diagnosis) {
    let needed = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (39, "CAP_BPF")];
    let missing: Vec<_> =
        needed.iter().filter(|(bit, _)| !has_capability(*bit)).map(|(_, name)| *name).collect();
    let state = if missing.is_empty() { State::Ok } else { State::Fail };
    let found =
        if missing.is_empty() { "all there".into() } else { format!("missing: {}", missing.join(", ")) };
    d.add("capabilities", state, found, "run as root, or grant them (AmbientCapabilities= in the unit file)");
    if let Some(check) = d.0.last_mut() {
        check.privilege = true;
    }
}

fn look_at(d: &mut Diagnosis, device: &str) {
    let Some((_, up)) = netdev::state(device) else {
        d.add("device", State::Fail, format!("no device is called {device} here"), "see `ip link`");
        return;
    };
    let state = if up { State::Ok } else { State::Warn };
    d.add("link", state, if up { "up" } else { "down, or no carrier" }, format!("ip link set {device} up"));
    let driver = netdev::driver(device).unwrap_or_else(|_| "unknown".into());
    let native = !matches!(driver.as_str(), "unknown" | "macvlan" | "bridge");
    let state = if native { State::Ok } else { State::Warn };
    d.add("driver", state, &*driver, "not known to run XDP in the driver: generic mode works, and is slower");
    let mtu = netdev::mtu(device).unwrap_or(0);
    let state = if mtu <= 1778 { State::Ok } else { State::Warn };
    d.add(
        "mtu",
        state,
        mtu.to_string(),
        "larger than a frame: set jumbo = true, or frame_size = 4096 for up to 3800",
    );
    let queues = |kind: &str| {
        let entries = fs::read_dir(format!("/sys/class/net/{device}/queues")).ok()?;
        Some(entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(kind)).count())
    };
    if let (Some(rx), Some(tx)) = (queues("rx-"), queues("tx-")) {
        let state = if rx == 1 { State::Ok } else { State::Warn };
        let cure = format!("set queues = {rx}, or steer all traffic to one: ethtool -L {device} combined 1");
        d.add("queues", state, format!("{rx} receive, {tx} transmit"), cure);
    }
    let guarded = guard::has_default_route(device);
    let state = if guarded { State::Warn } else { State::Ok };
    let found = if guarded { "the default route goes through it" } else { "not on the default route" };
    d.add("default route", state, found, "NKE refuses it without force = true");
    if driver == "veth" {
        let gro = netdev::offload(device, netdev::Offload::Gro).unwrap_or(false);
        let state = if gro { State::Ok } else { State::Warn };
        let cure =
            "the other end must receive by NAPI, or frames sent to it are lost: ethtool -K PEER gro on";
        d.add("veth napi", state, format!("gro {}", if gro { "on" } else { "off" }), cure);
        let tx = netdev::offload(device, netdev::Offload::TxChecksum).unwrap_or(true);
        let state = if tx { State::Warn } else { State::Ok };
        let cure =
            "a local stack behind it leaves checksums unfilled: ethtool -K DEVICE tx off, on the stack's end";
        d.add("veth checksums", state, format!("tx {}", if tx { "on" } else { "off" }), cure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_looked_at_and_a_missing_device_fails() {
        let d = examine(Some("nowhere0"));
        assert!(d.0.len() > 6);
        let device = d.0.iter().find(|c| c.name == "device").unwrap();
        assert_eq!((device.state, d.exit()), (State::Fail, Exit::Device));
        assert!(d.0.iter().all(|c| (c.state == State::Ok) == c.cure.is_empty()));
        assert_eq!(d.to_json()["ok"], json!(false));
    }
}
