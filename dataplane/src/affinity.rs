//! Which cores threads may run on.
#![allow(unsafe_code)]

use std::io;

/// Keeps this thread, and those it starts, off `cores`, unless nothing else would be left.
///
/// A worker that polls never gives its core up: a thread put beside it by the scheduler takes whole time slices from it.
pub fn avoid(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a plain bit set, for which zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: at most the set's size is written.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is within the set.
        unsafe { libc::CPU_CLR(*core, &mut set) };
    }
    // SAFETY: the set is only read.
    if unsafe { libc::CPU_COUNT(&set) } == 0 {
        return Ok(());
    }
    // SAFETY: the set is only read.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
