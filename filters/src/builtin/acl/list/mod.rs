//! Lists of rules as they are written. The language is described in `docs/acl.md`.
//!
//! A written rule may name sets and lists; [`List::entries`] makes of it one [`Rule`] for each combination that applies
//! to a family.

mod error;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::ops::Range;

pub use error::ListError;

use super::classify::{Address, FlagTest, RULES_MAX, Rule, Span};

/// Longest text accepted, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// What becomes of a packet that matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It goes on.
    Permit,
    /// It is dropped.
    Deny,
    /// It is counted, and the search goes on.
    Count,
}

/// Addresses of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// IPv4.
    V4(Span<u32>),
    /// IPv6.
    V6(Span<u128>),
}

/// The addresses of a family, among networks of both.
pub trait FamilyAddress: Address {
    /// The network, if it is of this family.
    fn of(network: &Network) -> Option<Span<Self>>;
}

impl FamilyAddress for u32 {
    fn of(network: &Network) -> Option<Span<u32>> {
        if let Network::V4(span) = network { Some(*span) } else { None }
    }
}

impl FamilyAddress for u128 {
    fn of(network: &Network) -> Option<Span<u128>> {
        if let Network::V6(span) = network { Some(*span) } else { None }
    }
}

/// One rule as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What to do.
    pub action: Action,
    protocols: Vec<u8>,
    src: Vec<Network>,
    dst: Vec<Network>,
    sports: Vec<Span<u16>>,
    dports: Vec<Span<u16>>,
    flags: Option<FlagTest>,
    rcvif: Option<u16>,
}

/// A list of rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    text: String,
    /// In their order.
    pub rules: Vec<Written>,
}

impl List {
    /// Reads `text`. For the control thread.
    pub fn parse(text: &str) -> Result<List, ListError> {
        Ok(List { text: text.to_owned(), rules: parser::parse(text)? })
    }

    /// Rule `index` as it was written.
    pub fn text_of(&self, index: usize) -> &str {
        self.rules.get(index).and_then(|rule| self.text.get(rule.span.clone())).unwrap_or_default().trim_end()
    }

    /// The tests of all rules for one family, each with the index of its rule.
    pub fn entries<A: FamilyAddress>(&self) -> Result<Vec<(usize, Rule<A>)>, ListError> {
        let mut entries = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let room = RULES_MAX - entries.len();
            if rule.expand(|entry| entries.push((index, entry)), room).is_err() {
                let message = format!(
                    "with this rule the sets and lists of all rules make more than {RULES_MAX} combinations"
                );
                return Err(self.wrong(
                    index,
                    message,
                    "name a set on one side only, or use shorter prefixes",
                ));
            }
        }
        Ok(entries)
    }

    /// An error about rule `index`.
    pub fn wrong(&self, index: usize, message: impl Into<String>, cure: &'static str) -> ListError {
        let start = self.rules.get(index).map_or(0, |rule| rule.span.start);
        ListError::new(&self.text, start, message, cure)
    }
}

/// More combinations than there is room for.
struct NoRoom;

impl Written {
    fn expand<A: FamilyAddress>(&self, mut entry: impl FnMut(Rule<A>), room: usize) -> Result<(), NoRoom> {
        let side = |networks: &[Network]| -> Vec<Span<A>> {
            if networks.is_empty() { vec![Span::ANY] } else { networks.iter().filter_map(A::of).collect() }
        };
        let ports = |ports: &[Span<u16>]| if ports.is_empty() { vec![Span::ALL] } else { ports.to_vec() };
        let protocols: Vec<_> = if self.protocols.is_empty() {
            vec![None]
        } else {
            self.protocols.iter().copied().map(Some).collect()
        };
        let (src, dst) = (side(&self.src), side(&self.dst));
        let (sports, dports) = (ports(&self.sports), ports(&self.dports));
        let count = [src.len(), dst.len(), sports.len(), dports.len(), protocols.len()];
        if count.iter().try_fold(1usize, |product, n| product.checked_mul(*n)).is_none_or(|n| n > room) {
            return Err(NoRoom);
        }
        for src in &src {
            for dst in &dst {
                for sport in &sports {
                    for dport in &dports {
                        for protocol in &protocols {
                            entry(Rule {
                                src: *src,
                                dst: *dst,
                                protocol: *protocol,
                                sport: *sport,
                                dport: *dport,
                                flags: self.flags,
                                rcvif: self.rcvif,
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// `address/len`, an address, or a range of addresses with both ends.
fn network(word: &str) -> Result<Network, &'static str> {
    let parse =
        |text: &str| text.parse::<IpAddr>().map_err(|_| "write an address like 192.0.2.7 or 2001:db8::7");
    let (first, last) = if let Some((address, len)) = word.split_once('/') {
        let (address, len) = (parse(address)?, decimal(len).ok_or("write a prefix length behind `/`")?);
        match address {
            IpAddr::V4(a) if len <= 32 => return stray(a.to_bits(), len).map(Network::V4),
            IpAddr::V6(a) if len <= 128 => return stray(a.to_bits(), len).map(Network::V6),
            _ => return Err("IPv4 prefixes go up to /32, IPv6 prefixes up to /128"),
        }
    } else if let Some((first, last)) = word.split_once('-') {
        (parse(first)?, parse(last)?)
    } else {
        (parse(word)?, parse(word)?)
    };
    match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => Ok(Network::V4(Span::new(a.to_bits(), b.to_bits()))),
        (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => Ok(Network::V6(Span::new(a.to_bits(), b.to_bits()))),
        _ => Err("write the lower end of a range first, and both of one family"),
    }
}

fn stray<A: Address>(address: A, len: u32) -> Result<Span<A>, &'static str> {
    let span = Span::prefix(address, len);
    if span.first == address { Ok(span) } else { Err("clear the address bits behind the prefix") }
}

/// Digits only: `parse` alone would accept a sign.
fn decimal<N: std::str::FromStr>(text: &str) -> Option<N> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}
