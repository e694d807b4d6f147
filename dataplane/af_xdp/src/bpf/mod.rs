//! As much of bpf(2) as XDP programs need: an assembler, maps, programs, links. No compiler, no library.
//!
//! Every descriptor here is the kernel's reference to its object, closed by drop and not inherited by children (the
//! kernel makes them close-on-exec): when the process ends, however it ends, the objects end with it.

pub(crate) mod asm;
pub(crate) mod insn;
mod link;
mod map;
mod netlink;
mod prog;
mod sys;

pub(crate) use link::{Link, XDP_GENERIC, XDP_NATIVE};
pub(crate) use map::{Map, MapKind, SharedWords};
pub(crate) use netlink::xdp_on;
pub(crate) use prog::{Program, Refusal, Run, TestRun, program_info};
