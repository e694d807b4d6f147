//! Counters that a program keeps and user space reads: packets and bytes by key, one copy for each CPU, so that CPUs
//! neither wait for each other nor lose counts.

use std::io;

use super::xdp_md;
use crate::bpf::asm::Asm;
use crate::bpf::insn::{Helper, Op, Reg, Width};
use crate::bpf::{Map, MapKind};
use crate::error::{CAP_BPF, Error};

/// Packets and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
}

/// The map.
pub(super) struct Tally(Map);

impl Tally {
    pub(super) fn new(keys: u32) -> io::Result<Tally> {
        Map::new(MapKind::PerCpuArray, size_of::<[u64; 2]>() as u32, keys).map(Tally)
    }

    /// Emits: one packet more, of `bytes` bytes, for the key in `key`. Both registers are of R6 to R9; R0 to R5 are lost,
    /// and four bytes of stack at -4.
    pub(super) fn emit_add(&self, asm: &mut Asm, key: Reg, bytes: Reg) {
        let absent = asm.label();
        asm.op_reg(Op::Move, Reg::R2, key)
            // Absent is none of the keys there are; but the verifier wants to see it.
            .look_up(&self.0, absent)
            .load(Width::Double, Reg::R1, Reg::R0, 0)
            .op(Op::Add, Reg::R1, 1)
            .store(Width::Double, Reg::R0, 0, Reg::R1)
            .load(Width::Double, Reg::R1, Reg::R0, 8)
            .op_reg(Op::Add, Reg::R1, bytes)
            .store(Width::Double, Reg::R0, 8, Reg::R1)
            .place(absent);
    }

    /// All CPUs together. A CPU may count while this reads: packets and bytes can be one packet apart.
    pub(super) fn read(&self, key: i32) -> Result<Count, Error> {
        let [packets, bytes] = self.0.sum(key as u32).map_err(|e| {
            Error::privileged("AFXDP-PROGRAM-COUNTERS", "read an XDP program's counters", &[CAP_BPF], &e)
        })?;
        Ok(Count { packets, bytes })
    }
}

/// Emits: `dst` (of R6 to R9) is the length of the packet whose context is in `context` (of R6 to R9).
pub(super) fn emit_length(asm: &mut Asm, dst: Reg, context: Reg, frags: bool) {
    if frags {
        // The buffers after the first are out of a program's sight; the kernel adds them up.
        asm.op_reg(Op::Move, Reg::R1, context).call(Helper::BufferLength).op_reg(Op::Move, dst, Reg::R0);
    } else {
        asm.load(Width::Word, dst, context, xdp_md::DATA_END)
            .load(Width::Word, Reg::R1, context, xdp_md::DATA)
            .op_reg(Op::Sub, dst, Reg::R1);
    }
}
