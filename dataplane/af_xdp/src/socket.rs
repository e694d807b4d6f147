//! An AF_XDP socket: one queue of one device, four rings.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::error::{CAP_NET_ADMIN, CAP_NET_RAW, Error};
use crate::frame::Frame;
use crate::map::Mapping;
use crate::ring::{Consumer, Producer, RingMemory};
use crate::sync::{AtomicU32, Ordering, fence};
use crate::umem::Umem;
use crate::{device, sys};

/// How frames get between the device and the UMEM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BindMode {
    /// Zero-copy if the driver can, copy else.
    #[default]
    Auto,
    /// The kernel copies.
    Copy,
    /// The device writes to the UMEM, or an error.
    ZeroCopy,
}

/// What a socket was bound as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The kernel copies.
    Copy,
    /// The device reads and writes the UMEM.
    ZeroCopy,
}

/// Busy polling: the caller's kicks drive the device's NAPI instead of interrupts. The device also needs
/// `napi_defer_hard_irqs` (2) and `gro_flush_timeout` (200000 ns) in `/sys/class/net/DEVICE/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusyPoll {
    /// Microseconds to poll (SO_BUSY_POLL).
    pub usecs: u32,
    /// Packets per poll (SO_BUSY_POLL_BUDGET).
    pub budget: u32,
    /// Keep interrupts off while polled (SO_PREFER_BUSY_POLL).
    pub prefer: bool,
}

/// How to make a socket. Ring sizes are powers of two.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Entries of the receive ring.
    pub rx_size: u32,
    /// Entries of the transmit ring.
    pub tx_size: u32,
    /// Entries of the fill ring; at least the device's receive ring plus `rx_size`.
    pub fill_size: u32,
    /// Entries of the completion ring; at least `tx_size`.
    pub completion_size: u32,
    /// Copy or not.
    pub mode: BindMode,
    /// Let the kernel say when it needs a kick, instead of kicking always.
    pub need_wakeup: bool,
    /// Packets may take several frames (XDP_USE_SG).
    pub multi_buffer: bool,
    /// Busy polling.
    pub busy_poll: Option<BusyPoll>,
    /// How long to retry while the queue is still held by a socket that was just closed.
    pub bind_deadline: Duration,
    /// Descriptors copy mode may send per kick; needs Linux 6.17, and is left at the kernel's 32 before.
    pub tx_budget: Option<u32>,
}

impl Default for SocketConfig {
    fn default() -> Self {
        SocketConfig {
            rx_size: 2048,
            tx_size: 2048,
            fill_size: 4096,
            completion_size: 2048,
            mode: BindMode::Auto,
            need_wakeup: true,
            multi_buffer: false,
            busy_poll: None,
            bind_deadline: Duration::from_millis(500),
            tx_budget: None,
        }
    }
}

/// A received frame.
#[derive(Debug)]
pub struct Received {
    /// The frame; its address is that of the first byte of data.
    pub frame: Frame,
    /// Bytes of data.
    pub len: u32,
    /// The packet goes on in the next frame.
    pub more: bool,
}

/// A frame to be sent.
#[derive(Debug)]
pub struct Transmit {
    /// The frame; its address is that of the first byte of data.
    pub frame: Frame,
    /// Bytes of data.
    pub len: u32,
    /// The packet goes on in the next frame.
    pub more: bool,
}

/// What a kick came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kick {
    /// Taken.
    Done,
    /// Not all could be taken now (EAGAIN, EBUSY, ENOBUFS): kick again.
    Again,
    /// The device is down (ENETDOWN): it may come up again.
    Down,
    /// The device does not exist any more (ENXIO).
    Gone,
    /// Another error.
    Failed(i32),
}

/// The kernel's counters of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Statistics {
    /// Packets dropped for another reason than a full ring.
    pub rx_dropped: u64,
    /// Packets dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Packets dropped because the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Invalid descriptors in the fill ring.
    pub rx_invalid: u64,
    /// Invalid descriptors in the transmit ring.
    pub tx_invalid: u64,
    /// Times the kernel found the transmit ring empty.
    pub tx_ring_empty: u64,
}

