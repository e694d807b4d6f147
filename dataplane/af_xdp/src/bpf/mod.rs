//! As much of bpf(2) as XDP programs need: an assembler, maps, programs, links. No compiler, no library.

pub(crate) mod asm;
mod sys;

pub(crate) use sys::{Link, Map, MapKind, Program, TestRun, XDP_GENERIC, XDP_NATIVE};
