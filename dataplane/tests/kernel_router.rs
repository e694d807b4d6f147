//! `[router] host = "kernel"`: the kernel is the host and keeps the routes, NKE forwards by them, on real AF_XDP over veth.
//! Needs root, `ip`, `ping`, `iperf3`; one test `bird`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nke_dataplane::lab::{Lab, Veth, ip};
use nke_dataplane::netdev;
use serde_json::Value;

use common::*;

/// left -- n0 [middle] n1 -- right, and n2 -- other, which is not NKE's. The kernel in the middle has .1 and ::1 of
/// 10.0.1.0/24 (left), 10.0.2.0/24 (right), 10.0.3.0/24 (other) and 2001:db8:N::/64, and 192.0.2.1 on lo; it forwards. The
/// others are .2 and ::2, and route everything to it.
struct Net {
    _alone: MutexGuard<'static, ()>,
    lab: Lab,
    left: String,
    middle: String,
    right: String,
}

const RIGHT: [&str; 2] = ["10.0.2.2", "2001:db8:2::2"];
const OTHER: [&str; 2] = ["10.0.3.2", "2001:db8:3::2"];

impl Net {
    fn new() -> Net {
        // Two cores are too few for several routers and their hosts at the same time.
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lab = Lab::new().unwrap().with_ipv6();
        let [left, middle, right, other] =
            ["left", "nke", "right", "other"].map(|role| lab.netns(role).unwrap());
        sysctl(&middle, "ipv4/ip_forward", "1");
        sysctl(&middle, "ipv6/conf/all/forwarding", "1");
        for (i, (ns, device)) in [(&left, "l0"), (&right, "r0"), (&other, "o0")].into_iter().enumerate() {
            let (near, net) = (format!("n{i}"), i + 1);
            lab.veth((&middle, &near), (ns, device), Veth::default()).unwrap();
            lab.address(&middle, &near, &format!("10.0.{net}.1/24")).unwrap();
            lab.address(&middle, &near, &format!("2001:db8:{net}::1/64")).unwrap();
            lab.address(ns, device, &format!("10.0.{net}.2/24")).unwrap();
            lab.address(ns, device, &format!("2001:db8:{net}::2/64")).unwrap();
            ip(&["-n", ns, "route", "add", "default", "via", &format!("10.0.{net}.1")]).unwrap();
            ip(&["-n", ns, "-6", "route", "add", "default", "via", &format!("2001:db8:{net}::1")]).unwrap();
        }
        lab.address(&middle, "lo", "192.0.2.1/32").unwrap();
        Net { _alone: alone, lab, left, middle, right }
    }

    fn router(&self) -> Nke {
        self.router_with("")
    }

    fn router_with(&self, more: &str) -> Nke {
        let port = |name: &str, device: &str| {
            format!(
                "[[port]]\nname = \"{name}\"\nkind = \"af_xdp\"\ndevice = \"{device}\"\nnetns = \"{}\"\n",
                self.middle
            )
        };
        let (a, b) = (port("a", "n0"), port("b", "n1"));
        Nke::start(&format!("mode = \"adaptive\"\n[router]\nhost = \"kernel\"\n{more}{a}{b}"))
    }

    fn ip(&self, words: &str) {
        let mut all = vec!["-n", &self.middle];
        all.extend(words.split_whitespace());
        ip(&all).unwrap();
    }

    fn ping_command(&self, to: &str, count: u32, more: &[&str]) -> Command {
        let mut command = self.lab.command(&self.left, "ping");
        command.args(["-n", "-W", "2", "-c", &count.to_string()]).args(more).arg(to);
        command
    }

    /// `ping` from left: how many of `count` were answered, and what it said.
    fn ping(&self, to: &str, count: u32, more: &[&str]) -> (u32, String) {
        let out = self.ping_command(to, count, &["-i", "0.05"]).args(more).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (received(&text), text)
    }

    fn answers(&self, to: &str) -> bool {
        self.ping(to, 1, &["-W", "1"]).0 == 1
    }
}

fn sysctl(ns: &str, key: &str, value: &str) {
    netdev::in_netns(Some(ns), || fs::write(format!("/proc/sys/net/{key}"), value).unwrap()).unwrap();
}