/// What a closed socket gives back.
#[derive(Debug)]
pub struct Reclaimed {
    /// Frames found in the rings.
    pub frames: Vec<Frame>,
    /// Frames that cannot be told from ones the caller has: those the kernel had between two rings, and, once something
    /// was received, those in the fill ring. The kernel does not use them any more.
    pub in_flight: u32,
}

/// A socket. One thread at a time uses it; it may move between threads.
pub struct Socket {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill_flags: NonNull<AtomicU32>,
    tx_flags: NonNull<AtomicU32>,
    umem: Umem,
    mode: Mode,
    tx_budget: u32,
    device: String,
    ifindex: u32,
    queue: u32,
    raw: RawFd,
    /// On the UMEM's list of bound sockets.
    listed: bool,
    /// Open until the socket is closed.
    fd: Option<OwnedFd>,
    _maps: [Mapping; 4],
}

// SAFETY: the flag pointers lead into `_maps`, which moves along.
unsafe impl Send for Socket {}

/// Copy mode's limit of descriptors per call before it could be set.
const TX_BUDGET_DEFAULT: u32 = 32;

impl Socket {
    /// Binds a socket to `queue` of `device` in the calling thread's network namespace, with an empty fill ring.
    pub fn bind(umem: &Umem, device: &str, queue: u32, config: &SocketConfig) -> Result<Socket, Error> {
        Socket::bind_filled(umem, device, queue, config, &mut Vec::new())
    }

