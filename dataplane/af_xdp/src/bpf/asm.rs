//! An assembler for the few instructions the programs use, with labels.
//!
//! The verifier refuses code that cannot be reached, so whoever emits must emit only what some path needs.

use super::Map;

/// One instruction as the kernel reads it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    imm: i32,
}

/// A register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(dead_code, reason = "the full set, so that numbers stay right")]
pub(crate) enum Reg {
    /// Result of calls, and of the program.
    R0 = 0,
    R1,
    R2,
    R3,
    R4,
    R5,
    /// From here on kept across calls.
    R6,
    R7,
    R8,
    R9,
    /// Frame pointer, read only.
    Fp,
}

/// Width of a memory access.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// Condition of a jump, unsigned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum If {
    Equal = 0x10,
    Greater = 0x20,
    GreaterEqual = 0x30,
    Less = 0xa0,
    NotEqual = 0x50,
}

/// Arithmetic on 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Add = 0x00,
    Sub = 0x10,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Modulo = 0x90,
    Move = 0xb0,
}

/// Functions of the kernel (`linux/bpf.h`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Helper {
    MapLookup = 1,
    KtimeGetNs = 5,
    Redirect = 23,
    RedirectMap = 51,
}

/// A place to jump to, placed before or after the jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label(usize);

/// Collects instructions.
#[derive(Default)]
pub(crate) struct Asm {
    insns: Vec<Insn>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

const LDX_MEM: u8 = 0x61;
const STX_MEM: u8 = 0x63;
const ALU64_IMM: u8 = 0x07;
const ALU64_REG: u8 = 0x0f;
const JMP_IMM: u8 = 0x05;
const JMP_REG: u8 = 0x0d;
const BYTE_SWAP_16: u8 = 0xdc;

impl Asm {
    fn emit(&mut self, code: u8, dst: Reg, src: u8, offset: i16, imm: i32) -> &mut Self {
        self.insns.push(Insn { code, registers: dst as u8 | src << 4, offset, imm });
        self
    }

    /// `dst = *(src + offset)`
    pub(crate) fn load(&mut self, width: Width, dst: Reg, src: Reg, offset: i16) -> &mut Self {
        self.emit(LDX_MEM | width as u8, dst, src as u8, offset, 0)
    }

    /// `*(dst + offset) = src`
    pub(crate) fn store(&mut self, width: Width, dst: Reg, offset: i16, src: Reg) -> &mut Self {
        self.emit(STX_MEM | width as u8, dst, src as u8, offset, 0)
    }

    /// `dst = dst op imm`
    pub(crate) fn op(&mut self, op: Op, dst: Reg, imm: i32) -> &mut Self {
        self.emit(ALU64_IMM | op as u8, dst, 0, 0, imm)
    }

    /// `dst = dst op src`
    pub(crate) fn op_reg(&mut self, op: Op, dst: Reg, src: Reg) -> &mut Self {
        self.emit(ALU64_REG | op as u8, dst, src as u8, 0, 0)
    }

    /// Turns the low 16 bits from network into host order (and back), clearing the rest.
    pub(crate) fn swap16(&mut self, dst: Reg) -> &mut Self {
        self.emit(BYTE_SWAP_16, dst, 0, 0, 16)
    }

    /// `dst = map`
    pub(crate) fn load_map(&mut self, dst: Reg, map: &Map) -> &mut Self {
        // A 64-bit load takes two slots; source 1 says that the number is a map's descriptor.
        self.emit(0x18, dst, 1, 0, map.fd());
        self.emit(0, Reg::R0, 0, 0, 0)
    }

    /// A new label, not placed yet.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places `label` here.
    pub(crate) fn place(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = Some(self.insns.len());
        self
    }

    /// `if left cond imm goto label`
    pub(crate) fn jump_if(&mut self, condition: If, left: Reg, imm: i32, label: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), label));
        self.emit(JMP_IMM | condition as u8, left, 0, 0, imm)
    }

    /// `if left cond right goto label`
    pub(crate) fn jump_if_reg(&mut self, condition: If, left: Reg, right: Reg, label: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), label));
        self.emit(JMP_REG | condition as u8, left, right as u8, 0, 0)
    }

    /// `goto label`
    pub(crate) fn jump(&mut self, label: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), label));
        self.emit(JMP_IMM, Reg::R0, 0, 0, 0)
    }

    /// Calls a function of the kernel.
    pub(crate) fn call(&mut self, helper: Helper) -> &mut Self {
        self.emit(0x85, Reg::R0, 0, 0, helper as i32)
    }

    /// Ends the program with the value of R0.
    pub(crate) fn exit(&mut self) -> &mut Self {
        self.emit(0x95, Reg::R0, 0, 0, 0)
    }

    /// `R0 = address of the map's entry with the number in R2`; goes to `absent` if there is none. Uses R1 to R5 and
    /// eight bytes of stack at -8.
    pub(crate) fn look_up(&mut self, map: &Map, absent: Label) -> &mut Self {
        self.store(Width::Word, Reg::Fp, -4, Reg::R2)
            .op_reg(Op::Move, Reg::R2, Reg::Fp)
            .op(Op::Add, Reg::R2, -4)
            .load_map(Reg::R1, map)
            .call(Helper::MapLookup)
            .jump_if(If::Equal, Reg::R0, 0, absent)
    }

    /// Adds `amount` to entry `key` of a per-CPU array. Uses what [`Asm::look_up`] uses.
    pub(crate) fn count(&mut self, map: &Map, key: i32, amount: Reg) -> &mut Self {
        let absent = self.label();
        self.op(Op::Move, Reg::R2, key)
            .look_up(map, absent)
            .load(Width::Double, Reg::R1, Reg::R0, 0)
            .op_reg(Op::Add, Reg::R1, amount)
            .store(Width::Double, Reg::R0, 0, Reg::R1)
            .place(absent)
    }

    /// The finished code.
    ///
    /// # Panics
    /// When a label was never placed: a mistake in the emitter, found by its first test.
    pub(crate) fn finish(mut self) -> Vec<Insn> {
        for (at, label) in self.jumps {
            let Some(to) = self.labels[label.0] else { panic!("label {} was never placed", label.0) };
            self.insns[at].offset = (to as i64 - at as i64 - 1) as i16;
        }
        self.insns
    }
}
