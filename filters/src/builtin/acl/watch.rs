//! A file that is read again when it changes.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::list::TEXT_BYTES_MAX;

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    file: (u64, u64),
    len_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            file: (meta.dev(), meta.ino()),
            len_bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The file.
pub(super) struct Watch {
    path: PathBuf,
    /// Of what was read last; `None` when there was no file.
    seen: Mutex<Option<Stamp>>,
}

impl Watch {
    /// On the file at `path`, which is not read yet.
    pub(super) fn new(path: impl Into<PathBuf>) -> Watch {
        Watch { path: path.into(), seen: Mutex::new(None) }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The text, now. The state noted is the one before reading: what changes meanwhile is read next time.
    pub(super) fn read(&self) -> Result<String, String> {
        let text = self.open().and_then(|mut file| {
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stamp::of(&file.metadata()?));
            let mut text = String::new();
            // One byte more than is allowed, for the parser to complain about.
            Read::take(&mut file, TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
            Ok(text)
        });
        text.map_err(|e| format!("{} cannot be read: {e}", self.path.display()))
    }

    fn open(&self) -> std::io::Result<File> {
        if fs::metadata(&self.path)?.is_file() {
            return File::open(&self.path);
        }
        // Opening a pipe would wait for its writer.
        Err(std::io::Error::other("not a regular file"))
    }

    /// The text, if the file is not as it was read last.
    pub(super) fn read_if_changed(&self) -> Option<Result<String, String>> {
        let now = fs::metadata(&self.path).ok().map(|meta| Stamp::of(&meta));
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return None;
            }
            *seen = now;
        }
        Some(self.read())
    }
}