    /// Binds a socket whose fill ring has `frames` from the start; some drivers never receive otherwise. Frames that do
    /// not fit, and all frames after an error, stay in `frames`.
    pub fn bind_filled(
        umem: &Umem,
        device: &str,
        queue: u32,
        config: &SocketConfig,
        frames: &mut Vec<Frame>,
    ) -> Result<Socket, Error> {
        check(config)?;
        let deadline = Instant::now() + config.bind_deadline;
        let mut pause = Duration::from_millis(1);
        loop {
            match Socket::try_bind(umem, device, queue, config, frames) {
                Err(e) if e.errno() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(16));
                }
                result => return result,
            }
        }
    }

    fn try_bind(
        umem: &Umem,
        device: &str,
        queue: u32,
        config: &SocketConfig,
        frames: &mut Vec<Frame>,
    ) -> Result<Socket, Error> {
        let what = || format!("bind an AF_XDP socket to queue {queue} of {device}");
        let ifindex = sys::if_index(device).map_err(|_| device::missing(what(), device))?;
        let fd = sys::socket().map_err(|e| Error::privileged("AFXDP-SOCKET", what(), &[CAP_NET_RAW], &e))?;
        let raw = sys::raw(&fd);
        // Held until bound: the socket that lends its UMEM must not be closed meanwhile.
        let mut bound = umem.bound();
        let shared_with = bound.first().copied();
        if shared_with.is_none() {
            umem.register(raw)?;
        }
        let rings = Rings::map(raw, config).map_err(|e| {
            let (errno, cure) = (e.raw_os_error().unwrap_or(0), "use smaller rings, or free memory");
            Error::new("AFXDP-RINGS", what(), format!("no rings: {e}"), cure).with_errno(errno)
        })?;
        let mut socket = rings.into_socket(fd, umem, device, ifindex, queue);
        if let Some(budget) = config.tx_budget {
            socket.tx_budget = sys::set_tx_budget(raw, budget).unwrap_or(TX_BUDGET_DEFAULT);
        }
        if let Some(busy) = config.busy_poll {
            sys::set_busy_poll(raw, busy.usecs, busy.budget, busy.prefer)
                .map_err(|e| Error::privileged("AFXDP-BUSY-POLL", what(), &[CAP_NET_ADMIN], &e))?;
        }
        let taken = socket.fill.room(frames.len() as u32).min(frames.len() as u32);
        let rest = frames.len() - taken as usize;
        socket.fill(frames.drain(rest..), taken);
        let flags = if shared_with.is_some() {
            // Modes are the first socket's; naming them again is refused.
            libc::XDP_SHARED_UMEM
        } else {
            config.flags()
        };
        let outcome = sys::bind(raw, ifindex, queue, flags, shared_with)
            .and_then(|()| sys::is_zero_copy(raw))
            .map_err(|e| device::bind_error(what(), device, config, &e));
        match outcome {
            Ok(zero_copy) => {
                socket.mode = if zero_copy { Mode::ZeroCopy } else { Mode::Copy };
                bound.push(raw);
                socket.listed = true;
                Ok(socket)
            }
            Err(e) => {
                // Never bound, so the kernel took nothing.
                frames.extend(socket.fill.leftovers().into_iter().map(|addr| Frame::new(umem.id(), addr)));
                Err(e)
            }
        }
    }

    /// The descriptor, to be waited on or entered in an XSKMAP.
    pub fn fd(&self) -> RawFd {
        self.raw
    }
    /// Name of the device when the socket was bound.
    pub fn device(&self) -> &str {
        &self.device
    }
    /// Number of the device.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }
    /// The queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }
    /// The mode in use.
    pub fn mode(&self) -> Mode {
        self.mode
    }
    /// Descriptors that copy mode sends per kick at most.
    pub fn tx_budget(&self) -> u32 {
        self.tx_budget
    }

    /// Free places in the fill ring; looks at the kernel's index only if fewer than `want` are known of. The kernel
    /// publishes that index late: right after a receive there may be fewer than expected.
    #[inline]
    pub fn fill_room(&mut self, want: u32) -> u32 {
        self.fill.room(want)
    }

    /// Gives frames to the kernel to receive into, at most `max`; draws none it has no room for.
    ///
    /// # Panics
    /// When a frame is another UMEM's.
    #[inline]
    pub fn fill(&mut self, frames: impl Iterator<Item = Frame>, max: u32) -> u32 {
        let id = self.umem.id();
        self.fill.produce(
            max,
            frames.map(|frame| {
                assert!(frame.umem() == id, "a frame of another UMEM");
                frame.into_addr()
            }),
        )
    }

    /// Hands up to `max` received frames to `take`.
    #[inline]
    pub fn receive(&mut self, max: u32, mut take: impl FnMut(Received)) -> u32 {
        let id = self.umem.id();
        self.rx.consume(max, |desc| {
            let more = desc.options & libc::XDP_PKT_CONTD != 0;
            take(Received { frame: Frame::new(id, desc.addr), len: desc.len, more });
        })
    }

    /// Free places in the transmit ring, counted as for [`Socket::fill_room`].
    #[inline]
    pub fn tx_room(&mut self, want: u32) -> u32 {
        self.tx.room(want)
    }

    /// Submits frames to be sent, at most `max`; draws none it has no room for. They go out with the next kick.
    ///
    /// # Panics
    /// When a descriptor is empty, reaches beyond its frame, or is of another UMEM: the kernel would stop the whole ring for it.
    #[inline]
    pub fn transmit(&mut self, frames: impl Iterator<Item = Transmit>, max: u32) -> u32 {
        let umem = &self.umem;
        self.tx.produce(
            max,
            frames.map(|Transmit { frame, len, more }| {
                let ours = frame.umem() == umem.id();
                assert!(
                    len > 0 && ours && umem.holds(frame.addr(), u64::from(len)),
                    "descriptor outside its frame"
                );
                libc::xdp_desc {
                    addr: frame.into_addr(),
                    len,
                    options: if more { libc::XDP_PKT_CONTD } else { 0 },
                }
            }),
        )
    }

    /// Hands up to `max` frames that were sent to `take`.
    #[inline]
    pub fn complete(&mut self, max: u32, mut take: impl FnMut(Frame)) -> u32 {
        let id = self.umem.id();
        self.completion.consume(max, |addr| take(Frame::new(id, addr)))
    }

    /// Frames submitted that the kernel has not taken out of the transmit ring yet: a reason to kick.
    #[inline]
    pub fn tx_unsent(&self) -> u32 {
        self.tx.untaken()
    }

    /// Frames submitted and not completed yet.
    #[inline]
    pub fn pending_tx(&self) -> u32 {
        self.tx.submitted().wrapping_sub(self.completion.taken())
    }

    /// Whether the kernel wants a kick before it sends. In copy mode always.
    #[inline]
    pub fn tx_needs_wakeup(&self) -> bool {
        // What was submitted must be seen before the flag is read: else the driver goes to sleep without having seen it,
        // and we do not see that it did.
        fence(Ordering::SeqCst);
        needs_wakeup(self.tx_flags)
    }

    /// Whether the kernel wants a kick before it receives: the fill ring was empty.
    #[inline]
    pub fn rx_needs_wakeup(&self) -> bool {
        needs_wakeup(self.fill_flags)
    }

    /// Makes the kernel send. A system call.
    #[inline]
    pub fn kick_tx(&self) -> Kick {
        match sys::kick_tx(self.raw) {
            0 => Kick::Done,
            libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR => Kick::Again,
            libc::ENETDOWN => Kick::Down,
            libc::ENXIO => Kick::Gone,
            errno => Kick::Failed(errno),
        }
    }

    /// Makes the kernel look at the fill ring. A system call.
    #[inline]
    pub fn kick_rx(&self) {
        sys::kick_rx(self.raw);
    }

    /// The kernel's counters.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        statistics_of(self.raw)
    }

    /// Closes the socket and gives back the frames in its rings.
    pub fn close(mut self) -> Reclaimed {
        // What was given in and not taken out, modulo 2^32.
        let held = self.fill.submitted().wrapping_sub(self.rx.taken()).wrapping_add(self.pending_tx());
        self.release();
        let (size, id) = (u64::from(self.umem.frame_size()), self.umem.id());
        let mut seen = HashSet::new();
        let mut frames = Vec::new();
        let mut keep = |addr: u64| {
            // The kernel publishes what it took from the fill ring late, so a frame may stand in two rings.
            if seen.insert(addr / size) {
                frames.push(Frame::new(id, addr));
            }
        };
        self.rx.consume(u32::MAX, |desc| keep(desc.addr));
        self.completion.consume(u32::MAX, &mut keep);
        if self.rx.taken() == 0 {
            // Only while nothing was received: the kernel tells late what it took from the fill ring, and a frame that
            // was received since belongs to whoever received it.
            self.fill.leftovers().into_iter().for_each(&mut keep);
        }
        self.tx.leftovers().into_iter().for_each(|desc| keep(desc.addr));
        let in_flight = held.saturating_sub(frames.len() as u32);
        Reclaimed { frames, in_flight }
    }

    /// Closes the descriptor; from then on the kernel uses neither rings nor frames.
    fn release(&mut self) {
        if std::mem::take(&mut self.listed) {
            // The lock is held until the descriptor is closed, so that nobody shares the UMEM through it meanwhile.
            let mut bound = self.umem.bound();
            bound.retain(|fd| *fd != self.raw);
            drop(self.fd.take());
        } else {
            self.fd = None;
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.release();
    }
}

