//! The shortcut's part in IPv6.

use super::{IP, Trie, emit_whole};
use crate::bpf::asm::{Asm, Label};
use crate::bpf::insn::{If, Op, Reg, Width};
use crate::program::matcher::need;

const PAYLOAD: i16 = IP + 4;
const NEXT: i16 = IP + 6;
const HOPS: i16 = IP + 7;
const SOURCE: i16 = IP + 8;
const DESTINATION: i16 = IP + 24;
const LEN: i32 = 40;
/// Bytes of an address that nodes are looked up by: those behind the first three.
const LEVELS: i16 = 13;

/// A packet that is all here, without hop-by-hop options, between addresses that packets go between from link to link, with
/// hops left (RFC 8200, RFC 4291 section 2.5.6). R7 is the frame, R8 its end; afterwards its length is on the stack.
pub(super) fn emit_intact(asm: &mut Asm, sockets: Label) {
    need(asm, i32::from(IP) + LEN, sockets);
    asm.load(Width::Byte, Reg::R1, Reg::R7, IP)
        .op(Op::And, Reg::R1, 0xf0)
        .jump_if(If::NotEqual, Reg::R1, 0x60, sockets)
        .load(Width::Byte, Reg::R1, Reg::R7, NEXT)
        .jump_if(If::Equal, Reg::R1, 0, sockets)
        .load(Width::Byte, Reg::R1, Reg::R7, HOPS)
        .jump_if(If::Less, Reg::R1, 2, sockets);
    for address in [SOURCE, DESTINATION] {
        asm.load(Width::Half, Reg::R1, Reg::R7, address)
            .swap(Reg::R1, 16)
            // ff00::/8, fe80::/10.
            .jump_if(If::GreaterEqual, Reg::R1, 0xff00, sockets)
            .op(Op::And, Reg::R1, 0xffc0)
            .jump_if(If::Equal, Reg::R1, 0xfe80, sockets)
            // Nobody, loopback, and what stands for IPv4: 64 bits of zero.
            .load(Width::Word, Reg::R1, Reg::R7, address)
            .load(Width::Word, Reg::R2, Reg::R7, address + 4)
            .op_reg(Op::Add, Reg::R1, Reg::R2)
            .jump_if(If::Equal, Reg::R1, 0, sockets);
    }
    asm.load(Width::Half, Reg::R1, Reg::R7, PAYLOAD).swap(Reg::R1, 16).op(Op::Add, Reg::R1, LEN);
    emit_whole(asm, sockets);
}

/// Looks the destination up, and jumps to `found` with its entry in R3.
pub(super) fn emit_route(asm: &mut Asm, trie: &Trie, found: Label, sockets: Label) {
    asm.load(Width::Word, Reg::R2, Reg::R7, DESTINATION).swap(Reg::R2, 32);
    trie.emit_root(asm);
    for level in 0..LEVELS {
        trie.emit_node(asm, DESTINATION + 3 + level, found, sockets);
    }
    asm.jump(found);
}

/// Takes one hop off the packet of the frame in R7.
pub(super) fn emit_hop_off(asm: &mut Asm) {
    asm.load(Width::Byte, Reg::R1, Reg::R7, HOPS).op(Op::Sub, Reg::R1, 1).store(
        Width::Byte,
        Reg::R7,
        HOPS,
        Reg::R1,
    );
}
