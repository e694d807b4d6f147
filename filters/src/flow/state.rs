//! What a flow is and how long it may be silent: protocol class, direction, and a light TCP state machine, all in the
//! twelve flags of a record.
//!
//! The machine follows RFC 5382 section 5 and RFC 7857 section 2: it judges how long a connection may be silent, not
//! whether its segments are in window; that is for the two ends.
//!
//! ```text
//!   SYN ──▶ opening ──▶ (answer) replied ──▶ (ACK of the opener) established ──▶ FIN of both, or RST ──▶ closing
//! ```

use nke_mbuf::wire::{Protocol, TcpFlags};

use crate::kind::{Args, CreateError};

/// Which end of a flow a packet is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// The one that opened the flow.
    Original,
    /// The other one.
    Reply,
}

/// The flags of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State(pub(crate) u16);

const CLASS: u16 = 3;
const TCP: u16 = 0;
const UDP: u16 = 1;
const ICMP: u16 = 2;
const OTHER: u16 = 3;
const REPLIED: u16 = 1 << 2;
const ESTABLISHED: u16 = 1 << 3;
const FIN_ORIGINAL: u16 = 1 << 4;
const FIN_REPLY: u16 = 1 << 5;
const RESET: u16 = 1 << 6;
/// For keys that are the same in both directions: the opener is the upper of the two ends.
const UPPER_OPENED: u16 = 1 << 7;

impl State {
    /// A flow that its first packet has just opened.
    #[inline]
    pub(crate) fn opened(protocol: u8) -> State {
        State(match Protocol(protocol) {
            Protocol::TCP => TCP,
            Protocol::UDP => UDP,
            Protocol::ICMP | Protocol::ICMPV6 => ICMP,
            _ => OTHER,
        })
    }

    /// The same, noting which end opened it.
    pub(crate) fn by_upper(self, upper: bool) -> State {
        State(if upper { self.0 | UPPER_OPENED } else { self.0 })
    }

    /// Which end a packet is from, if the upper end sent it or not.
    #[inline]
    pub(crate) fn direction(self, from_upper: bool) -> Direction {
        match from_upper == (self.0 & UPPER_OPENED != 0) {
            true => Direction::Original,
            false => Direction::Reply,
        }
    }

    /// As users see it.
    pub(crate) fn name(self) -> &'static str {
        if self.is_closing() {
            "closing"
        } else if self.is_established() {
            "established"
        } else if self.0 & REPLIED != 0 {
            "replied"
        } else {
            "opening"
        }
    }

    /// After one more packet; `tcp` is 0 unless it is TCP.
    #[inline]
    #[must_use]
    pub(crate) fn after(self, direction: Direction, tcp: TcpFlags) -> State {
        let mut flags = self.0;
        let from_opener = direction == Direction::Original;
        if from_opener && self.is_closing() && self.opens(tcp) {
            flags &= CLASS | UPPER_OPENED;
        }
        if !from_opener {
            flags |= REPLIED;
        }
        if flags & CLASS != TCP {
            return State(flags | if from_opener { 0 } else { ESTABLISHED });
        }
        if tcp.contains(TcpFlags::RST) {
            return State(flags | RESET);
        }
        // Who goes on after a reset did not believe it (RFC 7857 section 2.2).
        flags &= !RESET;
        let acks = tcp.contains(TcpFlags::ACK) && !tcp.contains(TcpFlags::SYN);
        if from_opener && acks && flags & REPLIED != 0 {
            flags |= ESTABLISHED;
        }
        if tcp.contains(TcpFlags::FIN) {
            flags |= if from_opener { FIN_ORIGINAL } else { FIN_REPLY };
        }
        State(flags)
    }

    /// Whether a segment asks for a new connection.
    #[inline]
    pub(crate) fn opens(self, tcp: TcpFlags) -> bool {
        self.0 & CLASS == TCP && tcp.contains(TcpFlags::SYN) && !tcp.contains(TcpFlags::ACK)
    }

    /// Data flows both ways, and nobody has ended it.
    #[inline]
    pub(crate) fn is_established(self) -> bool {
        self.0 & ESTABLISHED != 0 && !self.is_closing()
    }

    /// A TCP connection that ended: both sent FIN, or one a reset.
    #[inline]
    pub(crate) fn is_closing(self) -> bool {
        const FINS: u16 = FIN_ORIGINAL | FIN_REPLY;
        self.0 & RESET != 0 || self.0 & FINS == FINS
    }
}

/// Seconds a flow may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timeouts {
    tcp_established_s: u32,
    tcp_transitory_s: u32,
    udp_s: u32,
    icmp_s: u32,
    other_s: u32,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            tcp_established_s: 2 * 3600 + 240, // RFC 5382 REQ-5
            tcp_transitory_s: 240,             // RFC 5382 REQ-5
            udp_s: 300,                        // RFC 4787 REQ-5
            icmp_s: 60,                        // RFC 5508 REQ-2
            other_s: 300,
        }
    }
}

impl Timeouts {
    /// Names of the arguments.
    pub(crate) const ARGS: [&str; 5] =
        ["tcp_established_s", "tcp_transitory_s", "udp_s", "icmp_s", "other_s"];

    /// From the arguments.
    pub(crate) fn from_args(args: &Args) -> Result<Timeouts, CreateError> {
        let default = Timeouts::default();
        let seconds = |name: &str, default: u32| {
            args.number(name, 1..=7 * 24 * 3600, i64::from(default)).map(|seconds| seconds as u32)
        };
        let [established, transitory, udp, icmp, other] = Timeouts::ARGS;
        Ok(Timeouts {
            tcp_established_s: seconds(established, default.tcp_established_s)?,
            tcp_transitory_s: seconds(transitory, default.tcp_transitory_s)?,
            udp_s: seconds(udp, default.udp_s)?,
            icmp_s: seconds(icmp, default.icmp_s)?,
            other_s: seconds(other, default.other_s)?,
        })
    }

    /// Seconds a flow in this state may be silent.
    #[inline]
    pub(crate) fn of(&self, state: State) -> u32 {
        match state.0 & CLASS {
            TCP if state.is_established() => self.tcp_established_s,
            TCP => self.tcp_transitory_s,
            UDP => self.udp_s,
            ICMP => self.icmp_s,
            _ => self.other_s,
        }
    }
}