fn received(text: &str) -> u32 {
    let words: Vec<_> = text.split_whitespace().collect();
    let at = words.iter().position(|w| w.starts_with("received")).unwrap_or_else(|| panic!("{text}"));
    words[at - 1].parse().unwrap()
}

fn figure(rows: &Value, name: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[name].as_u64().unwrap_or(0)).sum()
}

fn forwarded(nke: &Nke) -> u64 {
    figure(&nke.show("inet"), "forwarded")
}

fn drops_of(nke: &Nke, reason: &str) -> u64 {
    nke.drops().iter().find(|(name, _)| name == reason).map_or(0, |(_, n)| *n)
}

#[test]
fn nke_forwards_and_the_kernel_is_the_host() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new();
    // A device with the default route may be taken: the host's own packets stay with the kernel.
    net.ip("route add default via 10.0.2.2");
    let nke = net.router();
    for to in RIGHT {
        assert_eq!(net.ping(to, 20, &[]).0, 20, "{to}");
    }
    assert!(forwarded(&nke) >= 80, "both ways, in both versions: {}", nke.show("inet"));
    // The host itself is the kernel.
    let before = forwarded(&nke);
    for own in ["10.0.1.1", "10.0.2.1", "192.0.2.1", "2001:db8:1::1", "2001:db8:2::1"] {
        assert_eq!(net.ping(own, 3, &[]).0, 3, "{own}");
    }
    assert_eq!((forwarded(&nke), figure(&nke.show("inet"), "delivered")), (before, 0));
    // It also answers what is at the end of its hops.
    let (got, said) = net.ping(RIGHT[0], 1, &["-t", "1"]);
    assert!(got == 0 && said.contains("From 10.0.1.1") && said.contains("Time to live exceeded"), "{said}");
    let mut server = net.lab.command(&net.right, "iperf3");
    let _server = Running(server.args(["-s"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    for (more, to) in [(&[][..], RIGHT[0]), (&[][..], RIGHT[1]), (&["-u", "-b", "20M"][..], RIGHT[0])] {
        let report = until("iperf3", || {
            let mut client = net.lab.command(&net.left, "iperf3");
            let out = client.args(["-c", to, "-J", "-t", "1"]).args(more).output().unwrap();
            // Refused until the server listens, which it says with success.
            let report: Value = serde_json::from_slice(&out.stdout).unwrap();
            report["error"].is_null().then_some(report)
        });
        let end = &report["end"];
        let sum = if end["sum_received"].is_null() { &end["sum"] } else { &end["sum_received"] };
        assert!(sum["bits_per_second"].as_f64().unwrap() > 1e6, "{more:?}: {end:#}");
    }
    let kernel = &nke.show("kernel")[0];
    assert_eq!((&kernel["in_sync"], &kernel["rejected"]), (&1.into(), &0.into()), "{kernel:#}");
    assert!(figure(&nke.show("interfaces"), "xdp_passed") > 0);
    assert!(!nke.said().contains("warning"), "{}", nke.said());
    nke.stop();
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3, "the kernel forwards again");
}

#[test]
fn what_is_behind_other_devices_the_kernel_sends_on() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new();
    let nke = net.router();
    for to in OTHER {
        let (got, said) = net.ping(to, 10, &[]);
        assert_eq!(got, 10, "{said}");
        // NKE and the kernel are one router: one hop.
        assert_eq!(net.ping(to, 1, &["-t", "2"]).0, 1, "{to}");
    }
    let rows = nke.show("interfaces");
    let kernel = rows.as_array().unwrap().iter().find(|row| row["name"] == "kernel").unwrap();
    assert!(kernel["to_kernel"].as_u64().unwrap() >= 20, "{kernel:#}");
    nke.stop();
}

