//! The memory that frames live in, shared between this process and the kernel.
#![allow(unsafe_code)]

use std::any::Any;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::frame::Frame;
use crate::map::Mapping;

/// Which pages to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pages {
    /// Huge pages if the system has enough of them reserved, plain ones else.
    #[default]
    Auto,
    /// Huge pages, or an error.
    Huge,
    /// Plain pages.
    Plain,
}

/// How to make a UMEM.
#[derive(Clone, Debug)]
pub struct UmemConfig {
    /// Bytes per frame: 2048 or 4096, which is what the kernel takes.
    pub frame_size: u32,
    /// Number of frames.
    pub frame_count: u32,
    /// Bytes the kernel leaves free in front of received data, beyond its own 256.
    pub headroom: u32,
    /// Which pages.
    pub pages: Pages,
}

impl Default for UmemConfig {
    fn default() -> Self {
        UmemConfig { frame_size: 2048, frame_count: 4096, headroom: 0, pages: Pages::Auto }
    }
}

/// What the memory turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Huge pages of 2 MiB.
    Huge2M,
    /// Pages of the system's ordinary size.
    Plain,
    /// The caller's.
    Caller,
}

struct Inner {
    /// Different for every UMEM of this process.
    id: u32,
    base: NonNull<u8>,
    len: usize,
    config: UmemConfig,
    backing: Backing,
    /// Frames nobody took yet; `None` once they were taken.
    untaken: Mutex<Option<u32>>,
    /// Sockets bound on this UMEM, by descriptor: the kernel lets a further socket share it through any of them.
    bound: Mutex<Vec<RawFd>>,
    _keep: Keep,
}

/// What keeps the memory mapped. Only held.
enum Keep {
    Mapped { _mapping: Mapping },
    Caller { _keep: Box<dyn Any + Send + Sync> },
}

// SAFETY: the base address is handed out as such; access to frames goes through tokens.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// Memory for frames. Cloning gives another handle to the same memory, which lives until the last handle and the last
/// socket on it are gone.
#[derive(Clone)]
pub struct Umem(Arc<Inner>);

impl Umem {
    /// Maps memory of its own. Nothing is registered with the kernel yet, so this needs no privilege.
    pub fn new(config: UmemConfig) -> Result<Umem, Error> {
        let len = check(&config)?;
        let huge = match config.pages {
            Pages::Plain => None,
            Pages::Auto | Pages::Huge => Mapping::huge(len).ok(),
        };
        let (mapping, backing) = match (huge, config.pages) {
            (Some(mapping), _) => (mapping, Backing::Huge2M),
            (None, Pages::Huge) => return Err(no_huge_pages(len)),
            (None, _) => (Mapping::plain(len).map_err(|e| no_memory(len, &e))?, Backing::Plain),
        };
        Ok(Umem::build(mapping.base(), len, config, backing, Keep::Mapped { _mapping: mapping }))
    }

    /// Uses `len` bytes at `base`, page aligned, kept mapped by `keep`. `config.pages` is ignored.
    ///
    /// # Safety
    /// The memory is readable and writable as long as `keep` lives, and nobody accesses a frame of it but the holder
    /// of its token.
    pub unsafe fn from_memory(
        base: NonNull<u8>,
        len: usize,
        config: UmemConfig,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Result<Umem, Error> {
        let need = check(&config)?;
        if len < need || !(base.as_ptr() as usize).is_multiple_of(4096) {
            return Err(Error::new(
                "AFXDP-UMEM-MEMORY",
                format!("use {len} bytes of the caller's memory"),
                format!("{need} bytes are needed, from the start of a page"),
                "pass more memory, page aligned, or ask for fewer frames",
            ));
        }
        Ok(Umem::build(base, need, config, Backing::Caller, Keep::Caller { _keep: keep }))
    }

    fn build(base: NonNull<u8>, len: usize, config: UmemConfig, backing: Backing, keep: Keep) -> Umem {
        let untaken = Mutex::new(Some(config.frame_count));
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Umem(Arc::new(Inner {
            id,
            base,
            len,
            config,
            backing,
            untaken,
            bound: Mutex::new(Vec::new()),
            _keep: keep,
        }))
    }

    /// The tokens of all frames. The first call has them; later ones get none.
    pub fn take_frames(&self) -> Vec<Frame> {
        let count = self.0.untaken.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(0);
        let size = u64::from(self.0.config.frame_size);
        (0..u64::from(count)).map(|i| Frame::new(self.0.id, i * size)).collect()
    }

    /// Makes the token of a frame again.
    ///
    /// # Safety
    /// `addr` lies in the UMEM, and the caller holds the one claim to that frame: it came from [`Frame::into_addr`].
    #[inline(always)]
    pub unsafe fn frame_from_addr(&self, addr: u64) -> Frame {
        Frame::new(self.0.id, addr)
    }

    /// `len` bytes of a frame from the token's address on; `None` if they do not lie inside that frame.
    pub fn bytes<'a>(&'a self, frame: &'a Frame, len: usize) -> Option<&'a [u8]> {
        let start = self.checked(frame, len)?;
        // SAFETY: in range; the token is the one claim to the frame, so neither kernel nor process writes meanwhile.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    }

    /// The same, to be changed.
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame, len: usize) -> Option<&'a mut [u8]> {
        let start = self.checked(frame, len)?;
        // SAFETY: as for `bytes`; `&mut` on the token makes the slice unique.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
    }

