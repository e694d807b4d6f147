//! IPv6 prefix translation (RFC 6296): one prefix stands for another, address by address, without any state.
//!
//! ```text
//!   output       from inside, not to inside    the source's prefix becomes the outside one
//!   prerouting   to the outside prefix         the destination's becomes the inside one; from inside: both (hairpin)
//! ```
//!
//! What the prefix changes of the address' sum, one 16-bit word behind it takes back, so no checksum of any protocol
//! changes (section 3.1). With prefixes up to /48 that is the word of the subnet, bits 48 to 63 (section 3.4); with longer
//! ones the first word of the interface identifier that is not all ones (section 3.5). An address without such a word
//! cannot be translated.

use std::net::Ipv6Addr;

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Icmp, Ipv6};

use super::tally::{Tally, Why};
use crate::flow::packet::{self, Role, V6};
use crate::kind::{Args, CreateError};
use crate::{Batch, DropReason};

const SRC: usize = 8;
const DST: usize = 24;

/// A prefix: its bits, and as many leading ones as it is long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Prefix {
    bits: u128,
    mask: u128,
}

impl Prefix {
    fn from_args(args: &Args, name: &str) -> Result<Prefix, CreateError> {
        let cure =
            format!("write {name} = \"2001:db8:1::/48\", 1 to 64 bits long, no bits behind the length");
        let Some(text) = args.text(name)? else {
            return Err(CreateError::new(format!("`{name}` is missing"), cure));
        };
        let read = || {
            let (addr, len) = text.split_once('/')?;
            let bits = addr.trim().parse::<Ipv6Addr>().ok()?.to_bits();
            let len = len.trim().parse::<u32>().ok().filter(|len| (1..=64).contains(len))?;
            let mask = u128::MAX << (128 - len);
            (bits & !mask == 0).then_some(Prefix { bits, mask })
        };
        read().ok_or_else(|| CreateError::new(format!("`{name}`: `{text}` is not such a prefix"), cure))
    }

    #[inline(always)]
    fn contains(&self, addr: u128) -> bool {
        addr & self.mask == self.bits
    }
}

/// The translator.
pub(super) struct Nat66 {
    inside: Prefix,
    outside: Prefix,
    /// What is added to the word behind the prefix on the way out; its complement on the way in.
    adjust: u16,
}

impl Nat66 {
    pub(super) const ARGS: [&str; 2] = ["inside_prefix", "outside_prefix"];

    pub(super) fn from_args(args: &Args) -> Result<Nat66, CreateError> {
        args.only(&Nat66::ARGS)?;
        let [inside, outside] =
            [Prefix::from_args(args, Nat66::ARGS[0])?, Prefix::from_args(args, Nat66::ARGS[1])?];
        if inside.mask != outside.mask {
            return Err(CreateError::new(
                "the prefixes differ in length",
                "make both as long as the longer one: hosts outside it have no address to stand for them",
            ));
        }
        if inside == outside {
            return Err(CreateError::new("both prefixes are the same", "give another `outside_prefix`"));
        }
        let adjust = add(sum(inside.bits), !sum(outside.bits));
        Ok(Nat66 { inside, outside, adjust })
    }

    /// Packets as they came.
    pub(super) fn prerouting(
        &self,
        batch: &mut Batch<'_>,
        tally: &Tally,
        reasons: &[DropReason; Why::COUNT],
    ) {
        for place in batch.places() {
            let Some(mbuf) = batch.get_mut(place) else { continue };
            packet::pullup(mbuf, V6::HEADERS_MAX);
            if !self.outside.contains(read(mbuf.data(), DST)) {
                continue;
            }
            let hairpin = self.inside.contains(read(mbuf.data(), SRC));
            let done = self.quoted(mbuf, DST, hairpin)
                && (!hairpin || self.outward(mbuf, SRC))
                && self.inward(mbuf, DST);
            match (done, hairpin) {
                (true, true) => tally.hairpin.add(1),
                (true, false) => tally.inbound.add(1),
                (false, _) => {
                    tally.invalid.add(1);
                    batch.drop(place, reasons[Why::Invalid as usize]);
                }
            }
        }
    }

