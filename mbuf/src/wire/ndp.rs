//! Neighbor discovery: solicitation and advertisement (RFC 4861 sections 4.3, 4.4 and 4.6).
//!
//! ```text
//!  0 ICMPv6 header | 4 flags: router, solicited, override | 8 target address | 24 options
//! ```
//!
//! Options count their length in 8-byte units and have no padding kind, so they are not [`super::Options`].

use super::bytes::{array, cut, put};
use super::icmp::{Icmp, v6};
use super::{EtherAddr, WireError};
use core::net::Ipv6Addr;

/// View of a neighbor solicitation or advertisement, from its ICMPv6 header on. Shape and panic promise: see
/// [the module](super). Checksum and type are read and written through [`Icmp`] on the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct Ndp<T>(T);

impl Ndp<()> {
    /// ICMPv6 header and target address.
    pub const HEADER_LEN: usize = 24;
    /// Bytes of a message with one link-layer address option: what NKE sends.
    pub const LEN_WITH_ADDR: usize = 32;
    /// Option kind: the sender's link-layer address, in a solicitation.
    pub const SOURCE_LINK_ADDR: u8 = 1;
    /// Option kind: the target's link-layer address, in an advertisement.
    pub const TARGET_LINK_ADDR: u8 = 2;
}

const FLAGS: usize = 4;
const TARGET: usize = 8;
const HEADER_LEN: usize = Ndp::HEADER_LEN;
const OPTION_UNIT: usize = 8;

impl<T: AsRef<[u8]>> Ndp<T> {
    /// [`Unsupported`](WireError::Unsupported) for other ICMPv6 types. `buf` is cut to the IP payload. The hop limit of
    /// 255 that section 7.1 demands is the caller's to check: it is in the IP header.
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let icmp = Icmp::new_checked(buf.as_ref())?;
        if !matches!(icmp.icmp_type(), v6::NEIGHBOR_SOLICITATION | v6::NEIGHBOR_ADVERTISEMENT) {
            return Err(WireError::Unsupported);
        }
        if buf.as_ref().len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(buf)) }
    }

    /// Solicitation, else advertisement.
    pub fn is_solicitation(&self) -> bool {
        self.0.as_ref()[0] == v6::NEIGHBOR_SOLICITATION
    }

    /// Advertisement: the sender is a router.
    pub fn router(&self) -> bool {
        self.0.as_ref()[FLAGS] & 0x80 != 0
    }

    /// Advertisement: the answer to a solicitation.
    pub fn solicited(&self) -> bool {
        self.0.as_ref()[FLAGS] & 0x40 != 0
    }

    /// Advertisement: replaces an address already cached.
    pub fn override_flag(&self) -> bool {
        self.0.as_ref()[FLAGS] & 0x20 != 0
    }

    /// The address asked for or announced.
    pub fn target(&self) -> Ipv6Addr {
        array(self.0.as_ref(), TARGET).into()
    }

    /// Walks the options.
    pub fn options(&self) -> NdpOptions<'_> {
        NdpOptions::new(cut(self.0.as_ref(), HEADER_LEN, usize::MAX))
    }

    /// The first link-layer address option of this kind. Fails on any malformed option, as section 7.1 demands.
    pub fn link_addr(&self, kind: u8) -> Result<Option<EtherAddr>, WireError> {
        let mut found = None;
        for option in self.options() {
            let option = option?;
            if option.kind == kind && found.is_none() {
                found = option.data.first_chunk().map(|addr| EtherAddr(*addr));
            }
        }
        Ok(found)
    }

    /// Gives the buffer back.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ndp<T> {
    /// Starts a solicitation (else advertisement): everything zero but the type, options included.
    pub fn init(mut buf: T, solicitation: bool) -> Result<Self, WireError> {
        let bytes = buf.as_mut();
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        bytes.fill(0);
        bytes[0] = if solicitation { v6::NEIGHBOR_SOLICITATION } else { v6::NEIGHBOR_ADVERTISEMENT };
        Ok(Self(buf))
    }

    /// Writes the flags of an advertisement.
    pub fn set_flags(&mut self, router: bool, solicited: bool, override_flag: bool) {
        let flags = u8::from(router) << 7 | u8::from(solicited) << 6 | u8::from(override_flag) << 5;
        self.0.as_mut()[FLAGS] = flags;
    }

    /// Writes the target address.
    pub fn set_target(&mut self, addr: Ipv6Addr) {
        put(self.0.as_mut(), TARGET, &addr.octets());
    }

    /// Writes a link-layer address as the first option; [`Truncated`](WireError::Truncated) if the buffer has no
    /// room for it.
    pub fn set_link_addr(&mut self, kind: u8, addr: EtherAddr) -> Result<(), WireError> {
        let option =
            self.0.as_mut().get_mut(HEADER_LEN..HEADER_LEN + OPTION_UNIT).ok_or(WireError::Truncated)?;
        option[0] = kind;
        option[1] = 1;
        put(option, 2, &addr.0);
        Ok(())
    }
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdpOption<'a> {
    /// Kind byte.
    pub kind: u8,
    /// Bytes behind the length byte.
    pub data: &'a [u8],
}

