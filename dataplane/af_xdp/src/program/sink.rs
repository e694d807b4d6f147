//! A program that counts packets and drops them: the end of a measurement.

use super::link::{AttachMode, Link};
use super::{XDP_DROP, load_error, xdp_md};
use crate::bpf::asm::{Asm, Op, Reg, Width};
use crate::bpf::{Map, MapKind, Program};
use crate::error::{CAP_BPF, Error};

/// What a sink counted, all CPUs together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SinkCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes; of packets in several buffers those in the first.
    pub bytes: u64,
}

/// The program, loaded.
pub struct Sink {
    program: Program,
    counters: Map,
}

const PACKETS: i32 = 0;
const BYTES: i32 = 1;

impl Sink {
    /// Loads the program.
    pub fn load() -> Result<Sink, Error> {
        let what = "load an XDP program that counts";
        let counters = Map::new(MapKind::PerCpuArray, 8, 2).map_err(|e| load_error(what, &e))?;
        let mut asm = Asm::default();
        asm.load(Width::Word, Reg::R7, Reg::R1, xdp_md::DATA_END)
            .load(Width::Word, Reg::R8, Reg::R1, xdp_md::DATA)
            .op_reg(Op::Sub, Reg::R7, Reg::R8)
            .count(&counters, BYTES, Reg::R7)
            .op(Op::Move, Reg::R9, 1)
            .count(&counters, PACKETS, Reg::R9)
            .op(Op::Move, Reg::R0, XDP_DROP)
            .exit();
        let program = Program::load(&asm.finish(), "nke_sink", true).map_err(|e| load_error(what, &e))?;
        Ok(Sink { program, counters })
    }

    /// Puts the program on `device`, in the calling thread's network namespace.
    pub fn attach(&self, device: &str, mode: AttachMode) -> Result<Link, Error> {
        Link::attach(&self.program, device, mode)
    }

    /// What was counted so far.
    pub fn counters(&self) -> Result<SinkCounters, Error> {
        let sum = |key: i32| {
            self.counters.sum(key as u32).map_err(|e| {
                Error::privileged("AFXDP-PROGRAM-COUNTERS", "read a sink's counters", &[CAP_BPF], &e)
            })
        };
        Ok(SinkCounters { packets: sum(PACKETS)?, bytes: sum(BYTES)? })
    }
}
