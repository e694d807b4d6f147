//! Capture files: reading pcap and pcapng, writing both.
//!
//! Reading is done by the `pcap-parser` crate, one record at a time in a buffer of fixed size; [`Reader`] adds what a
//! replay needs: times in nanoseconds, interfaces, limits, and errors that say where in the file. Only Ethernet is read:
//! frames of another link type would be nonsense on our ports.

mod classic;
mod error;
mod reader;
mod section;
mod source;
mod writer;

pub use classic::ClassicWriter;
pub use error::{Flaw, PcapError};
pub use reader::{RECORD_MAX, Reader, Record};
pub use writer::{Direction, LinkType, Packet, Writer};

#[cfg(test)]
mod tests;
