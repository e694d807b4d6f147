//! What the parser reads from.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

/// Fills every read, because the parser takes a first short read (of a pipe, say) for a file without a header; and
/// remembers why one failed, because the parser does not.
pub(super) struct Source<R> {
    inner: R,
    failure: Failure,
}

/// Why reading failed, if it did.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<OnceLock<io::Error>>);

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R) -> (Source<R>, Failure) {
        let failure = Failure::default();
        (Source { inner, failure: failure.clone() }, failure)
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => {
                    let again = copy(&e);
                    // Only the first: later ones follow from it.
                    let _ = self.failure.0.set(e);
                    return Err(again);
                }
            }
        }
        Ok(filled)
    }
}

impl Failure {
    /// The error of the system.
    pub(super) fn error(&self) -> io::Error {
        self.0.get().map_or_else(|| io::Error::other("cannot be read"), copy)
    }
}

fn copy(e: &io::Error) -> io::Error {
    e.raw_os_error().map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error)
}
