//! Writing packets to a file away from the path: workers put them into a bounded queue, a thread of its own writes them
//! and gives their frames back.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam::queue::ArrayQueue;
use nke_filters::{Direction, Hold, Layer, RecordFile, Recorder, Remark};
use nke_mbuf::Mbuf;

use crate::drop::Reasons;
use crate::pcapfile::{Direction as Way, LinkType, Packet, Writer};

/// Packets that may wait to be written.
const QUEUE: usize = 1024;
/// Between looks at an empty queue. Workers never wake the thread: that would be a system call.
const TICK: Duration = Duration::from_millis(1);
/// Captures are for whoever runs the dataplane to hand on: nobody else reads other people's packets.
const MODE: u32 = 0o600;

/// A pcapng file being written.
pub struct PcapRecorder {
    shared: Arc<State>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Released after the thread has ended.
    _hold: Option<Hold>,
}

struct State {
    queue: ArrayQueue<(Mbuf, Remark)>,
    stop: AtomicBool,
    /// The file is closed, or writing failed: nothing more is taken.
    ended: AtomicBool,
    written: AtomicU64,
}

impl PcapRecorder {
    /// Makes the file and starts the thread, which `hold` is the ledger's entry of.
    pub fn start(file: &RecordFile, reasons: Arc<Reasons>, hold: Option<Hold>) -> io::Result<PcapRecorder> {
        let out = BufWriter::with_capacity(1 << 20, create(&file.path, file.overwrite)?);
        let mut writer = Writer::new(out)?;
        let link_type = match file.layer {
            Layer::Frame => LinkType::Ethernet,
            Layer::Ip => LinkType::Raw,
        };
        let interface = writer.add_interface_of(&file.interface, link_type, file.snaplen_bytes)?;
        let shared = Arc::new(State {
            queue: ArrayQueue::new(QUEUE),
            stop: AtomicBool::default(),
            ended: AtomicBool::default(),
            written: AtomicU64::default(),
        });
        let name = file.path.display().to_string();
        let thread = {
            let shared = shared.clone();
            let body = move || {
                if let Err(e) = write(&mut writer, interface, &shared, &reasons) {
                    eprintln!("nke: recording to {name} has ended: {e}");
                }
                shared.ended.store(true, Ordering::Relaxed);
                // Frames go home even if they cannot be written.
                while shared.queue.pop().is_some() {}
            };
            std::thread::Builder::new().name("nke-recorder".into()).spawn(body)?
        };
        Ok(PcapRecorder { shared, thread: Mutex::new(Some(thread)), _hold: hold })
    }

    /// The same for a port, which nobody is charged for, and which writes over what was there.
    pub fn of_port(path: &Path) -> io::Result<PcapRecorder> {
        let file = RecordFile { overwrite: true, ..RecordFile::new(path) };
        PcapRecorder::start(&file, Arc::default(), None)
    }

    /// Packets it will take at least; only one thread hands them in.
    pub fn room(&self) -> usize {
        self.shared.queue.capacity() - self.shared.queue.len()
    }
}

/// Opens a file to be written from its start. Never through a link, and never what is no plain file: whoever may write to
/// a directory must not choose what the dataplane overwrites elsewhere.
fn create(path: &Path, overwrite: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK, a FIFO without a reader would hold the control thread.
    options.write(true).mode(MODE).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    if !overwrite {
        return options.create_new(true).open(path);
    }
    let file = options.create(true).truncate(false).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a plain file"));
    }
    file.set_len(0)?;
    Ok(file)
}

impl Recorder for PcapRecorder {
    fn record(&self, packet: Mbuf, remark: Remark) -> Result<(), Mbuf> {
        if self.shared.ended.load(Ordering::Relaxed) {
            return Err(packet);
        }
        self.shared.queue.push((packet, remark)).map_err(|(packet, _)| packet)
    }

    fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    fn finish(&self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            thread.thread().unpark();
            // A panic there was printed already.
            let _ = thread.join();
        }
        // What came in after a failure.
        while self.shared.queue.pop().is_some() {}
    }
}

impl Drop for PcapRecorder {
    fn drop(&mut self) {
        self.finish();
    }
}

fn write(
    writer: &mut Writer<BufWriter<File>>,
    interface: u32,
    shared: &State,
    reasons: &Reasons,
) -> io::Result<()> {
    let mut written = 0;
    loop {
        // Read before the queue is found empty: what was put in before the stop is written.
        let stopping = shared.stop.load(Ordering::Acquire);
        while let Some((mbuf, remark)) = shared.queue.pop() {
            let pieces: Vec<_> = mbuf.segments().collect();
            let ts_ns = if remark.at_ns != 0 { remark.at_ns } else { now_ns() };
            let direction = remark.direction.map(|direction| match direction {
                Direction::Input => Way::Inbound,
                Direction::Output => Way::Outbound,
            });
            let comment = match remark.reason {
                Some(reason) => format!("{} {}", remark.place, reasons.name(reason)),
                None => remark.place.to_owned(),
            };
            let comment = Some(&*comment).filter(|c| !c.is_empty());
            writer.write(&Packet { interface, ts_ns, pieces: &pieces, direction, comment })?;
            written += 1;
        }
        writer.flush()?;
        // What is in a buffer yet may be lost to a full disk.
        shared.written.store(written, Ordering::Relaxed);
        if stopping {
            return Ok(());
        }
        std::thread::park_timeout(TICK);
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
