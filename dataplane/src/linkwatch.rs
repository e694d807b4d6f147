//! Watches a device: link state, and whether it is there at all. When it vanishes its queues are taken out of use; when a
//! device of that name is back it is opened again, while all other ports go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nke_filters::{Host as _, IfEventKind, IfIndex};
use nke_mbuf::Cache;
use nke_mbuf::wire::EtherAddr;

use crate::arena::Arena;
use crate::command::{Command, OwnedIoctl};
use crate::mailbox::{Mailbox, Replacement};
use crate::netdev;
use crate::port::Queue;
use crate::port::absent::Absent;
use crate::port::xdp_open::{Opening, XdpOptions, open};
use crate::runtime::LaneId;
use crate::shared::Shared;

/// Between looks at a device.
const TICK: Duration = Duration::from_millis(100);

/// Everything about one watched device.
pub struct Watched {
    /// How it was, and will be, opened.
    pub options: XdpOptions,
    /// Its interface.
    pub interface: IfIndex,
    /// Its number when it was opened.
    pub ifindex: u32,
    /// The lanes of its queues, in order.
    pub lanes: Vec<LaneId>,
    /// What it is kept by.
    pub opening: Opening,
}

/// A running watch; dropping it ends it.
pub struct LinkWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LinkWatch {
    /// Starts to watch.
    pub fn start(
        watched: Watched,
        arena: Arc<Arena>,
        shared: Arc<Shared>,
        mailboxes: Vec<Arc<Mailbox>>,
    ) -> std::io::Result<LinkWatch> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = stop.clone();
            let ending = stop.clone();
            let watcher = Watcher { watched, arena, shared, mailboxes, ending, present: true, up: true };
            std::thread::Builder::new().name("nke-link".into()).spawn(move || watcher.run(&stop))?
        };
        Ok(LinkWatch { stop, thread: Some(thread) })
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only panics with a bug of ours, which it reported.
            let _ = thread.join();
        }
    }
}

struct Watcher {
    watched: Watched,
    arena: Arc<Arena>,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox>>,
    ending: Arc<AtomicBool>,
    present: bool,
    up: bool,
}

impl Watcher {
    fn run(mut self, stop: &AtomicBool) {
        if let Some(netns) = &self.watched.options.netns
            && let Err(e) = netdev::enter_netns(netns)
        {
            eprintln!("nke: {} is not watched: {e}", self.watched.options.device);
            return;
        }
        // Opened from this thread from now on, which is in the right namespace already.
        self.watched.options.netns = None;
        while !stop.load(Ordering::Acquire) {
            self.look();
            self.collect();
            std::thread::park_timeout(TICK);
        }
        self.collect();
    }

    fn look(&mut self) {
        match netdev::state(&self.watched.options.device) {
            Some((ifindex, up)) if self.present && ifindex == self.watched.ifindex => {
                if up != self.up {
                    self.up = up;
                    self.tell(if up { IfEventKind::LinkOn } else { IfEventKind::LinkOff });
                }
                let Watched { options, interface, opening, .. } = &self.watched;
                if let Some(dropped) = netdev::dropped(&options.device) {
                    opening.set_dropped(dropped);
                }
                if options.shortcut.as_ref().is_some_and(|s| s.look(interface.0, &options.device)) {
                    // A full queue: it is asked for again with the next change of anything.
                    let _ = self.shared.command(Command::Doors { running: None });
                }
            }
            seen => {
                if self.present {
                    self.gone();
                }
                if let Some((ifindex, true)) = seen {
                    self.back(ifindex);
                }
            }
        }
    }

    fn gone(&mut self) {
        self.present = false;
        self.watched.opening.clear();
        if let Some(shortcut) = &self.watched.options.shortcut {
            shortcut.gone(self.watched.interface.0);
        }
        self.swap((0..self.watched.lanes.len()).map(|_| Box::new(Absent) as Box<dyn Queue>).collect());
        self.tell(IfEventKind::DeviceGone);
    }

    fn back(&mut self, ifindex: u32) {
        self.collect();
        // A failure is tried again at the next look: the device may still be on its way.
        let Ok(port) = open(&self.watched.options, &self.arena, self.watched.interface.0) else { return };
        self.watched.opening.set(port.hold, port.tallies);
        self.swap(port.queues.into_iter().map(|q| Box::new(q) as Box<dyn Queue>).collect());
        if let Err(e) = self.watched.opening.admit() {
            eprintln!("nke: {}: {e}", self.watched.options.device);
        }
        self.changed(port.mac, port.mtu);
        self.watched.ifindex = ifindex;
        (self.present, self.up) = (true, true);
        self.tell(IfEventKind::DeviceBack);
    }

    /// A device that was made again may have another link address and MTU.
    fn changed(&self, mac: EtherAddr, mtu: u32) {
        let interface = self.watched.interface;
        let Some(known) = self.shared.ifnet_info(interface) else { return };
        let mac = (known.lladdr != Some(mac)).then_some(OwnedIoctl::SetLladdr(mac));
        let mtu = (known.mtu != mtu).then_some(OwnedIoctl::SetMtu(mtu));
        for request in mac.into_iter().chain(mtu) {
            if self.shared.command(Command::Ioctl { interface, request, reply: None }).is_err() {
                eprintln!("nke: {}: its new link address or MTU is not known", self.watched.options.device);
            }
        }
    }

    fn swap(&self, queues: Vec<Box<dyn Queue>>) {
        for (lane, queue) in self.watched.lanes.iter().zip(queues) {
            let mut mail = Some(Replacement { lane: lane.lane, queue });
            // A worker takes its mail every round; a full box means that it is stuck in a filter.
            while let Some(waiting) = mail.take() {
                let Err(back) = self.mailboxes[lane.worker].send(waiting) else { break };
                if self.shared.stop.load(Ordering::Acquire) || self.ending.load(Ordering::Acquire) {
                    back.queue.close(&mut Cache::new(&self.arena.pool));
                    break;
                }
                self.collect();
                std::thread::sleep(Duration::from_millis(1));
                mail = Some(back);
            }
        }
    }

    /// Closes queues that workers put out of use.
    fn collect(&self) {
        for lane in &self.watched.lanes {
            while let Some(mail) = self.mailboxes[lane.worker].recv() {
                mail.queue.close(&mut Cache::new(&self.arena.pool));
            }
        }
    }

    fn tell(&self, kind: IfEventKind) {
        let interface = self.watched.interface;
        if self.shared.command(Command::Event { interface, kind }).is_err() {
            eprintln!("nke: {}: {} (filters were not told)", self.watched.options.device, kind.name());
        }
    }
}
