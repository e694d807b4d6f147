//! `nke-bench wire` and `nke-bench router`: frames through a forwarder between two veth pairs, in three namespaces. Of a wire it
//! carries frames as they are, of a router it routes IPv4.
//!
//! The generator and the sink are XDP programs in the kernel, so the same ones serve NKE, testpmd and the kernel's bridge,
//! and latency needs no process at either end. Generator on core 0, forwarder on core 1; the sink's work is done on the
//! core that sends to it, for every forwarder alike. The kernel receives on the core that sends to it, the generator's: what
//! forwards there without handing on (the shortcut, the kernel as it comes) shares core 0 with it and has no other.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use af_xdp::Pages;
use af_xdp::program::{AttachMode, Link, LiveSource, Rate, Sink};
use clap::Args;
use hdrhistogram::Histogram;
use nke_dataplane::arena::Arena;
use nke_dataplane::config::address_and_length;
use nke_dataplane::inet::{Net, NextHop, Request, RouteChange, RouteTo, Settings as Inet};
use nke_dataplane::lab::{Lab, Veth, ip};
use nke_dataplane::netdev;
use nke_dataplane::port::frames::udp_frame;
use nke_dataplane::port::memory::latency_histogram;
use nke_dataplane::port::xdp_open::{Hold, XdpOptions, open};
use nke_dataplane::runtime::{Builder, Runtime, Settings};
use nke_dataplane::shortcut::{self, Shortcut};
use nke_filters::IfIndex;
use nke_filters::builtin::Acl;
use nke_mbuf::wire::EtherAddr;
use serde_json::json;

use crate::acl::Lists;
use crate::peers::hugepages::HugePages;
use crate::peers::testpmd::{self, Testpmd};
use crate::router_rig::PATIENCE;
use crate::stats::{Error, Report, median, spread};
use crate::table::Table;

#[derive(Args)]
pub struct Options {
    /// Interleaved rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per trial of a rate.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Share of packets that may be lost in a trial that counts as without loss.
    #[arg(long, default_value_t = 0.001)]
    loss: f64,
    /// Leave the peers out.
    #[arg(long)]
    no_peers: bool,
}

#[derive(Args)]
pub struct RouterOptions {
    #[command(flatten)]
    common: Options,
    /// Rules in a list at the forward hook, none of which fits the traffic: NKE's `acl`, and a chain of nftables for the kernel.
    #[arg(long, default_value_t = 0)]
    rules: usize,
}

const FLOWS: u32 = 256;
/// Where the search for the highest rate without loss begins and ends, in packets per second.
const LOWEST: f64 = 50_000.0;
const HIGHEST: f64 = 4_000_000.0;
/// Its steps: it ends within 4,000 packets per second.
const STEPS: usize = 10;
/// A rate is given up only when so many trials of it in a row lost packets: one alone may be an accident of the machine.
const TRIALS: usize = 3;

/// What the forwarder does.
enum Scene {
    /// Carries frames from one end to the other.
    Wire,
    /// Routes IPv4 packets, with rules or without.
    Router(Option<Lists>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Nke,
    Router,
    /// As `Router`, without the shortcut.
    Workers,
    Testpmd,
    Bridge,
    Kernel,
    /// As `Kernel`, with RPS.
    KernelRps,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Nke => "nke wire",
            Who::Router => "nke router",
            Who::Workers => "nke router, by workers",
            Who::Testpmd => "testpmd io, af_xdp vdev",
            Who::Bridge => "kernel bridge",
            Who::Kernel => "kernel ip_forward",
            Who::KernelRps => "kernel ip_forward, RPS",
        }
    }

    fn routes(self) -> bool {
        matches!(self, Who::Router | Who::Workers | Who::Kernel | Who::KernelRps)
    }

    fn is_nke(self) -> bool {
        matches!(self, Who::Nke | Who::Router | Who::Workers)
    }
}

