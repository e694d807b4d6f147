//! Makes a dataplane of a configuration.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use af_xdp::program::{AttachMode, Match, Selection};
use af_xdp::{BindMode, BusyPoll, Pages};
use nke_filters::{Args, AttachId, Host, IfIndex};
use nke_inet::icmp::Limits;
use nke_inet::reass::Config as Reassembly;
use nke_mbuf::wire::EtherAddr;

use crate::arena::Arena;
use crate::config::{self, Config, Port, PortKind, Role, RouterHost};
use crate::control_handle::Control;
use crate::entries::{self, PATIENCE};
use crate::error::Error;
use crate::guard;
use crate::inet::{self, Request};
use crate::linkwatch::{LinkWatch, Watched};
use crate::mirror::{self, Followed, Locals, Mirror};
use crate::port::Queue;
use crate::port::memory::{FrameSet, Sink, SinkTally, Source, SourceControl};
use crate::port::pcap::{PcapPortError, PcapQueue};
use crate::port::xdp_open::{OpenError, Opening, XdpOptions, open};
use crate::punt::{self, Punt};
use crate::runtime::{Account, Builder, LaneId, Runtime, Settings};
use crate::shared::Shared;
use crate::shortcut::{self, Shortcut};

/// Most of a capture that is held in memory.
const PCAP_BYTES_MAX: usize = 256 << 20;

/// A dataplane made of a configuration, with all its filters, not going yet.
pub struct Assembly {
    /// The threads.
    pub runtime: Runtime,
    /// Numbers of the configuration's filters, in its order.
    pub filters: Vec<AttachId>,
    openings: Vec<Opening>,
    watches: Vec<LinkWatch>,
    mirror: Option<Mirror>,
}

/// A port while the dataplane is put together.
struct Built {
    name: String,
    lanes: Vec<LaneId>,
    watched: Option<Watched>,
}

/// Makes it. What was opened before an error is closed again.
pub fn assemble(config: &Config) -> Result<Assembly, Error> {
    let pages = match config.pool.hugepages {
        config::HugePages::Auto => Pages::Auto,
        config::HugePages::Require => Pages::Huge,
        config::HugePages::Never => Pages::Plain,
    };
    let arena = Arc::new(Arena::new(*config.pool.frames.as_ref(), *config.pool.frame_size.as_ref(), pages)?);
    let cores = config.runtime.cores.as_ref();
    let settings = Settings {
        cores: if cores.is_empty() { vec![None] } else { cores.iter().map(|c| Some(*c)).collect() },
        burst: *config.runtime.burst.as_ref(),
        adaptive: config.runtime.mode == config::Mode::Adaptive,
        stall: Duration::from_millis(*config.runtime.stall_ms.as_ref()),
        ..Settings::default()
    };
    let workers = settings.cores.len();
    // The kernel's addresses have to be known before a device is opened.
    let followed = follow(config)?;
    let locals = followed.as_ref().map(Followed::locals);
    let mut builder = Builder::new(arena.pool.clone(), settings);
    let mut shortcut = None;
    if let Some(router) = &config.router {
        let mut inet = inet_settings(router, *config.pool.frame_size.as_ref());
        if router.shortcut && config.port.iter().any(|port| port.kind == PortKind::AfXdp) {
            shortcut = shortcut_of(&inet, has_ipv6(config));
        }
        inet.shortcut = shortcut.clone();
        builder.inet(inet);
    }
    let mut built = Vec::new();
    for (i, port) in config.port.iter().enumerate() {
        // Both ends of a wire spread their queues over the workers alike, beginning where the wire says.
        let wire =
            config.wire.iter().position(|w| [w.a.as_ref(), w.b.as_ref()].contains(&port.name.as_ref()));
        let first_worker = wire.unwrap_or(i);
        let locals = locals.clone().filter(|_| wire.is_none());
        let shortcut = shortcut.clone().filter(|_| wire.is_none());
        let ways = Ways { locals, shortcut };
        built.push(build_port(&mut builder, port, &arena, ways, first_worker, workers)?);
    }
    for wire in &config.wire {
        let lanes = |name: &String| built.iter().find(|b| b.name == *name).map_or(&[][..], |b| &b.lanes);
        for (a, b) in lanes(wire.a.as_ref()).iter().zip(lanes(wire.b.as_ref())) {
            builder.wire(*a, *b);
        }
    }
    let runtime = builder.start().map_err(|e| Error::new("NKE-RT-005", e.to_string()))?;
    let mut openings = Vec::new();
    let mut watches = Vec::new();
    let mut mirrored = Vec::new();
    for watched in built.into_iter().filter_map(|b| b.watched) {
        openings.push(watched.opening.clone());
        if watched.options.locals.is_some() {
            mirrored.push(mirrored_port(&watched, runtime.shared()));
        }
        let (shared, mailboxes) = (runtime.shared().clone(), runtime.mailboxes().to_vec());
        let watch = LinkWatch::start(watched, arena.clone(), shared, mailboxes);
        watches.push(watch.map_err(|e| Error::new("NKE-RT-005", e.to_string()))?);
    }
    let control = runtime.control();
    crate::demo::register_builtin(&control)?;
    for interface in &config.interface {
        entries::make_interface(&control, interface)?;
    }
    for address in &config.address {
        entries::add_address(&control, address)?;
    }
    for neighbor in &config.neighbor {
        entries::set_neighbor(&control, neighbor)?;
    }
    for route in &config.route {
        entries::set_route(&control, route)?;
    }
    let mirror = followed.map(|followed| mirror(&control, config, followed, mirrored)).transpose()?;
    let mut filters = Vec::new();
    for filter in &config.filter {
        filters.push(control.attach(entries::attach_spec(filter))?.wait(PATIENCE)?);
    }
    Ok(Assembly { runtime, filters, openings, watches, mirror })
}

