//! Match by a simple expression, in the style of tcpdump.
//!
//! ```
//! use nke_filters::expr::Expr;
//!
//! let expr = Expr::parse("ip and not (tcp port 22 or src net 10.0.0.0/8)").unwrap();
//! assert_eq!(expr.to_string(), "ip and not ((tcp and port 22) or src net 10.0.0.0/8)");
//! assert!(!expr.matches(&[0; 60]));
//! ```
//!
//! # What can be written
//!
//! | primitive | matches |
//! |---|---|
//! | `ether src\|dst\|host MAC` | Ethernet addresses |
//! | `ether proto N` | the type behind all VLAN tags |
//! | `arp`, `ip`, `ip6` | short for three of these types |
//! | `vlan`, `vlan ID` | a tagged frame; one with this ID in any of its tags |
//! | `tcp`, `udp`, `proto N` | the upper protocol, behind IPv6 extension headers too, fragments included |
//! | `icmp`, `icmp6` | ICMP over IPv4, ICMPv6 over IPv6 |
//! | `[src\|dst] host ADDR` | addresses of IP, or sender and target of ARP; without a direction, either |
//! | `[src\|dst] net ADDR/LEN` | the same by prefix |
//! | `[src\|dst] port N` | TCP or UDP ports; never a later fragment, which has none |
//! | `[src\|dst] portrange A-B` | the same, both ends included |
//! | `len >= N`, `len <= N` | bytes of the frame, Ethernet header included, FCS not |
//! | `fragment` | any piece of a fragmented IP packet, the first included |
//! | `malformed` | a header cut short, or one whose lengths contradict each other |
//!
//! They combine with `not` or `!`, `and` or `&&`, `or` or `||`, and parentheses. A protocol in front of an address
//! or a port is short for both: `tcp port 80` is `(tcp and port 80)`. Numbers are decimal or `0x` hexadecimal.
//!
//! # Where it differs from tcpdump
//!
//! - `and` and `or` side by side need parentheses. tcpdump gives them equal rank and C does not; a filter that
//!   drops packets is no place to guess which was meant.
//! - `vlan` is a plain test. It does not change what the primitives behind it mean, since tags are always looked
//!   through.
//! - No names, neither of hosts nor of ports: matching must not depend on a resolver.
//! - A header that does not hold has no addresses and no ports, so it escapes `host` and `port`, and under `not` it
//!   matches. Say `malformed or ...` to catch it; the stack drops such packets a step later anyway.
//!
//! # How it runs
//!
//! Text becomes a tree, the tree a list of tests with two forward jumps each, which short-circuits as written and
//! always ends. Matching neither allocates nor recurses. Parsing is bounded by [`TEXT_BYTES_MAX`], [`NODES_MAX`] and
//! [`DEPTH_MAX`], so an expression from a stranger is safe to parse and to run.

mod ast;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod harness;
mod lexer;
mod parser;
mod primitive;
mod program;
#[cfg(test)]
mod tests;

pub use error::ExprError;

use core::fmt;
use core::str::FromStr;
use nke_mbuf::wire::Layers;

/// Longest text accepted, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most primitives and operators in one expression; a run of `and`s or of `or`s counts as one operator.
pub const NODES_MAX: usize = 256;
/// Deepest nesting of parentheses and `not`.
pub const DEPTH_MAX: usize = 32;

/// A compiled expression. See [the module](self) for the language.
///
/// Two are equal if they print alike: `!ip` equals `not ip`, but `ip and arp` does not equal `arp and ip`.
#[derive(Clone, Debug)]
pub struct Expr {
    /// The canonical text: what was parsed, with one spelling for everything.
    text: Box<str>,
    program: program::Program,
}

impl Expr {
    /// Compiles `text`. For the control plane: allocates.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        let ast = parser::parse(text)?;
        let canonical = ast.to_string();
        if canonical.len() > TEXT_BYTES_MAX {
            // Else the printed form, stored in a configuration, could not be read back.
            return Err(ExprError::too_long(text.len()));
        }
        Ok(Self { text: canonical.into(), program: program::Program::compile(&ast) })
    }

    /// Whether an Ethernet frame matches. Never panics, never allocates.
    #[inline]
    pub fn matches(&self, frame: &[u8]) -> bool {
        self.matches_layers(&Layers::parse(frame), frame.len())
    }

    /// [`matches`](Self::matches) for an IP packet without a link header: `len` means the packet, and addresses of Ethernet
    /// and VLAN tags match nothing.
    #[inline]
    pub fn matches_ip(&self, packet: &[u8]) -> bool {
        self.matches_layers(&Layers::parse_ip(packet), packet.len())
    }

    /// [`matches`](Self::matches) for a frame of `len_bytes` that was parsed already: several expressions can share
    /// one pass.
    #[inline]
    pub fn matches_layers(&self, layers: &Layers, len_bytes: usize) -> bool {
        self.program.run(layers, len_bytes)
    }

    /// The canonical text: parses to an equal expression.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Expr {
    type Err = ExprError;

    fn from_str(text: &str) -> Result<Self, ExprError> {
        Self::parse(text)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expr {}