/// Walks the options. Each turn consumes at least 8 bytes or ends; a length of 0 or past the message yields
/// [`WireError::Option`] once, and the walk is over.
#[derive(Clone, Debug)]
pub struct NdpOptions<'a>(&'a [u8]);

impl<'a> NdpOptions<'a> {
    /// `area` is everything behind the fixed part of the message, which is longer in router discovery and redirects.
    pub const fn new(area: &'a [u8]) -> Self {
        Self(area)
    }
}

impl<'a> Iterator for NdpOptions<'a> {
    type Item = Result<NdpOption<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let len = self.0.get(1).map_or(0, |units| usize::from(*units) * OPTION_UNIT);
        match self.0.split_at_checked(len) {
            Some((option @ [kind, _, ..], rest)) => {
                self.0 = rest;
                Some(Ok(NdpOption { kind: *kind, data: &option[2..] }))
            }
            _ => {
                self.0 = &[];
                Some(Err(WireError::Option))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertisement_round_trip() {
        let (target, addr) = ("2001:db8::5".parse().unwrap(), EtherAddr([2, 0, 0, 0, 0, 5]));
        let mut ndp = Ndp::init([0xee; Ndp::LEN_WITH_ADDR], false).unwrap();
        ndp.set_flags(false, true, true);
        ndp.set_target(target);
        ndp.set_link_addr(Ndp::TARGET_LINK_ADDR, addr).unwrap();
        let ndp = Ndp::new_checked(ndp.into_inner()).unwrap();
        assert!(!ndp.is_solicitation() && !ndp.router() && ndp.solicited() && ndp.override_flag());
        assert_eq!(ndp.target(), target);
        assert_eq!(ndp.link_addr(Ndp::TARGET_LINK_ADDR), Ok(Some(addr)));
        assert_eq!(ndp.link_addr(Ndp::SOURCE_LINK_ADDR), Ok(None));
    }

    #[test]
    fn zero_and_overlong_options_are_errors() {
        for bad in [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[1, 2, 0, 0, 0, 0, 0, 0], &[1]] {
            let mut bytes = Ndp::init(vec![0; 24], true).unwrap().into_inner();
            bytes.extend(bad);
            let ndp = Ndp::new_checked(bytes).unwrap();
            assert_eq!(ndp.link_addr(1), Err(WireError::Option));
            assert_eq!(ndp.options().count(), 1);
        }
        let mut echo = [0; 24];
        echo[0] = v6::ECHO_REQUEST;
        assert_eq!(Ndp::new_checked(echo).err(), Some(WireError::Unsupported));
    }
}