/// Of n0, which frames for a router are sent to.
const MAC: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 0xa]);
/// The router at the other end.
const NEXT_MAC: EtherAddr = EtherAddr([2, 0, 0, 0, 1, 0xb]);
const NEXT: &str = "10.0.2.2";
const ADDRESSES: [&str; 2] = ["10.0.1.1", "10.0.2.1"];
/// Where all packets go.
const ROUTE: &str = "198.19.0.0/16";

/// A forwarder between n0 and n1.
enum Forwarder {
    Nke(Option<Runtime>, Vec<Hold>),
    Testpmd(Testpmd),
    Kernel,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        match self {
            Forwarder::Nke(runtime, holds) => {
                holds.clear();
                if let Some(account) = runtime.take().map(Runtime::stop) {
                    assert_eq!(account.free, account.capacity, "every frame is home");
                }
            }
            Forwarder::Testpmd(testpmd) => assert!(testpmd.is_running(), "testpmd ran to the end"),
            Forwarder::Kernel => (),
        }
    }
}

/// The lab with one forwarder in it. Fields are dropped in this order.
struct Bed {
    _forwarder: Forwarder,
    _link: Link,
    sink: Sink,
    frame: [u8; 60],
    generator: String,
    _lab: Lab,
}

impl Bed {
    fn new(who: Who, scene: &Scene) -> Result<Bed, Error> {
        let mut lab = Lab::new()?;
        let [generator, middle, end] = [lab.netns("gen")?, lab.netns("mid")?, lab.netns("sink")?];
        lab.veth((&generator, "g0"), (&middle, "n0"), Veth::default())?;
        lab.veth((&middle, "n1"), (&end, "s0"), Veth::default())?;
        let sink = Sink::load_with_latency()?;
        let link = netdev::in_netns(Some(&end), || sink.attach("s0", AttachMode::Native))??;
        let mut frame = [0; 60];
        udp_frame(&mut frame, 0);
        if who.routes() {
            ip(&["-n", &middle, "link", "set", "n0", "address", &MAC.to_string()])?;
            frame[..6].copy_from_slice(&MAC.0);
        }
        let forwarder = match who {
            Who::Nke | Who::Workers => nke(&middle, scene, false)?,
            Who::Router => nke(&middle, scene, true)?,
            Who::Kernel | Who::KernelRps => {
                kernel_router(&lab, &middle, scene, who == Who::KernelRps)?;
                Forwarder::Kernel
            }
            Who::Testpmd => {
                Forwarder::Testpmd(Testpmd::af_xdp(lab.command(&middle, "dpdk-testpmd"), "n0", "n1", 1)?)
            }
            Who::Bridge => {
                for words in [
                    "link add br0 type bridge",
                    "link set br0 up",
                    "link set n0 master br0",
                    "link set n1 master br0",
                ] {
                    let mut all = vec!["-n", &middle];
                    all.extend(words.split(' '));
                    ip(&all)?;
                }
                Forwarder::Kernel
            }
        };
        let bed = Bed { _forwarder: forwarder, _link: link, sink, frame, generator, _lab: lab };
        bed.wait_until_it_forwards()?;
        Ok(bed)
    }

