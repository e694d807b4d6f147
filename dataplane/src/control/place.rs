//! Where the socket is: made in the place of one that nobody serves any more, and of nothing else.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::protocol::Failure;
use super::sys;

/// Mode of a directory made for the socket.
const DIRECTORY_MODE: u32 = 0o750;
/// Mode of the socket: connecting takes the right to write.
const SOCKET_MODE: u32 = 0o660;
/// How long another process may keep the directory locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A socket file of ours.
pub(super) struct Place {
    path: PathBuf,
    inode: u64,
}

pub(super) fn system(what: &str, e: &io::Error) -> Failure {
    Failure::new("NKE-CTL-SYSTEM", format!("{what}: {e}"))
}

/// Makes the socket, and its directory if need be.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, Place), Failure> {
    let name = path.display();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    made.map_err(|e| system(&format!("directory {}", directory.display()), &e))?;
    // Of two that start at the same time and find the same stale socket, one would remove what the other just made.
    let _lock = lock(directory)?;
    clear(path)?;
    let listener = sys::bind(path, SOCKET_MODE).map_err(|e| system(&format!("socket {name}"), &e))?;
    let inode = fs::symlink_metadata(path).map_err(|e| system(&format!("socket {name}"), &e))?.ino();
    Ok((listener, Place { path: path.to_owned(), inode }))
}

/// Keeps others from making sockets in `directory` until the result is dropped, or this process ends however it may.
fn lock(directory: &Path) -> Result<File, Failure> {
    let name = format!("directory {}", directory.display());
    let file = File::open(directory).map_err(|e| system(&name, &e))?;
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new("NKE-CTL-BUSY", format!("{name}: another process keeps it locked")));
            }
            Err(TryLockError::Error(e)) => return Err(system(&name, &e)),
        }
    }
}

/// Removes a socket that nobody serves. Anything else at `path` stays: a mistyped path must not cost a file.
fn clear(path: &Path) -> Result<(), Failure> {
    let name = path.display();
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system(&name.to_string(), &e)),
    };
    if !kind.is_socket() {
        return Err(Failure::new("NKE-CTL-NO-SOCKET", format!("{name} is there, and is not a socket")));
    }
    match sys::connect(path, Duration::ZERO) {
        // Too many wait to be accepted: whoever should accept them is there, stopped maybe.
        Err(e) if e.kind() == ErrorKind::TimedOut => (),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            return fs::remove_file(path).map_err(|e| system(&format!("stale {name}"), &e));
        }
        Err(e) => return Err(system(&name.to_string(), &e)),
        Ok(_) => (),
    }
    Err(Failure::new("NKE-CTL-BUSY", format!("a dataplane answers on {name}")))
}

impl Drop for Place {
    fn drop(&mut self) {
        // Not if somebody put another socket in its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            // Gone meanwhile, or its directory became read-only: the next start clears it.
            let _ = fs::remove_file(&self.path);
        }
    }
}
