//! Reading, by the `pcap-parser` crate: both formats, both byte orders, one record at a time.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, PcapBlockOwned, PcapError as ParseError, create_reader};

/// Longest record read, in bytes; a buffer of twice as much is the memory a reader needs.
pub const RECORD_MAX: usize = 256 * 1024;

/// Why a file could not be read.
#[derive(Debug)]
pub enum PcapError {
    /// The system said no.
    Io(io::Error),
    /// Neither pcap nor pcapng.
    Format,
    /// A record is damaged, cut off, or longer than [`RECORD_MAX`]: its number, from 1.
    Record(u64),
}

impl fmt::Display for PcapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PcapError::Io(e) => e.fmt(f),
            PcapError::Format => {
                f.write_str("neither pcap nor pcapng; convert it, for instance with `editcap`")
            }
            PcapError::Record(n) => {
                write!(f, "record {n} is damaged, cut off, or longer than {RECORD_MAX} bytes")
            }
        }
    }
}

impl std::error::Error for PcapError {}

/// A captured packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Bytes of the packet on the wire; more than there are in `data` if it was captured in part.
    pub orig_len: u32,
    /// What was captured.
    pub data: Vec<u8>,
}

/// A capture file being read.
pub struct Reader {
    parser: Box<dyn PcapReaderIterator>,
    record: u64,
}

impl Reader {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Reader, PcapError> {
        Reader::new(File::open(path).map_err(PcapError::Io)?)
    }

    /// Reads from `source`.
    pub fn new(source: impl Read + Send + 'static) -> Result<Reader, PcapError> {
        let parser = create_reader(2 * RECORD_MAX, source).map_err(|e| match e {
            ParseError::ReadError => PcapError::Io(io::Error::other("cannot be read")),
            _ => PcapError::Format,
        })?;
        Ok(Reader { parser, record: 0 })
    }

    /// The next packet; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<Record>, PcapError> {
        let mut refilled_at = usize::MAX;
        loop {
            let damaged = PcapError::Record(self.record + 1);
            match self.parser.next() {
                Ok((used, block)) => {
                    let record = packet(&block);
                    self.parser.consume(used);
                    if let Some(record) = record {
                        self.record += 1;
                        return if record.data.len() > RECORD_MAX { Err(damaged) } else { Ok(Some(record)) };
                    }
                    refilled_at = usize::MAX;
                }
                Err(ParseError::Eof) => return Ok(None),
                Err(ParseError::Incomplete(_)) => {
                    // A refill that brings nothing will never complete the record.
                    let have = self.parser.data().len();
                    if have == refilled_at || self.parser.refill().is_err() {
                        return Err(damaged);
                    }
                    refilled_at = have;
                }
                Err(ParseError::ReadError) => return Err(PcapError::Io(io::Error::other("cannot be read"))),
                Err(_) => return Err(damaged),
            }
        }
    }
}

fn packet(block: &PcapBlockOwned<'_>) -> Option<Record> {
    match block {
        PcapBlockOwned::Legacy(b) => Some(Record { orig_len: b.origlen, data: b.data.to_vec() }),
        PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
            Some(Record { orig_len: b.origlen, data: b.packet_data().to_vec() })
        }
        PcapBlockOwned::NG(Block::SimplePacket(b)) => {
            Some(Record { orig_len: b.origlen, data: b.packet_data().to_vec() })
        }
        _ => None,
    }
}
