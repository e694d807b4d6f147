//! Opening a device: sockets, program, promiscuous mode, as one transaction. What was opened before a failure is closed
//! by its own drop.

use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use af_xdp::program::{AttachMode, Link, LinkMode, ProgramConfig, Redirect, Selection};
use af_xdp::{BindMode, BusyPoll, Frame, Mode, Socket, SocketConfig};
use nke_mbuf::Cache;

use super::af_xdp::{XdpQueue, XdpTally};
use crate::arena::Arena;
use crate::ifnet::Telemetry;
use crate::mirror::Locals;
use crate::shortcut::Shortcut;
use nke_mbuf::wire::EtherAddr;

use crate::netdev;

/// How to open a device.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// Its name.
    pub device: String,
    /// The network namespace it is in; `None` for this one.
    pub netns: Option<String>,
    /// Queues to open, from 0 on.
    pub queues: u32,
    /// Where the program runs.
    pub attach: AttachMode,
    /// Copy or zero-copy.
    pub bind: BindMode,
    /// Entries of the receive ring.
    pub rx_ring: u32,
    /// Entries of the transmit ring.
    pub tx_ring: u32,
    /// Packets may take several frames.
    pub jumbo: bool,
    /// Let the kernel say when it needs a kick.
    pub need_wakeup: bool,
    /// Busy polling.
    pub busy_poll: Option<BusyPoll>,
    /// Which packets to take from the kernel.
    pub selection: Selection,
    /// With [`Selection::Transit`]: the addresses whose packets are the kernel's.
    pub locals: Option<Locals>,
    /// What packets may take that nobody wants to see; not with `jumbo`.
    pub shortcut: Option<Shortcut>,
}

impl XdpOptions {
    /// One queue of `device`, everything else left to be found out.
    pub fn device(device: &str) -> XdpOptions {
        XdpOptions {
            device: device.to_owned(),
            netns: None,
            queues: 1,
            attach: AttachMode::Auto,
            bind: BindMode::Auto,
            rx_ring: 2048,
            tx_ring: 2048,
            jumbo: false,
            need_wakeup: true,
            busy_poll: None,
            selection: Selection::All,
            locals: None,
            shortcut: None,
        }
    }
}

/// Why a device was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// A socket or program could not be set up.
    Xdp(af_xdp::Error),
    /// The network namespace cannot be entered.
    Netns(String, io::Error),
    /// The device's settings cannot be read or changed.
    Device(String, io::Error),
    /// The pool has too few frames for the rings.
    Pool {
        /// Frames that are free.
        free: usize,
        /// Frames that are needed.
        needed: usize,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Xdp(e) => e.fmt(f),
            OpenError::Netns(name, e) => write!(f, "network namespace {name} cannot be entered: {e}"),
            OpenError::Device(device, e) => write!(f, "device {device}: {e}"),
            OpenError::Pool { free, needed } => {
                write!(f, "the rings need {needed} frames, the pool has {free} left")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<af_xdp::Error> for OpenError {
    fn from(e: af_xdp::Error) -> Self {
        OpenError::Xdp(e)
    }
}

/// What keeps the device ours. Dropping it gives the device back to the kernel.
pub struct Hold {
    /// The program on the device.
    pub link: Link,
    /// The program and its counters.
    pub program: Arc<Redirect>,
    /// Sockets that get packets from [`Opening::admit`] on.
    waiting: Vec<(u32, RawFd)>,
    _promiscuous: Option<OwnedFd>,
}

/// An opened device.
pub struct XdpPort {
    /// Its queues, for the workers.
    pub queues: Vec<XdpQueue>,
    /// To be kept as long as the queues.
    pub hold: Hold,
    /// What is known of it once and for all.
    pub facts: Vec<(&'static str, String)>,
    /// The device's link address.
    pub mac: EtherAddr,
    /// The device's MTU.
    pub mtu: u32,
    /// Counters of its queues.
    pub tallies: Vec<Arc<XdpTally>>,
}

/// The present opening of a device that may be opened again; where its figures are read from.
#[derive(Clone, Default)]
pub struct Opening {
    opened: Arc<Mutex<Option<Opened>>>,
    /// What the device says that it dropped: received, to be sent.
    dropped: Arc<[AtomicU64; 2]>,
}

type Opened = (Hold, Vec<Arc<XdpTally>>);

impl Opening {
    /// Puts in what an open device has to be kept by.
    pub fn set(&self, hold: Hold, tallies: Vec<Arc<XdpTally>>) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some((hold, tallies));
    }

    /// With [`Selection::Transit`]: takes packets from here on. Until then the kernel, which is a router itself, forwards
    /// them, so that none is lost while everything else is made ready. Without effect for others.
    pub fn admit(&self) -> Result<(), af_xdp::Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((hold, _)) = &mut *opened else { return Ok(()) };
        let waiting = std::mem::take(&mut hold.waiting);
        waiting.into_iter().try_for_each(|(queue, fd)| hold.program.insert(queue, fd))
    }

    /// Gives the device back to the kernel: takes the program off.
    pub fn clear(&self) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the device says by now that it dropped. It has no way to say it of one packet.
    pub fn set_dropped(&self, dropped: [u64; 2]) {
        self.dropped.iter().zip(dropped).for_each(|(to, n)| to.store(n, Ordering::Relaxed));
    }

    /// Reads the figures of whatever is open.
    pub fn telemetry(&self) -> Telemetry {
        let opening = self.clone();
        Box::new(move || match &*opening.opened.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((hold, tallies)) => {
                let [received, sent] = opening.dropped.each_ref().map(|n| n.load(Ordering::Relaxed));
                let mut all = figures(&hold.program, tallies);
                all.extend([("device_rx_dropped", received), ("device_tx_dropped", sent)]);
                all
            }
            None => Vec::new(),
        })
    }
}