    fn checked(&self, frame: &Frame, len: usize) -> Option<NonNull<u8>> {
        let addr = frame.addr();
        if frame.umem() != self.0.id || !self.holds(addr, len as u64) {
            return None;
        }
        // SAFETY: `holds` proved the offset to be inside the mapping.
        Some(unsafe { self.0.base.add(addr as usize) })
    }

    /// The same frame, with its data `offset` bytes further on (or before, if negative). The token comes back unchanged
    /// when that is not in the same frame, or the frame is another UMEM's.
    pub fn shift(&self, frame: Frame, offset: i64) -> Result<Frame, Frame> {
        let size = u64::from(self.0.config.frame_size);
        match frame.addr().checked_add_signed(offset) {
            Some(addr) if frame.umem() == self.0.id && addr / size == frame.addr() / size => {
                Ok(Frame::new(self.0.id, addr))
            }
            _ => Err(frame),
        }
    }

    /// Tells this UMEM's frames from others'.
    #[inline(always)]
    pub(crate) fn id(&self) -> u32 {
        self.0.id
    }

    /// Whether `len` bytes at `addr` lie inside one frame of this UMEM.
    #[inline(always)]
    pub(crate) fn holds(&self, addr: u64, len: u64) -> bool {
        let size = u64::from(self.0.config.frame_size);
        addr < self.0.len as u64 && (addr & (size - 1)) + len <= size
    }

    /// First byte of the memory.
    pub fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    /// Bytes of the memory.
    #[allow(clippy::len_without_is_empty, reason = "a UMEM has at least one frame")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Bytes per frame.
    pub fn frame_size(&self) -> u32 {
        self.0.config.frame_size
    }

    /// Frames in all.
    pub fn frame_count(&self) -> u32 {
        self.0.config.frame_count
    }

    /// Extra headroom the kernel leaves.
    pub fn headroom(&self) -> u32 {
        self.0.config.headroom
    }

    /// What the memory is.
    pub fn backing(&self) -> Backing {
        self.0.backing
    }

    pub(crate) fn bound(&self) -> std::sync::MutexGuard<'_, Vec<RawFd>> {
        self.0.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the UMEM on socket `fd`.
    pub(crate) fn register(&self, fd: RawFd) -> Result<(), Error> {
        let what = format!("register a UMEM of {} KiB", self.0.len / 1024);
        crate::sys::register_umem(fd, self.0.base, self.0.len, self.frame_size(), self.headroom()).map_err(
            |e| {
                let errno = e.raw_os_error().unwrap_or(0);
                let (cause, cure): (String, &str) = match errno {
                    libc::ENOBUFS | libc::ENOMEM => (
                        format!("the memory cannot be locked: {}", memlock()),
                        "grant CAP_IPC_LOCK, raise `ulimit -l`, or use fewer frames",
                    ),
                    libc::EPERM => {
                        ("the kernel refused privilege".into(), "grant CAP_IPC_LOCK, or raise `ulimit -l`")
                    }
                    _ => (e.to_string(), "use frames of 2048 or 4096 bytes and page-aligned memory"),
                };
                Error::new("AFXDP-UMEM-REGISTER", what, cause, cure).with_errno(errno)
            },
        )
    }
}

