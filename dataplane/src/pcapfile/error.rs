//! Why a capture file could not be read, and what to do.

use std::fmt;
use std::io;

use super::RECORD_MAX;
use super::section::INTERFACES_MAX;

/// Why a file could not be read.
#[derive(Debug)]
pub enum PcapError {
    /// The system said no.
    Io(io::Error),
    /// Neither pcap nor pcapng.
    Format,
    /// Packets of another link type than Ethernet: its number in the registry of the tcpdump group.
    LinkType(i32),
    /// A record cannot be used.
    Record {
        /// Its number, from 1.
        number: u64,
        /// Where it begins, or the block before it that is damaged: bytes from the start of the file.
        offset: u64,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// The file ends in the middle.
    CutOff,
    /// It, or a block before it, is longer than a reader's buffer.
    TooLong,
    /// Its lengths contradict each other.
    Damaged,
    /// It names an interface that the file does not describe.
    NoInterface,
    /// More interfaces than a reader remembers.
    TooManyInterfaces,
}

impl PcapError {
    /// Stable identifier.
    pub fn id(&self) -> &'static str {
        match self {
            PcapError::Io(_) => "NKE-PCAP-001",
            PcapError::Format => "NKE-PCAP-002",
            PcapError::LinkType(_) => "NKE-PCAP-003",
            PcapError::Record { .. } => "NKE-PCAP-004",
        }
    }

    /// Why.
    pub fn cause(&self) -> String {
        match self {
            PcapError::Io(e) => e.to_string(),
            PcapError::Format => "neither pcap nor pcapng".to_owned(),
            PcapError::LinkType(n) => format!("packets of link type {n} are not Ethernet frames"),
            PcapError::Record { number, offset, flaw } => {
                let what = match flaw {
                    Flaw::CutOff => "is cut off".to_owned(),
                    Flaw::TooLong => format!("is longer than {RECORD_MAX} bytes"),
                    Flaw::Damaged => "is damaged".to_owned(),
                    Flaw::NoInterface => "names an interface the file does not describe".to_owned(),
                    Flaw::TooManyInterfaces => format!("follows more than {INTERFACES_MAX} interfaces"),
                };
                format!("record {number} at byte {offset} {what}")
            }
        }
    }

    /// What to do.
    pub fn cure(&self) -> String {
        match self {
            PcapError::Io(_) => "check the file's path and mode".to_owned(),
            PcapError::Format => "convert it: editcap -F pcapng FROM TO".to_owned(),
            PcapError::LinkType(_) => "capture on an Ethernet device (not `-i any`)".to_owned(),
            PcapError::Record { number, .. } => match number - 1 {
                0 => "capture it again".to_owned(),
                good => format!("keep the records before it: tcpdump -r FROM -c {good} -w TO"),
            },
        }
    }
}

impl fmt::Display for PcapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause(), self.cure())
    }
}

impl std::error::Error for PcapError {}
