//! One device: what it can do, what is on it, and what would bite.

use std::fs;

use af_xdp::program::attached;

use super::{Diagnosis, State, number, text};
use crate::port::xdp_open::XdpOptions;
use crate::xdp_features::{self, Features};
use crate::{guard, netdev};

/// Longest packet that fits a frame of 2048 bytes behind the kernel's headroom, without the link header; and the same for
/// 4096.
const MTU_2048: u32 = 1778;
const MTU_4096: u32 = 3826;
/// `linux/if.h`.
const IFF_PROMISC: u64 = 0x100;

pub(super) fn examine(d: &mut Diagnosis, device: &str) {
    let Some((_, up)) = netdev::state(device) else {
        let found = format!("no device is called {device:?} here");
        d.add(
            "device",
            State::Fail,
            found,
            "see `ip link`; for another namespace: ip netns exec NAME nke doctor",
        );
        return;
    };
    let found = if up { "up" } else { "down, or no carrier" };
    d.add("link", State::warn_unless(up), found, format!("ip link set {device} up"));
    let driver = netdev::driver(device).unwrap_or_else(|_| "unknown".into());
    xdp(d, device, &driver);
    program(d, device);
    mtu(d, device);
    queues(d, device);
    traffic(d, device);
    forwarding(d);
    if driver == "veth" {
        veth(d, device);
    }
}

fn xdp(d: &mut Diagnosis, device: &str, driver: &str) {
    let cure = "XDP does not run in this driver: generic mode works, and is slower";
    match xdp_features::of(device) {
        Ok(f) => {
            let native = f.has(Features::BASIC) && f.has(Features::REDIRECT);
            d.add("driver", State::warn_unless(native), format!("{driver}: {f}"), cure);
        }
        // A kernel before 6.3 does not tell.
        Err(_) => {
            let native = !matches!(driver, "unknown" | "macvlan" | "bridge" | "dummy" | "tun");
            d.add("driver", State::warn_unless(native), driver, cure);
        }
    }
}

fn program(d: &mut Diagnosis, device: &str) {
    match attached(device) {
        Ok(None) => d.add("xdp-program", State::Ok, "none on it", ""),
        Ok(Some(on)) => {
            let name = on.name.unwrap_or_else(|| "of unknown name".into());
            let holder = on.holder.map_or(String::new(), |h| format!(", held by {} ({})", h.command, h.pid));
            let cure = format!("NKE needs its place: end its owner, or `ip link set dev {device} xdp off`");
            d.add("xdp-program", State::Warn, format!("program {} {name}{holder}", on.id), cure);
        }
        Err(e) => d.add("xdp-program", State::Warn, e.what(), e.cure()),
    }
}

fn mtu(d: &mut Diagnosis, device: &str) {
    let Ok(mtu) = netdev::mtu(device) else { return };
    let cure = if mtu <= MTU_4096 {
        "larger than a frame: set frame_size = 4096, or jumbo = true"
    } else {
        "larger than a frame: set jumbo = true"
    };
    d.add("mtu", State::warn_unless(mtu <= MTU_2048), mtu.to_string(), cure);
}

fn queues(d: &mut Diagnosis, device: &str) {
    let count = |kind: &str| {
        let entries = fs::read_dir(format!("/sys/class/net/{device}/queues")).ok()?;
        Some(entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(kind)).count())
    };
    let (Some(rx), Some(tx)) = (count("rx-"), count("tx-")) else { return };
    let cure = format!(
        "NKE sees only the queues it opens: set queues = {rx}, or steer all to one: ethtool -L {device} combined 1"
    );
    d.add("queues", State::warn_unless(rx == 1), format!("{rx} receive, {tx} transmit"), cure);
}

fn traffic(d: &mut Diagnosis, device: &str) {
    match guard::check(&XdpOptions::device(device)) {
        Ok(()) => d.add("guard", State::Ok, "no default route and no SSH session of yours go through it", ""),
        Err(e) => d.add("guard", State::Warn, e.detail(), e.cure()),
    }
    let flags = text(&format!("/sys/class/net/{device}/flags"));
    let flags = flags.and_then(|f| u64::from_str_radix(f.trim_start_matches("0x"), 16).ok());
    if let Some(flags) = flags {
        let on = flags & IFF_PROMISC != 0;
        let found =
            if on { "on: somebody listens to everything" } else { "off; NKE switches it on while it runs" };
        d.add("promiscuous", State::Ok, found, "");
    }
}

/// Of use, or needed, with the kernel as host of a router; else fine as it is.
fn forwarding(d: &mut Diagnosis) {
    let wanting = crate::mirror::warnings(None).unwrap_or_default();
    let found = match &wanting[..] {
        [] => "the kernel forwards, as [router] host = \"kernel\" wants it".to_owned(),
        all => format!("only matters with [router] host = \"kernel\": {}", all.join("; ")),
    };
    d.add("forwarding", State::Ok, found, "");
}

fn veth(d: &mut Diagnosis, device: &str) {
    let on_off = |on| if on { "on" } else { "off" };
    // Frames that are sent into a pair are received by its other end, which loses them unless it does so by NAPI.
    match peer(device) {
        Some(peer) => {
            let gro = netdev::offload(&peer, netdev::Offload::Gro).unwrap_or(false);
            let cure = format!("frames sent to it are lost without a word: ethtool -K {peer} gro on");
            d.add("veth-napi", State::warn_unless(gro), format!("peer {peer}: gro {}", on_off(gro)), cure);
        }
        None => {
            let cure = "it must receive by NAPI, or frames sent to it are lost without a word: ethtool -K PEER gro on";
            d.add("veth-napi", State::Warn, "the peer is in another namespace and cannot be looked at", cure);
        }
    }
    let on = |offload| netdev::offload(device, offload).unwrap_or(true);
    let tx = on(netdev::Offload::TxChecksum);
    let cure = "a local stack leaves checksums unfilled on the way in here: attach the filter `checksum`, or ethtool -K PEER tx off, on the stack's end";
    d.add("veth-checksums", State::warn_unless(!tx), format!("tx {}", on_off(tx)), cure);
    let (tso, gso) = (on(netdev::Offload::Tso), on(netdev::Offload::Gso));
    let cure = "a local stack may send frames of 64 kB in here, which are lost: ethtool -K PEER tso off gso off, on the stack's end";
    let found = format!("tso {}, gso {}", on_off(tso), on_off(gso));
    d.add("veth-segments", State::warn_unless(!tso && !gso), found, cure);
}

/// The other end of a veth pair, if it is in this namespace.
fn peer(device: &str) -> Option<String> {
    let of = |device: &str, what: &str| number(&format!("/sys/class/net/{device}/{what}"));
    let (own, link) = (of(device, "ifindex")?, of(device, "iflink")?);
    let names = fs::read_dir("/sys/class/net").ok()?.flatten();
    // Numbers repeat in other namespaces: only a device that leads back here is the one.
    names
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .find(|n| n != device && of(n, "ifindex") == Some(link) && of(n, "iflink") == Some(own))
}
