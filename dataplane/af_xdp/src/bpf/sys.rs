//! The calls of bpf(2).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::asm::Insn;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const F_XDP_HAS_FRAGS: u32 = 1 << 5;
const F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// Attach in the driver.
pub(crate) const XDP_NATIVE: u32 = 1 << 2;
/// Attach in the stack, behind the driver.
pub(crate) const XDP_GENERIC: u32 = 1 << 1;

/// # Safety
/// `attr` is the structure that `command` reads, and every address in it is valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise; the size is the structure's, the kernel takes the rest as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: just returned by the kernel, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Kinds of maps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MapKind {
    Array = 2,
    PerCpuArray = 6,
    XskMap = 17,
}

/// A map with keys of four bytes.
pub(crate) struct Map {
    fd: OwnedFd,
    kind: MapKind,
    value_size: usize,
}

#[repr(C)]
struct MapElement {
    fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Map {
    pub(crate) fn new(kind: MapKind, value_size: u32, entries: u32) -> io::Result<Map> {
        #[repr(C)]
        struct Attr {
            kind: u32,
            key_size: u32,
            value_size: u32,
            entries: u32,
            flags: u32,
        }
        let mut attr = Attr { kind: kind as u32, key_size: 4, value_size, entries, flags: 0 };
        // SAFETY: no addresses.
        let fd = unsafe { bpf(MAP_CREATE, &mut attr)? };
        Ok(Map { fd: owned(fd), kind, value_size: value_size as usize })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn element(&self, key: &u32, value: u64) -> MapElement {
        let key = std::ptr::from_ref(key) as u64;
        MapElement { fd: self.fd() as u32, _pad: 0, key, value, flags: 0 }
    }

    /// Sets an entry of four bytes.
    pub(crate) fn set(&self, key: u32, value: u32) -> io::Result<()> {
        assert_eq!(self.value_size, 4, "set is for values of four bytes");
        let mut attr = self.element(&key, std::ptr::from_ref(&value) as u64);
        // SAFETY: four bytes each are read at key and value, which are locals.
        unsafe { bpf(MAP_UPDATE, &mut attr).map(drop) }
    }

    /// Sets an entry of three times eight bytes.
    pub(crate) fn set_words(&self, key: u32, words: &[u64; 3]) -> io::Result<()> {
        assert_eq!(self.value_size, size_of_val(words), "the map's values are as large");
        let mut attr = self.element(&key, words.as_ptr() as u64);
        // SAFETY: four bytes are read at key, the value's size at words.
        unsafe { bpf(MAP_UPDATE, &mut attr).map(drop) }
    }

    pub(crate) fn remove(&self, key: u32) -> io::Result<()> {
        let mut attr = self.element(&key, 0);
        // SAFETY: four bytes are read at key, a local.
        unsafe { bpf(MAP_DELETE, &mut attr).map(drop) }
    }

    /// The sum of a per-CPU entry of eight bytes over all CPUs.
    pub(crate) fn sum(&self, key: u32) -> io::Result<u64> {
        assert!(
            matches!(self.kind, MapKind::PerCpuArray) && self.value_size == 8,
            "sum is for per-CPU counters"
        );
        let mut values = vec![0u64; possible_cpus()?];
        let mut attr = self.element(&key, values.as_mut_ptr() as u64);
        // SAFETY: the kernel writes eight bytes for each possible CPU, for which the vector has room.
        unsafe { bpf(MAP_LOOKUP, &mut attr)? };
        Ok(values.into_iter().fold(0, u64::wrapping_add))
    }
}

/// CPUs the kernel keeps per-CPU values for: one more than the last number in `possible`.
fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<usize>().ok());
    last.map(|n| n + 1).ok_or_else(|| io::Error::other(format!("possible CPUs: {text:?}")))
}

/// A loaded XDP program.
pub(crate) struct Program(OwnedFd);

/// A run of a program on frames that really go out.
pub(crate) struct TestRun {
    pub(crate) repeat: u32,
    pub(crate) batch: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    fd: u32,
    retval: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    _pad: u32,
}

