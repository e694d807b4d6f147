//! Capture files, as extensions have them written: by a thread of the dataplane's, away from the path.

use std::num::NonZeroU32;
use std::path::PathBuf;

use nke_mbuf::Mbuf;

use crate::interface::Direction;
use crate::probe::Layer;
use crate::verdict::DropReason;

/// The file to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordFile {
    /// Where. A link there is not followed.
    pub path: PathBuf,
    /// What all its packets begin with. Packets of both kinds in one file are more than tcpdump reads.
    pub layer: Layer,
    /// Bytes kept of each packet; without it all.
    pub snaplen_bytes: Option<NonZeroU32>,
    /// Name of the file's one interface.
    pub interface: String,
    /// Whether a file that is there already is written over. Anything there that is no file stays as it is.
    pub overwrite: bool,
}

impl RecordFile {
    /// A new file at `path` with whole frames.
    pub fn new(path: impl Into<PathBuf>) -> RecordFile {
        let (path, interface) = (path.into(), "nke".to_owned());
        RecordFile { path, layer: Layer::Frame, snaplen_bytes: None, interface, overwrite: false }
    }
}

/// What is written beside a packet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Remark {
    /// When it was seen, in nanoseconds since 1970; 0: when it is written.
    pub at_ns: u64,
    /// Which way it went, if that can be said.
    pub direction: Option<Direction>,
    /// Where it was seen: its comment.
    pub place: &'static str,
    /// Why it was dropped: behind the place.
    pub reason: Option<DropReason>,
}

/// Takes packets and writes them to a file on a thread of its own. Dropping it finishes the file.
pub trait Recorder: Send + Sync {
    /// Hands a packet over to be written; gives it back when the recorder is behind, or has ended. Neither blocks nor calls
    /// the kernel.
    fn record(&self, packet: Mbuf, remark: Remark) -> Result<(), Mbuf>;

    /// Packets written so far.
    fn written(&self) -> u64;

    /// Writes what was handed over, and closes the file. Not on the path.
    fn finish(&self);
}
