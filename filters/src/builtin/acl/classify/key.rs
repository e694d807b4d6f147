//! What is looked up, what it is compared with, and what matching means.

use core::fmt::Debug;

/// An address as a number: `u32` for IPv4, `u128` for IPv6, both in host order.
pub trait Address: Copy + Ord + Debug + Send + Sync + 'static {
    /// Bits of an address.
    const BITS: u32;
    /// The lowest address.
    const MIN: Self;
    /// The highest one.
    const MAX: Self;

    /// The number.
    fn wide(self) -> u128;
    /// The address of this number, which has at most [`Address::BITS`] bits.
    fn narrow(number: u128) -> Self;
    /// How far it is above `base`; 0 if it is not.
    fn above(self, base: Self) -> Self;
    /// The one behind it; the highest stays.
    fn after(self) -> Self;
    /// The bits from `shift` on that are in `mask`.
    fn bits(self, shift: u32, mask: u32) -> usize;
}

impl Address for u32 {
    const BITS: u32 = 32;
    const MIN: u32 = 0;
    const MAX: u32 = u32::MAX;

    #[inline(always)]
    fn wide(self) -> u128 {
        self.into()
    }

    fn narrow(number: u128) -> u32 {
        number as u32
    }

    #[inline(always)]
    fn above(self, base: u32) -> u32 {
        self.saturating_sub(base)
    }

    #[inline(always)]
    fn after(self) -> u32 {
        self.saturating_add(1)
    }

    #[inline(always)]
    fn bits(self, shift: u32, mask: u32) -> usize {
        (self >> (shift & 31) & mask) as usize
    }
}

impl Address for u128 {
    const BITS: u32 = 128;
    const MIN: u128 = 0;
    const MAX: u128 = u128::MAX;

    #[inline(always)]
    fn wide(self) -> u128 {
        self
    }

    fn narrow(number: u128) -> u128 {
        number
    }

    #[inline(always)]
    fn above(self, base: u128) -> u128 {
        self.saturating_sub(base)
    }

    #[inline(always)]
    fn after(self) -> u128 {
        self.saturating_add(1)
    }

    #[inline(always)]
    fn bits(self, shift: u32, mask: u32) -> usize {
        ((self >> (shift & 127)) as u32 & mask) as usize
    }
}

/// All values from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Span<T> {
    /// The lowest value.
    pub first: T,
    /// The highest value, not below `first`.
    pub last: T,
}

impl<T: Copy + Ord> Span<T> {
    /// From `first` to `last`.
    pub const fn new(first: T, last: T) -> Span<T> {
        Span { first, last }
    }

    /// One value.
    pub const fn one(value: T) -> Span<T> {
        Span { first: value, last: value }
    }

    /// Whether `value` lies in it.
    #[inline(always)]
    pub fn contains(&self, value: T) -> bool {
        self.first <= value && value <= self.last
    }
}

impl Span<u16> {
    /// Every port.
    pub const ALL: Span<u16> = Span { first: 0, last: u16::MAX };
}

impl<A: Address> Span<A> {
    /// Every address.
    pub const ANY: Span<A> = Span { first: A::MIN, last: A::MAX };

    /// The addresses that share the first `len` bits of `address`; `len` is at most [`Address::BITS`].
    pub fn prefix(address: A, len: u32) -> Span<A> {
        let host_bits = A::BITS - len.min(A::BITS);
        let low = 1u128.checked_shl(host_bits).map_or(u128::MAX, |one| one - 1);
        let first = address.wide() & !low;
        Span { first: A::narrow(first), last: A::narrow(first | low) }
    }
}

/// What a packet is classified by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port; the type of an ICMP message.
    pub sport: u16,
    /// Destination port; the code of an ICMP message.
    pub dport: u16,
    /// Upper protocol.
    pub protocol: u8,
    /// Whether the upper protocol's header is there, so that ports and flags mean something: not in later fragments.
    pub upper: bool,
    /// TCP flags.
    pub flags: u8,
    /// Number of the interface it was received by.
    pub rcvif: u16,
}

/// What a packet has to be like. Everything that is not restricted matches everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rule<A> {
    /// Source addresses.
    pub src: Span<A>,
    /// Destination addresses.
    pub dst: Span<A>,
    /// Upper protocol.
    pub protocol: Option<u8>,
    /// Source ports, ICMP types. Restricted, they need a protocol and a packet with an upper header.
    pub sport: Span<u16>,
    /// Destination ports, ICMP codes; likewise.
    pub dport: Span<u16>,
    /// TCP flags: those in `mask` are exactly those in `set`; likewise.
    pub flags: Option<FlagTest>,
    /// Number of the receiving interface.
    pub rcvif: Option<u16>,
}

/// A test of TCP flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlagTest {
    /// The flags that are on; a part of `mask`.
    pub set: u8,
    /// The flags that are looked at.
    pub mask: u8,
}

impl<A: Address> Rule<A> {
    /// Matches everything.
    pub const ANY: Rule<A> = Rule {
        src: Span::ANY,
        dst: Span::ANY,
        protocol: None,
        sport: Span::ALL,
        dport: Span::ALL,
        flags: None,
        rcvif: None,
    };

    /// Whether it looks into the upper header.
    pub fn needs_upper(&self) -> bool {
        self.sport != Span::ALL || self.dport != Span::ALL || self.flags.is_some()
    }

    /// The definition of matching. [`super::Classifier`] finds the first rule for which it holds.
    pub fn matches(&self, key: &Key<A>) -> bool {
        self.src.contains(key.src)
            && self.dst.contains(key.dst)
            && self.protocol.is_none_or(|p| p == key.protocol)
            && (key.upper || !self.needs_upper())
            && self.sport.contains(key.sport)
            && self.dport.contains(key.dport)
            && self.flags.is_none_or(|f| key.flags & f.mask == f.set)
            && self.rcvif.is_none_or(|i| i == key.rcvif)
    }
}