/// Descriptors that copy mode may send per kick: a whole burst and more, where the kernel lets us.
const TX_BUDGET: u32 = 256;
/// Link headers that come on top of the MTU: Ethernet and two VLAN tags.
const LINK_HEADERS: usize = 14 + 2 * 4;

/// Opens a device on `arena`'s memory; packets it receives name interface `rcvif`.
pub fn open(options: &XdpOptions, arena: &Arena, rcvif: u16) -> Result<XdpPort, OpenError> {
    let netns = options.netns.as_deref();
    netdev::in_netns(netns, || open_here(options, arena, rcvif))
        .map_err(|e| OpenError::Netns(netns.unwrap_or_default().to_owned(), e))?
}

fn open_here(options: &XdpOptions, arena: &Arena, rcvif: u16) -> Result<XdpPort, OpenError> {
    let device = &options.device;
    let shortcut = options.shortcut.as_ref().filter(|_| !options.jumbo);
    let config =
        ProgramConfig { selection: options.selection.clone(), frags: options.jumbo, queues: options.queues };
    let tables = shortcut.map(|shortcut| (shortcut.tables(), u32::from(rcvif)));
    let program = Arc::new(Redirect::load_with(&config, tables)?);
    let config = SocketConfig {
        rx_size: options.rx_ring,
        tx_size: options.tx_ring,
        fill_size: options.rx_ring * 2,
        completion_size: options.tx_ring,
        mode: options.bind,
        need_wakeup: options.need_wakeup,
        multi_buffer: options.jumbo,
        busy_poll: options.busy_poll,
        tx_budget: Some(TX_BUDGET),
        ..SocketConfig::default()
    };
    let mtu = if_error(device, netdev::mtu(device))?;
    let mac = EtherAddr(if_error(device, netdev::mac(device))?);
    let mut queues = Vec::new();
    let mut facts = vec![("device", device.clone()), ("queues", options.queues.to_string())];
    for queue in 0..options.queues {
        let (socket, borrower) = bind(options, &config, arena, queue)?;
        if queue == 0 {
            let mode = if socket.mode() == Mode::ZeroCopy { "zero-copy" } else { "copy" };
            facts.push(("bind", mode.into()));
            facts.push(("tx_budget", socket.tx_budget().to_string()));
        }
        let (umem, pool) = (arena.umem.clone(), arena.pool.clone());
        let len_max = mtu as usize + LINK_HEADERS;
        queues.push(XdpQueue::new(socket, borrower, umem, pool, rcvif, len_max, options.jumbo));
    }
    let mut waiting: Vec<_> = queues.iter().enumerate().map(|(i, queue)| (i as u32, queue.fd())).collect();
    let mut promiscuous = None;
    if options.selection == Selection::Transit {
        // What is for other stations is not to be routed.
        if let Some(locals) = &options.locals {
            locals.join(&program)?;
        }
    } else {
        promiscuous = Some(if_error(device, netdev::promiscuous(device))?);
        waiting.drain(..).try_for_each(|(queue, fd)| program.insert(queue, fd))?;
    }
    // Last: until here the device works as before.
    let link = program.attach(device, options.attach)?;
    if let Some(shortcut) = shortcut {
        shortcut.opened(rcvif, device, link.ifindex(), link.mode());
    }
    facts.push(("xdp", if link.mode() == LinkMode::Native { "native" } else { "generic" }.into()));
    facts.push(("mtu", mtu.to_string()));
    facts.push(("memory", arena.backing().into()));
    let tallies = queues.iter().map(XdpQueue::tally).collect();
    let hold = Hold { link, program, waiting, _promiscuous: promiscuous };
    Ok(XdpPort { queues, hold, facts, mac, mtu, tallies })
}

