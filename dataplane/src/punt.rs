//! `punt`: an interface behind which is the kernel. What is sent by it the kernel receives on a TUN device of its own, and
//! routes: packets whose route leads to a device that is not NKE's, and packets for the kernel itself.
//!
//! Workers put packets into a bounded queue and never call the kernel; a thread writes them to the device. Nothing comes
//! back by it: what the kernel sends goes out by its own devices.
//!
//! A packet that NKE forwarded has a hop less. The kernel takes one, too, and both are one router, so it gets the hop back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use nke_filters::{
    Args, Batch, Counter, CreateError, Cx, DropReason, Hold, HoldKind, IfFamily, IfFlags, IfParams,
    IfnetDriver, IfnetEnv, IfnetKind, PerWorker,
};
use nke_mbuf::Mbuf;

use crate::netdev;

/// Name of the kind.
pub const KIND: &str = "punt";
/// Name of the kernel's device; the number tells it from that of another NKE.
const DEVICE: &str = "nke-punt%d";
/// Packets that may wait for the thread.
const QUEUE: usize = 1024;
/// Between looks at an empty queue. Workers never wake the thread: that would be a system call.
const TICK: Duration = Duration::from_millis(1);
/// Longest packet: that of IPv4.
const MTU: u32 = 65_535;

/// The kind: its devices are in one network namespace.
pub struct Punt {
    /// Its name; `None` for this one.
    pub netns: Option<String>,
}

impl IfnetKind for Punt {
    fn name(&self) -> &str {
        KIND
    }

    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        args.only(&[])?;
        let reason = env.host.drop_reason(env.owner, "not_by_us");
        let not_by_us = reason.map_err(|e| {
            CreateError::new(e.to_string(), "unload extensions that have drop reasons of their own")
        })?;
        let hold = env.host.hold(env.owner, HoldKind::Thread, &format!("writer of {}", env.name));
        let made = netdev::in_netns(self.netns.as_deref(), device).flatten();
        let writer = made.and_then(|device| Writer::start(device, hold));
        if let Err(e) = &writer {
            eprintln!(
                "nke: packets cannot be given back to the kernel ({e}): those whose route leads to a device that is not \
                 NKE's are dropped as punt:not_by_us; load the module `tun`, and see that /dev/net/tun is there"
            );
        }
        let params = IfParams {
            name: env.name.clone(),
            kind: KIND,
            family: IfFamily::TUN,
            flags: IfFlags::UP.with(IfFlags::POINTOPOINT).with(IfFlags::NOARP),
            mtu: MTU,
            hdrlen: 0,
            lladdr: None,
        };
        let writer = writer.ok();
        let queue = writer.as_ref().map(|writer| writer.shared.clone());
        let queue_full = PerWorker::new(env.workers, Counter::default);
        Ok((params, Arc::new(Driver { queue, writer: Mutex::new(writer), not_by_us, queue_full })))
    }
}

/// Makes the device: one that receives whatever there is, and sends nothing by itself.
fn device() -> io::Result<File> {
    let (file, name) = netdev::tun(DEVICE, netdev::Tun::Packets)?;
    for (file, value) in [
        // No link-local address, so no solicitations from it.
        (format!("ipv6/conf/{name}/addr_gen_mode"), "1"),
        (format!("ipv6/conf/{name}/accept_ra"), "0"),
        (format!("ipv6/conf/{name}/forwarding"), "1"),
        (format!("ipv4/conf/{name}/forwarding"), "1"),
        // Sources are where they were before NKE: on other devices.
        (format!("ipv4/conf/{name}/rp_filter"), "0"),
    ] {
        // Without IPv6 some are not there.
        let _ = fs::write(format!("/proc/sys/net/{file}"), value);
    }
    netdev::bring_up(&name, MTU)?;
    Ok(file)
}

