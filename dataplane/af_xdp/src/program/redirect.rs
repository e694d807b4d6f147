//! The program that sends selected packets to sockets.

use std::os::fd::RawFd;

use super::link::{AttachMode, Link};
use super::matcher::{self, MATCHES_MAX, Match, Selection};
use super::{XDP_PASS, XDP_REDIRECT, load_error, xdp_md};
use crate::bpf::asm::{Asm, Helper, If, Insn, Op, Reg, Width};
use crate::bpf::{Map, MapKind, Program};
use crate::error::{CAP_BPF, Error};

/// What the program is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramConfig {
    /// Which packets go to the sockets.
    pub selection: Selection,
    /// Accept packets in several buffers: needed on devices with a large MTU.
    pub frags: bool,
    /// Queues that may get a socket.
    pub queues: u32,
}

impl Default for ProgramConfig {
    fn default() -> Self {
        ProgramConfig { selection: Selection::All, frags: false, queues: 64 }
    }
}

/// What the program counted, all CPUs together. `redirected` is not yet delivered: see the sockets' statistics.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Packets sent to a socket.
    pub redirected: u64,
    /// Packets that were not selected.
    pub passed: u64,
    /// Packets that were selected, and passed because no socket is on their queue.
    pub no_socket: u64,
}

const PASSED: i32 = 0;
const NO_SOCKET: i32 = 1;
const REDIRECTED: i32 = 2;
const COUNTERS: u32 = 3;

/// The program, loaded.
pub struct Redirect {
    program: Program,
    sockets: Map,
    counters: Map,
}

impl Redirect {
    /// Loads the program.
    pub fn load(config: &ProgramConfig) -> Result<Redirect, Error> {
        let what = "load an XDP program that redirects";
        let matches = match &config.selection {
            Selection::All => &[][..],
            // One that matches everything makes the others unreachable.
            Selection::Any(matches) if matches.contains(&Match::default()) => &[],
            Selection::Any(matches) if matches.is_empty() || matches.len() > MATCHES_MAX => {
                let cause = format!("a selection of {} matches", matches.len());
                return Err(Error::new(
                    "AFXDP-PROGRAM-MATCHES",
                    what,
                    cause,
                    format!("give 1 to {MATCHES_MAX}"),
                ));
            }
            Selection::Any(matches) => matches,
        };
        let sockets = Map::new(MapKind::XskMap, 4, config.queues.max(1)).map_err(|e| load_error(what, &e))?;
        let counters = Map::new(MapKind::PerCpuArray, 8, COUNTERS).map_err(|e| load_error(what, &e))?;
        let code = emit(matches, &sockets, &counters);
        let program = Program::load(&code, "nke_redirect", config.frags).map_err(|e| load_error(what, &e))?;
        Ok(Redirect { program, sockets, counters })
    }

    /// Puts the program on `device`, in the calling thread's network namespace.
    pub fn attach(&self, device: &str, mode: AttachMode) -> Result<Link, Error> {
        Link::attach(&self.program, device, mode)
    }

    /// Sends packets of `queue` to the socket with descriptor `fd`.
    pub fn insert(&self, queue: u32, fd: RawFd) -> Result<(), Error> {
        self.sockets.set(queue, fd as u32).map_err(|e| {
            let what = format!("send packets of queue {queue} to a socket");
            match e.raw_os_error() {
                Some(libc::E2BIG) => {
                    let cause = "the program was loaded for fewer queues";
                    Error::new("AFXDP-PROGRAM-QUEUE", what, cause, "load it with a larger `queues`")
                }
                _ => Error::privileged("AFXDP-PROGRAM-INSERT", what, &[CAP_BPF], &e),
            }
        })
    }

    /// Lets packets of `queue` pass to the kernel again.
    pub fn remove(&self, queue: u32) -> Result<(), Error> {
        match self.sockets.remove(queue) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                let what = format!("take the socket off queue {queue}");
                Err(Error::privileged("AFXDP-PROGRAM-REMOVE", what, &[CAP_BPF], &e))
            }
            _ => Ok(()),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> Result<Counters, Error> {
        let sum = |key: i32| {
            self.counters.sum(key as u32).map_err(|e| {
                Error::privileged("AFXDP-PROGRAM-COUNTERS", "read an XDP program's counters", &[CAP_BPF], &e)
            })
        };
        Ok(Counters { redirected: sum(REDIRECTED)?, passed: sum(PASSED)?, no_socket: sum(NO_SOCKET)? })
    }

    /// Runs the program on `frame` without a device: whether it is selected. For tests of selections.
    pub fn selects(&self, frame: &[u8]) -> Result<bool, Error> {
        let before = self.counters()?;
        self.program
            .action_on(frame)
            .map_err(|e| Error::privileged("AFXDP-PROGRAM-RUN", "run an XDP program", &[CAP_BPF], &e))?;
        let after = self.counters()?;
        Ok(after.passed == before.passed)
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}

fn emit(matches: &[Match], sockets: &Map, counters: &Map) -> Vec<Insn> {
    let mut asm = Asm::default();
    let (matched, other) = (asm.label(), asm.label());
    asm.op_reg(Op::Move, Reg::R6, Reg::R1);
    if !matches.is_empty() {
        asm.load(Width::Word, Reg::R7, Reg::R6, xdp_md::DATA).load(
            Width::Word,
            Reg::R8,
            Reg::R6,
            xdp_md::DATA_END,
        );
        matcher::emit(&mut asm, matches, matched, other);
        asm.place(other).op(Op::Move, Reg::R9, 1).count(counters, PASSED, Reg::R9);
        asm.op(Op::Move, Reg::R0, XDP_PASS).exit();
    }
    let delivered = asm.label();
    asm.place(matched)
        .load(Width::Word, Reg::R2, Reg::R6, xdp_md::RX_QUEUE_INDEX)
        .load_map(Reg::R1, sockets)
        // What to do if no socket is there.
        .op(Op::Move, Reg::R3, XDP_PASS)
        .call(Helper::RedirectMap)
        .op_reg(Op::Move, Reg::R7, Reg::R0)
        .op(Op::Move, Reg::R9, 1)
        .jump_if(If::Equal, Reg::R7, XDP_REDIRECT, delivered)
        .count(counters, NO_SOCKET, Reg::R9)
        .op_reg(Op::Move, Reg::R0, Reg::R7)
        .exit()
        .place(delivered)
        .count(counters, REDIRECTED, Reg::R9)
        .op_reg(Op::Move, Reg::R0, Reg::R7)
        .exit();
    asm.finish()
}
