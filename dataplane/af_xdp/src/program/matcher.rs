//! Which packets a program selects, and the code that finds out.
//!
//! The code reads Ethernet, up to two VLAN tags, IPv4 with options or the fixed IPv6 header, and ports. What it cannot
//! read does not match, and so goes to the kernel: truncated frames, malformed headers, ports behind IPv6 extension
//! headers, and ports of fragments other than the first, which have none. Whoever selects by port therefore leaves the
//! later fragments of a selected packet to the kernel, which cannot put it together.

use crate::bpf::asm::{Asm, Label};
use crate::bpf::insn::{If, Op, Reg, Width};

/// Conditions that must all hold. Without any it matches everything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Match {
    /// Network protocol, behind VLAN tags if there are any.
    pub ethertype: Option<u16>,
    /// VLAN id of the outer or the inner tag. Only tags inside the frame are seen: a device that takes them out needs
    /// `ethtool -K DEVICE rxvlan off`.
    pub vlan: Option<u16>,
    /// Transport protocol of IPv4, or next header of IPv6.
    pub protocol: Option<u8>,
    /// Source port of TCP, UDP or SCTP.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
}

impl Match {
    /// Two matches, to be ORed: as this one, with `port` at either end.
    pub fn either_port(self, port: u16) -> [Match; 2] {
        let from = Match { src_port: Some(port), ..self.clone() };
        [from, Match { dst_port: Some(port), ..self }]
    }
}

/// Most matches in one program.
pub const MATCHES_MAX: usize = 64;

/// Largest VLAN id.
pub(super) const VLAN_MAX: u16 = 0xfff;

/// Which packets go to the socket; all others go on to the kernel.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// Those that one of the matches fits; at most [`MATCHES_MAX`].
    Any(Vec<Match>),
    /// Those a router forwards: packets of IP, untagged, for none of the addresses given to
    /// [`Redirect::insert_local`](super::Redirect::insert_local) and for no group, with hops left and without options.
    Transit,
}

/// Where the code keeps what it read, below the frame pointer.
mod slot {
    pub(super) const ETHERTYPE: i16 = -16;
    pub(super) const OUTER_VLAN: i16 = -24;
    pub(super) const INNER_VLAN: i16 = -32;
    pub(super) const PROTOCOL: i16 = -40;
    pub(super) const SRC_PORT: i16 = -48;
    pub(super) const DST_PORT: i16 = -56;
}

/// In a slot: the frame has no such field.
const NONE: i32 = 0x10000;

impl Match {
    fn needs_ip(&self) -> bool {
        self.protocol.is_some() || self.needs_ports()
    }
    fn needs_ports(&self) -> bool {
        self.src_port.is_some() || self.dst_port.is_some()
    }
}

/// Emits code that jumps to `matched` or to `other`. R7 is the start of the packet, R8 its end; both are used up.
pub(crate) fn emit(asm: &mut Asm, matches: &[Match], matched: Label, other: Label) {
    let ip = matches.iter().any(Match::needs_ip);
    let ports = matches.iter().any(Match::needs_ports);
    ethernet(asm, other);
    if ip {
        for slot in [slot::PROTOCOL, slot::SRC_PORT, slot::DST_PORT] {
            asm.op(Op::Move, Reg::R1, NONE).store(Width::Double, Reg::Fp, slot, Reg::R1);
        }
        network(asm, ports);
    }
    for one in matches {
        let next = asm.label();
        let field = |value: Option<u16>, slot| value.map(|v| (i32::from(v), slot));
        let conditions = [
            field(one.ethertype, slot::ETHERTYPE),
            field(one.protocol.map(u16::from), slot::PROTOCOL),
            field(one.src_port, slot::SRC_PORT),
            field(one.dst_port, slot::DST_PORT),
        ];
        for (value, slot) in conditions.into_iter().flatten() {
            asm.load(Width::Double, Reg::R1, Reg::Fp, slot).jump_if(If::NotEqual, Reg::R1, value, next);
        }
        if let Some(vlan) = one.vlan {
            let fits = asm.label();
            asm.load(Width::Double, Reg::R1, Reg::Fp, slot::OUTER_VLAN)
                .jump_if(If::Equal, Reg::R1, i32::from(vlan), fits)
                .load(Width::Double, Reg::R1, Reg::Fp, slot::INNER_VLAN)
                .jump_if(If::NotEqual, Reg::R1, i32::from(vlan), next)
                .place(fits);
        }
        asm.jump(matched).place(next);
    }
    asm.jump(other);
}

