//! What a peer prints: read as it comes, so that its pipe never fills; awaited, and shown when something went wrong.

use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Last bytes kept for the message of an error.
const TAIL_BYTES: usize = 600;
/// Bytes kept that nobody has asked for yet.
const UNREAD_MAX: usize = 1 << 20;

/// The output of a program, both streams in one.
#[derive(Clone, Default)]
pub struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    unread: VecDeque<u8>,
    tail: VecDeque<u8>,
    ended: bool,
}

/// Why the awaited text did not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missed {
    /// The program closed its output.
    Ended,
    /// It said other things, or nothing.
    Timeout,
}

impl Output {
    /// Reads all of `pipe` on a thread of its own, which ends with the program.
    pub fn read(mut pipe: PipeReader) -> Output {
        let output = Output::default();
        let ours = output.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error here is as good as the end.
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                ours.lock().add(&buffer[..n]);
                ours.0.changed.notify_all();
            }
            ours.lock().ended = true;
            ours.0.changed.notify_all();
        });
        output
    }

    /// Waits for `text`; takes it, and returns everything before it.
    pub fn wait_for(&self, text: &str, patience: Duration) -> Result<String, Missed> {
        self.wait_until(patience, |state| {
            let unread: &[u8] = state.unread.make_contiguous();
            let at = unread.windows(text.len()).position(|w| w == text.as_bytes())?;
            let before: Vec<u8> = state.unread.drain(..at + text.len()).take(at).collect();
            Some(String::from_utf8_lossy(&before).into_owned())
        })
    }

    /// Waits for the end of a line; takes and returns it.
    pub fn line(&self, patience: Duration) -> Result<String, Missed> {
        self.wait_until(patience, |state| {
            let end = state.unread.iter().position(|b| *b == b'\n')?;
            let line: Vec<u8> = state.unread.drain(..=end).collect();
            Some(String::from_utf8_lossy(&line).trim().to_owned())
        })
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        let tail: Vec<u8> = self.lock().tail.iter().copied().collect();
        String::from_utf8_lossy(&tail).trim().to_owned()
    }

    fn wait_until<T>(
        &self,
        patience: Duration,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Missed> {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(taken) = take(&mut state) {
                return Ok(taken);
            }
            if state.ended {
                return Err(Missed::Ended);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Missed::Timeout);
            }
            state = match self.0.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn add(&mut self, bytes: &[u8]) {
        for (kept, most) in [(&mut self.unread, UNREAD_MAX), (&mut self.tail, TAIL_BYTES)] {
            kept.extend(bytes);
            let over = kept.len().saturating_sub(most);
            kept.drain(..over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn text_is_awaited_across_pieces_and_lines_are_taken() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let output = Output::read(reader);
        writer.write_all(b"EAL: ready\ntest").unwrap();
        assert_eq!(output.line(SOON).unwrap(), "EAL: ready");
        assert_eq!(output.wait_for("testpmd> ", Duration::ZERO), Err(Missed::Timeout));
        writer.write_all(b"pmd> tail").unwrap();
        assert_eq!(output.wait_for("pmd> ", SOON).unwrap(), "test");
        drop(writer);
        assert_eq!(output.wait_for("more", SOON), Err(Missed::Ended));
        assert!(output.tail().ends_with("tail"));
    }

    #[test]
    fn what_nobody_asks_for_is_bounded() {
        let mut state = State::default();
        (0..100).for_each(|_| state.add(&vec![b'x'; UNREAD_MAX / 10]));
        assert_eq!((state.unread.len(), state.tail.len()), (UNREAD_MAX, TAIL_BYTES));
    }
}