#[test]
fn routes_are_followed_as_they_change() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new();
    for host in ["10.9.0.1/32", "2001:db8:9::1/128"] {
        net.lab.address(&net.right, "r0", host).unwrap();
    }
    let nke = net.router();
    for (to, prefix, via, far) in [
        ("10.9.0.1", "10.9.0.0/24", "10.0.2.2", "10.0.3.2"),
        ("2001:db8:9::1", "2001:db8:9::/48", "2001:db8:2::2", "2001:db8:3::2"),
    ] {
        let (got, said) = net.ping(to, 1, &[]);
        assert!(
            got == 0 && said.to_lowercase().contains("unreachable") || said.contains("No route"),
            "{said}"
        );
        net.ip(&format!("route add {prefix} via {via}"));
        until("the route is used", || net.answers(to).then_some(()));
        assert_eq!(net.ping(to, 5, &[]).0, 5);
        // Somewhere else, where nobody has the address; and back.
        net.ip(&format!("route replace {prefix} via {far}"));
        until("the other route is used", || (!net.answers(to)).then_some(()));
        net.ip(&format!("route replace {prefix} via {via}"));
        until("the first route is used again", || net.answers(to).then_some(()));
        // A longer prefix wins, and goes.
        let host = if to.contains(':') { 128 } else { 32 };
        let before = drops_of(&nke, "blackhole");
        net.ip(&format!("route add blackhole {to}/{host}"));
        until("it is dropped", || {
            let _ = net.answers(to);
            (drops_of(&nke, "blackhole") > before).then_some(())
        });
        net.ip(&format!("route del blackhole {to}/{host}"));
        until("it is gone", || net.answers(to).then_some(()));
        net.ip(&format!("route del {prefix} via {via}"));
        let said = until("it is unreachable", || {
            let (got, said) = net.ping(to, 1, &["-W", "1"]);
            (got == 0 && said.contains("From ")).then_some(said)
        });
        assert!(said.to_lowercase().contains("unreachable") || said.contains("No route"), "{said}");
        // The destination itself on the link, beside all networks.
        net.ip(&format!("route add {to} dev n1"));
        until("it is on the link", || net.answers(to).then_some(()));
        net.ip(&format!("route del {to} dev n1"));
    }
    // IPv4 by a router that has an address of IPv6 (RFC 8950).
    net.ip("route add 10.9.0.0/24 via inet6 2001:db8:2::2");
    until("it is used", || net.answers("10.9.0.1").then_some(()));
    let before = forwarded(&nke);
    assert_eq!(net.ping("10.9.0.1", 3, &[]).0, 3);
    assert!(forwarded(&nke) >= before + 6, "by NKE");
    // Addresses come and go, too.
    net.ip("addr add 10.0.1.77/24 dev n0");
    until("the new address answers", || net.answers("10.0.1.77").then_some(()));
    net.ip("addr del 10.0.1.77/24 dev n0");
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3);
    nke.stop();
}

#[test]
fn neighbors_that_are_flushed_cost_little() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new();
    let nke = net.router();
    for to in RIGHT {
        assert_eq!(net.ping(to, 3, &[]).0, 3);
        let child = net.ping_command(to, 200, &["-i", "0.02"]).stdout(Stdio::piped()).spawn().unwrap();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1000));
            net.ip("neigh flush all");
        }
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(received(&text) >= 185, "{text}\n{}", nke.show("kernel"));
    }
    nke.stop();
}

#[test]
fn starting_and_stopping_loses_nothing() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new();
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3, "the kernel forwards");
    // Killed, what is in its rings is lost, until the kernel has cleared up: 30 ms were seen.
    for (killed, least) in [(false, 400), (true, 380)] {
        let child = net.ping_command(RIGHT[0], 400, &["-i", "0.01"]).stdout(Stdio::piped()).spawn().unwrap();
        let nke = net.router();
        until("NKE forwards", || (forwarded(&nke) > 20).then_some(()));
        if killed {
            drop(nke)
        } else {
            nke.stop()
        }
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        println!("killed: {killed}: {} of 400 answered", received(&text));
        assert!(received(&text) >= least, "{text}");
    }
}

