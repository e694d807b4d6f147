//! Reading: both formats, both byte orders, one record at a time.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, PcapBlockOwned, PcapError as ParseError, create_reader};

use super::error::{Flaw, PcapError};
use super::section::{Section, time};
use super::source::{Failure, Source};

/// Longest record read, in bytes; a buffer of twice as much is the memory a reader needs.
pub const RECORD_MAX: usize = 256 * 1024;

/// A captured packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Nanoseconds since 1970; 0 if the file does not say.
    pub ts_ns: u64,
    /// Number of its interface in the file's section.
    pub interface: u32,
    /// Bytes of the packet on the wire; more than there are in `data` if it was captured in part.
    pub orig_len: u32,
    /// What was captured.
    pub data: Vec<u8>,
}

/// A capture file being read.
pub struct Reader {
    parser: Box<dyn PcapReaderIterator + Send>,
    failure: Failure,
    section: Section,
    /// Records read so far.
    records: u64,
}

/// What keeps a block from being a record.
enum Refused {
    Flaw(Flaw),
    LinkType(i32),
}

impl From<Flaw> for Refused {
    fn from(flaw: Flaw) -> Refused {
        Refused::Flaw(flaw)
    }
}

impl Reader {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Reader, PcapError> {
        Reader::new(File::open(path).map_err(PcapError::Io)?)
    }

    /// Reads from `source`, as much at a time as the buffer holds.
    pub fn new(source: impl Read + Send + 'static) -> Result<Reader, PcapError> {
        let (source, failure) = Source::new(source);
        let parser = create_reader(2 * RECORD_MAX, source).map_err(|e| match e {
            ParseError::ReadError => PcapError::Io(failure.error()),
            _ => PcapError::Format,
        })?;
        Ok(Reader { parser, failure, section: Section::default(), records: 0 })
    }

    /// The next packet; `None` at the end. After an error there is no next one.
    pub fn next_record(&mut self) -> Result<Option<Record>, PcapError> {
        let mut refilled_at = usize::MAX;
        loop {
            let missing = match self.parser.next() {
                Ok((used, block)) => {
                    let record = take(&mut self.section, &block).map_err(|why| self.refused(why))?;
                    self.parser.consume(used);
                    if record.is_some() {
                        self.records += 1;
                        return Ok(record);
                    }
                    refilled_at = usize::MAX;
                    continue;
                }
                Err(ParseError::Eof) => return Ok(None),
                Err(ParseError::ReadError) => return Err(PcapError::Io(self.failure.error())),
                Err(ParseError::Incomplete(_)) => None,
                Err(ParseError::UnexpectedEof) => Some(Flaw::CutOff),
                Err(ParseError::BufferTooSmall) => Some(Flaw::TooLong),
                Err(_) => return Err(self.refused(Flaw::Damaged.into())),
            };
            let have = self.parser.data().len();
            // A refill that brought nothing will bring no more.
            let stuck = (have == refilled_at).then_some(Flaw::Damaged);
            let inside = self.section.has_whole_block(self.parser.data()).then_some(Flaw::Damaged);
            if let Some(flaw) = inside.or(missing).or(stuck) {
                return Err(self.refused(flaw.into()));
            }
            if self.parser.refill().is_err() {
                return Err(PcapError::Io(self.failure.error()));
            }
            refilled_at = have;
        }
    }

    /// The error for the block the parser is at.
    fn refused(&self, why: Refused) -> PcapError {
        match why {
            Refused::LinkType(link_type) => PcapError::LinkType(link_type),
            Refused::Flaw(flaw) => {
                let offset = self.parser.consumed() as u64;
                PcapError::Record { number: self.records + 1, offset, flaw }
            }
        }
    }
}

/// The record in a block, if it is one; other blocks change what `section` knows.
fn take(section: &mut Section, block: &PcapBlockOwned<'_>) -> Result<Option<Record>, Refused> {
    let (interface, time, orig_len, data) = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *section = Section::classic(header);
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::SectionHeader(header)) => {
            *section = Section::begin(header.big_endian());
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            section.describe(description)?;
            return Ok(None);
        }
        PcapBlockOwned::Legacy(b) => {
            let per_second = section.interface(0)?.per_second();
            let time = u64::from(b.ts_sec) * per_second + u64::from(b.ts_usec);
            (0, Some(time), b.origlen, b.data)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
            (b.if_id, Some(time(b.ts_high, b.ts_low)), b.origlen, b.packet_data())
        }
        PcapBlockOwned::NG(Block::SimplePacket(b)) => {
            (0, None, b.origlen, section.interface(0)?.unpadded(b.data, b.origlen))
        }
        PcapBlockOwned::NG(Block::Unknown(b)) => match section.packet_block(b.block_type, b.data) {
            Some(b) => b.map(|b| (b.interface, Some(b.time), b.orig_len, b.data))?,
            None => return Ok(None),
        },
        PcapBlockOwned::NG(_) => return Ok(None),
    };
    let known = section.interface(interface)?;
    if !known.is_ethernet() {
        return Err(Refused::LinkType(known.link_type()));
    }
    if data.len() > RECORD_MAX {
        return Err(Flaw::TooLong.into());
    }
    let ts_ns = time.map_or(0, |time| known.ns(time));
    Ok(Some(Record { ts_ns, interface, orig_len, data: data.to_vec() }))
}