impl Program {
    /// Loads `code`; the verifier's log is in the error if it refuses.
    pub(crate) fn load(code: &[Insn], name: &str, frags: bool) -> io::Result<Program> {
        match Program::try_load(code, name, frags, &mut []) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EACCES)) => {
                let mut log = vec![0u8; 64 * 1024];
                let again = Program::try_load(code, name, frags, &mut log);
                let text = String::from_utf8_lossy(&log);
                let tail: String =
                    text.trim_end_matches('\0').lines().rev().take(3).collect::<Vec<_>>().join(" | ");
                again.map_err(|_| {
                    io::Error::new(e.kind(), format!("the verifier refused the program: {tail}"))
                })
            }
            result => result,
        }
    }

    fn try_load(code: &[Insn], name: &str, frags: bool, log: &mut [u8]) -> io::Result<Program> {
        #[repr(C)]
        struct Attr {
            kind: u32,
            count: u32,
            insns: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            kernel_version: u32,
            flags: u32,
            name: [u8; 16],
            ifindex: u32,
            attach_type: u32,
        }
        let mut attr = Attr {
            kind: PROG_TYPE_XDP,
            count: code.len() as u32,
            insns: code.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags: if frags { F_XDP_HAS_FRAGS } else { 0 },
            name: [0; 16],
            ifindex: 0,
            attach_type: ATTACH_XDP,
        };
        for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: code, licence and log are valid for the sizes given.
        let fd = unsafe { bpf(PROG_LOAD, &mut attr)? };
        Ok(Program(owned(fd)))
    }

    /// Runs the program once on `frame`, which goes nowhere; returns the action.
    pub(crate) fn action_on(&self, frame: &[u8]) -> io::Result<u32> {
        let mut out = vec![0u8; frame.len() + 256];
        let mut attr = TestRunAttr {
            fd: self.0.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            size_out: out.len() as u32,
            data_out: out.as_mut_ptr() as u64,
            repeat: 1,
            ..Default::default()
        };
        // SAFETY: both buffers are valid for the sizes given.
        unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
        Ok(attr.retval)
    }

    /// Runs the program on copies of `frame` that go where it sends them.
    pub(crate) fn run_live(&self, frame: &[u8], run: &TestRun) -> io::Result<()> {
        let mut attr = TestRunAttr {
            fd: self.0.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: run.repeat,
            flags: F_TEST_XDP_LIVE_FRAMES,
            batch: run.batch,
            ..Default::default()
        };
        // SAFETY: the frame is valid for its size, and only read.
        unsafe { bpf(PROG_TEST_RUN, &mut attr).map(drop) }
    }

    /// Attaches the program to device number `ifindex`.
    pub(crate) fn attach(&self, ifindex: u32, flags: u32) -> io::Result<Link> {
        #[repr(C)]
        struct Attr {
            program: u32,
            ifindex: u32,
            attach_type: u32,
            flags: u32,
        }
        let program = self.0.as_raw_fd() as u32;
        let mut attr = Attr { program, ifindex, attach_type: ATTACH_XDP, flags };
        // SAFETY: no addresses.
        let fd = unsafe { bpf(LINK_CREATE, &mut attr)? };
        Ok(Link(owned(fd)))
    }
}

/// A program attached to a device. Closing the descriptor detaches it, also when the process is killed.
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Puts another program in place of the present one, between two packets.
    pub(crate) fn update(&self, program: &Program) -> io::Result<()> {
        #[repr(C)]
        struct Attr {
            link: u32,
            program: u32,
            flags: u32,
            old: u32,
        }
        let (link, program) = (self.0.as_raw_fd() as u32, program.0.as_raw_fd() as u32);
        let mut attr = Attr { link, program, flags: 0, old: 0 };
        // SAFETY: no addresses.
        unsafe { bpf(LINK_UPDATE, &mut attr).map(drop) }
    }
}
