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

/// Where the UDP source port is in an IPv4 frame without options.
const SRC_PORT: i16 = 34;

/// A source of frames that go out by one device.
pub struct LiveSource {
    program: Program,
    frame: Vec<u8>,
    _flow: Map,
}

impl LiveSource {
    /// Sends copies of `frame` by `device`. With more than one flow the UDP source port (an IPv4 frame without options
    /// is taken for granted) counts through that many values from 1024 on; at most 60000.
    ///
    /// On veth the other end must receive by NAPI: an XDP program on it, or `gro on`.
    pub fn new(device: &str, frame: &[u8], flows: u32) -> Result<LiveSource, Error> {
        let what = "load an XDP program that generates";
        let ifindex = sys::if_index(device).map_err(|_| device::missing(what.into(), device))?;
        let flow = Map::new(MapKind::Array, 8, 1).map_err(|e| load_error(what, &e))?;
        let mut asm = Asm::default();
        if flows > 1 {
            let out = asm.label();
            asm.load(Width::Word, Reg::R7, Reg::R1, xdp_md::DATA)
                .load(Width::Word, Reg::R8, Reg::R1, xdp_md::DATA_END)
                .op_reg(Op::Move, Reg::R1, Reg::R7)
                .op(Op::Add, Reg::R1, i32::from(SRC_PORT) + 2)
                .jump_if_reg(If::Greater, Reg::R1, Reg::R8, out)
                .op(Op::Move, Reg::R2, 0)
                .store(Width::Word, Reg::Fp, -4, Reg::R2)
                .op_reg(Op::Move, Reg::R2, Reg::Fp)
                .op(Op::Add, Reg::R2, -4)
                .load_map(Reg::R1, &flow)
                .call(Helper::MapLookup)
                .jump_if(If::Equal, Reg::R0, 0, out)
                .load(Width::Double, Reg::R1, Reg::R0, 0)
                .op(Op::Add, Reg::R1, 1)
                .store(Width::Double, Reg::R0, 0, Reg::R1)
                .op(Op::Modulo, Reg::R1, flows.min(60000) as i32)
                .op(Op::Add, Reg::R1, 1024)
                .swap16(Reg::R1)
                .store(Width::Half, Reg::R7, SRC_PORT, Reg::R1)
                .place(out);
        }
        asm.op(Op::Move, Reg::R1, ifindex as i32).op(Op::Move, Reg::R2, 0).call(Helper::Redirect).exit();
        let program = Program::load(&asm.finish(), "nke_source", false).map_err(|e| load_error(what, &e))?;
        Ok(LiveSource { program, frame: frame.to_vec(), _flow: flow })
    }

    /// Sends `repeat` frames, `batch` (1 to 256) at a time, as fast as this thread can, and returns when they are out.
    /// The thread must be in the device's network namespace.
    pub fn run(&self, repeat: u32, batch: u32) -> Result<RunReport, Error> {
        let begin = Instant::now();
        let run = TestRun { repeat, batch: batch.clamp(1, 256) };
        self.program.run_live(&self.frame, &run).map_err(|e: io::Error| {
            Error::privileged("AFXDP-SOURCE-RUN", "generate frames", &[CAP_NET_ADMIN], &e)
        })?;
        Ok(RunReport { sent: u64::from(repeat), duration: begin.elapsed() })
    }
}