#[test]
fn a_device_that_goes_and_comes_back_routes_again() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new();
    let nke = net.router();
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3);
    net.ip("link del n1");
    until("NKE sees it", || nke.said().contains("device_gone").then_some(()));
    assert_eq!(net.ping(OTHER[0], 3, &[]).0, 3, "other ways go on");
    net.lab.veth((&net.middle, "n1"), (&net.right, "r0"), Veth::default()).unwrap();
    net.lab.address(&net.right, "r0", "10.0.2.2/24").unwrap();
    ip(&["-n", &net.right, "route", "add", "default", "via", "10.0.2.1"]).unwrap();
    net.lab.address(&net.middle, "n1", "10.0.2.1/24").unwrap();
    until("it is back", || nke.said().contains("device_back").then_some(()));
    until("it routes", || net.answers(RIGHT[0]).then_some(()));
    let before = forwarded(&nke);
    assert_eq!(net.ping(RIGHT[0], 5, &[]).0, 5);
    assert!(forwarded(&nke) >= before + 10);
    assert_eq!(
        net.ping("10.0.2.1", 3, &[]).0,
        3,
        "the program of the new device knows the kernel's addresses"
    );
    nke.stop();
}

/// Packets a second of the stream that runs meanwhile.
const PPS: u64 = 2000;
/// Routes fed.
const ROUTES: usize = 100_000;

/// Sends [`PPS`] datagrams a second from left to right as long as `meanwhile` takes, and a second more; says how many were
/// sent, and how many arrived.
fn stream(net: &Net, nke: &Nke, meanwhile: impl FnOnce()) -> (u64, u64) {
    let bind = |ns: &str, to: &str| netdev::in_netns(Some(ns), || UdpSocket::bind(to).unwrap()).unwrap();
    let receiver = bind(&net.right, "10.0.2.2:7777");
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let sender = bind(&net.left, "10.0.1.2:0");
    sender.connect("10.0.2.2:7777").unwrap();
    let overflows = || netdev::in_netns(Some(&net.right), receive_buffer_errors).unwrap();
    let (before, by_nke, over) = (overflows(), forwarded(nke), AtomicBool::new(false));
    let (sent, got) = std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let (begin, mut sent) = (Instant::now(), 0u64);
            while !over.load(Ordering::Relaxed) {
                let due = begin.elapsed().as_micros() as u64 * PPS / 1_000_000;
                while sent < due {
                    sender.send(&sent.to_be_bytes()).unwrap();
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            sent
        });
        let got = scope.spawn(|| {
            let (mut got, mut datagram) = (0, [0; 64]);
            loop {
                match receiver.recv(&mut datagram) {
                    Ok(_) => got += 1,
                    Err(_) if over.load(Ordering::Relaxed) => return got,
                    Err(_) => (),
                }
            }
        });
        meanwhile();
        std::thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
        // What its socket had no room for has arrived, too.
        (sent.join().unwrap(), got.join().unwrap() + overflows() - before)
    });
    assert!(forwarded(nke) >= by_nke + got, "NKE forwards them, not the kernel");
    (sent, got)
}

fn receive_buffer_errors() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut udp = text.lines().filter(|line| line.starts_with("Udp:")).map(|line| line.split_whitespace());
    let at = udp.next().unwrap().position(|word| word == "RcvbufErrors").unwrap();
    udp.next().unwrap().nth(at).unwrap().parse().unwrap()
}

/// The i-th of many networks.
fn network(i: usize) -> String {
    format!("{}.{}.{}.0/24", 20 + i / 65_536, i / 256 % 256, i % 256)
}

fn routes_known(nke: &Nke) -> u64 {
    figure(&nke.show("kernel"), "routes")
}

#[test]
fn bird_feeds_100_000_routes_while_packets_pass() {
    if !able(&["ping", "bird"]) {
        return;
    }
    let net = Net::new();
    let nke = net.router();
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3);
    let directory = nke.directory.clone();
    let mut config = String::from(
        "router id 192.0.2.1;\nprotocol device { }\n\
         protocol kernel { scan time 3600; ipv4 { export all; import none; }; }\n\
         protocol static { ipv4;\n",
    );
    for i in 0..ROUTES {
        writeln!(config, "route {} via 10.0.2.2;", network(i)).unwrap();
    }
    config.push_str("}\n");
    fs::write(directory.join("bird.conf"), config).unwrap();
    let before = routes_known(&nke);
    let mut bird = None;
    let (sent, got) = stream(&net, &nke, || {
        let mut command = net.lab.command(&net.middle, "bird");
        command.arg("-f").arg("-c").arg(directory.join("bird.conf"));
        command.arg("-s").arg(directory.join("bird.ctl")).arg("-P").arg(directory.join("bird.pid"));
        bird = Some(Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()));
        until("all routes are known", || (routes_known(&nke) >= before + ROUTES as u64).then_some(()));
    });
    let kernel = nke.show("kernel")[0].clone();
    println!("100,000 routes of BIRD's: {sent} packets sent meanwhile, {got} received; {kernel}");
    assert_eq!((sent, kernel["rejected"].as_u64()), (got, Some(0)), "{:?}", nke.drops());
    // The last one is used as the first is.
    for i in [0, ROUTES - 1] {
        let host = network(i).replace(".0/24", ".7");
        ip(&["-n", &net.right, "addr", "add", &format!("{host}/32"), "dev", "lo"]).unwrap();
        let before = forwarded(&nke);
        assert_eq!(net.ping(&host, 3, &[]).0, 3, "{host}");
        assert!(forwarded(&nke) >= before + 6);
    }
    // BIRD takes its routes away when it ends well.
    let pid = fs::read_to_string(directory.join("bird.pid")).unwrap();
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
    until("they are withdrawn", || (routes_known(&nke) <= before + 2).then_some(()));
    nke.stop();
}

