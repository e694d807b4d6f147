//! Capture files: reading pcap and pcapng, writing pcapng.

mod reader;
mod writer;

pub use reader::{PcapError, RECORD_MAX, Reader, Record};
pub use writer::{Direction, Packet, Writer};

#[cfg(test)]
mod tests;
