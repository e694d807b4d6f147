//! A generator of traffic: the kernel runs an XDP program on copies of a frame, and the program sends them out.
//!
//! The copies live in pages that come back when the receiver is done, with whatever it left in them: a kernel that
//! forwarded one has rewritten its addresses and taken one off its time to live. The program therefore writes the
//! headers anew each time, and never reads them.

use std::io;
use std::time::{Duration, Instant};

use super::layout::Layout;
use super::tally::Count;
use super::{load_error, map_error, xdp_md};
use crate::bpf::asm::Asm;
use crate::bpf::insn::{Helper, If, Insn, Op, Reg, Width};
use crate::bpf::{Map, MapKind, Program, Run, TestRun};
use crate::error::{CAP_BPF, CAP_NET_ADMIN, Error};
use crate::{device, sys};

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunReport {
    /// Frames handed to the device, which may have dropped some, as may the receiver. Fewer than asked for if a signal
    /// ended the run.
    pub sent: u64,
    /// How long it took.
    pub duration: Duration,
}

/// How fast to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// As fast as the thread can.
    Flood,
    /// So many packets per second, evenly spaced within the limits of the batch. At least 10,000.
    PerSecond(u32),
}

/// What to write into the frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveConfig {
    /// With more than one, the source port counts through that many values from 1024 on; at most 60000.
    pub flows: u32,
    /// Whether frames with an untagged IPv4 header without options carry the time of sending: eight bytes behind the UDP
    /// header (offset 42), the kernel's monotonic clock in the machine's byte order. For [`super::Sink`]'s latencies.
    pub stamp: bool,
    /// Where to write the frame's number: eight bytes in network byte order, the first frame being 0. An even offset.
    pub sequence: Option<usize>,
}

impl Default for LiveConfig {
    fn default() -> Self {
        LiveConfig { flows: 1, stamp: true, sequence: None }
    }
}

/// Where the time of sending is put.
pub(super) const STAMP: i16 = 42;

/// Shortest frame: an Ethernet header; the kernel takes none that is shorter.
const FRAME_MIN: usize = 14;
/// Longest: the kernel keeps a frame, its headroom and its own notes in one page.
const FRAME_MAX: usize = 3328;
/// Bytes that are written anew for each frame: the headers, but for long options.
const RESTORED: usize = 64;
const FLOWS_MAX: u32 = 60_000;
const FIRST_PORT: i32 = 1024;

/// The program's pace, an entry of two words: when the next frame is due, nanoseconds from one to the next.
mod pace {
    pub(super) const DUE: i16 = 0;
    pub(super) const INTERVAL: i16 = 8;
}

/// Looks at the clock per frame at most: about a tenth of a millisecond, after which the frame goes out early.
const SPINS_MAX: i32 = 4000;
/// A source that is later than this forgets what it missed, in nanoseconds.
const CATCH_UP_NS: i32 = 1_000_000;

/// A source of frames that go out by one device.
pub struct LiveSource {
    program: Program,
    frame: Vec<u8>,
    pace: Map,
    /// Frames made. One number for all CPUs, added to atomically: the thread may move from CPU to CPU in a run, and the
    /// sequence must not.
    made: Map,
}

impl LiveSource {
    /// Sends copies of `frame` by `device`, stamped, in `flows` flows. See [`LiveSource::with`].
    pub fn new(device: &str, frame: &[u8], flows: u32) -> Result<LiveSource, Error> {
        LiveSource::with(device, frame, &LiveConfig { flows, ..Default::default() })
    }

