//! Writing classic pcap with nanosecond time stamps, for tools that read nothing else.

use std::io::{self, Write};

use super::RECORD_MAX;

const MAGIC_NS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
const NS_PER_S: u64 = 1_000_000_000;

/// A pcap file being written. Buffer `out`: each packet is two writes.
pub struct ClassicWriter<W: Write> {
    out: W,
}

impl<W: Write> ClassicWriter<W> {
    /// Writes to `out`, the header first.
    pub fn new(mut out: W) -> io::Result<ClassicWriter<W>> {
        // Version 2.4, in two halves; no time zone; accuracy not known.
        write_words(&mut out, [MAGIC_NS, 4 << 16 | 2, 0, 0, RECORD_MAX as u32, LINKTYPE_ETHERNET])?;
        Ok(ClassicWriter { out })
    }

    /// Writes a packet captured `ts_ns` nanoseconds after 1970, of which all bytes are in `data`.
    pub fn write(&mut self, ts_ns: u64, data: &[u8]) -> io::Result<()> {
        if data.len() > RECORD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a packet too long for a capture file"));
        }
        // 32 bits of seconds last until 2106.
        let (seconds, ns, len) = ((ts_ns / NS_PER_S) as u32, (ts_ns % NS_PER_S) as u32, data.len() as u32);
        write_words(&mut self.out, [seconds, ns, len, len])?;
        self.out.write_all(data)
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_words<const N: usize>(out: &mut impl Write, words: [u32; N]) -> io::Result<()> {
    out.write_all(words.map(u32::to_le_bytes).as_flattened())
}
