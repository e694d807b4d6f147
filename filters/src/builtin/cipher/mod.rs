//! `cipher`: encrypts every frame that leaves an interface and decrypts what comes in, between NKEs that share a key.
//!
//! Arguments: `key` (path of a file with 64 hexadecimal digits, readable by its owner alone), `id` (0 to 7, another one at
//! each end), `clear` (`drop`, the default, or `pass`: what to do with frames received that are not encrypted).
//!
//! AES-256-GCM, in place, 40 bytes more per frame. What it protects against and what not: `docs/cipher.md`.
//!
//! | file | holds |
//! |---|---|
//! | `frame.rs` | the frame on the wire |
//! | `key.rs` | the pre-shared key and the keys derived from it |
//! | `window.rs` | replay protection, shared by the workers |
//! | `channel.rs` | sealing and opening |

mod channel;
mod frame;
mod key;
#[cfg(test)]
mod tests;
mod window;

use std::path::Path;

use crossbeam::atomic::AtomicCell;

pub use channel::{Channel, Lane};
pub use frame::{ETHERTYPE, IDS, LANES_MAX, NUMBERS_MAX, OVERHEAD_BYTES};
pub use key::{KEY_BYTES, PresharedKey};
pub use window::WINDOW_MIN;

use crate::{
    Args, AttachEnv, Batch, Counter, CreateError, Cx, DropReason, FilterKind, HostError, InterfaceFilter,
    PerWorker,
};

/// Why a frame was not sealed or not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is not encrypted.
    Clear,
    /// Not sealed with this key, or changed on the way.
    Auth,
    /// It was received before, or is so late that nobody knows.
    Replay,
    /// Of a session of its sender that a newer one has followed.
    Stale,
    /// It says that this end sent it: it came back, or two ends have one id.
    Reflected,
    /// Too short, or its header is not one of ours.
    Malformed,
    /// No room for 24 bytes in front and 16 behind, or in several frames of memory.
    NoRoom,
    /// A checksum in it was left to hardware.
    ChecksumPending,
    /// This worker has sent 2^48 frames: attach the filter anew.
    Exhausted,
    /// Too many frames of unknown sessions in this millisecond.
    Busy,
}

impl Refusal {
    /// All, in the order of their values.
    pub const ALL: [Refusal; 10] = [
        Refusal::Clear,
        Refusal::Auth,
        Refusal::Replay,
        Refusal::Stale,
        Refusal::Reflected,
        Refusal::Malformed,
        Refusal::NoRoom,
        Refusal::ChecksumPending,
        Refusal::Exhausted,
        Refusal::Busy,
    ];

    /// Name of the drop reason.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Clear => "clear",
            Refusal::Auth => "auth",
            Refusal::Replay => "replay",
            Refusal::Stale => "stale",
            Refusal::Reflected => "reflected",
            Refusal::Malformed => "malformed",
            Refusal::NoRoom => "no_room",
            Refusal::ChecksumPending => "checksum_pending",
            Refusal::Exhausted => "exhausted",
            Refusal::Busy => "busy",
        }
    }
}

/// The kind.
pub struct Cipher;

impl FilterKind for Cipher {
    fn name(&self) -> &str {
        "cipher"
    }

    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        let reason = |name: &str| env.host.drop_reason(env.owner, name);
        Ok(Box::new(Instance::new(args, env.workers, reason)?))
    }
}

#[derive(Default)]
struct Tally {
    sealed: Counter,
    opened: Counter,
    clear: Counter,
}

struct Instance {
    channel: Channel,
    /// What only its worker touches. A worker takes it out for a call and puts it back: no lock, and if ever two came at
    /// once the second would find nothing, and drop.
    lanes: PerWorker<AtomicCell<Option<Box<Lane>>>>,
    pass_clear: bool,
    reasons: [DropReason; Refusal::ALL.len()],
    tally: PerWorker<Tally>,
}

impl Instance {
    fn new(
        args: &Args,
        workers: usize,
        reason: impl Fn(&str) -> Result<DropReason, HostError>,
    ) -> Result<Instance, CreateError> {
        args.only(&["key", "id", "clear"])?;
        let Some(path) = args.text("key")? else {
            return Err(CreateError::new("a cipher needs a key", "write key = \"/etc/nke/segment.key\""));
        };
        if !args.0.contains_key("id") {
            return Err(CreateError::new(
                "this end has no id",
                "write id = 0 here and id = 1 at the other end",
            ));
        }
        let id = args.number("id", 0..=IDS as i64 - 1, 0)? as u8;
        let pass_clear = match args.text("clear")? {
            None | Some("drop") => false,
            Some("pass") => true,
            Some(_) => {
                return Err(CreateError::new("`clear` is neither drop nor pass", "write clear = \"drop\""));
            }
        };
        if workers > LANES_MAX {
            return Err(CreateError::new(
                format!("{workers} workers, and a cipher serves at most {LANES_MAX}"),
                "run fewer workers",
            ));
        }
        let mut reasons = [DropReason::from_index(0); Refusal::ALL.len()];
        for (slot, refusal) in reasons.iter_mut().zip(Refusal::ALL) {
            *slot = reason(refusal.name()).map_err(|e| {
                CreateError::new(e.to_string(), "unload extensions: their drop reasons fill the table")
            })?;
        }
        let channel = Channel::new(PresharedKey::read(Path::new(path))?, id)?;
        let mut worker = 0..workers;
        let lanes = PerWorker::new(workers, || {
            AtomicCell::new(worker.next().and_then(|worker| channel.lane(worker)).map(Box::new))
        });
        let tally = PerWorker::new(workers, Tally::default);
        Ok(Instance { channel, lanes, pass_clear, reasons, tally })
    }

    fn open(&self, worker: usize, now_ms: u64, batch: &mut Batch<'_>) {
        let tally = self.tally.of(worker);
        let (mut opened, mut clear) = (0, 0);
        let mut lane = self.lanes.of(worker).take();
        batch.each(|mbuf| {
            let outcome = match &mut lane {
                Some(lane) => lane.open(&self.channel, now_ms, mbuf),
                None => Err(Refusal::Busy),
            };
            match outcome {
                Ok(()) => opened += 1,
                Err(Refusal::Clear) if self.pass_clear => clear += 1,
                Err(refusal) => return Err(self.reasons[refusal as usize]),
            }
            Ok(())
        });
        self.lanes.of(worker).store(lane);
        tally.opened.add(opened);
        tally.clear.add(clear);
    }

    fn seal(&self, worker: usize, batch: &mut Batch<'_>) {
        let mut sealed = 0;
        let mut lane = self.lanes.of(worker).take();
        batch.each(|mbuf| {
            let outcome = match &mut lane {
                Some(lane) => lane.seal(&self.channel, mbuf),
                None => Err(Refusal::Busy),
            };
            sealed += u64::from(outcome.is_ok());
            outcome.map_err(|refusal| self.reasons[refusal as usize])
        });
        self.lanes.of(worker).store(lane);
        self.tally.of(worker).sealed.add(sealed);
    }
}

impl InterfaceFilter for Instance {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.open(cx.worker, cx.now_ms, batch);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.seal(cx.worker, batch);
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let sum = |f: fn(&Tally) -> &Counter| self.tally.iter().map(|t| f(t).get()).sum();
        vec![
            ("sealed", sum(|t| &t.sealed)),
            ("opened", sum(|t| &t.opened)),
            ("passed_clear", sum(|t| &t.clear)),
        ]
    }
}

const _: () = assert!(AtomicCell::<Option<Box<Lane>>>::is_lock_free());
