//! A program that counts packets, and takes their latency if told to: the end of a measurement.

use super::link::{AttachMode, Link};
use super::live::STAMP;
use super::tally::{Count, Tally, emit_length};
use super::{Action, load_error, map_error, xdp_md};
use crate::bpf::asm::Asm;
use crate::bpf::insn::{Helper, If, Op, Reg, Width};
use crate::bpf::{Map, MapKind, Program};
use crate::error::{CAP_BPF, Error};

/// What becomes of a packet once it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SinkAction {
    /// It is dropped, before the stack sees it.
    #[default]
    Drop,
    /// It goes on to the kernel as if the program were not there.
    Pass,
}

/// The program, loaded.
pub struct Sink {
    program: Program,
    tally: Tally,
    latency: Option<Map>,
}

const COUNTED: i32 = 0;

/// Nanoseconds per class of latency: two to the power of this.
const CLASS_SHIFT: i32 = 7;
/// Classes; the last one takes what is longer, from 8 ms on.
const CLASSES: i32 = 1 << 16;

impl Sink {
    /// Loads a program that counts and drops.
    pub fn load() -> Result<Sink, Error> {
        Sink::build(SinkAction::Drop, false)
    }

    /// Loads a program that counts, and then does `action`.
    pub fn load_with(action: SinkAction) -> Result<Sink, Error> {
        Sink::build(action, false)
    }

    /// Loads a program that counts, takes the latency of each frame a [`super::LiveSource`] stamped, and drops.
    pub fn load_with_latency() -> Result<Sink, Error> {
        Sink::build(SinkAction::Drop, true)
    }

    fn build(action: SinkAction, latency: bool) -> Result<Sink, Error> {
        let what = "load an XDP program that counts";
        let tally = Tally::new(1).map_err(|e| map_error(what, &e))?;
        let classes = || Map::new(MapKind::PerCpuArray, 8, CLASSES as u32).map_err(|e| map_error(what, &e));
        let latency = if latency { Some(classes()?) } else { None };
        let verdict = match action {
            SinkAction::Drop => Action::Drop,
            SinkAction::Pass => Action::Pass,
        };
        let mut asm = Asm::default();
        asm.op_reg(Op::Move, Reg::R6, Reg::R1);
        if let Some(map) = &latency {
            take_latency(&mut asm, map);
        }
        asm.op(Op::Move, Reg::R8, COUNTED);
        emit_length(&mut asm, Reg::R9, Reg::R6, true);
        tally.emit_add(&mut asm, Reg::R8, Reg::R9);
        asm.op(Op::Move, Reg::R0, verdict as i32).exit();
        let program = Program::load(&asm.finish(), "nke_sink", true).map_err(|e| load_error(what, &e))?;
        Ok(Sink { program, tally, latency })
    }

    /// Puts the program on `device`, in the calling thread's network namespace.
    pub fn attach(&self, device: &str, mode: AttachMode) -> Result<Link, Error> {
        Link::attach(&self.program, device, mode)
    }

    /// What was counted so far, all CPUs together.
    pub fn counters(&self) -> Result<Count, Error> {
        self.tally.read(COUNTED)
    }

    /// The latencies taken so far: nanoseconds (the middle of a class of 128), and how many frames. Nothing without
    /// [`Sink::load_with_latency`]. Makes a system call for each class: some 20 ms.
    pub fn latencies(&self) -> Result<Vec<(u64, u64)>, Error> {
        let Some(map) = &self.latency else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for class in 0..CLASSES as u32 {
            let [count] = map.sum(class).map_err(|e| {
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
