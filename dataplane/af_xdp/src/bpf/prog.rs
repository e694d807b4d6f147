//! Programs: loading them through the verifier, running them without a device, asking about them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::insn::Insn;
use super::link::ATTACH_XDP;
use super::sys::{bpf, bpf_fd};

const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

const PROG_TYPE_XDP: u32 = 6;
const F_XDP_HAS_FRAGS: u32 = 1 << 5;
const F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// Bytes of the verifier's log that are asked for; the end of it tells why.
const LOG_SIZE: usize = 256 * 1024;
/// Lines of it that are shown.
const LOG_LINES: usize = 3;
/// How often to try again when the kernel was interrupted; libbpf's number.
const LOAD_TRIES: u32 = 5;

/// A loaded XDP program.
pub(crate) struct Program(OwnedFd);

/// Why a program was not loaded.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: io::Error,
    /// The end of the verifier's log, if it was the verifier.
    pub(crate) verifier: Option<String>,
}

/// A run of a program on frames that really go out.
pub(crate) struct TestRun {
    pub(crate) repeat: u32,
    pub(crate) batch: u32,
}

/// What a run left.
pub(crate) struct Run {
    /// What the program returned.
    pub(crate) action: u32,
    /// The frame afterwards.
    pub(crate) frame: Vec<u8>,
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
    /// Loads `code`.
    pub(crate) fn load(code: &[Insn], name: &str, frags: bool) -> Result<Program, Refusal> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match Program::try_load(code, name, frags, &mut []) {
                Ok(program) => return Ok(program),
                // A signal arrived in the verifier.
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && tries < LOAD_TRIES => continue,
                Err(e) => e,
            };
            let verifier = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EACCES | libc::E2BIG))
                .then(|| Program::verifier_log(code, name, frags))
                .filter(|log| !log.is_empty());
            return Err(Refusal { error, verifier });
        }
    }

    /// Loads again for the log, which costs the verifier time nobody needs to spend if all is well.
    fn verifier_log(code: &[Insn], name: &str, frags: bool) -> String {
        let mut log = vec![0u8; LOG_SIZE];
        // What it returns is known: it failed before.
        let _ = Program::try_load(code, name, frags, &mut log);
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<_> = text.trim_end_matches('\0').lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join(" | ")
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
        // The last byte stays zero.
        for (to, from) in attr.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: code, licence and log are valid for the sizes given; PROG_LOAD returns a descriptor.
        unsafe { bpf_fd(PROG_LOAD, &mut attr).map(Program) }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// What the kernel knows of the program.
    pub(crate) fn info(&self) -> io::Result<ProgramInfo> {
        info_of(&self.0)
    }

    /// Runs the program once on `frame`, which goes nowhere.
    pub(crate) fn run(&self, frame: &[u8]) -> io::Result<Run> {
        let mut out = vec![0u8; frame.len() + 256];
        let mut attr = TestRunAttr {
            fd: self.fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            size_out: out.len() as u32,
            data_out: out.as_mut_ptr() as u64,
            repeat: 1,
            ..Default::default()
        };
        // SAFETY: both buffers are valid for the sizes given.
        unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
        out.truncate(attr.size_out as usize);
        Ok(Run { action: attr.retval, frame: out })
    }

    /// Runs the program on copies of `frame` that go where it sends them.
    pub(crate) fn run_live(&self, frame: &[u8], run: &TestRun) -> io::Result<()> {
        let mut attr = TestRunAttr {
            fd: self.fd() as u32,
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
}

/// What the kernel knows of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProgramInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
}

/// What the kernel knows of program number `id`, whoever loaded it. Needs CAP_SYS_ADMIN.
pub(crate) fn program_info(id: u32) -> io::Result<ProgramInfo> {
    #[repr(C)]
    struct Attr {
        id: u32,
        next: u32,
        open_flags: u32,
    }
    let mut attr = Attr { id, next: 0, open_flags: 0 };
    // SAFETY: PROG_GET_FD_BY_ID reads this much of the attribute, without addresses, and returns a descriptor.
    let fd = unsafe { bpf_fd(PROG_GET_FD_BY_ID, &mut attr)? };
    info_of(&fd)
}

fn info_of(fd: &OwnedFd) -> io::Result<ProgramInfo> {
    /// The beginning of `struct bpf_prog_info`, up to the name. The lengths of 0 keep the kernel from writing code.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        jited_len: u32,
        xlated_len: u32,
        jited: u64,
        xlated: u64,
        load_time: u64,
        uid: u32,
        maps: u32,
        map_ids: u64,
        name: [u8; 16],
    }
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let len = size_of::<Info>() as u32;
    let mut attr = Attr { fd: fd.as_raw_fd() as u32, len, info: (&raw mut info) as u64 };
    // SAFETY: at most `len` bytes of `info` are written, which has integers only.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr)? };
    let name = info.name.split(|b| *b == 0).next().unwrap_or_default();
    Ok(ProgramInfo { id: info.id, name: String::from_utf8_lossy(name).into_owned() })
}
