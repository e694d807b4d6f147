//! Selecting what a router forwards: packets of IP that are not for this host. All else stays the kernel's, which goes on
//! being the host on that device: it resolves neighbours, answers pings, runs routing daemons and ssh.

use std::io;
use std::net::IpAddr;

use super::matcher::need;
use crate::bpf::asm::{Asm, Label};
use crate::bpf::insn::{Helper, If, Op, Reg, Width};
use crate::bpf::{Map, MapKind};

/// Addresses of this host at most.
pub const LOCALS_MAX: u32 = 4096;

/// This host's addresses, which the program looks up; filled while it runs.
pub(super) struct Locals(Map);

/// Where the key of the lookup is built, below the frame pointer: an IPv6 address, or an IPv4 one mapped to it.
const KEY: i16 = -16;

impl Locals {
    pub(super) fn new() -> io::Result<Locals> {
        Map::new(MapKind::Hash16, 4, LOCALS_MAX).map(Locals)
    }

    pub(super) fn insert(&self, address: IpAddr) -> io::Result<()> {
        self.0.set_key(&key(address), 1)
    }

    pub(super) fn remove(&self, address: IpAddr) -> io::Result<()> {
        self.0.remove_key(&key(address))
    }

    /// Emits code that jumps to `matched` for a packet that is to be forwarded, to `other` for the rest. R7 is the start
    /// of the packet, R8 its end; both are used up.
    ///
    /// To the kernel go: frames for a group, other ethertypes (ARP; VLAN tags, which are other interfaces' frames),
    /// malformed headers, IPv4 with options, IPv6 with hop-by-hop options, groups and link-local addresses, packets
    /// at the end of their hops (the kernel answers them), and whatever is for one of its addresses.
    pub(super) fn emit(&self, asm: &mut Asm, matched: Label, other: Label) {
        let (ipv6, look) = (asm.label(), asm.label());
        need(asm, 14, other);
        asm.load(Width::Byte, Reg::R1, Reg::R7, 0)
            .op(Op::And, Reg::R1, 1)
            .jump_if(If::NotEqual, Reg::R1, 0, other)
            .load(Width::Half, Reg::R9, Reg::R7, 12)
            .swap(Reg::R9, 16)
            .op(Op::Add, Reg::R7, 14)
            .jump_if(If::Equal, Reg::R9, 0x86dd, ipv6)
            .jump_if(If::NotEqual, Reg::R9, 0x0800, other);
        need(asm, 20, other);
        asm.load(Width::Byte, Reg::R1, Reg::R7, 0).jump_if(If::NotEqual, Reg::R1, 0x45, other);
        asm.load(Width::Byte, Reg::R1, Reg::R7, 8).jump_if(If::Less, Reg::R1, 2, other);
        // 224.0.0.0 and up: groups, and the broadcast address.
        asm.load(Width::Byte, Reg::R1, Reg::R7, 16)
            .jump_if(If::GreaterEqual, Reg::R1, 224, other)
            .load(Width::Word, Reg::R1, Reg::R7, 16)
            .op(Op::Move, Reg::R2, 0)
            .store(Width::Double, Reg::Fp, KEY, Reg::R2)
            .store_imm(Width::Word, Reg::Fp, KEY + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]))
            .store(Width::Word, Reg::Fp, KEY + 12, Reg::R1)
            .jump(look);
        asm.place(ipv6);
        need(asm, 40, other);
        asm.load(Width::Byte, Reg::R1, Reg::R7, 0).op(Op::And, Reg::R1, 0xf0).jump_if(
            If::NotEqual,
            Reg::R1,
            0x60,
            other,
        );
        asm.load(Width::Byte, Reg::R1, Reg::R7, 6).jump_if(If::Equal, Reg::R1, 0, other);
        asm.load(Width::Byte, Reg::R1, Reg::R7, 7).jump_if(If::Less, Reg::R1, 2, other);
        for address in [8, 24] {
            // ff00::/8 and fe80::/10, as source or destination.
            let global = asm.label();
            asm.load(Width::Half, Reg::R1, Reg::R7, address)
                .swap(Reg::R1, 16)
                .jump_if(If::GreaterEqual, Reg::R1, 0xff00, other)
                .op(Op::And, Reg::R1, 0xffc0)
                .jump_if(If::NotEqual, Reg::R1, 0xfe80, global)
                .jump(other)
                .place(global);
        }
        for word in [0, 4, 8, 12] {
            asm.load(Width::Word, Reg::R1, Reg::R7, 24 + word).store(
                Width::Word,
                Reg::Fp,
                KEY + word,
                Reg::R1,
            );
        }
        asm.place(look)
            .op_reg(Op::Move, Reg::R2, Reg::Fp)
            .op(Op::Add, Reg::R2, i32::from(KEY))
            .load_map(Reg::R1, &self.0)
            .call(Helper::MapLookup)
            .jump_if(If::NotEqual, Reg::R0, 0, other)
            .jump(matched);
    }
}

fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
