//! `tap`: an interface whose other end is a device of this host's kernel (the kernel's networking/tuntap.rst). What is sent by it
//! the kernel receives; what the kernel sends by the device comes in by the interface. So programs on this host talk to, and
//! through, NKE: give the device an address, and this interface another one of the same network.
//!
//! Arguments: `device` (its name in the kernel, 15 bytes at most; default the interface's), `mode` (`tap`: Ethernet frames, the default;
//! `tun`: IP packets, without link addresses), `mtu` (bytes, default 1500, set on both ends), `mac` (of the interface, not of the
//! device; default made of the name), `netns` (network namespace of the device; default this one).
//!
//! Workers put frames into a bounded queue and never call the kernel; one thread carries them over, both ways. It looks at the queue
//! every millisecond when there is nothing to do: that is what a ping through it takes at most in each direction. The device goes with
//! the interface.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use nke_filters::{
    Args, Batch, Counter, CreateError, Cx, Demux, Hold, HoldKind, Host, IfEvent, IfEventKind, IfFamily,
    IfFlags, IfIndex, IfIoctl, IfParams, IfnetDriver, IfnetEnv, IfnetKind, IoctlAnswer, PerWorker, vif,
};
use nke_mbuf::{Mbuf, Owner};

use crate::netdev::{self, Tun};
use crate::wake::Wake;

/// Frames that may wait for the thread.
const QUEUE: usize = 1024;
/// Between looks at an empty queue. Workers never wake the thread: that would be a system call.
const TICK: Duration = Duration::from_millis(1);
/// Frames carried one way before it is the other one's turn.
const TURN: usize = 64;
/// Largest MTU, and what comes beside it: link header and tags.
const MTU_MAX: u32 = 65_000;
const LINK_MAX: usize = 14 + 8;

/// The kind.
pub struct Tap;

impl IfnetKind for Tap {
    fn name(&self) -> &str {
        "tap"
    }

    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        args.only(&["device", "mode", "mtu", "mac", "netns"])?;
        let device = args.text("device")?.unwrap_or(&env.name);
        let mode = match args.text("mode")?.unwrap_or("tap") {
            "tap" => Tun::Frames,
            "tun" => Tun::Packets,
            other => {
                let cause = format!("`mode` is \"{other}\"");
                return Err(CreateError::new(cause, "write mode = \"tap\" or \"tun\""));
            }
        };
        let mtu = args.number("mtu", 68..=MTU_MAX.into(), 1500)? as u32;
        let lladdr = match mode {
            Tun::Frames => Some(vif::mac_arg(args, &env.name)?),
            Tun::Packets => None,
        };
        let netns = args.text("netns")?.map(str::to_owned);
        let made = netdev::in_netns(netns.as_deref(), || {
            let (file, name) = netdev::tun(device, mode)?;
            netdev::bring_up(&name, mtu).map(|()| (file, name))
        });
        let (file, device) = made.flatten().map_err(|e| {
            CreateError::new(
                format!("the kernel makes no device `{device}`: {e}"),
                "load the module `tun`, see that /dev/net/tun is there and that no device has this name; it takes CAP_NET_ADMIN",
            )
        })?;
        let carrier = Carrier::start(env, file);
        let carrier = carrier.map_err(|e| {
            CreateError::new(format!("no thread for `{}`: {e}", env.name), "raise the limit of threads")
        })?;
        let ethernet = mode == Tun::Frames;
        let link = if ethernet {
            IfFlags::BROADCAST.with(IfFlags::MULTICAST)
        } else {
            IfFlags::POINTOPOINT.with(IfFlags::NOARP)
        };
        let params = IfParams {
            name: env.name.clone(),
            kind: "tap",
            family: if ethernet { IfFamily::ETHERNET } else { IfFamily::TUN },
            flags: IfFlags::UP.with(link),
            mtu,
            hdrlen: if ethernet { 14 } else { 0 },
            lladdr,
        };
        let driver = Driver {
            shared: carrier.shared.clone(),
            carrier: Mutex::new(Some(carrier)),
            queue_full: PerWorker::new(env.workers, Counter::default),
            device,
            netns,
        };
        Ok((params, Arc::new(driver)))
    }
}

struct Driver {
    shared: Arc<Shared>,
    carrier: Mutex<Option<Carrier>>,
    /// Frames for which another worker took the last place.
    queue_full: PerWorker<Counter>,
    device: String,
    netns: Option<String>,
}