    /// Sends copies of `frame` by `device`, changed as `config` says. A TCP or UDP checksum that was right stays right.
    ///
    /// On veth the other end must receive by NAPI: an XDP program on it, or `gro on`.
    pub fn with(device: &str, frame: &[u8], config: &LiveConfig) -> Result<LiveSource, Error> {
        let what = "load an XDP program that generates";
        let ifindex = sys::if_index(device).map_err(|_| device::missing(what.into(), device))?;
        let patches = Patches::plan(frame, config)
            .map_err(|(cause, cure)| Error::new("AFXDP-SOURCE-FRAME", what, cause, cure))?;
        let pace = Map::new(MapKind::Array, 16, 1).map_err(|e| map_error(what, &e))?;
        let made = Map::new(MapKind::Array, 8, 1).map_err(|e| map_error(what, &e))?;
        let code = emit(ifindex, frame, &patches, &pace, &made);
        let program = Program::load(&code, "nke_source", false).map_err(|e| load_error(what, &e))?;
        Ok(LiveSource { program, frame: frame.to_vec(), pace, made })
    }

    /// Sends `repeat` frames, `batch` (1 to 256) at a time, and returns when they are out. The thread must be in the
    /// device's network namespace, and be the only one that runs this source.
    pub fn run(&self, repeat: u32, batch: u32, rate: Rate) -> Result<RunReport, Error> {
        let interval = match rate {
            Rate::Flood => 0,
            Rate::PerSecond(pps) => 1_000_000_000 / u64::from(pps.max(10_000)),
        };
        self.pace.set_words(0, [0, interval]).map_err(|e| run_error(&e))?;
        let before = self.counters()?.packets;
        let begin = Instant::now();
        let run = TestRun { repeat, batch: batch.clamp(1, 256) };
        // The kernel takes 0 for 1.
        let result = if repeat == 0 { Ok(()) } else { self.program.run_live(&self.frame, &run) };
        let duration = begin.elapsed();
        match result {
            Ok(()) => Ok(RunReport { sent: u64::from(repeat), duration }),
            // A signal: what is out is out.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                Ok(RunReport { sent: self.counters()?.packets.wrapping_sub(before), duration })
            }
            Err(e) => Err(run_error(&e)),
        }
    }

    /// What was handed to the device so far, in all runs.
    pub fn counters(&self) -> Result<Count, Error> {
        let [packets] = self.made.sum(0).map_err(|e| {
            Error::privileged("AFXDP-PROGRAM-COUNTERS", "read a source's counters", &[CAP_BPF], &e)
        })?;
        Ok(Count { packets, bytes: packets * self.frame.len() as u64 })
    }

    /// Makes the next frame without sending it, for tests of what receivers will see. It counts as made.
    pub fn preview(&self) -> Result<Vec<u8>, Error> {
        self.pace.set_words(0, [0, 0]).map_err(|e| run_error(&e))?;
        let Run { frame, .. } = self.program.run(&self.frame).map_err(|e| run_error(&e))?;
        Ok(frame)
    }
}

fn run_error(error: &io::Error) -> Error {
    let what = "generate frames";
    match error.raw_os_error() {
        Some(errno @ (libc::EINVAL | libc::ENOTSUP)) => {
            let cause = "the kernel cannot run programs on live frames";
            Error::new("AFXDP-SOURCE-RUN", what, cause, "use Linux 5.18 or later").with_errno(errno)
        }
        _ => Error::privileged("AFXDP-SOURCE-RUN", what, &[CAP_NET_ADMIN, CAP_BPF], error),
    }
}

/// What is written where, for each frame.
struct Patches {
    /// Source port, and how many values it takes.
    port: Option<(usize, u32)>,
    stamp: Option<usize>,
    sequence: Option<usize>,
    checksum: Option<Checksum>,
}

/// A checksum to be kept right.
struct Checksum {
    at: usize,
    udp: bool,
    /// Sum of all that is not written anew, in the machine's byte order: one's complement sums are the same in either.
    base: u16,
}

