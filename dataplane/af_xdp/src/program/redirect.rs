//! The program that sends selected packets to sockets.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::link::{AttachMode, Link};
use super::matcher::{self, MATCHES_MAX, Match, Selection, VLAN_MAX};
use super::shortcut::Shortcut;
use super::tally::{Tally, emit_length};
use super::transit::{LOCALS_MAX, Locals};
use super::{Action, load_error, map_error, xdp_md};
use crate::bpf::asm::Asm;
use crate::bpf::insn::{Helper, If, Insn, Op, Reg, Width};
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
    /// Their bytes.
    pub redirected_bytes: u64,
    /// Packets that were not selected.
    pub passed: u64,
    /// Their bytes.
    pub passed_bytes: u64,
    /// Packets that were selected, and passed because no socket is on their queue.
    pub no_socket: u64,
    /// Their bytes.
    pub no_socket_bytes: u64,
    /// Packets that took the shortcut.
    pub forwarded: u64,
    /// Their bytes.
    pub forwarded_bytes: u64,
}

const PASSED: i32 = 0;
const NO_SOCKET: i32 = 1;
const REDIRECTED: i32 = 2;
const FORWARDED: i32 = 3;
const KEYS: u32 = 4;

/// The program, loaded.
pub struct Redirect {
    program: Program,
    sockets: Map,
    tally: Tally,
    /// With [`Selection::Transit`].
    locals: Option<Locals>,
}

impl Redirect {
    /// Loads the program.
    pub fn load(config: &ProgramConfig) -> Result<Redirect, Error> {
        Redirect::load_with(config, None)
    }

    /// Loads the program for a device that is interface so and so in the tables of a shortcut, which selected packets take
    /// if they can. Not with `frags`: of a packet in several buffers a program sees the first.
    pub fn load_with(config: &ProgramConfig, shortcut: Option<(&Shortcut, u32)>) -> Result<Redirect, Error> {
        let what = "load an XDP program that redirects";
        let matches = match &config.selection {
            Selection::All | Selection::Transit => &[][..],
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
        if let Some(vlan) = matches.iter().filter_map(|m| m.vlan).find(|v| *v > VLAN_MAX) {
            let cause = format!("no frame has VLAN id {vlan}");
            return Err(Error::new("AFXDP-PROGRAM-VLAN", what, cause, format!("give 0 to {VLAN_MAX}")));
        }
        let sockets = Map::new(MapKind::XskMap, 4, config.queues.max(1)).map_err(|e| map_error(what, &e))?;
        let tally = Tally::new(KEYS).map_err(|e| map_error(what, &e))?;
        let locals = match config.selection {
            Selection::Transit => Some(Locals::new().map_err(|e| map_error(what, &e))?),
            _ => None,
        };
        let shortcut = shortcut.filter(|_| !config.frags);
        let code = emit(matches, locals.as_ref(), shortcut, config.frags, &sockets, &tally);
        let program = Program::load(&code, "nke_redirect", config.frags).map_err(|e| load_error(what, &e))?;
        Ok(Redirect { program, sockets, tally, locals })
    }

    /// Puts the program on `device`, in the calling thread's network namespace.
    pub fn attach(&self, device: &str, mode: AttachMode) -> Result<Link, Error> {
        Link::attach(&self.program, device, mode)
    }

    /// Sends packets of `queue` to the socket with descriptor `fd`, which must be bound to this queue of the device: the
    /// kernel drops what is sent to a socket of another queue or device.
    pub fn insert(&self, queue: u32, fd: RawFd) -> Result<(), Error> {
        self.sockets.set(queue, fd as u32).map_err(|e| {
            let what = format!("send packets of queue {queue} to a socket");
            match e.raw_os_error() {
                Some(libc::E2BIG) => beyond(what),
                Some(errno @ (libc::EBADF | libc::EOPNOTSUPP | libc::ENOTSOCK)) => {
                    let cause = format!("descriptor {fd} is not an AF_XDP socket");
                    Error::new("AFXDP-PROGRAM-SOCKET", what, cause, "give the descriptor of an open `Socket`")
                        .with_errno(errno)
                }
                _ => Error::privileged("AFXDP-PROGRAM-INSERT", what, &[CAP_BPF], &e),
            }
        })
    }

    /// Lets packets of `queue` pass to the kernel again; also right if they do already. Closing a socket does it, too.
    pub fn remove(&self, queue: u32) -> Result<(), Error> {
        let what = || format!("take the socket off queue {queue}");
        match self.sockets.remove(queue) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Err(beyond(what())),
            Err(e) => Err(Error::privileged("AFXDP-PROGRAM-REMOVE", what(), &[CAP_BPF], &e)),
        }
    }

    /// Says that `address` is this host's: packets for it go to the kernel. Also right if it is known already. Only with
    /// [`Selection::Transit`]; without effect else.
    pub fn insert_local(&self, address: IpAddr) -> Result<(), Error> {
        let Some(locals) = &self.locals else { return Ok(()) };
        locals.insert(address).map_err(|e| {
            let what = format!("leave packets for {address} to the kernel");
            match e.raw_os_error() {
                Some(errno @ libc::E2BIG) => {
                    let cause = format!("there are {LOCALS_MAX} such addresses already");
                    Error::new("AFXDP-PROGRAM-LOCALS", what, cause, "remove some").with_errno(errno)
                }
                _ => Error::privileged("AFXDP-PROGRAM-LOCAL", what, &[CAP_BPF], &e),
            }
        })
    }