impl IfnetDriver for Driver {
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for place in batch.places() {
            if self.shared.queue.is_full() {
                // What stays in the batch is counted as not taken.
                return;
            }
            let Some(frame) = batch.take(place) else { continue };
            if let Err(frame) = self.shared.queue.push(frame) {
                self.queue_full.of(cx.worker).add(1);
                cx.free(frame);
            }
        }
    }

    fn demux(&self, frame: &Mbuf) -> Demux {
        vif::by_version(frame)
    }

    fn ioctl(&self, request: &mut IfIoctl<'_>) -> IoctlAnswer {
        let IfIoctl::SetMtu(mtu) = *request else { return IoctlAnswer::NotMine };
        if mtu > MTU_MAX {
            return IoctlAnswer::Refuse(format!("{MTU_MAX} at most"));
        }
        // The device has the same.
        let set = netdev::in_netns(self.netns.as_deref(), || netdev::bring_up(&self.device, mtu));
        match set.flatten() {
            Ok(()) => IoctlAnswer::Handled,
            Err(e) => IoctlAnswer::Refuse(format!("the device `{}` does not take it: {e}", self.device)),
        }
    }

    fn event(&self, event: &IfEvent) {
        match event.kind {
            IfEventKind::Attached => self.shared.interface.store(event.interface.0, Ordering::Release),
            IfEventKind::Detaching => self.shared.interface.store(IfIndex::NONE.0, Ordering::Release),
            _ => (),
        }
    }

    fn detached(&self) {
        drop(self.carrier.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        vec![
            ("to_kernel", of(&shared.to_kernel)),
            ("refused", of(&shared.refused)),
            ("queue_full", self.queue_full.iter().map(Counter::get).sum()),
            ("from_kernel", of(&shared.from_kernel)),
            ("input_refused", of(&shared.input_refused)),
            ("no_frame", of(&shared.no_frame)),
        ]
    }
}

/// What workers and the thread share.
struct Shared {
    queue: ArrayQueue<Mbuf>,
    /// Number of the interface while it is attached.
    interface: AtomicU16,
    stop: AtomicBool,
    to_kernel: AtomicU64,
    /// Frames the kernel did not take.
    refused: AtomicU64,
    from_kernel: AtomicU64,
    /// Frames from the kernel that the interface did not take.
    input_refused: AtomicU64,
    /// Frames from the kernel that the pool had no room for.
    no_frame: AtomicU64,
}

/// The thread. Dropping it ends it, and sends the frames left home.
struct Carrier {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
    _holds: [Hold; 2],
}

impl Carrier {
    fn start(env: &IfnetEnv, device: File) -> io::Result<Carrier> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(QUEUE),
            interface: AtomicU16::new(IfIndex::NONE.0),
            stop: AtomicBool::new(false),
            to_kernel: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            from_kernel: AtomicU64::new(0),
            input_refused: AtomicU64::new(0),
            no_frame: AtomicU64::new(0),
        });
        let wake = Arc::new(Wake::new()?);
        let holds = [(HoldKind::Thread, "carrier"), (HoldKind::File, "device")]
            .map(|(kind, what)| env.host.hold(env.owner, kind, &format!("{what} of {}", env.name)));
        let work = Work {
            shared: shared.clone(),
            wake: wake.clone(),
            host: env.host.clone(),
            owner: env.owner,
            device,
            buffer: vec![0; MTU_MAX as usize + LINK_MAX],
        };
        let thread = std::thread::Builder::new().name("nke-tap".into()).spawn(move || work.run())?;
        Ok(Carrier { shared, wake, thread: Some(thread), _holds: holds })
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
        while self.shared.queue.pop().is_some() {}
    }
}

/// What the thread has.
struct Work {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    host: Arc<dyn Host>,
    owner: Owner,
    device: File,
    buffer: Vec<u8>,
}

impl Work {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let sent = self.carry_out();
            let received = self.carry_in();
            if !sent && !received {
                self.wake.sleep([self.device.as_raw_fd()].into_iter(), TICK);
            }
        }
    }

    /// Carries a turn of frames to the kernel; whether there were any.
    fn carry_out(&mut self) -> bool {
        for done in 0..TURN {
            let Some(frame) = self.shared.queue.pop() else { return done > 0 };
            let bytes = frame.in_one_piece(&mut self.buffer);
            // The kernel refuses what is too short, and has no room for what comes too fast.
            let taken = self.device.write(bytes).is_ok();
            count(if taken { &self.shared.to_kernel } else { &self.shared.refused });
        }
        true
    }

    /// Carries a turn of frames from the kernel; whether there were any.
    fn carry_in(&mut self) -> bool {
        for done in 0..TURN {
            // Nothing there, or a signal.
            let Ok(len) = self.device.read(&mut self.buffer) else { return done > 0 };
            let interface = IfIndex(self.shared.interface.load(Ordering::Acquire));
            if interface == IfIndex::NONE {
                count(&self.shared.input_refused);
                continue;
            }
            let Some(frame) = self.frame(len) else {
                count(&self.shared.no_frame);
                continue;
            };
            // What is refused goes home.
            let taken = self.host.inject_input(interface, frame).is_ok();
            count(if taken { &self.shared.from_kernel } else { &self.shared.input_refused });
        }
        true
    }

    /// A packet of the first `len` bytes of the buffer, in as many frames as they take.
    fn frame(&self, len: usize) -> Option<Mbuf> {
        let mut whole = self.host.alloc(self.owner)?;
        let mut rest = &self.buffer[..len];
        let first = rest.split_off(..rest.len().min(whole.tailroom()))?;
        whole.append(first.len())?.copy_from_slice(first);
        while !rest.is_empty() {
            let mut more = self.host.alloc(self.owner)?;
            let piece = rest.split_off(..rest.len().min(more.tailroom()))?;
            more.append(piece.len())?.copy_from_slice(piece);
            whole.chain(more).ok()?;
        }
        Some(whole)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
