//! Addresses as the trie sees them, and prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address of either version: bits from the left of a word of 128.
pub trait Address:
    Copy + Eq + Ord + std::hash::Hash + fmt::Debug + fmt::Display + FromStr + Into<IpAddr>
{
    /// Bits of an address.
    const BITS: u8;
    /// The address, its first bit the highest of the word.
    fn to_word(self) -> u128;
    /// The address of a word; bits below the address's are not looked at.
    fn from_word(word: u128) -> Self;
}

impl Address for Ipv4Addr {
    const BITS: u8 = 32;
    fn to_word(self) -> u128 {
        u128::from(self.to_bits()) << 96
    }
    fn from_word(word: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits((word >> 96) as u32)
    }
}

impl Address for Ipv6Addr {
    const BITS: u8 = 128;
    fn to_word(self) -> u128 {
        self.to_bits()
    }
    fn from_word(word: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(word)
    }
}

/// A network: the addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix<A> {
    address: A,
    len: u8,
}

/// Why something is not a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixError {
    /// Not an address, a slash and a length.
    Malformed,
    /// Longer than an address.
    TooLong,
    /// Bits behind the prefix are set.
    HostBits,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PrefixError::Malformed => "a prefix is written ADDRESS/LENGTH",
            PrefixError::TooLong => "the prefix is longer than an address",
            PrefixError::HostBits => "bits behind the prefix are set",
        })
    }
}

impl std::error::Error for PrefixError {}

/// The first `len` bits set.
pub(super) fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

impl<A: Address> Prefix<A> {
    /// The first `len` bits of `address`, which are all that may be set.
    pub fn new(address: A, len: u8) -> Result<Prefix<A>, PrefixError> {
        if len > A::BITS {
            Err(PrefixError::TooLong)
        } else if address.to_word() & !mask(len) != 0 {
            Err(PrefixError::HostBits)
        } else {
            Ok(Prefix { address, len })
        }
    }

    /// The network of `len` bits that `address` is in; a longer `len` is an address's.
    pub fn of(address: A, len: u8) -> Prefix<A> {
        let len = len.min(A::BITS);
        Prefix { address: A::from_word(address.to_word() & mask(len)), len }
    }

    /// Its first address.
    pub fn address(self) -> A {
        self.address
    }

    /// Bits that its addresses have in common.
    #[allow(clippy::len_without_is_empty, reason = "it is a number of bits")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Whether it is all addresses there are.
    pub fn is_default(self) -> bool {
        self.len == 0
    }

    /// Whether `address` is in it.
    pub fn contains(self, address: A) -> bool {
        (address.to_word() ^ self.address.to_word()) & mask(self.len) == 0
    }
}

impl<A: Address> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl<A: Address> FromStr for Prefix<A> {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = text.split_once('/').ok_or(PrefixError::Malformed)?;
        let address = address.parse().map_err(|_| PrefixError::Malformed)?;
        let number: u8 = len.parse().map_err(|_| PrefixError::Malformed)?;
        if number.to_string() != len {
            return Err(PrefixError::Malformed);
        }
        Prefix::new(address, number)
    }
}