impl Assembly {
    /// Lets the workers start, and takes the packets that the kernel has forwarded so far.
    pub fn go(&mut self) -> Result<(), Error> {
        self.runtime.go();
        for opening in &self.openings {
            opening.admit().map_err(OpenError::from)?;
        }
        Ok(())
    }

    /// Ends everything; devices are the kernel's again.
    pub fn stop(self) -> Account {
        drop(self.watches);
        drop(self.mirror);
        // Programs come off first: the kernel handles what arrives from here on.
        self.openings.iter().for_each(Opening::clear);
        self.runtime.stop()
    }
}

/// Whether the router has IPv6 from the start. (Tables for those that do not are a waste of memory.)
fn has_ipv6(config: &Config) -> bool {
    let kernel = config.router.as_ref().is_some_and(|router| router.host == RouterHost::Kernel);
    kernel || config.address.iter().any(|address| address.address.as_ref().contains(':'))
}

/// Without it everything works as well, though slower: a failure is said, and no more.
fn shortcut_of(inet: &inet::Settings, ipv6: bool) -> Option<Shortcut> {
    Shortcut::new(inet, ipv6)
        .inspect_err(|e| eprintln!("nke: warning: no shortcut, all packets go through workers: {e}"))
        .ok()
}

/// Ways of a router's packets around its workers.
struct Ways {
    locals: Option<Locals>,
    shortcut: Option<Shortcut>,
}

fn inet_settings(router: &config::Router, frame_size: u32) -> inet::Settings {
    let defaults = inet::Settings::default();
    inet::Settings {
        v4_blocks: *router.v4_blocks.as_ref(),
        neighbors: *router.neighbors.as_ref(),
        reassembly: Reassembly::within(*router.reassembly_bytes.as_ref() as usize, frame_size),
        icmp: Limits { per_second: *router.icmp_errors_per_second.as_ref(), ..defaults.icmp },
        kernel: router.host == RouterHost::Kernel,
        ..defaults
    }
}

/// The kernel's tables, if it is the host: those of the one namespace that routed ports are in.
fn follow(config: &Config) -> Result<Option<Followed>, Error> {
    if config.router.as_ref().is_none_or(|router| router.host != RouterHost::Kernel) {
        return Ok(None);
    }
    let netns = config.kernel_netns();
    let netns_error = |e: io::Error| Error::new("NKE-NET-004", format!("{}: {e}", netns.unwrap_or("here")));
    for warning in mirror::warnings(netns).map_err(netns_error)? {
        eprintln!("nke: warning: {warning}");
    }
    Followed::new(netns).map(Some).map_err(netns_error)
}

fn mirrored_port(watched: &Watched, shared: &Shared) -> mirror::Port {
    let params = shared.ifnet_info(watched.interface);
    mirror::Port {
        device: watched.options.device.clone(),
        interface: watched.interface,
        mac: params.as_ref().and_then(|p| p.lladdr).unwrap_or_default(),
        mtu: params.map_or(0, |p| p.mtu),
    }
}

/// Makes the way back to the kernel, and carries its tables over.
fn mirror(
    control: &Control,
    config: &Config,
    followed: Followed,
    ports: Vec<mirror::Port>,
) -> Result<Mirror, Error> {
    let punt = Punt { netns: config.kernel_netns().map(str::to_owned) };
    control.register_ifnet(Arc::new(punt))?.wait(PATIENCE)?;
    let kernel = control.create_interface(punt::KIND, config::KERNEL, Args::default())?.wait(PATIENCE)?;
    control.inet(Request::HostBehind(kernel))?.wait(PATIENCE)?;
    followed.start(ports, kernel, control).map_err(|e| Error::new("NKE-NET-004", e.to_string()))
}

