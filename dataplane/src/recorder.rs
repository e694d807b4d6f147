//! Writing packets to a file away from the path: workers put them into a bounded queue, a thread of its own writes them
//! and gives their frames back.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crossbeam::queue::ArrayQueue;
use nke_filters::{Hold, Recorder};
use nke_mbuf::Mbuf;

use crate::pcapfile::{Packet, Writer};

/// Packets that may wait to be written.
const QUEUE: usize = 1024;
/// Between looks at an empty queue. Workers never wake the thread: that would be a system call.
const TICK: Duration = Duration::from_millis(1);

/// A pcapng file being written.
pub struct PcapRecorder {
    queue: Arc<ArrayQueue<Mbuf>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    /// Released after the thread has ended.
    _hold: Option<Hold>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    /// Writing failed: nothing more is taken.
    failed: AtomicBool,
}

impl PcapRecorder {
    /// Makes the file and starts the thread, which `hold` is the ledger's entry of.
    pub fn start(path: &Path, hold: Hold) -> io::Result<PcapRecorder> {
        PcapRecorder::begin(path, Some(hold))
    }

    /// The same for a port, which nobody is charged for.
    pub fn unheld(path: &Path) -> io::Result<PcapRecorder> {
        PcapRecorder::begin(path, None)
    }

    fn begin(path: &Path, hold: Option<Hold>) -> io::Result<PcapRecorder> {
        let mut writer = Writer::create(path)?;
        let interface = writer.add_interface("nke")?;
        let (queue, state) = (Arc::new(ArrayQueue::new(QUEUE)), Arc::new(State::default()));
        let name = path.display().to_string();
        let thread = {
            let (queue, state) = (queue.clone(), state.clone());
            let body = move || {
                if let Err(e) = write(&mut writer, interface, &queue, &state) {
                    state.failed.store(true, Ordering::Relaxed);
                    eprintln!("nke: recording to {name} has ended: {e}");
                }
                // Frames go home even if they cannot be written.
                while queue.pop().is_some() {}
            };
            std::thread::Builder::new().name("nke-recorder".into()).spawn(body)?
        };
        Ok(PcapRecorder { queue, state, thread: Some(thread), _hold: hold })
    }

    /// Packets it will take at least; only one thread hands them in.
    pub fn room(&self) -> usize {
        self.queue.capacity() - self.queue.len()
    }
}

impl Recorder for PcapRecorder {
    fn record(&self, packet: Mbuf, _: usize) -> Result<(), Mbuf> {
        if self.state.failed.load(Ordering::Relaxed) {
            return Err(packet);
        }
        self.queue.push(packet)
    }
}

impl Drop for PcapRecorder {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was printed already.
            let _ = thread.join();
        }
        // What came in after a failure.
        while self.queue.pop().is_some() {}
    }
}

fn write(
    writer: &mut Writer<BufWriter<File>>,
    interface: u32,
    queue: &ArrayQueue<Mbuf>,
    state: &State,
) -> io::Result<()> {
    loop {
        // Read before the queue is found empty: what was put in before the stop is written.
        let stopping = state.stop.load(Ordering::Acquire);
        while let Some(mbuf) = queue.pop() {
            let pieces: Vec<_> = mbuf.segments().collect();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let ts_ns = now.as_nanos() as u64;
            writer.write(&Packet { interface, ts_ns, pieces: &pieces, direction: None, comment: None })?;
        }
        writer.flush()?;
        if stopping {
            return Ok(());
        }
        std::thread::park_timeout(TICK);
    }
}
