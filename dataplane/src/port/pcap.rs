//! `pcap`: replays a capture file as received packets, and records what is sent to another.

use std::fmt;
use std::io;
use std::path::Path;

use nke_filters::{Recorder, Remark};
use nke_mbuf::{Burst, Cache, Mbuf};

use super::{Drops, Link, Moved, Queue};
use crate::drop::{IF_DOWN, TOO_LONG};
use crate::pcapfile::{PcapError, Reader};
use crate::recorder::PcapRecorder;

/// Why the port was not opened.
#[derive(Debug)]
pub enum PcapPortError {
    /// The file to be replayed.
    Read(String, PcapError),
    /// The file to be replayed needs more memory than allowed.
    TooLarge(String, usize),
    /// The file to be recorded to.
    Write(String, io::Error),
}

impl fmt::Display for PcapPortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PcapPortError::Read(file, e) => write!(f, "{file}: {e}"),
            PcapPortError::TooLarge(file, max) => {
                write!(f, "{file}: more than {max} bytes of packets; cut it")
            }
            PcapPortError::Write(file, e) => write!(f, "{file}: {e}"),
        }
    }
}

impl std::error::Error for PcapPortError {}

/// The port's one queue.
pub struct PcapQueue {
    /// All packets of the file, in memory: nothing is read on the path.
    packets: Vec<Box<[u8]>>,
    next: usize,
    looped: bool,
    recorder: Option<PcapRecorder>,
}

impl PcapQueue {
    /// Opens the files. At most `bytes_max` bytes of packets are replayed from.
    pub fn open(
        read: Option<&Path>,
        write: Option<&Path>,
        looped: bool,
        bytes_max: usize,
    ) -> Result<PcapQueue, PcapPortError> {
        let packets = read.map_or(Ok(Vec::new()), |path| load(path, bytes_max))?;
        let recorder = match write {
            Some(path) => Some(
                PcapRecorder::of_port(path)
                    .map_err(|e| PcapPortError::Write(path.display().to_string(), e))?,
            ),
            None => None,
        };
        Ok(PcapQueue { packets, next: 0, looped, recorder })
    }
}

fn load(path: &Path, bytes_max: usize) -> Result<Vec<Box<[u8]>>, PcapPortError> {
    let name = || path.display().to_string();
    let read_error = |e| PcapPortError::Read(name(), e);
    let mut reader = Reader::open(path).map_err(read_error)?;
    let (mut packets, mut bytes) = (Vec::new(), 0);
    while let Some(record) = reader.next_record().map_err(read_error)? {
        bytes += record.data.len();
        if bytes > bytes_max {
            return Err(PcapPortError::TooLarge(name(), bytes_max));
        }
        packets.push(record.data.into_boxed_slice());
    }
    Ok(packets)
}

/// A copy of `data`, in as many frames as it takes. `None` when frames run out; `Err` when no chain is long enough.
fn copy(mut data: &[u8], cache: &mut Cache) -> Option<Result<Mbuf, ()>> {
    let mut head: Option<Mbuf> = None;
    loop {
        let mut part = cache.alloc()?;
        let (now, later) = data.split_at(data.len().min(part.tailroom()));
        part.append(now.len())?.copy_from_slice(now);
        data = later;
        match &mut head {
            None => head = Some(part),
            Some(head) => {
                if head.chain(part).is_err() {
                    return Some(Err(()));
                }
            }
        }
        if data.is_empty() {
            return head.map(Ok);
        }
    }
}

impl Queue for PcapQueue {
    fn rx(&mut self, burst: &mut Burst, max: usize, cache: &mut Cache, drops: &Drops) -> Moved {
        let mut moved = Moved::default();
        for _ in 0..max.min(burst.room()) {
            if self.next == self.packets.len() {
                if !self.looped {
                    break;
                }
                self.next = 0;
            }
            let Some(data) = self.packets.get(self.next) else { break };
            // Without a frame the packet is tried again in the next round.
            let Some(copied) = copy(data, cache) else { break };
            self.next += 1;
            moved.add(data.len());
            match copied {
                Ok(mbuf) => {
                    let full = burst.push(mbuf);
                    debug_assert!(full.is_ok(), "not more than the burst has room for");
                }
                Err(()) => drops[TOO_LONG.index()].add(1),
            }
        }
        moved
    }

    fn tx_room(&mut self, _: &mut Cache) -> usize {
        self.recorder.as_ref().map_or(nke_mbuf::BURST_MAX, PcapRecorder::room)
    }

    fn tx(&mut self, burst: &mut Burst, cache: &mut Cache, drops: &Drops) -> Moved {
        let mut moved = Moved::default();
        let room = self.recorder.as_ref().map_or(burst.len(), PcapRecorder::room);
        burst.take_first(room, |mbuf| {
            let len = mbuf.len();
            let refused = match &self.recorder {
                Some(recorder) => recorder.record(mbuf, Remark::default()).err(),
                // A port that only replays: what is sent to it has arrived.
                None => {
                    cache.free(mbuf);
                    None
                }
            };
            match refused {
                None => moved.add(len),
                // Writing has failed.
                Some(mbuf) => {
                    drops[IF_DOWN.index()].add(1);
                    cache.free(mbuf);
                }
            }
        });
        moved
    }

    fn flush(&mut self, _: &mut Cache) {}

    fn link(&self) -> Link {
        if self.next == self.packets.len() && !self.looped { Link::Drained } else { Link::Up }
    }

    fn close(self: Box<Self>, _: &mut Cache) {}
}