    /// A forwarder counts only once packets come out of it.
    fn wait_until_it_forwards(&self) -> Result<(), Error> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if self.trial(20_000, 0.05)?.loss() == 0.0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("the forwarder does not forward".into())
    }

    /// Sends at `pps` for `seconds` (0: flood) from core 0.
    fn trial(&self, pps: u32, seconds: f64) -> Result<Trial, Error> {
        let before = self.sink.counters()?.packets;
        let report = netdev::in_netns(Some(&self.generator), || {
            core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
            let source = LiveSource::new("g0", &self.frame, FLOWS)?;
            match pps {
                0 => source.run((seconds * FLOOD_PPS) as u32, 64, Rate::Flood),
                pps => source.run((f64::from(pps) * seconds) as u32, 8, Rate::PerSecond(pps)),
            }
        })??;
        // What is under way arrives, or has been lost.
        let mut after = self.sink.counters()?.packets;
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.sink.counters()?.packets;
            if now == after {
                break;
            }
            after = now;
        }
        let seconds = report.duration.as_secs_f64();
        Ok(Trial { sent: report.sent, delivered: after - before, seconds })
    }

    /// Highest rate in packets per second at which no more than `loss` is lost.
    fn search(&self, options: &Options) -> Result<f64, Error> {
        let (mut low, mut high) = (LOWEST, HIGHEST);
        for _ in 0..STEPS {
            let middle = (low + high) / 2.0;
            if self.carries(middle, options)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn carries(&self, pps: f64, options: &Options) -> Result<bool, Error> {
        for _ in 0..TRIALS {
            let trial = self.trial(pps as u32, options.seconds)?;
            if trial.loss() <= options.loss && trial.sent_pps() > pps * 0.9 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Latencies at `pps`.
    fn latency(&self, pps: f64, seconds: f64) -> Result<Histogram<u64>, Error> {
        let before = self.sink.latencies()?;
        self.trial(pps as u32, seconds)?;
        let mut histogram = latency_histogram();
        for (ns, count) in self.sink.latencies()? {
            let earlier = before.iter().find(|(other, _)| *other == ns).map_or(0, |(_, n)| *n);
            histogram.record_n(ns, count - earlier)?;
        }
        Ok(histogram)
    }
}

/// About what the generator sends when it floods; only sets how long a flood lasts.
const FLOOD_PPS: f64 = 3_000_000.0;

struct Trial {
    sent: u64,
    delivered: u64,
    seconds: f64,
}

impl Trial {
    fn loss(&self) -> f64 {
        1.0 - (self.delivered.min(self.sent) as f64 / self.sent as f64)
    }
    fn sent_pps(&self) -> f64 {
        self.sent as f64 / self.seconds
    }
    fn delivered_pps(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }
}

/// The kernel as router. It receives on the generator's core, so it hands packets to the forwarder's first (RPS): one core for
/// forwarding, as for the others.
/// With RPS what n0 receives is forwarded on core 1.
fn kernel_router(lab: &Lab, netns: &str, scene: &Scene, rps: bool) -> Result<(), Error> {
    let next = format!("neigh add {NEXT} lladdr {NEXT_MAC} dev n1 nud permanent");
    let route = format!("route add {ROUTE} via {NEXT}");
    let addresses =
        ADDRESSES.iter().zip(["n0", "n1"]).map(|(a, dev)| format!("address add {a}/24 dev {dev}"));
    for words in addresses.chain([next, route]) {
        let mut all = vec!["-n", netns];
        all.extend(words.split(' '));
        ip(&all)?;
    }
    let settings = format!(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; \
         echo 0 > /proc/sys/net/ipv4/conf/n0/rp_filter; echo {} > /sys/class/net/n0/queues/rx-0/rps_cpus",
        if rps { 2 } else { 0 }
    );
    let done = lab.command(netns, "sh").args(["-ec", &settings]).status()?;
    if !done.success() {
        return Err("the kernel does not forward".into());
    }
    let Scene::Router(Some(lists)) = scene else { return Ok(()) };
    let mut nft = lab.command(netns, "nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    nft.stdin.take().ok_or("no pipe")?.write_all(lists.nft.as_bytes())?;
    if nft.wait()?.success() { Ok(()) } else { Err("nft refused the rules".into()) }
}

fn nke(netns: &str, scene: &Scene, shortcut: bool) -> Result<Forwarder, Error> {
    let arena = Arena::new(16384, 2048, Pages::Auto)?;
    let settings = Settings { cores: vec![Some(1)], ..Settings::default() };
    let mut builder = Builder::new(arena.pool.clone(), settings);
    let mut inet = Inet::default();
    if shortcut {
        inet.shortcut = Some(Shortcut::new(&inet, false)?);
    }
    let shortcut = inet.shortcut.clone();
    builder.inet(inet);
    let (mut holds, mut lanes) = (Vec::new(), Vec::new());
    for (i, device) in ["n0", "n1"].into_iter().enumerate() {
        let (netns, shortcut) = (Some(netns.to_owned()), shortcut.clone());
        let options = XdpOptions { netns, shortcut, ..XdpOptions::device(device) };
        let port = open(&options, &arena, i as u16)?;
        let interface = builder.plain_interface(device, shortcut::PORT, 0);
        builder.link(interface, port.mac, port.mtu);
        lanes.extend(port.queues.into_iter().map(|q| builder.queue(interface, 0, Box::new(q))));
        holds.push(port.hold);
    }
    if matches!(scene, Scene::Wire) {
        builder.wire(lanes[0], lanes[1]);
    }
    let mut runtime = builder.start()?;
    if let Scene::Router(lists) = scene {
        let control = runtime.control();
        for (device, address) in ["n0", "n1"].into_iter().zip(ADDRESSES) {
            control.add_address(device, address.parse()?, 24)?.wait(PATIENCE)?;
        }
        let (next, n1) = (NEXT.parse()?, IfIndex(1));
        control.inet(Request::Neighbor(n1, next, Some(NEXT_MAC)))?.wait(PATIENCE)?;
        let (address, len) = address_and_length(ROUTE).ok_or("a route")?;
        let hop = NextHop { via: Some(next), interface: Some(n1), weight: 1 };
        let change = RouteChange { net: Net { address, len }, to: Some(RouteTo::Via(vec![hop])) };
        control.inet(Request::Routes(vec![change]))?.wait(PATIENCE)?;
        if let Some(lists) = lists {
            control.register_ip(Arc::new(Acl))?.wait(PATIENCE)?;
            control.attach(lists.spec())?.wait(PATIENCE)?;
        }
    }
    runtime.go();
    Ok(Forwarder::Nke(Some(runtime), holds))
}

/// What was found for one forwarder, a value for each round.
struct Found {
    who: Who,
    no_drop: Vec<f64>,
    peak: Vec<f64>,
    overload: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    p999: Vec<f64>,
}

/// As a wire.
pub fn run(options: &Options) -> Result<Report, Error> {
    measure(options, &Scene::Wire)
}

/// As a router.
pub fn run_router(options: &RouterOptions) -> Result<Report, Error> {
    let lists = (options.rules > 0).then(|| Lists::new(options.rules, &Table::new(10_000)));
    let mut report = measure(&options.common, &Scene::Router(lists))?;
    report.text = format!("{} rules at the forward hook\n{}", options.rules, report.text);
    report.json["rules"] = json!(options.rules);
    Ok(report)
}

fn measure(options: &Options, scene: &Scene) -> Result<Report, Error> {
    let peers = !options.no_peers;
    // This thread, too, stays off the forwarder's core.
    nke_dataplane::affinity::avoid(&[1])?;
    let (nke, kernel): (&[Who], &[Who]) = match scene {
        Scene::Wire => (&[Who::Nke], &[Who::Bridge]),
        Scene::Router(None) => (&[Who::Router, Who::Workers], &[Who::Kernel, Who::KernelRps]),
        // Where a filter looks the shortcut is shut.
        Scene::Router(Some(_)) => (&[Who::Router], &[Who::Kernel, Who::KernelRps]),
    };
    let mut who = nke.to_vec();
    let with_testpmd = peers && testpmd::installed();
    let _pages = if with_testpmd { Some(HugePages::reserve(700)?) } else { None };
    if with_testpmd {
        who.push(Who::Testpmd);
    }
    if peers {
        who.extend(kernel);
    }
    let new = |who| Found {
        who,
        no_drop: vec![],
        peak: vec![],
        overload: vec![],
        p50: vec![],
        p99: vec![],
        p999: vec![],
    };
    let mut found: Vec<Found> = who.into_iter().map(new).collect();
    let count = found.len();
    let mut generator = 0.0f64;
    for round in 0..options.rounds {
        // Who comes first differs from round to round, so that a drift of the machine favours nobody.
        let first = round % count;
        for i in 0..count {
            let f = &mut found[(first + i) % count];
            let bed = Bed::new(f.who, scene)?;
            let flood = bed.trial(0, options.seconds)?;
            generator = generator.max(flood.sent_pps());
            f.peak.push(flood.delivered_pps());
            let no_drop = bed.search(options)?;
            f.no_drop.push(no_drop);
            f.overload.push(bed.trial((2.0 * no_drop) as u32, options.seconds)?.delivered_pps());
        }
        // The same load for all: half of what the slowest of NKE and testpmd carries without loss.
        let load =
            found.iter().filter(|f| !kernel.contains(&f.who)).filter_map(|f| f.no_drop.last()).copied();
        let load = load.fold(f64::INFINITY, f64::min) / 2.0;
        for f in &mut found {
            let histogram = Bed::new(f.who, scene)?.latency(load, options.seconds * 2.0)?;
            let us = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
            f.p50.push(us(0.5));
            f.p99.push(us(0.99));
            f.p999.push(us(0.999));
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    Ok(report(options, &found, generator, peers && !with_testpmd))
}

fn report(options: &Options, found: &[Found], generator: f64, missing: bool) -> Report {
    let mut text = format!(
        "60-byte frames over veth (AF_XDP copy mode), {FLOWS} flows, one forwarding core, median of {} interleaved rounds; \
         no-drop: at most {} lost; functional figures, not line rate\n",
        options.rounds, options.loss
    );
    text += &format!(
        "{:<24} {:>13} {:>11} {:>10} {:>14} {:>8} {:>8} {:>8}\n",
        "forwarder", "no-drop Mpps", "min-max", "peak Mpps", "at 2x no-drop", "p50 us", "p99 us", "p99.9 us"
    );
    let mega = |values: &[f64]| values.iter().map(|v| v / 1e6).collect::<Vec<_>>();
    for f in found {
        text += &format!(
            "{:<24} {:>13.3} {:>11} {:>10.3} {:>14.3} {:>8.1} {:>8.1} {:>8.1}\n",
            f.who.name(),
            median(&f.no_drop) / 1e6,
            spread(&mega(&f.no_drop)),
            median(&f.peak) / 1e6,
            median(&f.overload) / 1e6,
            median(&f.p50),
            median(&f.p99),
            median(&f.p999),
        );
    }
    let nke = &found[0];
    let kept = median(&nke.overload) / median(&nke.peak).max(median(&nke.no_drop));
    text += &format!("overload: nke delivers {:.1} % of its peak at twice the no-drop rate\n", kept * 100.0);
    let (ours, peers): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.who.is_nke());
    for (nke, peer) in ours.iter().flat_map(|nke| peers.iter().map(move |peer| (nke, peer))) {
        text += &format!(
            "{} / {}: no-drop {:.2}, peak {:.2}; p99 latency {:.2}\n",
            nke.who.name(),
            peer.who.name(),
            median(&nke.no_drop) / median(&peer.no_drop),
            median(&nke.peak) / median(&peer.peak),
            median(&nke.p99) / median(&peer.p99),
        );
    }
    let fastest = found.iter().map(|f| median(&f.peak)).fold(0.0, f64::max);
    let enough = generator > fastest * 1.2;
    text += &format!(
        "generator: {:.2} Mpps when it floods, {}\n",
        generator / 1e6,
        if enough { "not the bottleneck" } else { "THE BOTTLENECK: peaks are its own" }
    );
    if missing {
        text += testpmd::NOT_INSTALLED;
        text.push('\n');
    }
    let rows: Vec<_> = found
        .iter()
        .map(|f| {
            json!({
                "forwarder": f.who.name(), "no_drop_pps": f.no_drop, "peak_pps": f.peak, "overload_pps": f.overload,
                "p50_us": f.p50, "p99_us": f.p99, "p999_us": f.p999,
            })
        })
        .collect();
    let json = json!({
        "rounds": options.rounds, "loss": options.loss, "generator_pps": generator, "generator_is_bottleneck": !enough,
        "overload_kept": kept, "forwarders": rows,
    });
    Report { text, json, good: true }
}