struct Driver {
    /// `None` without a device.
    queue: Option<Arc<Shared>>,
    writer: Mutex<Option<Writer>>,
    not_by_us: DropReason,
    /// Packets for which another worker took the last place.
    queue_full: PerWorker<Counter>,
}

impl IfnetDriver for Driver {
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for place in batch.places() {
            let Some(shared) = &self.queue else {
                batch.drop(place, self.not_by_us);
                continue;
            };
            if shared.queue.is_full() {
                // What stays in the batch is counted as not taken.
                continue;
            }
            let Some(packet) = batch.take(place) else { continue };
            if let Err(packet) = shared.queue.push(packet) {
                self.queue_full.of(cx.worker).add(1);
                cx.free(packet);
            }
        }
    }

    fn detached(&self) {
        drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let of = |f: fn(&Shared) -> &AtomicU64| {
            self.queue.as_ref().map_or(0, |shared| f(shared).load(Ordering::Relaxed))
        };
        let queue_full = self.queue_full.iter().map(Counter::get).sum();
        vec![("to_kernel", of(|s| &s.written)), ("refused", of(|s| &s.refused)), ("queue_full", queue_full)]
    }
}

struct Shared {
    queue: ArrayQueue<Mbuf>,
    stop: AtomicBool,
    written: AtomicU64,
    /// Packets the kernel did not take.
    refused: AtomicU64,
}

/// The thread. Dropping it ends it, and sends the packets left home.
struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _hold: Hold,
}

impl Writer {
    fn start(device: File, hold: Hold) -> io::Result<Writer> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(QUEUE),
            stop: AtomicBool::new(false),
            written: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let body = {
            let shared = shared.clone();
            move || write(device, &shared)
        };
        let thread = std::thread::Builder::new().name("nke-punt".into()).spawn(body)?;
        Ok(Writer { shared, thread: Some(thread), _hold: hold })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was printed already.
            let _ = thread.join();
        }
        while self.shared.queue.pop().is_some() {}
    }
}

fn write(mut device: File, shared: &Shared) {
    let mut buffer = vec![0; MTU as usize];
    while !shared.stop.load(Ordering::Acquire) {
        while let Some(mut mbuf) = shared.queue.pop() {
            give_hop_back(mbuf.data_mut());
            let packet = mbuf.in_one_piece(&mut buffer);
            // The kernel refuses what is no packet, and has no room for what comes too fast.
            let count = if device.write_all(packet).is_ok() { &shared.written } else { &shared.refused };
            count.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::park_timeout(TICK);
    }
}

/// Adds one to the hops a packet has left, and updates the checksum of IPv4 (RFC 1624).
fn give_hop_back(packet: &mut [u8]) {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 && packet[8] < 255 => {
            packet[8] += 1;
            let sum = u32::from(!u16::from_be_bytes([packet[10], packet[11]])) + 0x0100;
            let sum = (sum & 0xffff) + (sum >> 16);
            packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        Some(6) if packet.len() >= 40 => packet[7] = packet[7].saturating_add(1),
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use nke_mbuf::wire::Ipv4;

    use super::*;

    #[test]
    fn a_hop_given_back_leaves_a_right_checksum() {
        for ttl in 0..=255u8 {
            let mut packet = [0x45, 0, 0, 20, 0, 0, 0, 0, ttl, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, ttl];
            let sum = |packet: &[u8]| {
                let words = packet.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
                let sum = words.sum::<u32>();
                !(((sum & 0xffff) + (sum >> 16)) as u16)
            };
            let right = sum(&packet).to_be_bytes();
            packet[10..12].copy_from_slice(&right);
            give_hop_back(&mut packet);
            assert_eq!(packet[8], ttl.saturating_add(1));
            assert!(Ipv4::new_checked(&packet[..]).is_ok(), "ttl {ttl}");
        }
        let mut v6 = [0u8; 40];
        v6[0] = 0x60;
        give_hop_back(&mut v6);
        assert_eq!(v6[7], 1);
        give_hop_back(&mut []);
    }
}
