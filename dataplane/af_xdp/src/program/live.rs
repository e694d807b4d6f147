//! A generator of traffic: the kernel runs an XDP program on copies of a frame, and the program sends them out.

use std::io;
use std::time::{Duration, Instant};

use super::load_error;
use super::xdp_md;
use crate::bpf::asm::{Asm, Helper, If, Op, Reg, Width};
use crate::bpf::{Map, MapKind, Program, TestRun};
use crate::error::{CAP_NET_ADMIN, Error};
use crate::{device, sys};

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunReport {
    /// Frames handed to the device. The receiver may still have dropped some.
    pub sent: u64,
    /// How long it took.
    pub duration: Duration,
}

/// How fast to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// As fast as the thread can.
    Flood,
    /// So many packets per second, evenly spaced within the limits of the batch. At least 10,000.
    PerSecond(u32),
}

/// Where the UDP source port is in an IPv4 frame without options.
const SRC_PORT: i16 = 34;
/// Where the time of sending is put: eight bytes behind the UDP header, the kernel's monotonic clock in the machine's
/// byte order. Frames too short for it are not stamped.
pub(super) const STAMP: i16 = 42;

/// The program's state, one entry of three words: frames made, when the next is due, nanoseconds from one to the next.
mod state {
    pub(super) const MADE: i16 = 0;
    pub(super) const DUE: i16 = 8;
    pub(super) const INTERVAL: i16 = 16;
}

/// Looks at the clock per frame at most: about a tenth of a millisecond, after which the frame goes out early.
const SPINS_MAX: i32 = 4000;
/// A source that is later than this forgets what it missed, in nanoseconds.
const CATCH_UP_NS: i32 = 1_000_000;

/// A source of frames that go out by one device.
pub struct LiveSource {
    program: Program,
    frame: Vec<u8>,
    state: Map,
}

impl LiveSource {
    /// Sends copies of `frame`, an IPv4 UDP frame without options and without UDP checksum, by `device`. The source port
    /// counts through `flows` values from 1024 on, at most 60000; each frame carries the time it was sent.
    ///
    /// On veth the other end must receive by NAPI: an XDP program on it, or `gro on`.
    pub fn new(device: &str, frame: &[u8], flows: u32) -> Result<LiveSource, Error> {
        let what = "load an XDP program that generates";
        let ifindex = sys::if_index(device).map_err(|_| device::missing(what.into(), device))?;
        let state = Map::new(MapKind::Array, 24, 1).map_err(|e| load_error(what, &e))?;
        let program =
            Program::load(&emit(ifindex, flows.clamp(1, 60000), &state).finish(), "nke_source", false)
                .map_err(|e| load_error(what, &e))?;
        Ok(LiveSource { program, frame: frame.to_vec(), state })
    }

    /// Sends `repeat` frames, `batch` (1 to 256) at a time, and returns when they are out. The thread must be in the
    /// device's network namespace.
    pub fn run(&self, repeat: u32, batch: u32, rate: Rate) -> Result<RunReport, Error> {
        let interval = match rate {
            Rate::Flood => 0,
            Rate::PerSecond(pps) => 1_000_000_000 / u64::from(pps.max(10_000)),
        };
        let failed =
            |e: io::Error| Error::privileged("AFXDP-SOURCE-RUN", "generate frames", &[CAP_NET_ADMIN], &e);
        self.state.set_words(0, &[0, 0, interval]).map_err(failed)?;
        let begin = Instant::now();
        let run = TestRun { repeat, batch: batch.clamp(1, 256) };
        self.program.run_live(&self.frame, &run).map_err(failed)?;
        Ok(RunReport { sent: u64::from(repeat), duration: begin.elapsed() })
    }
}

fn emit(ifindex: u32, flows: u32, state: &Map) -> Asm {
    let mut asm = Asm::default();
    let (out, again, due, on_time, unstamped) =
        (asm.label(), asm.label(), asm.label(), asm.label(), asm.label());
    asm.op_reg(Op::Move, Reg::R6, Reg::R1)
        .op(Op::Move, Reg::R2, 0)
        .look_up(state, out)
        .op_reg(Op::Move, Reg::R9, Reg::R0)
        // Wait until this frame is due.
        .op(Op::Move, Reg::R8, 0)
        .place(again)
        .call(Helper::KtimeGetNs)
        .load(Width::Double, Reg::R1, Reg::R9, state::DUE)
        .jump_if_reg(If::GreaterEqual, Reg::R0, Reg::R1, due)
        .op(Op::Add, Reg::R8, 1)
        .jump_if(If::Less, Reg::R8, SPINS_MAX, again)
        .place(due)
        // The next one is due an interval later; far behind, from now.
        .op_reg(Op::Move, Reg::R2, Reg::R1)
        .op(Op::Add, Reg::R2, CATCH_UP_NS)
        .jump_if_reg(If::GreaterEqual, Reg::R2, Reg::R0, on_time)
        .op_reg(Op::Move, Reg::R1, Reg::R0)
        .place(on_time)
        .load(Width::Double, Reg::R2, Reg::R9, state::INTERVAL)
        .op_reg(Op::Add, Reg::R1, Reg::R2)
        .store(Width::Double, Reg::R9, state::DUE, Reg::R1)
        // Flow and stamp.
        .load(Width::Word, Reg::R7, Reg::R6, xdp_md::DATA)
        .load(Width::Word, Reg::R8, Reg::R6, xdp_md::DATA_END)
        .op_reg(Op::Move, Reg::R1, Reg::R7)
        .op(Op::Add, Reg::R1, i32::from(SRC_PORT) + 2)
        .jump_if_reg(If::Greater, Reg::R1, Reg::R8, out)
        .load(Width::Double, Reg::R1, Reg::R9, state::MADE)
        .op(Op::Add, Reg::R1, 1)
        .store(Width::Double, Reg::R9, state::MADE, Reg::R1)
        .op(Op::Modulo, Reg::R1, flows as i32)
        .op(Op::Add, Reg::R1, 1024)
        .swap16(Reg::R1)
        .store(Width::Half, Reg::R7, SRC_PORT, Reg::R1)
        .op_reg(Op::Move, Reg::R1, Reg::R7)
        .op(Op::Add, Reg::R1, i32::from(STAMP) + 8)
        .jump_if_reg(If::Greater, Reg::R1, Reg::R8, unstamped)
        .store(Width::Double, Reg::R7, STAMP, Reg::R0)
        .place(unstamped)
        .place(out)
        .op(Op::Move, Reg::R1, ifindex as i32)
        .op(Op::Move, Reg::R2, 0)
        .call(Helper::Redirect)
        .exit();
    asm
}
