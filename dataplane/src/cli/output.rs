//! Printing, to readers that may have gone.

use std::io::{self, ErrorKind, Write};

use serde_json::Value;

use crate::error::Exit;

/// Prints a JSON value over several lines.
pub(super) fn print_json(value: &Value) {
    print(&format!("{value:#}\n"));
}

/// Prints. A reader that has gone (`nke show drops | head -1`) has seen what it wanted: not a word, and the command ends
/// as it would have. Output that is lost (a full disk) is an error.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {e}"));
            std::process::exit(Exit::Failed as i32);
        }
        _ => (),
    }
}

/// Prints to standard error; if that is not possible there is nobody to tell.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