#[test]
fn a_flood_of_changes_is_survived() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new();
    let nke = net.router();
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3);
    let before = routes_known(&nke);
    let file = nke.directory.join("batch");
    let batch = |verb: &str, count: usize| {
        let lines: String =
            (0..count).map(|i| format!("route {verb} {} via 10.0.2.2\n", network(i))).collect();
        fs::write(&file, lines).unwrap();
        ip(&["-n", &net.middle, "-batch", file.to_str().unwrap()]).unwrap();
    };
    let (sent, got) = stream(&net, &nke, || {
        batch("add", 50_000);
        batch("del", 50_000);
    });
    until("it comes to rest", || (routes_known(&nke) == before).then_some(()));
    println!("100,000 changes by `ip -batch`: {sent} sent, {got} received; {}", nke.show("kernel")[0]);
    assert_eq!(sent, got, "{:?}", nke.drops());
    until("the tables are as before", || {
        let rows = nke.show("routes");
        let left =
            rows.as_array().unwrap().iter().filter(|r| r["destination"].as_str().unwrap().starts_with("20."));
        (left.count() == 0).then_some(())
    });
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3);
    nke.stop();
}

#[test]
fn changes_that_are_lost_are_found_again() {
    if !able(&["ping"]) {
        return;
    }
    const COUNT: usize = 20_000;
    let net = Net::new();
    let nke = net.router();
    let (before, pid) = (routes_known(&nke), nke.process.0.id().to_string());
    let file = nke.directory.join("batch");
    for (i, (verb, known)) in [("add", before + COUNT as u64), ("del", before)].into_iter().enumerate() {
        // Nobody reads what the kernel tells meanwhile.
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
        let lines: String =
            (0..COUNT).map(|i| format!("route {verb} {} via 10.0.2.2\n", network(i))).collect();
        fs::write(&file, lines).unwrap();
        let done = ip(&["-n", &net.middle, "-batch", file.to_str().unwrap()]);
        assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
        done.unwrap();
        until("all is known", || (routes_known(&nke) == known).then_some(()));
        let rows = nke.show("kernel");
        assert!(figure(&rows, "overruns") > 0, "{rows}");
        until("it was known by asking", || (figure(&nke.show("kernel"), "resyncs") > i as u64).then_some(()));
    }
    let rows = nke.show("routes");
    let left =
        rows.as_array().unwrap().iter().filter(|r| r["destination"].as_str().unwrap().starts_with("20."));
    assert_eq!(left.count(), 0, "{rows}");
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3);
    nke.stop();
}

#[test]
fn a_kernel_that_does_not_forward_is_told_of() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new();
    sysctl(&net.middle, "ipv4/ip_forward", "0");
    sysctl(&net.middle, "ipv4/conf/all/rp_filter", "1");
    let nke = net.router();
    let said = nke.said();
    assert!(said.contains("sysctl -w net.ipv4.ip_forward=1") && said.contains("rp_filter=2"), "{said}");
    assert!(!said.contains("net.ipv6.conf.all.forwarding=1"), "{said}");
    assert_eq!(net.ping(RIGHT[0], 3, &[]).0, 3, "NKE does");
    nke.stop();
}
