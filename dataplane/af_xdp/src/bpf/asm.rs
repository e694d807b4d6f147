//! An assembler for the few instructions the programs use, with labels.
//!
//! The verifier refuses code that cannot be reached, so whoever emits must emit only what some path needs.

use super::Map;
use super::insn::*;

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

    /// `*(dst + offset) = imm`
    pub(crate) fn store_imm(&mut self, width: Width, dst: Reg, offset: i16, imm: i32) -> &mut Self {
        self.emit(ST_MEM | width as u8, dst, 0, offset, imm)
    }

    /// `{ *dst += src; src = what *dst was }`, eight bytes, atomic among all CPUs.
    pub(crate) fn fetch_add(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.emit(STX_ATOMIC_DOUBLE, dst, src as u8, 0, FETCH_ADD)
    }

    /// `dst = dst op imm`
    pub(crate) fn op(&mut self, op: Op, dst: Reg, imm: i32) -> &mut Self {
        self.emit(ALU64_IMM | op as u8, dst, 0, 0, imm)
    }

    /// `dst = dst op src`
    pub(crate) fn op_reg(&mut self, op: Op, dst: Reg, src: Reg) -> &mut Self {
        self.emit(ALU64_REG | op as u8, dst, src as u8, 0, 0)
    }

    /// Turns the low `bits` (16, 32 or 64) from network into host order (and back), clearing the rest.
    pub(crate) fn swap(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.emit(TO_BIG_ENDIAN, dst, 0, 0, bits)
    }

    /// `dst = map`
    pub(crate) fn load_map(&mut self, dst: Reg, map: &Map) -> &mut Self {
        self.emit(LDDW, dst, PSEUDO_MAP_FD, 0, map.fd()).emit(0, Reg::R0, 0, 0, 0)
    }

    /// `dst = &map[0]`; for arrays that are not per CPU. Saves the lookup and its null check.
    pub(crate) fn load_map_value(&mut self, dst: Reg, map: &Map) -> &mut Self {
        self.emit(LDDW, dst, PSEUDO_MAP_VALUE, 0, map.fd()).emit(0, Reg::R0, 0, 0, 0)
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

    /// `if left condition imm goto label`
    pub(crate) fn jump_if(&mut self, condition: If, left: Reg, imm: i32, label: Label) -> &mut Self {
        self.jumps.push((self.insns.len(), label));
        self.emit(JMP_IMM | condition as u8, left, 0, 0, imm)
    }

    /// `if left condition right goto label`
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
        self.emit(CALL, Reg::R0, 0, 0, helper as i32)
    }

    /// Ends the program with the value of R0.
    pub(crate) fn exit(&mut self) -> &mut Self {
        self.emit(EXIT, Reg::R0, 0, 0, 0)
    }

    /// `R0 = &map[R2]`, or `goto absent` if there is no such entry. R1 to R5 are lost, and four bytes of stack at -4.
    pub(crate) fn look_up(&mut self, map: &Map, absent: Label) -> &mut Self {
        self.store(Width::Word, Reg::Fp, -4, Reg::R2)
            .op_reg(Op::Move, Reg::R2, Reg::Fp)
            .op(Op::Add, Reg::R2, -4)
            .load_map(Reg::R1, map)
            .call(Helper::MapLookup)
            .jump_if(If::Equal, Reg::R0, 0, absent)
    }

    /// The finished code.
    ///
    /// # Panics
    /// When a label was never placed, or is out of a jump's reach: mistakes in the emitter, found by its first test.
    pub(crate) fn finish(mut self) -> Vec<Insn> {
        for (at, label) in self.jumps {
            let Some(to) = self.labels[label.0] else { panic!("label {} was never placed", label.0) };
            // Counted from the instruction after the jump.
            let distance = to as i64 - at as i64 - 1;
            let Ok(offset) = i16::try_from(distance) else { panic!("a jump over {distance} instructions") };
            self.insns[at].offset = offset;
        }
        self.insns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(code: &[Insn]) -> Vec<(u8, u8, i16, i32)> {
        code.iter().map(|i| (i.code, i.registers, i.offset, i.imm)).collect()
    }

    #[test]
    fn instructions_are_encoded_as_the_manual_says() {
        let mut asm = Asm::default();
        asm.op(Op::Move, Reg::R0, 2)
            .op_reg(Op::Move, Reg::R6, Reg::R1)
            .load(Width::Word, Reg::R7, Reg::R6, 4)
            .load(Width::Byte, Reg::R1, Reg::R7, 9)
            .store(Width::Double, Reg::Fp, -8, Reg::R9)
            .store_imm(Width::Half, Reg::R7, 12, 0x0800)
            .fetch_add(Reg::R1, Reg::R2)
            .op(Op::ShiftRight, Reg::R3, 16)
            .op(Op::Xor, Reg::R3, -1)
            .swap(Reg::R9, 16)
            .call(Helper::RedirectMap)
            .exit();
        let expected = [
            (0xb7, 0x00, 0, 2),
            (0xbf, 0x16, 0, 0),
            (0x61, 0x67, 4, 0),
            (0x71, 0x71, 9, 0),
            (0x7b, 0x9a, -8, 0),
            (0x6a, 0x07, 12, 0x0800),
            (0xdb, 0x21, 0, 1),
            (0x77, 0x03, 0, 16),
            (0xa7, 0x03, 0, -1),
            (0xdc, 0x09, 0, 16),
            (0x85, 0x00, 0, 51),
            (0x95, 0x00, 0, 0),
        ];
        assert_eq!(fields(&asm.finish()), expected);
    }

    #[test]
    fn jumps_count_from_the_next_instruction() {
        let mut asm = Asm::default();
        let (near, far) = (asm.label(), asm.label());
        asm.jump_if(If::Equal, Reg::R1, 7, far)
            .jump_if_reg(If::Greater, Reg::R1, Reg::R2, near)
            .jump(near)
            .place(near)
            .op(Op::Move, Reg::R0, 0)
            .place(far)
            .exit();
        let expected =
            [(0x15, 0x01, 3, 7), (0x2d, 0x21, 1, 0), (0x05, 0, 0, 0), (0xb7, 0, 0, 0), (0x95, 0, 0, 0)];
        assert_eq!(fields(&asm.finish()), expected);
    }

    #[test]
    fn jumps_go_back_too() {
        let mut asm = Asm::default();
        let again = asm.label();
        asm.place(again).op(Op::Add, Reg::R1, 1).jump_if(If::Less, Reg::R1, 9, again);
        assert_eq!(fields(&asm.finish()), [(0x07, 0x01, 0, 1), (0xa5, 0x01, -2, 9)]);
    }

    #[test]
    #[should_panic(expected = "never placed")]
    fn a_forgotten_label_is_found() {
        let mut asm = Asm::default();
        let label = asm.label();
        asm.jump(label);
        asm.finish();
    }
}
