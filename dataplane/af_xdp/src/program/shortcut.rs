//! The shortcut: a router's packets that nobody wants to see are forwarded by the XDP program itself, by the tables that the
//! router has, which user space writes and the program reads in the same memory.
//!
//! Only what needs no second thought is: whole, intact IPv4 without options and IPv6 without hop-by-hop options, for a next hop
//! that is known, small enough for the way out. Everything else goes to the sockets as if there were no shortcut.

mod ipv4;
mod ipv6;

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::matcher::need;
use super::tally::{Count, Tally, emit_length};
use super::{Action, map_error, xdp_md};
use crate::bpf::asm::{Asm, Label};
use crate::bpf::insn::{Helper, If, Op, Reg, Width};
use crate::bpf::{Map, MapKind, SharedWords};
use crate::error::{CAP_BPF, CAP_NET_ADMIN, Error};

/// Sizes of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShortcutSizes {
    /// Nodes for IPv4 prefixes longer than /24, below 2^19: a program's reach into a table ends there.
    pub nodes: u32,
    /// Nodes for IPv6, as many at most; 0 for no table of IPv6.
    pub nodes6: u32,
    /// Next hops, at most 2^20.
    pub hops: u32,
    /// Interfaces, at most 1024.
    pub interfaces: u32,
}

/// What the shortcut may do with an interface.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ShortcutPort {
    /// Its link address.
    pub mac: [u8; 6],
    /// Largest packet behind the link header that may be sent.
    pub mtu: u32,
    /// Packets of IPv4 it receives may be forwarded.
    pub takes: bool,
    /// Packets of IPv6 it receives may be.
    pub takes6: bool,
    /// Packets may be sent by it.
    pub gives: bool,
}

/// The tables, shared by the programs of all interfaces.
///
/// | table | entry |
/// |---|---|
/// | [`root`](Shortcut::root) | of the first 24 bits of a destination; see below |
/// | [`nodes`](Shortcut::nodes) | 256 for each node, of the next 8 bits; see below |
/// | [`root6`](Shortcut::root6), [`nodes6`](Shortcut::nodes6) | the same of IPv6 |
/// | [`hops`](Shortcut::hops) | link address in the low 48 bits, first byte lowest; interface in the rest; 0 while unknown |
///
/// A routing entry with bit 31 set leads to the node with the number in its low 23 bits. Of any other, if bits 22 to 20 are
/// 1, the low 20 bits are the next hop's number; if they are not, the packet goes to the sockets.
pub struct Shortcut {
    sizes: ShortcutSizes,
    v4: Trie,
    v6: Option<Trie>,
    hops: SharedWords,
    ports: SharedWords,
    devices: Map,
    tally: Tally,
    fence: Map,
}

/// Where destinations are looked up.
struct Trie {
    root: SharedWords,
    nodes: SharedWords,
    count: u32,
}

impl Trie {
    fn new(count: u32) -> io::Result<Trie> {
        let nodes = SharedWords::new(count as usize * NODE * 4)?;
        Ok(Trie { root: SharedWords::new(ROOT * 4)?, nodes, count })
    }

    /// Emits: R3 is the root's entry of an address that begins with the word in R2, in host order. R1 is lost.
    fn emit_root(&self, asm: &mut Asm) {
        asm.op_reg(Op::Move, Reg::R3, Reg::R2)
            .op(Op::ShiftRight, Reg::R3, 8)
            .op(Op::And, Reg::R3, ROOT as i32 - 1)
            .op(Op::ShiftLeft, Reg::R3, 2)
            .load_map_value(Reg::R1, self.root.map())
            .op_reg(Op::Add, Reg::R1, Reg::R3)
            .load(Width::Word, Reg::R3, Reg::R1, 0);
    }

    /// Emits: if the entry in R3 leads to a node, R3 is the node's entry of the byte at offset `at` of the frame in R7; else
    /// jumps to `found`. R1 and R2 are lost.
    fn emit_node(&self, asm: &mut Asm, at: i16, found: Label, sockets: Label) {
        asm.op_reg(Op::Move, Reg::R1, Reg::R3)
            .op(Op::ShiftRight, Reg::R1, 31)
            .jump_if(If::Equal, Reg::R1, 0, found)
            .op(Op::And, Reg::R3, NODE_NUMBER)
            .jump_if(If::GreaterEqual, Reg::R3, self.count as i32, sockets)
            .op(Op::ShiftLeft, Reg::R3, 10)
            .load(Width::Byte, Reg::R2, Reg::R7, at)
            .op(Op::ShiftLeft, Reg::R2, 2)
            .op_reg(Op::Add, Reg::R3, Reg::R2)
            .load_map_value(Reg::R1, self.nodes.map())
            .op_reg(Op::Add, Reg::R1, Reg::R3)
            .load(Width::Word, Reg::R3, Reg::R1, 0);
    }
}

