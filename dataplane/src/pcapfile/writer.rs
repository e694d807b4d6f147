//! Writing pcapng: section header, interfaces with nanosecond time stamps, enhanced packet blocks (draft-ietf-opsawg-pcapng).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::RECORD_MAX;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

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
    interfaces: u32,
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
        Ok(Writer { out, interfaces: 0 })
    }

    /// Adds an interface; returns its number.
    pub fn add_interface(&mut self, name: &str) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend(LINKTYPE_ETHERNET.to_le_bytes());
        body.extend([0; 6]); // reserved, and no limit to the length
        add_option(&mut body, option::IF_NAME, name.as_bytes());
        add_option(&mut body, option::IF_TSRESOL, &[9]);
        end_options(&mut body);
        block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes a packet of at most [`RECORD_MAX`] bytes.
    pub fn write(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let len: usize = packet.pieces.iter().map(|p| p.len()).sum();
        // Either would make a file that nobody reads past this packet.
        if packet.interface >= self.interfaces || len > RECORD_MAX {
            let what = format!("a packet of {len} bytes on interface {}", packet.interface);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut body = Vec::with_capacity(len + 64);
        body.extend(packet.interface.to_le_bytes());
        body.extend(((packet.ts_ns >> 32) as u32).to_le_bytes());
        body.extend((packet.ts_ns as u32).to_le_bytes());
        body.extend((len as u32).to_le_bytes());
        body.extend((len as u32).to_le_bytes());
        packet.pieces.iter().for_each(|p| body.extend_from_slice(p));
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