fn check(config: &UmemConfig) -> Result<usize, Error> {
    let size = config.frame_size;
    if !matches!(size, 2048 | 4096) {
        let cause = format!("frames of {size} bytes");
        return Err(Error::new("AFXDP-UMEM-FRAME-SIZE", "make a UMEM", cause, "use 2048 or 4096"));
    }
    if config.frame_count == 0 || config.headroom > size - 1024 {
        let cause = format!("{} frames with {} bytes of headroom", config.frame_count, config.headroom);
        let cure = "use at least one frame, and leave 1024 bytes for data";
        return Err(Error::new("AFXDP-UMEM-SHAPE", "make a UMEM", cause, cure));
    }
    Ok(size as usize * config.frame_count as usize)
}

fn memlock() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max locked memory"));
    line.map_or_else(|| "limit unknown".into(), |l| l.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn no_huge_pages(len: usize) -> Error {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = meminfo.lines().find_map(|l| l.strip_prefix("HugePages_Free:")).map_or("unknown", str::trim);
    let need = len.div_ceil(2 << 20);
    Error::new(
        "AFXDP-UMEM-HUGEPAGES",
        format!("map {} KiB of huge pages", len / 1024),
        format!("{need} pages of 2 MiB are needed, free are {free}"),
        format!("reserve them: sysctl vm.nr_hugepages={need}"),
    )
}

fn no_memory(len: usize, error: &io::Error) -> Error {
    let what = format!("map {} KiB", len / 1024);
    Error::new("AFXDP-UMEM-MAP", what, error.to_string(), "use fewer frames, or free memory")
        .with_errno(error.raw_os_error().unwrap_or(0))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn frames_are_handed_out_once_and_cover_the_memory() {
        let umem =
            Umem::new(UmemConfig { frame_count: 8, pages: Pages::Plain, ..Default::default() }).unwrap();
        assert_eq!((umem.len(), umem.backing()), (8 * 2048, Backing::Plain));
        let mut frames = umem.take_frames();
        assert_eq!(
            frames.iter().map(Frame::addr).collect::<Vec<_>>(),
            (0..8).map(|i| i * 2048).collect::<Vec<_>>()
        );
        assert!(umem.take_frames().is_empty());
        let mut frame = umem.shift(frames.remove(7), 48).unwrap();
        umem.bytes_mut(&mut frame, 2000).unwrap().fill(7);
        assert!(umem.bytes(&frame, 2001).is_none(), "past the frame");
        assert_eq!(umem.bytes(&frame, 2000).unwrap()[1999], 7);
        let frame = umem.shift(frame, 2000).expect_err("past the frame");
        let other =
            Umem::new(UmemConfig { frame_count: 8, pages: Pages::Plain, ..Default::default() }).unwrap();
        assert!(other.bytes(&frame, 1).is_none() && other.shift(frame, 0).is_err(), "another UMEM's");
    }

    #[test]
    fn mistakes_are_named() {
        let make = |frame_size, frame_count, headroom| {
            Umem::new(UmemConfig { frame_size, frame_count, headroom, pages: Pages::Plain })
                .err()
                .map(|e| e.id())
        };
        assert_eq!(make(1024, 1, 0), Some("AFXDP-UMEM-FRAME-SIZE"));
        assert_eq!(make(2048, 0, 0), Some("AFXDP-UMEM-SHAPE"));
        assert_eq!(make(2048, 1, 1500), Some("AFXDP-UMEM-SHAPE"));
        assert_eq!(make(4096, 1, 256), None);
    }

    #[test]
    fn callers_memory_is_checked() {
        let memory = Box::leak(vec![0u64; 4096].into_boxed_slice());
        let odd = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        // One of these two addresses is not page aligned, whatever the allocator did.
        for base in [odd, unsafe_add(odd)] {
            let config = UmemConfig { frame_count: 64, ..Default::default() };
            // SAFETY: leaked memory, used by nobody else.
            let made = unsafe { Umem::from_memory(base, 4096, config, Box::new(())) };
            assert_eq!(made.err().map(|e| e.id()), Some("AFXDP-UMEM-MEMORY"));
        }
    }

    fn unsafe_add(base: NonNull<u8>) -> NonNull<u8> {
        // SAFETY: inside the leaked memory.
        unsafe { base.add(8) }
    }
}