    /// Packets that leave.
    pub(super) fn output(&self, batch: &mut Batch<'_>, tally: &Tally, reasons: &[DropReason; Why::COUNT]) {
        for place in batch.places() {
            let Some(mbuf) = batch.get_mut(place) else { continue };
            packet::pullup(mbuf, V6::HEADERS_MAX);
            let (src, dst) = (read(mbuf.data(), SRC), read(mbuf.data(), DST));
            let multicast = dst >> 120 == 0xff;
            if multicast || self.inside.contains(dst) {
                continue;
            }
            let mine = self.inside.contains(src);
            // An error of a router says of an inside host what that host sent or got.
            let done = self.quoted(mbuf, SRC, false) && (!mine || self.outward(mbuf, SRC));
            if !done {
                tally.invalid.add(1);
                batch.drop(place, reasons[Why::Invalid as usize]);
            } else if mine {
                tally.outbound.add(1);
            }
        }
    }

    /// Translates what an ICMPv6 error quotes, seen from its end `outer`: an error from outside quotes what went out, one
    /// from inside what came in. `false` if it cannot be.
    fn quoted(&self, mbuf: &mut Mbuf, outer: usize, hairpin: bool) -> bool {
        let Some(at) = quoted_at(mbuf.data()) else { return true };
        let (src, dst) = (read(mbuf.data(), at + SRC), read(mbuf.data(), at + DST));
        let inward = outer == DST && self.outside.contains(src);
        let outward = (outer == SRC || hairpin) && self.inside.contains(dst);
        (!outward || self.outward(mbuf, at + DST)) && (!inward || self.inward(mbuf, at + SRC))
    }

    /// The address at `at` goes from the inside prefix to the outside one; `false` if it cannot.
    fn outward(&self, mbuf: &mut Mbuf, at: usize) -> bool {
        self.swap(mbuf, at, &self.outside, self.adjust)
    }

    fn inward(&self, mbuf: &mut Mbuf, at: usize) -> bool {
        self.swap(mbuf, at, &self.inside, !self.adjust)
    }

    fn swap(&self, mbuf: &mut Mbuf, at: usize, to: &Prefix, adjust: u16) -> bool {
        let addr = read(mbuf.data(), at);
        let short = self.inside.mask.count_ones() <= 48;
        let mut words = if short { 3..4 } else { 4..8 };
        let Some(shift) = words.find_map(|word| {
            let shift = 112 - 16 * word;
            ((addr >> shift) as u16 != 0xffff).then_some(shift)
        }) else {
            return false;
        };
        let word = match add((addr >> shift) as u16, adjust) {
            0xffff => 0,
            word => word,
        };
        let moved = addr & !self.inside.mask & !(0xffff << shift) | u128::from(word) << shift;
        if let Some(field) = mbuf.data_mut().get_mut(at..at + 16) {
            field.copy_from_slice(&(to.bits | moved).to_be_bytes());
        }
        true
    }
}

/// Where the packet starts that an ICMPv6 error quotes, if this is one and the quoted header is there.
#[inline]
fn quoted_at(data: &[u8]) -> Option<usize> {
    let packet = V6::read(data).ok().filter(|packet| packet.upper.role == Role::Error)?;
    let at = packet.upper.offset + Icmp::HEADER_LEN;
    let end = Ipv6::new_quoted(data).ok()?.total_len().min(data.len());
    Ipv6::new_quoted(data.get(at..end)?).is_ok().then_some(at)
}

fn read(data: &[u8], at: usize) -> u128 {
    data.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// The one's-complement sum of the words of an address.
fn sum(bits: u128) -> u16 {
    (0..8).fold(0, |sum, word| add(sum, (bits >> (16 * word)) as u16))
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}