/// The counters of the socket with this descriptor; for a thread that reads them while another uses the socket.
pub fn statistics_of(fd: RawFd) -> Result<Statistics, Error> {
    let raw = sys::statistics(fd).map_err(|e| {
        let errno = e.raw_os_error().unwrap_or(0);
        Error::new("AFXDP-STATISTICS", "read statistics", e.to_string(), "pass an AF_XDP socket")
            .with_errno(errno)
    })?;
    Ok(Statistics {
        rx_dropped: raw.rx_dropped,
        rx_ring_full: raw.rx_ring_full,
        fill_ring_empty: raw.rx_fill_ring_empty_descs,
        rx_invalid: raw.rx_invalid_descs,
        tx_invalid: raw.tx_invalid_descs,
        tx_ring_empty: raw.tx_ring_empty_descs,
    })
}

/// Waits until one of the sockets `fds` has received something, at most `timeout`.
pub fn wait(fds: &[RawFd], timeout: Duration) -> io::Result<usize> {
    sys::poll_in(fds, timeout)
}

#[inline(always)]
fn needs_wakeup(flags: NonNull<AtomicU32>) -> bool {
    // SAFETY: leads into the socket's mapping, which lives as long as the socket.
    unsafe { flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
}

impl SocketConfig {
    fn flags(&self) -> u16 {
        let mode = match self.mode {
            BindMode::Auto => 0,
            BindMode::Copy => libc::XDP_COPY,
            BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
        };
        let wakeup = if self.need_wakeup { libc::XDP_USE_NEED_WAKEUP } else { 0 };
        let several = if self.multi_buffer { libc::XDP_USE_SG } else { 0 };
        mode | wakeup | several
    }
}

fn check(config: &SocketConfig) -> Result<(), Error> {
    let sizes = [
        ("rx", config.rx_size),
        ("tx", config.tx_size),
        ("fill", config.fill_size),
        ("completion", config.completion_size),
    ];
    match sizes.into_iter().find(|(_, n)| !n.is_power_of_two() || *n > 1 << 20) {
        None => Ok(()),
        Some((ring, n)) => Err(Error::new(
            "AFXDP-RING-SIZE",
            "make a socket",
            format!("{ring} ring of {n} entries"),
            "use a power of two up to 1048576",
        )),
    }
}

/// The four rings of a socket, mapped.
struct Rings {
    rx: (Mapping, libc::xdp_ring_offset, u32),
    tx: (Mapping, libc::xdp_ring_offset, u32),
    fill: (Mapping, libc::xdp_ring_offset, u32),
    completion: (Mapping, libc::xdp_ring_offset, u32),
}

impl Rings {
    fn map(fd: RawFd, config: &SocketConfig) -> io::Result<Rings> {
        let sizes = [
            (libc::XDP_RX_RING, config.rx_size),
            (libc::XDP_TX_RING, config.tx_size),
            (libc::XDP_UMEM_FILL_RING, config.fill_size),
            (libc::XDP_UMEM_COMPLETION_RING, config.completion_size),
        ];
        for (ring, entries) in sizes {
            sys::set_ring_size(fd, ring, entries)?;
        }
        let at = sys::mmap_offsets(fd)?;
        let map = |ring: libc::xdp_ring_offset, entry: usize, size: u32, page: u64| {
            let len = ring.desc as usize + entry * size as usize;
            Ok::<_, io::Error>((Mapping::shared(fd, len, page as libc::off_t)?, ring, size))
        };
        let (desc, addr) = (size_of::<libc::xdp_desc>(), size_of::<u64>());
        Ok(Rings {
            rx: map(at.rx, desc, config.rx_size, libc::XDP_PGOFF_RX_RING as u64)?,
            tx: map(at.tx, desc, config.tx_size, libc::XDP_PGOFF_TX_RING as u64)?,
            fill: map(at.fr, addr, config.fill_size, libc::XDP_UMEM_PGOFF_FILL_RING)?,
            completion: map(at.cr, addr, config.completion_size, libc::XDP_UMEM_PGOFF_COMPLETION_RING)?,
        })
    }

    fn into_socket(self, fd: OwnedFd, umem: &Umem, device: &str, ifindex: u32, queue: u32) -> Socket {
        let Rings { rx, tx, fill, completion } = self;
        // SAFETY: the kernel laid the rings out as its offsets say; the mappings go into the socket beside the ends,
        // and each ring gets one end here, the kernel having the other.
        unsafe {
            Socket {
                fill: Producer::new(memory(&fill)),
                completion: Consumer::new(memory(&completion)),
                rx: Consumer::new(memory(&rx)),
                tx: Producer::new(memory(&tx)),
                fill_flags: at(&fill.0, fill.1.flags),
                tx_flags: at(&tx.0, tx.1.flags),
                umem: umem.clone(),
                mode: Mode::Copy,
                tx_budget: TX_BUDGET_DEFAULT,
                device: device.to_owned(),
                ifindex,
                queue,
                raw: sys::raw(&fd),
                listed: false,
                fd: Some(fd),
                _maps: [rx.0, tx.0, fill.0, completion.0],
            }
        }
    }
}

/// # Safety
/// `offset` lies inside the mapping, at a `T`.
unsafe fn at<T>(map: &Mapping, offset: u64) -> NonNull<T> {
    // SAFETY: the caller's promise.
    unsafe { map.base().add(offset as usize).cast() }
}

/// # Safety
/// The mapping is a ring of `T` laid out by these offsets.
unsafe fn memory<T>((map, offsets, size): &(Mapping, libc::xdp_ring_offset, u32)) -> RingMemory<T> {
    // SAFETY: the caller's promise.
    unsafe {
        RingMemory {
            producer: at(map, offsets.producer),
            consumer: at(map, offsets.consumer),
            entries: at(map, offsets.desc),
            size: *size,
        }
    }
}
