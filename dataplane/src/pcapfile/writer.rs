//! Writing pcapng: section header, interfaces with nanosecond time stamps, enhanced packet blocks (draft-ietf-opsawg-pcapng).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU32;
use std::path::Path;

use super::RECORD_MAX;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

mod option {
    pub(super) const COMMENT: u16 = 1;
    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_TSRESOL: u16 = 9;
    pub(super) const EPB_FLAGS: u16 = 2;
}

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Received.
    Inbound = 1,
    /// Sent.
    Outbound = 2,
}

/// What the packets of an interface begin with (the tcpdump group's list of link types).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet = 1,
    /// An IPv4 or IPv6 header; its first four bits say which.
    Raw = 101,
}

/// A packet to be written.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Number of its interface, from [`Writer::add_interface`].
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub ts_ns: u64,
    /// Its bytes, in pieces.
    pub pieces: &'a [&'a [u8]],
    /// Which way it went, if known.
    pub direction: Option<Direction>,
    /// A remark, such as a drop reason.
    pub comment: Option<&'a str>,
}

/// A pcapng file being written.
pub struct Writer<W: Write> {
    out: W,
    /// Most bytes kept of a packet, by interface.
    snaplens: Vec<u32>,
}

impl Writer<BufWriter<File>> {
    /// Makes a file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Writer::new(BufWriter::with_capacity(1 << 20, File::create(path)?))
    }
}

impl<W: Write> Writer<W> {
    /// Writes to `out`, the header first.
    pub fn new(mut out: W) -> io::Result<Writer<W>> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        body.extend([1, 0, 0, 0]); // version 1.0
        body.extend(u64::MAX.to_le_bytes()); // length of the section: not known
        block(&mut out, SECTION_HEADER, &body)?;
        Ok(Writer { out, snaplens: Vec::new() })
    }

    /// Adds an Ethernet interface whose packets are kept whole; returns its number.
    pub fn add_interface(&mut self, name: &str) -> io::Result<u32> {
        self.add_interface_of(name, LinkType::Ethernet, None)
    }

    /// Adds an interface; returns its number. Of each packet the first `snaplen_bytes` are kept, without it all.
    ///
    /// libpcap (1.10.3), and so tcpdump, stops reading at an interface whose link type or snaplen is not the first one's:
    /// a file for them has one of each.
    pub fn add_interface_of(
        &mut self,
        name: &str,
        link_type: LinkType,
        snaplen_bytes: Option<NonZeroU32>,
    ) -> io::Result<u32> {
        // In the file 0 stands for no limit.
        let snaplen = snaplen_bytes.map_or(0, NonZeroU32::get);
        let mut body = Vec::new();
        body.extend((link_type as u16).to_le_bytes());
        body.extend([0; 2]); // reserved
        body.extend(snaplen.to_le_bytes());
        add_option(&mut body, option::IF_NAME, name.as_bytes());
        add_option(&mut body, option::IF_TSRESOL, &[9]);
        end_options(&mut body);
        block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        self.snaplens.push(if snaplen == 0 { u32::MAX } else { snaplen });
        Ok(self.snaplens.len() as u32 - 1)
    }

    /// Writes a packet of at most [`RECORD_MAX`] bytes; what is over its interface's snaplen is cut off, its length kept.
    pub fn write(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let len: usize = packet.pieces.iter().map(|p| p.len()).sum();
        // Either would make a file that nobody reads past this packet.
        let snaplen = self.snaplens.get(packet.interface as usize).filter(|_| len <= RECORD_MAX);
        let Some(&snaplen) = snaplen else {
            let what = format!("a packet of {len} bytes on interface {}", packet.interface);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        let kept = len.min(snaplen as usize);
        let mut body = Vec::with_capacity(kept + 64);
        body.extend(packet.interface.to_le_bytes());
        body.extend(((packet.ts_ns >> 32) as u32).to_le_bytes());
        body.extend((packet.ts_ns as u32).to_le_bytes());
        body.extend((kept as u32).to_le_bytes());
        body.extend((len as u32).to_le_bytes());
        let mut left = kept;
        for piece in packet.pieces {
            let (now, _) = piece.split_at(piece.len().min(left));
            body.extend_from_slice(now);
            left -= now.len();
        }
        pad(&mut body);
        if let Some(direction) = packet.direction {
            add_option(&mut body, option::EPB_FLAGS, &(direction as u32).to_le_bytes());
        }
        if let Some(comment) = packet.comment {
            // A cut inside a character would not be UTF-8.
            let end = comment.floor_char_boundary(usize::from(u16::MAX));
            add_option(&mut body, option::COMMENT, &comment.as_bytes()[..end]);
        }
        if packet.direction.is_some() || packet.comment.is_some() {
            end_options(&mut body);
        }
        block(&mut self.out, ENHANCED_PACKET, &body)
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn add_option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn end_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}