    /// Says that `address` is not this host's any more; also right if it never was.
    pub fn remove_local(&self, address: IpAddr) -> Result<(), Error> {
        let Some(locals) = &self.locals else { return Ok(()) };
        match locals.remove(address) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                let what = format!("take packets for {address} from the kernel");
                Err(Error::privileged("AFXDP-PROGRAM-LOCAL", what, &[CAP_BPF], &e))
            }
            _ => Ok(()),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> Result<Counters, Error> {
        let redirected = self.tally.read(REDIRECTED)?;
        let passed = self.tally.read(PASSED)?;
        let no_socket = self.tally.read(NO_SOCKET)?;
        let forwarded = self.tally.read(FORWARDED)?;
        Ok(Counters {
            redirected: redirected.packets,
            redirected_bytes: redirected.bytes,
            passed: passed.packets,
            passed_bytes: passed.bytes,
            no_socket: no_socket.packets,
            no_socket_bytes: no_socket.bytes,
            forwarded: forwarded.packets,
            forwarded_bytes: forwarded.bytes,
        })
    }

    /// Number of the program, as `ip link` and bpftool show it.
    pub fn id(&self) -> Result<u32, Error> {
        let info = self.program.info().map(|info| info.id);
        info.map_err(|e| {
            Error::privileged("AFXDP-PROGRAM-ID", "ask for an XDP program's number", &[CAP_BPF], &e)
        })
    }

    /// Runs the program on `frame` without a device, as if it came from queue 0; it is counted, and goes nowhere. For
    /// tests of selections.
    pub fn action_on(&self, frame: &[u8]) -> Result<Action, Error> {
        self.run_on(frame).map(|(action, _)| action)
    }

    /// As [`Redirect::action_on`], with the frame as the program left it.
    pub fn run_on(&self, frame: &[u8]) -> Result<(Action, Vec<u8>), Error> {
        let run = self.program.run(frame);
        let run =
            run.map_err(|e| Error::privileged("AFXDP-PROGRAM-RUN", "run an XDP program", &[CAP_BPF], &e))?;
        Ok((Action::from_number(run.action), run.frame))
    }

    /// Whether `frame` is selected, socket or not. To be asked while the program is on no device: it tells by the
    /// counters.
    pub fn selects(&self, frame: &[u8]) -> Result<bool, Error> {
        let before = self.tally.read(PASSED)?.packets;
        self.action_on(frame)?;
        Ok(self.tally.read(PASSED)?.packets == before)
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}

fn beyond(what: String) -> Error {
    let cause = "the program was loaded for fewer queues";
    Error::new("AFXDP-PROGRAM-QUEUE", what, cause, "load it with a larger `queues`")
}

/// R6 is the context; from `count` on R7 is the action and R8 what to count.
fn emit(
    matches: &[Match],
    locals: Option<&Locals>,
    shortcut: Option<(&Shortcut, u32)>,
    frags: bool,
    sockets: &Map,
    tally: &Tally,
) -> Vec<Insn> {
    let mut asm = Asm::default();
    let (matched, other, count) = (asm.label(), asm.label(), asm.label());
    asm.op_reg(Op::Move, Reg::R6, Reg::R1);
    if locals.is_some() || !matches.is_empty() {
        asm.load(Width::Word, Reg::R7, Reg::R6, xdp_md::DATA).load(
            Width::Word,
            Reg::R8,
            Reg::R6,
            xdp_md::DATA_END,
        );
        match locals {
            Some(locals) => locals.emit(&mut asm, matched, other),
            None => matcher::emit(&mut asm, matches, matched, other),
        }
        asm.place(other).op(Op::Move, Reg::R7, Action::Pass as i32).op(Op::Move, Reg::R8, PASSED).jump(count);
    }
    asm.place(matched);
    if let Some((shortcut, interface)) = shortcut {
        let to_socket = asm.label();
        shortcut.emit(&mut asm, interface, FORWARDED, count, to_socket);
        asm.place(to_socket);
    }
    asm.load(Width::Word, Reg::R2, Reg::R6, xdp_md::RX_QUEUE_INDEX)
        .load_map(Reg::R1, sockets)
        // What to do if no socket is there.
        .op(Op::Move, Reg::R3, Action::Pass as i32)
        .call(Helper::RedirectMap)
        .op_reg(Op::Move, Reg::R7, Reg::R0)
        .op(Op::Move, Reg::R8, NO_SOCKET)
        .jump_if(If::NotEqual, Reg::R7, Action::Redirect as i32, count)
        .op(Op::Move, Reg::R8, REDIRECTED)
        .place(count);
    emit_length(&mut asm, Reg::R9, Reg::R6, frags);
    tally.emit_add(&mut asm, Reg::R8, Reg::R9);
    asm.op_reg(Op::Move, Reg::R0, Reg::R7).exit();
    asm.finish()
}
