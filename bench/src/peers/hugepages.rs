//! Huge pages for DPDK, for the time of a run.

use std::fs;
use std::process::Command;

use crate::stats::Error;

const COUNT: &str = "/proc/sys/vm/nr_hugepages";

/// Reserved pages; as many as before are left when it is dropped.
pub struct HugePages {
    before: u64,
    mounted: bool,
}

impl HugePages {
    /// Reserves at least `pages` pages of 2 MiB, and has them mounted where DPDK looks.
    pub fn reserve(pages: u64) -> Result<HugePages, Error> {
        let before = fs::read_to_string(COUNT)?.trim().parse::<u64>()?;
        fs::write(COUNT, before.max(pages).to_string())?;
        fs::create_dir_all("/dev/hugepages")?;
        let there = fs::read_to_string("/proc/mounts")?.lines().any(|l| l.contains(" /dev/hugepages "));
        let mounted = !there
            && Command::new("mount").args(["-t", "hugetlbfs", "none", "/dev/hugepages"]).status()?.success();
        Ok(HugePages { before, mounted })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("/dev/hugepages").status();
        }
        let _ = fs::write(COUNT, self.before.to_string());
    }
}