fn if_error<T>(device: &str, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|e| OpenError::Device(device.to_owned(), e))
}

/// Binds one queue with its receive ring's worth of frames in the fill ring.
#[allow(unsafe_code)]
fn bind(
    options: &XdpOptions,
    config: &SocketConfig,
    arena: &Arena,
    queue: u32,
) -> Result<(Socket, nke_mbuf::Device), OpenError> {
    let borrower = XdpQueue::next_device();
    let mut cache = Cache::new(&arena.pool);
    let needed = options.rx_ring as usize;
    let mut frames: Vec<Frame> = Vec::with_capacity(needed);
    while frames.len() < needed
        && let Some(addr) = cache.lend(borrower)
    {
        // SAFETY: `lend` gave up the pool's claim to the frame.
        frames.push(unsafe { arena.umem.frame_from_addr(addr.0) });
    }
    let free = frames.len();
    let bound = if free < needed {
        Err(OpenError::Pool { free, needed })
    } else {
        Socket::bind_filled(&arena.umem, &options.device, queue, config, &mut frames).map_err(OpenError::from)
    };
    bound.map(|socket| (socket, borrower)).inspect_err(|_| {
        frames.clear();
        // SAFETY: no socket took the frames, and their tokens are dropped.
        unsafe { arena.pool.take_back(borrower) };
    })
}

fn figures(program: &Redirect, tallies: &[Arc<XdpTally>]) -> Vec<(&'static str, u64)> {
    let counters = program.counters().unwrap_or_default();
    let stats: Vec<_> = tallies.iter().filter_map(|t| t.statistics()).collect();
    let kernel = |f: fn(&af_xdp::Statistics) -> u64| stats.iter().map(f).sum();
    let own = |f: fn(&XdpTally) -> u64| tallies.iter().map(|t| f(t)).sum();
    vec![
        ("xdp_redirected", counters.redirected),
        ("xdp_forwarded", counters.forwarded),
        ("xdp_passed", counters.passed),
        ("xdp_no_socket", counters.no_socket),
        ("rx_dropped", kernel(|s| s.rx_dropped)),
        ("rx_ring_full", kernel(|s| s.rx_ring_full)),
        ("fill_ring_empty", kernel(|s| s.fill_ring_empty)),
        ("rx_invalid", kernel(|s| s.rx_invalid)),
        ("tx_invalid", kernel(|s| s.tx_invalid)),
        ("kicks", own(|t| t.kicks.get())),
        ("kicks_again", own(|t| t.kicks_again.get())),
        ("kicks_failed", own(|t| t.kicks_failed.get())),
        ("fill_starved", own(|t| t.fill_starved.get())),
    ]
}