/// Entries of the root.
const ROOT: usize = 1 << 24;
/// Entries of a node.
const NODE: usize = 256;
/// The low bits of an entry that leads to a node.
const NODE_NUMBER: i32 = (1 << 23) - 1;
const NODES_MAX: u32 = (1 << 19) - 1;
const HOPS_MAX: u32 = 1 << 20;
const INTERFACES_MAX: u32 = 1024;

/// An interface's entry: link address, below flags; MTU.
mod port {
    pub(super) const SIZE: i16 = 16;
    pub(super) const MTU: i16 = 8;
    pub(super) const TAKES: u64 = 1 << 48;
    pub(super) const GIVES: u64 = 1 << 49;
    pub(super) const TAKES6: u64 = 1 << 50;
}

/// Offsets in an untagged frame.
const ETHERTYPE: i16 = 12;
const IP: i16 = 14;
const IPV6: i32 = 0x86dd;

/// Below the frame pointer: length of the packet behind the link header. (The counters use what is above.)
const LENGTH: i16 = -16;

impl Shortcut {
    /// All tables empty. They take 64 MiB for each version of IP, a KiB for each node, and little more.
    pub fn new(sizes: ShortcutSizes) -> Result<Shortcut, Error> {
        let what = "make the tables of a shortcut";
        let ShortcutSizes { nodes, nodes6, hops, interfaces } = sizes;
        if !(1..=NODES_MAX).contains(&nodes)
            || nodes6 > NODES_MAX
            || !(1..=HOPS_MAX).contains(&hops)
            || !(1..=INTERFACES_MAX).contains(&interfaces)
        {
            let cause = format!("{nodes} and {nodes6} nodes, {hops} hops, {interfaces} interfaces");
            let cure = format!("give 1 to {NODES_MAX}, {HOPS_MAX} and {INTERFACES_MAX}");
            return Err(Error::new("AFXDP-SHORTCUT-SIZES", what, cause, cure));
        }
        let make = || {
            let inner = Map::new(MapKind::Array, 4, 1)?;
            let fence = Map::around(&inner)?;
            fence.set(0, inner.fd() as u32)?;
            Ok(Shortcut {
                sizes,
                v4: Trie::new(nodes)?,
                v6: if nodes6 > 0 { Some(Trie::new(nodes6)?) } else { None },
                hops: SharedWords::new(hops as usize * 8)?,
                ports: SharedWords::new(interfaces as usize * port::SIZE as usize)?,
                devices: Map::new(MapKind::DevMap, 4, interfaces)?,
                tally: Tally::new(interfaces * 2)?,
                fence,
            })
        };
        make().map_err(|e: io::Error| map_error(what, &e))
    }

    /// Routing entries of the first 24 bits.
    pub fn root(&self) -> &[AtomicU32] {
        self.v4.root.halves()
    }

    /// Routing entries of the nodes.
    pub fn nodes(&self) -> &[AtomicU32] {
        self.v4.nodes.halves()
    }

    /// Routing entries of the first 24 bits of an IPv6 address; none without a table of IPv6.
    pub fn root6(&self) -> &[AtomicU32] {
        self.v6.as_ref().map_or(&[], |trie| trie.root.halves())
    }

    /// Routing entries of the nodes of IPv6.
    pub fn nodes6(&self) -> &[AtomicU32] {
        self.v6.as_ref().map_or(&[], |trie| trie.nodes.halves())
    }

    /// Next hops.
    pub fn hops(&self) -> &[AtomicU64] {
        self.hops.words()
    }

    /// Says what an interface is like and what may be done with it, from the next packet on; see
    /// [`wait_for_programs`](Shortcut::wait_for_programs). Without effect for an interface there is no room for.
    pub fn set_port(&self, interface: u32, port: ShortcutPort) {
        let at = interface as usize * (port::SIZE as usize / 8);
        let Some([first, mtu]) = self.ports.words().get(at..at + 2) else { return };
        let [a, b, c, d, e, f] = port.mac;
        let flag = |is: bool, flag: u64| if is { flag } else { 0 };
        let flags = flag(port.takes, port::TAKES)
            | flag(port.takes6 && self.v6.is_some(), port::TAKES6)
            | flag(port.gives, port::GIVES);
        mtu.store(u64::from(port.mtu), Ordering::Release);
        first.store(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | flags, Ordering::Release);
    }

