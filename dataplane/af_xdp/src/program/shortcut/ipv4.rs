//! The shortcut's part in IPv4.

use super::{IP, Trie, emit_whole};
use crate::bpf::asm::{Asm, Label};
use crate::bpf::insn::{If, Op, Reg, Width};
use crate::program::matcher::need;

const TOTAL: i16 = IP + 2;
const TTL: i16 = IP + 8;
const CHECKSUM: i16 = IP + 10;
const SOURCE: i16 = IP + 12;
const DESTINATION: i16 = IP + 16;
const END: i32 = IP as i32 + 20;

/// An intact packet without options, between addresses that can be, with hops left (RFC 1812 section 5.2.2). R7 is the frame,
/// R8 its end; afterwards its length is on the stack.
pub(super) fn emit_intact(asm: &mut Asm, sockets: Label) {
    need(asm, END, sockets);
    asm.load(Width::Byte, Reg::R1, Reg::R7, IP)
        .jump_if(If::NotEqual, Reg::R1, 0x45, sockets)
        .load(Width::Byte, Reg::R1, Reg::R7, TTL)
        .jump_if(If::Less, Reg::R1, 2, sockets);
    for address in [SOURCE, DESTINATION] {
        asm.load(Width::Byte, Reg::R1, Reg::R7, address)
            .jump_if(If::Equal, Reg::R1, 0, sockets)
            .jump_if(If::Equal, Reg::R1, 127, sockets)
            .jump_if(If::GreaterEqual, Reg::R1, 224, sockets);
    }
    // The sum over an intact header is a multiple of 0xffff, in either byte order.
    asm.load(Width::Word, Reg::R2, Reg::R7, IP);
    for word in [4, 8, 12, 16] {
        asm.load(Width::Word, Reg::R1, Reg::R7, IP + word).op_reg(Op::Add, Reg::R2, Reg::R1);
    }
    asm.op(Op::Modulo, Reg::R2, 0xffff)
        .jump_if(If::NotEqual, Reg::R2, 0, sockets)
        .load(Width::Half, Reg::R1, Reg::R7, TOTAL)
        .swap(Reg::R1, 16)
        .jump_if(If::Less, Reg::R1, 20, sockets);
    emit_whole(asm, sockets);
}

/// Looks the destination up, and jumps to `found` with its entry in R3.
pub(super) fn emit_route(asm: &mut Asm, trie: &Trie, found: Label, sockets: Label) {
    asm.load(Width::Word, Reg::R2, Reg::R7, DESTINATION).swap(Reg::R2, 32);
    trie.emit_root(asm);
    trie.emit_node(asm, DESTINATION + 3, found, sockets);
    asm.jump(found);
}

/// Takes one hop off the packet of the frame in R7, and changes the checksum as it goes with it (RFC 1141, RFC 1624).
pub(super) fn emit_hop_off(asm: &mut Asm) {
    asm.load(Width::Byte, Reg::R1, Reg::R7, TTL)
        .op(Op::Sub, Reg::R1, 1)
        .store(Width::Byte, Reg::R7, TTL, Reg::R1)
        .load(Width::Half, Reg::R1, Reg::R7, CHECKSUM)
        .swap(Reg::R1, 16)
        .op(Op::Add, Reg::R1, 0x100)
        .op_reg(Op::Move, Reg::R2, Reg::R1)
        .op(Op::ShiftRight, Reg::R2, 16)
        .op_reg(Op::Add, Reg::R1, Reg::R2)
        .swap(Reg::R1, 16)
        .store(Width::Half, Reg::R7, CHECKSUM, Reg::R1);
}