impl Patches {
    /// Fails with cause and cure.
    fn plan(frame: &[u8], config: &LiveConfig) -> Result<Patches, (String, String)> {
        let len = frame.len();
        if !(FRAME_MIN..=FRAME_MAX).contains(&len) {
            return Err((format!("a frame of {len} bytes"), format!("give {FRAME_MIN} to {FRAME_MAX}")));
        }
        let layout = Layout::of(frame);
        let port = match (config.flows, layout) {
            (0 | 1, _) => None,
            (flows, Some(layout)) => Some((layout.src_port, flows.min(FLOWS_MAX))),
            (_, None) => {
                let cause = "several flows need a source port, which this frame has not".to_owned();
                return Err((cause, "give a frame of UDP or TCP, or one flow".to_owned()));
            }
        };
        let stamp = (config.stamp && layout.is_some_and(|l| l.payload <= STAMP as usize))
            .then_some(STAMP as usize)
            .filter(|at| at + 8 <= len);
        let payload = layout.map_or(FRAME_MIN, |l| l.payload);
        if let Some(at) = config.sequence {
            let overlaps = stamp.is_some_and(|stamp| at < stamp + 8 && stamp < at + 8);
            if at % 2 != 0 || at < payload || at + 8 > len || overlaps {
                let from = stamp.map_or(payload, |stamp| stamp + 8);
                return Err((
                    format!("no place for a sequence number at {at}"),
                    format!(
                        "give an even offset from {from} on, eight bytes before the frame's end at {len}"
                    ),
                ));
            }
        }
        let mut patches = Patches { port, stamp, sequence: config.sequence, checksum: None };
        if let Some(Layout { checksum: Some(at), udp, .. }) = layout {
            patches.checksum = Some(Checksum { at, udp, base: patches.base(frame, at) });
        }
        Ok(patches)
    }

