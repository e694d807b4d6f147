//! A program that counts packets, takes their latency, and drops them: the end of a measurement.

use super::link::{AttachMode, Link};
use super::live::STAMP;
use super::{XDP_DROP, load_error, xdp_md};
use crate::bpf::asm::{Asm, Helper, If, Op, Reg, Width};
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
    latency: Option<Map>,
}

/// Nanoseconds per class of latency: two to the power of this.
const CLASS_SHIFT: i32 = 7;
/// Classes; the last one takes what is longer.
const CLASSES: i32 = 1 << 16;

const PACKETS: i32 = 0;
const BYTES: i32 = 1;

impl Sink {
    /// Loads a program that counts.
    pub fn load() -> Result<Sink, Error> {
        Sink::build(false)
    }

    /// Loads a program that also takes the latency of each frame a [`super::LiveSource`] stamped.
    pub fn load_with_latency() -> Result<Sink, Error> {
        Sink::build(true)
    }

    fn build(latency: bool) -> Result<Sink, Error> {
        let what = "load an XDP program that counts";
        let counters = Map::new(MapKind::PerCpuArray, 8, 2).map_err(|e| load_error(what, &e))?;
        let latency = match latency {
            true => {
                Some(Map::new(MapKind::PerCpuArray, 8, CLASSES as u32).map_err(|e| load_error(what, &e))?)
            }
            false => None,
        };
        let mut asm = Asm::default();
        if let Some(map) = &latency {
            asm.op_reg(Op::Move, Reg::R6, Reg::R1);
            take_latency(&mut asm, map);
            asm.op_reg(Op::Move, Reg::R1, Reg::R6);
        }
        asm.load(Width::Word, Reg::R7, Reg::R1, xdp_md::DATA_END)
            .load(Width::Word, Reg::R8, Reg::R1, xdp_md::DATA)
            .op_reg(Op::Sub, Reg::R7, Reg::R8)
            .count(&counters, BYTES, Reg::R7)
            .op(Op::Move, Reg::R9, 1)
            .count(&counters, PACKETS, Reg::R9)
            .op(Op::Move, Reg::R0, XDP_DROP)
            .exit();
        let program = Program::load(&asm.finish(), "nke_sink", true).map_err(|e| load_error(what, &e))?;
        Ok(Sink { program, counters, latency })
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

    /// The latencies taken so far: nanoseconds (the middle of a class of 128), and how many frames. Nothing without
    /// [`Sink::load_with_latency`].
    pub fn latencies(&self) -> Result<Vec<(u64, u64)>, Error> {
        let Some(map) = &self.latency else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for class in 0..CLASSES as u32 {
            let count = map.sum(class).map_err(|e| {
                Error::privileged("AFXDP-PROGRAM-COUNTERS", "read a sink's latencies", &[CAP_BPF], &e)
            })?;
            if count > 0 {
                found.push(((u64::from(class) << CLASS_SHIFT) + (1 << (CLASS_SHIFT - 1)), count));
            }
        }
        Ok(found)
    }
}

/// Counts the age of the frame whose context is in R6, if it is long enough to carry a stamp.
fn take_latency(asm: &mut Asm, map: &Map) {
    let (short, fits) = (asm.label(), asm.label());
    asm.load(Width::Word, Reg::R7, Reg::R6, xdp_md::DATA)
        .load(Width::Word, Reg::R8, Reg::R6, xdp_md::DATA_END)
        .op_reg(Op::Move, Reg::R1, Reg::R7)
        .op(Op::Add, Reg::R1, i32::from(STAMP) + 8)
        .jump_if_reg(If::Greater, Reg::R1, Reg::R8, short)
        .load(Width::Double, Reg::R7, Reg::R7, STAMP)
        // Not stamped: not from the generator.
        .jump_if(If::Equal, Reg::R7, 0, short)
        .call(Helper::KtimeGetNs)
        .op_reg(Op::Sub, Reg::R0, Reg::R7)
        .op(Op::ShiftRight, Reg::R0, CLASS_SHIFT)
        .jump_if(If::Less, Reg::R0, CLASSES, fits)
        .op(Op::Move, Reg::R0, CLASSES - 1)
        .place(fits)
        .op_reg(Op::Move, Reg::R2, Reg::R0)
        .look_up(map, short)
        .load(Width::Double, Reg::R1, Reg::R0, 0)
        .op(Op::Add, Reg::R1, 1)
        .store(Width::Double, Reg::R0, 0, Reg::R1)
        .place(short);
}
