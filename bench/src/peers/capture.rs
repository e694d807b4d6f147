//! Frames in a capture file, for peers that read one over and over.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nke_dataplane::pcapfile::ClassicWriter;

use crate::stats::Error;

/// A capture file; gone when dropped.
pub struct Capture(PathBuf);

impl Capture {
    /// Of `count` frames of 60 bytes, each filled by `make` with its number.
    pub fn of(count: usize, make: impl Fn(&mut [u8], u32)) -> Result<Capture, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nke-bench-{}-{number}.pcap", std::process::id()));
        let mut writer = ClassicWriter::new(BufWriter::new(File::create(&path)?))?;
        let capture = Capture(path);
        for i in 0..count {
            let mut frame = [0; 60];
            make(&mut frame, i as u32);
            writer.write(0, &frame)?;
        }
        writer.flush()?;
        Ok(capture)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// DPDK's device that receives it over and over.
    pub fn vdev(&self) -> String {
        format!("net_pcap0,rx_pcap={},infinite_rx=1", self.path().display())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