    /// Which device packets for an interface go out by: its number in the calling thread's network namespace. The kernel
    /// takes it out when the device goes.
    pub fn set_device(&self, interface: u32, ifindex: u32) -> Result<(), Error> {
        self.devices.set(interface, ifindex).map_err(|e| {
            let what = format!("have packets redirected to device {ifindex}");
            Error::privileged("AFXDP-SHORTCUT-DEVICE", what, &[CAP_BPF, CAP_NET_ADMIN], &e)
        })
    }

    /// Returns when every packet is through that was looked at before the call: those after it were treated by what was said
    /// before it. Takes some milliseconds, in which nobody else waits.
    pub fn wait_for_programs(&self) -> Result<(), Error> {
        let again = Map::new(MapKind::Array, 4, 1);
        // The kernel answers a change of a map of maps when no program runs any more that may use what was there before.
        let changed = again.and_then(|again| self.fence.set(0, again.fd() as u32));
        changed.map_err(|e| Error::privileged("AFXDP-SHORTCUT-WAIT", "wait for XDP programs", &[CAP_BPF], &e))
    }

    /// Packets of an interface that were forwarded, and packets that were sent out by it; handed to the device, which may
    /// still drop them.
    pub fn counts(&self, interface: u32) -> Result<(Count, Count), Error> {
        let of = |key: u32| self.tally.read(key as i32);
        Ok((of(interface * 2)?, of(interface * 2 + 1)?))
    }

    /// Emits the program's part: forwards the packet of the context in R6, received by `interface`, and jumps to `count`
    /// with the action in R7 and `key` in R8; or jumps to `sockets` with nothing done. All registers but R6 are used.
    pub(super) fn emit(&self, asm: &mut Asm, interface: u32, key: i32, count: Label, sockets: Label) {
        asm.load(Width::Word, Reg::R7, Reg::R6, xdp_md::DATA).load(
            Width::Word,
            Reg::R8,
            Reg::R6,
            xdp_md::DATA_END,
        );
        let (found, others) = (asm.label(), asm.label());
        self.emit_ours(asm, interface, sockets);
        asm.load(Width::Half, Reg::R1, Reg::R7, ETHERTYPE).swap(Reg::R1, 16).jump_if(
            If::NotEqual,
            Reg::R1,
            0x0800,
            others,
        );
        emit_takes(asm, interface, port::TAKES, sockets);
        ipv4::emit_intact(asm, sockets);
        ipv4::emit_route(asm, &self.v4, found, sockets);
        asm.place(others);
        match &self.v6 {
            Some(trie) => {
                asm.jump_if(If::NotEqual, Reg::R1, IPV6, sockets);
                emit_takes(asm, interface, port::TAKES6, sockets);
                ipv6::emit_intact(asm, sockets);
                ipv6::emit_route(asm, trie, found, sockets);
            }
            None => _ = asm.jump(sockets),
        }
        asm.place(found);
        self.emit_hop(asm, sockets);
        self.emit_way_out(asm, sockets);
        self.emit_rewrite(asm);
        // R7 is the interface it goes out by: its keys are odd.
        asm.op_reg(Op::Move, Reg::R8, Reg::R7).op(Op::ShiftLeft, Reg::R8, 1).op(Op::Add, Reg::R8, 1);
        emit_length(asm, Reg::R9, Reg::R6, false);
        self.tally.emit_add(asm, Reg::R8, Reg::R9);
        asm.op(Op::Move, Reg::R8, interface as i32 * 2);
        self.tally.emit_add(asm, Reg::R8, Reg::R9);
        asm.op(Op::Move, Reg::R7, Action::Redirect as i32).op(Op::Move, Reg::R8, key).jump(count);
    }

    /// The frame is for this station. Afterwards R9 is the ports.
    fn emit_ours(&self, asm: &mut Asm, interface: u32, sockets: Label) {
        need(asm, IP.into(), sockets);
        asm.load_map_value(Reg::R9, self.ports.map())
            .load(Width::Double, Reg::R1, Reg::R9, interface as i16 * port::SIZE)
            .op(Op::ShiftLeft, Reg::R1, 16)
            .op(Op::ShiftRight, Reg::R1, 16)
            .load(Width::Half, Reg::R2, Reg::R7, 4)
            .op(Op::ShiftLeft, Reg::R2, 32)
            .load(Width::Word, Reg::R3, Reg::R7, 0)
            .op_reg(Op::Add, Reg::R2, Reg::R3)
            .jump_if_reg(If::NotEqual, Reg::R1, Reg::R2, sockets);
    }

