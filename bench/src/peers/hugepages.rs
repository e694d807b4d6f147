//! Huge pages for DPDK, for the time of a run.
//!
//! How many there were before is kept in a file as well, so that the run after one that was killed puts that number back,
//! and not its own. The file is locked while a run lasts: two runs would measure each other anyway.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Command;

use crate::stats::Error;

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
const BEFORE: &str = "/run/nke-bench.hugepages";

/// Reserved pages; as many as before are left when it is dropped.
pub struct HugePages {
    before: Before,
    mounted: bool,
}

impl HugePages {
    /// Reserves at least `pages` pages of 2 MiB, and has them mounted where DPDK looks.
    pub fn reserve(pages: u64) -> Result<HugePages, Error> {
        let now = fs::read_to_string(COUNT)?.trim().parse::<u64>()?;
        let before = Before::lock(Path::new(BEFORE), now)?;
        let mut reserved = HugePages { before, mounted: false };
        fs::write(COUNT, reserved.before.pages.max(pages).to_string())?;
        let got = fs::read_to_string(COUNT)?.trim().parse::<u64>()?;
        if got < pages {
            return Err(format!(
                "{got} huge pages of {pages}: memory is short, or in pieces; try after a reboot"
            )
            .into());
        }
        fs::create_dir_all("/dev/hugepages")?;
        let there = fs::read_to_string("/proc/mounts")?.lines().any(|l| l.contains(" /dev/hugepages "));
        reserved.mounted = !there
            && Command::new("mount").args(["-t", "hugetlbfs", "none", "/dev/hugepages"]).status()?.success();
        Ok(reserved)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("/dev/hugepages").status();
        }
        // If either fails, the next run does it.
        if fs::write(COUNT, self.before.pages.to_string()).is_ok() {
            let _ = self.before.file.set_len(0);
        }
    }
}

/// The number of pages before the first run that has not put it back; locked as long as this lives.
struct Before {
    pages: u64,
    file: File,
}

impl Before {
    fn lock(path: &Path, now: u64) -> Result<Before, Error> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock()
            .map_err(|e| format!("another nke-bench is measuring ({}: {e}): wait for it", path.display()))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        if let Ok(pages) = text.trim().parse() {
            return Ok(Before { pages, file });
        }
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(now.to_string().as_bytes())?;
        Ok(Before { pages: now, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_before_a_killed_run_is_the_one_put_back() {
        let path = std::env::temp_dir().join(format!("nke-hugepages-{}", std::process::id()));
        let first = Before::lock(&path, 3).unwrap();
        assert!(Before::lock(&path, 700).is_err(), "locked");
        // As after a kill: the lock is gone, the file is as it was.
        drop(first);
        let second = Before::lock(&path, 700).unwrap();
        assert_eq!(second.pages, 3);
        second.file.set_len(0).unwrap();
        drop(second);
        assert_eq!(Before::lock(&path, 5).unwrap().pages, 5);
        fs::remove_file(&path).unwrap();
    }
}
