//! Whose program is on a device.

use std::fmt;
use std::fs;

use crate::bpf::{program_info, xdp_on};
use crate::error::Error;
use crate::{device, sys};

/// A program on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Its number, as `ip link` and bpftool show it.
    pub id: u32,
    /// Its name, if this process may ask.
    pub name: Option<String>,
    /// Who holds the link that keeps it there. `None` if it is there without a link, the link is pinned, or this process
    /// may not look.
    pub holder: Option<Holder>,
}

/// A process that holds a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Process number.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// The link's number.
    pub link: u32,
}

/// Finds out which XDP program is on `device`, in the calling thread's network namespace. Reads all of /proc: not for
/// the packet path.
pub fn attached(device: &str) -> Result<Option<Attached>, Error> {
    let what = || format!("ask for the XDP program of {device}");
    let ifindex = sys::if_index(device).map_err(|_| device::missing(what(), device))?;
    match xdp_on(ifindex) {
        Ok(id) => Ok(id.map(|id| Attached {
            id,
            name: program_info(id).ok().map(|info| info.name),
            holder: holder(id, ifindex),
        })),
        Err(e) => Err(Error::privileged("AFXDP-ATTACHED", what(), &[], &e)),
    }
}

/// Looks for a descriptor of a link of this program with this device. Numbers of devices repeat in other network
/// namespaces: a program that is on equal numbers in two of them may show the wrong one of its holders.
fn holder(program: u32, ifindex: u32) -> Option<Holder> {
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
        // Gone by now, or not ours to look at.
        let Ok(descriptors) = fs::read_dir(process.path().join("fdinfo")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(text) = fs::read_to_string(descriptor.path()) else { continue };
            if let Some(link) = link_in(&text, program, ifindex) {
                let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(Holder { pid, command: command.trim().to_owned(), link });
            }
        }
    }
    None
}

/// The link's number, if `fdinfo` is about a link of this program with this device.
fn link_in(fdinfo: &str, program: u32, ifindex: u32) -> Option<u32> {
    let field = |name: &str| {
        fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let number = |name| field(name).and_then(|v| v.parse::<u32>().ok());
    let fits = field("link_type") == Some("xdp")
        && number("prog_id") == Some(program)
        && number("ifindex") == Some(ifindex);
    if fits { number("link_id") } else { None }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XDP program {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        match &self.holder {
            Some(h) if h.pid == std::process::id() => write!(f, " of this process, link {}", h.link),
            Some(h) => write!(f, " of process {} ({}), link {}", h.pid, h.command, h.link),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::link_in;

    #[test]
    fn links_are_told_by_program_and_device() {
        let xdp = "pos:\t0\nlink_type:\txdp\nlink_id:\t9\nprog_tag:\tab\nprog_id:\t41\nifindex:\t2\n";
        assert_eq!(link_in(xdp, 41, 2), Some(9));
        assert_eq!(link_in(xdp, 41, 3), None);
        assert_eq!(link_in(xdp, 4, 2), None);
        assert_eq!(link_in(&xdp.replace("xdp", "tcx"), 41, 2), None);
        assert_eq!(link_in("pos:\t0\nflags:\t02\n", 41, 2), None);
    }
}