fn build_port(
    builder: &mut Builder,
    port: &Port,
    arena: &Arena,
    ways: Ways,
    first_worker: usize,
    workers: usize,
) -> Result<Built, Error> {
    let name = port.name.as_ref().clone();
    let worker = |queue: usize| (first_worker + queue) % workers;
    if port.kind == PortKind::AfXdp {
        return build_xdp(builder, xdp_options(port, ways), port.force, arena, name, worker);
    }
    let (kind, queue): (_, Box<dyn Queue>) = match port.kind {
        PortKind::Pcap => {
            let path = |file: &Option<String>| file.as_ref().map(PathBuf::from);
            let queue = PcapQueue::open(
                path(&port.read).as_deref(),
                path(&port.write).as_deref(),
                port.looped,
                PCAP_BYTES_MAX,
            );
            let queue = queue.map_err(|e| match &e {
                PcapPortError::Read(file, why) => {
                    Error::new(why.id(), format!("port `{name}`: {file}")).because(why.cause(), why.cure())
                }
                _ => Error::new("NKE-DEV-001", format!("port `{name}`: {e}")),
            })?;
            ("pcap", Box::new(queue))
        }
        _ if port.role == Some(Role::Sink) => {
            ("memory", Box::new(Sink::new(Arc::new(SinkTally::new(1)), 0, None)))
        }
        _ => {
            let to = port.to_mac.as_ref().and_then(|mac| mac.parse().ok());
            let frames = FrameSet::udp(*port.flows.as_ref(), *port.size.as_ref(), to);
            let control = Arc::new(SourceControl::default());
            ("memory", Box::new(Source::new(frames, control, Instant::now(), false, port.rate_pps)))
        }
    };
    let interface = builder.plain_interface(&name, kind, worker(0));
    builder.link(interface, made_up_mac(interface), 1500);
    let lanes = vec![builder.queue(interface, worker(0), queue)];
    Ok(Built { name, lanes, watched: None })
}

fn build_xdp(
    builder: &mut Builder,
    options: XdpOptions,
    force: bool,
    arena: &Arena,
    name: String,
    worker: impl Fn(usize) -> usize,
) -> Result<Built, Error> {
    // Whatever else is selected leaves this host's own packets to the kernel, or was chosen one by one.
    if !force && matches!(options.selection, Selection::All) {
        guard::check(&options)?;
    }
    let rcvif = builder.interfaces() as u16;
    let opened = open(&options, arena, rcvif)?;
    let ifindex = opened.hold.link.ifindex();
    let opening = Opening::default();
    opening.set(opened.hold, opened.tallies);
    let interface: IfIndex =
        builder.interface(&name, shortcut::PORT, worker(0), opened.facts, opening.telemetry());
    builder.link(interface, opened.mac, opened.mtu);
    let queues = opened.queues.into_iter().enumerate();
    let lanes: Vec<_> =
        queues.map(|(i, queue)| builder.queue(interface, worker(i), Box::new(queue))).collect();
    let watched = Watched { options, interface, ifindex, lanes: lanes.clone(), opening };
    Ok(Built { name, lanes, watched: Some(watched) })
}

/// A link address for a port that has none: locally administered, one for each interface.
fn made_up_mac(interface: IfIndex) -> EtherAddr {
    let [high, low] = interface.0.to_be_bytes();
    EtherAddr([0x02, 0x4e, 0x4b, 0x45, high, low])
}

/// With the kernel's addresses only what it would forward is taken.
fn xdp_options(port: &Port, Ways { locals, shortcut }: Ways) -> XdpOptions {
    let matches = port.select.iter().map(|m| Match {
        ethertype: m.ethertype,
        vlan: m.vlan,
        protocol: m.protocol,
        src_port: m.src_port,
        dst_port: m.dst_port,
    });
    XdpOptions {
        device: port.device.clone().unwrap_or_default(),
        netns: port.netns.clone(),
        queues: *port.queues.as_ref(),
        attach: match port.xdp {
            config::Xdp::Auto => AttachMode::Auto,
            config::Xdp::Native => AttachMode::Native,
            config::Xdp::Generic => AttachMode::Generic,
        },
        bind: match port.bind {
            config::Bind::Auto => BindMode::Auto,
            config::Bind::Copy => BindMode::Copy,
            config::Bind::ZeroCopy => BindMode::ZeroCopy,
        },
        rx_ring: *port.rx_ring.as_ref(),
        tx_ring: *port.tx_ring.as_ref(),
        jumbo: port.jumbo,
        need_wakeup: port.need_wakeup,
        busy_poll: (port.busy_poll_us > 0).then_some(BusyPoll {
            usecs: port.busy_poll_us,
            budget: 64,
            prefer: true,
        }),
        selection: match &locals {
            Some(_) => Selection::Transit,
            None if port.select.is_empty() => Selection::All,
            None => Selection::Any(matches.collect()),
        },
        locals,
        shortcut,
    }
}