    /// The routing entry in R3 is a next hop, which is known. Afterwards R8 is its entry.
    fn emit_hop(&self, asm: &mut Asm, sockets: Label) {
        asm.op_reg(Op::Move, Reg::R1, Reg::R3)
            .op(Op::ShiftRight, Reg::R1, 20)
            .op(Op::And, Reg::R1, 7)
            .jump_if(If::NotEqual, Reg::R1, 1, sockets)
            .op(Op::And, Reg::R3, HOPS_MAX as i32 - 1)
            .jump_if(If::GreaterEqual, Reg::R3, self.sizes.hops as i32, sockets)
            .op(Op::ShiftLeft, Reg::R3, 3)
            .load_map_value(Reg::R1, self.hops.map())
            .op_reg(Op::Add, Reg::R1, Reg::R3)
            .load(Width::Double, Reg::R8, Reg::R1, 0)
            .jump_if(If::Equal, Reg::R8, 0, sockets);
    }

    /// The interface of the next hop sends, and the packet is small enough for it. Then it will be redirected there: nothing
    /// of the packet was changed up to here. Afterwards R9 is the interface's first word.
    fn emit_way_out(&self, asm: &mut Asm, sockets: Label) {
        asm.op_reg(Op::Move, Reg::R2, Reg::R8)
            .op(Op::ShiftRight, Reg::R2, 48)
            .jump_if(If::GreaterEqual, Reg::R2, self.sizes.interfaces as i32, sockets)
            .op_reg(Op::Move, Reg::R3, Reg::R2)
            .op(Op::ShiftLeft, Reg::R3, port::SIZE.trailing_zeros() as i32)
            .op_reg(Op::Add, Reg::R9, Reg::R3)
            .load(Width::Double, Reg::R4, Reg::R9, port::MTU)
            .load(Width::Double, Reg::R9, Reg::R9, 0)
            .op_reg(Op::Move, Reg::R3, Reg::R9)
            .op(Op::ShiftRight, Reg::R3, 48)
            .op(Op::And, Reg::R3, (port::GIVES >> 48) as i32)
            .jump_if(If::Equal, Reg::R3, 0, sockets)
            .load(Width::Double, Reg::R1, Reg::Fp, LENGTH)
            .jump_if_reg(If::Greater, Reg::R1, Reg::R4, sockets)
            .load_map(Reg::R1, &self.devices)
            // What to do if no device is there.
            .op(Op::Move, Reg::R3, Action::Aborted as i32)
            .call(Helper::RedirectMap)
            .jump_if(If::NotEqual, Reg::R0, Action::Redirect as i32, sockets);
    }

    /// Writes link addresses, and takes one hop off. R7 is the frame, R8 the next hop's entry, R9 the interface's; afterwards R7
    /// is the number of the interface.
    fn emit_rewrite(&self, asm: &mut Asm) {
        for (from, at) in [(Reg::R8, 0), (Reg::R9, 6)] {
            asm.store(Width::Word, Reg::R7, at, from)
                .op_reg(Op::Move, Reg::R1, from)
                .op(Op::ShiftRight, Reg::R1, 32)
                .store(Width::Half, Reg::R7, at + 4, Reg::R1);
        }
        let done = asm.label();
        if self.v6.is_some() {
            let v4 = asm.label();
            asm.load(Width::Half, Reg::R1, Reg::R7, ETHERTYPE).swap(Reg::R1, 16).jump_if(
                If::NotEqual,
                Reg::R1,
                IPV6,
                v4,
            );
            ipv6::emit_hop_off(asm);
            asm.jump(done).place(v4);
        }
        ipv4::emit_hop_off(asm);
        asm.place(done).op_reg(Op::Move, Reg::R7, Reg::R8).op(Op::ShiftRight, Reg::R7, 48);
    }
}

/// The interface takes packets of the version whose flag this is. R9 is the ports.
fn emit_takes(asm: &mut Asm, interface: u32, flag: u64, sockets: Label) {
    asm.load(Width::Double, Reg::R1, Reg::R9, interface as i16 * port::SIZE)
        .op(Op::ShiftRight, Reg::R1, 48)
        .op(Op::And, Reg::R1, (flag >> 48) as i32)
        .jump_if(If::Equal, Reg::R1, 0, sockets);
}

/// The packet behind the link header, so many bytes as R1 says, is here, padding or not. R7 is the frame, R8 its end;
/// afterwards the length behind the link header is on the stack.
fn emit_whole(asm: &mut Asm, sockets: Label) {
    asm.op_reg(Op::Sub, Reg::R8, Reg::R7)
        .op(Op::Sub, Reg::R8, IP.into())
        .jump_if_reg(If::Greater, Reg::R1, Reg::R8, sockets)
        .store(Width::Double, Reg::Fp, LENGTH, Reg::R8);
}
