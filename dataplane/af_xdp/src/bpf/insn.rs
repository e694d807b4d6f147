//! BPF instructions as the kernel reads them.

/// One instruction; `lddw` takes two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Insn {
    pub(super) code: u8,
    /// Destination in the low half, source in the high half.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) imm: i32,
}

/// A register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(dead_code, reason = "the full set, so that numbers stay right")]
pub(crate) enum Reg {
    /// Result of calls, and of the program.
    R0 = 0,
    /// R1 to R5 are arguments of calls, and lost in them.
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
    NotEqual = 0x50,
    Less = 0xa0,
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
    Xor = 0xa0,
    Move = 0xb0,
}

/// Functions of the kernel (`linux/bpf.h`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Helper {
    MapLookup = 1,
    /// The monotonic clock.
    KtimeGetNs = 5,
    Redirect = 23,
    RedirectMap = 51,
    /// Length of a packet with all its buffers; from Linux 5.18 on.
    BufferLength = 188,
}

// Instruction classes with their mode or source bits, to be or'ed with one of the enums above.
pub(super) const LDX_MEM: u8 = 0x61;
pub(super) const ST_MEM: u8 = 0x62;
pub(super) const STX_MEM: u8 = 0x63;
pub(super) const STX_ATOMIC_DOUBLE: u8 = 0xdb;
pub(super) const ALU64_IMM: u8 = 0x07;
pub(super) const ALU64_REG: u8 = 0x0f;
pub(super) const TO_BIG_ENDIAN: u8 = 0xdc;
pub(super) const JMP_IMM: u8 = 0x05;
pub(super) const JMP_REG: u8 = 0x0d;
pub(super) const CALL: u8 = 0x85;
pub(super) const EXIT: u8 = 0x95;
pub(super) const LDDW: u8 = 0x18;

/// In the source register of `lddw`: the number is the descriptor of a map.
pub(super) const PSEUDO_MAP_FD: u8 = 1;
/// As above, and the register is to point at the map's first value.
pub(super) const PSEUDO_MAP_VALUE: u8 = 2;
/// Immediate of an atomic: add, and return the value before.
pub(super) const FETCH_ADD: i32 = 0x01;