/// Reads up to the network header, where R7 points afterwards.
fn ethernet(asm: &mut Asm, other: Label) {
    for slot in [slot::OUTER_VLAN, slot::INNER_VLAN] {
        asm.op(Op::Move, Reg::R1, NONE).store(Width::Double, Reg::Fp, slot, Reg::R1);
    }
    need(asm, 14, other);
    asm.load(Width::Half, Reg::R9, Reg::R7, 12).swap(Reg::R9, 16).op(Op::Add, Reg::R7, 14);
    let untagged = asm.label();
    for slot in [slot::OUTER_VLAN, slot::INNER_VLAN] {
        let tagged = asm.label();
        asm.jump_if(If::Equal, Reg::R9, 0x8100, tagged)
            .jump_if(If::NotEqual, Reg::R9, 0x88a8, untagged)
            .place(tagged);
        need(asm, 4, other);
        asm.load(Width::Half, Reg::R1, Reg::R7, 0)
            .swap(Reg::R1, 16)
            .op(Op::And, Reg::R1, 0xfff)
            .store(Width::Double, Reg::Fp, slot, Reg::R1)
            .load(Width::Half, Reg::R9, Reg::R7, 2)
            .swap(Reg::R9, 16)
            .op(Op::Add, Reg::R7, 4);
    }
    asm.place(untagged).store(Width::Double, Reg::Fp, slot::ETHERTYPE, Reg::R9);
}

/// Reads protocol and ports as far as they are there.
fn network(asm: &mut Asm, ports: bool) {
    let (ipv6, done) = (asm.label(), asm.label());
    asm.jump_if(If::Equal, Reg::R9, 0x86dd, ipv6).jump_if(If::NotEqual, Reg::R9, 0x0800, done);
    need(asm, 20, done);
    // Version 4 and 5 to 15 words of header, in one comparison: R2 is then the words beyond 5.
    asm.load(Width::Byte, Reg::R2, Reg::R7, 0)
        .op(Op::Sub, Reg::R2, 0x45)
        .jump_if(If::Greater, Reg::R2, 15 - 5, done)
        .load(Width::Byte, Reg::R1, Reg::R7, 9)
        .store(Width::Double, Reg::Fp, slot::PROTOCOL, Reg::R1);
    let transport = asm.label();
    if ports {
        asm.load(Width::Half, Reg::R1, Reg::R7, 6)
            .swap(Reg::R1, 16)
            .op(Op::And, Reg::R1, 0x1fff)
            .jump_if(If::NotEqual, Reg::R1, 0, done)
            .op(Op::Add, Reg::R2, 5)
            .op(Op::ShiftLeft, Reg::R2, 2)
            .op_reg(Op::Add, Reg::R7, Reg::R2)
            .jump(transport);
    } else {
        asm.jump(done);
    }
    asm.place(ipv6);
    need(asm, 40, done);
    asm.load(Width::Byte, Reg::R1, Reg::R7, 0)
        .op(Op::And, Reg::R1, 0xf0)
        .jump_if(If::NotEqual, Reg::R1, 0x60, done)
        .load(Width::Byte, Reg::R1, Reg::R7, 6)
        .store(Width::Double, Reg::Fp, slot::PROTOCOL, Reg::R1);
    if ports {
        asm.op(Op::Add, Reg::R7, 40).place(transport);
        let has_ports = asm.label();
        asm.load(Width::Double, Reg::R1, Reg::Fp, slot::PROTOCOL);
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            asm.jump_if(If::Equal, Reg::R1, protocol, has_ports);
        }
        asm.jump_if(If::NotEqual, Reg::R1, libc::IPPROTO_SCTP, done).place(has_ports);
        need(asm, 4, done);
        for (offset, slot) in [(0, slot::SRC_PORT), (2, slot::DST_PORT)] {
            asm.load(Width::Half, Reg::R1, Reg::R7, offset).swap(Reg::R1, 16).store(
                Width::Double,
                Reg::Fp,
                slot,
                Reg::R1,
            );
        }
    }
    asm.place(done);
}

/// Jumps to `short` unless `bytes` bytes are there from R7 on.
pub(super) fn need(asm: &mut Asm, bytes: i32, short: Label) {
    asm.op_reg(Op::Move, Reg::R1, Reg::R7).op(Op::Add, Reg::R1, bytes).jump_if_reg(
        If::Greater,
        Reg::R1,
        Reg::R8,
        short,
    );
}