    /// The sum behind the checksum, less what will be added anew (RFC 1624).
    fn base(&self, frame: &[u8], checksum: usize) -> u16 {
        let word = |at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
        let anew = self.port.map(|(at, _)| (at, 2)).into_iter().chain(self.eights().map(|at| (at, 8)));
        let mut sum = u32::from(!word(checksum));
        for (at, len) in anew {
            sum += (at..at + len).step_by(2).map(|at| u32::from(!word(at))).sum::<u32>();
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// Where eight bytes are written.
    fn eights(&self) -> impl Iterator<Item = usize> {
        [self.stamp, self.sequence].into_iter().flatten()
    }

    /// First offset behind all that is written, given that the first `restored` bytes are.
    fn end(&self, restored: usize) -> usize {
        let port = self.port.map(|(at, _)| at + 2);
        let checksum = self.checksum.as_ref().map(|c| c.at + 2);
        self.eights().map(|at| at + 8).chain(port).chain(checksum).fold(restored, usize::max)
    }
}

/// R9 is the pace, R0 from the first step on the time, R7 the frame, R4 the frame's number, R5 the checksum's sum.
fn emit(ifindex: u32, frame: &[u8], patches: &Patches, pace: &Map, made: &Map) -> Vec<Insn> {
    let mut asm = Asm::default();
    asm.op_reg(Op::Move, Reg::R6, Reg::R1).load_map_value(Reg::R9, pace);
    wait_until_due(&mut asm);
    let restored = frame.len().min(RESTORED) / 4 * 4;
    let out = asm.label();
    asm.load(Width::Word, Reg::R7, Reg::R6, xdp_md::DATA)
        .load(Width::Word, Reg::R8, Reg::R6, xdp_md::DATA_END)
        .op_reg(Op::Move, Reg::R1, Reg::R7)
        .op(Op::Add, Reg::R1, patches.end(restored) as i32)
        // Never: but the verifier does not know how long the frame is.
        .jump_if_reg(If::Greater, Reg::R1, Reg::R8, out);
    for (i, word) in frame[..restored].as_chunks::<4>().0.iter().enumerate() {
        asm.store_imm(Width::Word, Reg::R7, 4 * i as i16, i32::from_ne_bytes(*word));
    }
    asm.op(Op::Move, Reg::R4, 1).load_map_value(Reg::R1, made).fetch_add(Reg::R1, Reg::R4);
    let sum = patches.checksum.as_ref();
    if let Some(checksum) = sum {
        asm.op(Op::Move, Reg::R5, i32::from(checksum.base));
    }
    if let Some((at, flows)) = patches.port {
        asm.op_reg(Op::Move, Reg::R1, Reg::R4)
            .op(Op::Modulo, Reg::R1, flows as i32)
            .op(Op::Add, Reg::R1, FIRST_PORT)
            .swap(Reg::R1, 16)
            .store(Width::Half, Reg::R7, at as i16, Reg::R1);
        if sum.is_some() {
            asm.op_reg(Op::Add, Reg::R5, Reg::R1);
        }
    }
    if let Some(at) = patches.stamp {
        write_eight(&mut asm, at, Reg::R0, sum.is_some());
    }
    if let Some(at) = patches.sequence {
        asm.swap(Reg::R4, 64);
        write_eight(&mut asm, at, Reg::R4, sum.is_some());
    }
    if let Some(checksum) = sum {
        write_checksum(&mut asm, checksum);
    }
    asm.place(out)
        .op(Op::Move, Reg::R1, ifindex as i32)
        .op(Op::Move, Reg::R2, 0)
        .call(Helper::Redirect)
        .exit();
    asm.finish()
}

fn wait_until_due(asm: &mut Asm) {
    let (again, due, on_time) = (asm.label(), asm.label(), asm.label());
    asm.op(Op::Move, Reg::R8, 0)
        .place(again)
        .call(Helper::KtimeGetNs)
        .load(Width::Double, Reg::R1, Reg::R9, pace::DUE)
        .jump_if_reg(If::GreaterEqual, Reg::R0, Reg::R1, due)
        .op(Op::Add, Reg::R8, 1)
        .jump_if(If::Less, Reg::R8, SPINS_MAX, again)
        .place(due)
        // The next one is due an interval later; far behind, from now.
        .op_reg(Op::Move, Reg::R2, Reg::R1)
        .op(Op::Add, Reg::R2, CATCH_UP_NS)
        .jump_if_reg(If::GreaterEqual, Reg::R2, Reg::R0, on_time)
        .op_reg(Op::Move, Reg::R1, Reg::R0)
        .place(on_time)
        .load(Width::Double, Reg::R2, Reg::R9, pace::INTERVAL)
        .op_reg(Op::Add, Reg::R1, Reg::R2)
        .store(Width::Double, Reg::R9, pace::DUE, Reg::R1);
}

/// Writes `value` at offset `at`, and adds its four halves to the checksum's sum if there is one.
fn write_eight(asm: &mut Asm, at: usize, value: Reg, summed: bool) {
    asm.store(Width::Double, Reg::R7, at as i16, value);
    for shift in [0, 16, 32, 48].into_iter().filter(|_| summed) {
        asm.op_reg(Op::Move, Reg::R1, value)
            .op(Op::ShiftRight, Reg::R1, shift)
            .op(Op::And, Reg::R1, 0xffff)
            .op_reg(Op::Add, Reg::R5, Reg::R1);
    }
}

fn write_checksum(asm: &mut Asm, checksum: &Checksum) {
    // The sum is below 10 * 0xffff: the second fold leaves no carry.
    for _ in 0..2 {
        asm.op_reg(Op::Move, Reg::R1, Reg::R5)
            .op(Op::ShiftRight, Reg::R1, 16)
            .op(Op::And, Reg::R5, 0xffff)
            .op_reg(Op::Add, Reg::R5, Reg::R1);
    }
    asm.op(Op::Xor, Reg::R5, 0xffff);
    if checksum.udp {
        let some = asm.label();
        asm.jump_if(If::NotEqual, Reg::R5, 0, some).op(Op::Move, Reg::R5, 0xffff).place(some);
    }
    asm.store(Width::Half, Reg::R7, checksum.at as i16, Reg::R5);
}
