//! What fragments of one datagram share, and which worker they belong to.

use std::net::{Ipv4Addr, Ipv6Addr};

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Ipv4, Ipv6, Protocol};

use super::piece::fragment_header;
use nke_mbuf::hash::{KeyedHash, scale};

/// What fragments of one datagram share: RFC 791 section 3.2, RFC 8200 section 4.5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentKey {
    src: u128,
    dst: u128,
    ident: u32,
    /// Interface, where an address means something on its link only.
    zone: u16,
    protocol: u8,
    v6: bool,
}

impl FragmentKey {
    /// Of an IPv4 datagram.
    #[inline]
    pub fn v4(src: Ipv4Addr, dst: Ipv4Addr, ident: u16, protocol: Protocol) -> FragmentKey {
        FragmentKey {
            src: src.to_bits().into(),
            dst: dst.to_bits().into(),
            ident: ident.into(),
            zone: 0,
            protocol: protocol.0,
            v6: false,
        }
    }

    /// Of an IPv6 datagram received by interface `rcvif`. The protocol is no part of it: fragments of one datagram may
    /// name different ones.
    #[inline]
    pub fn v6(src: Ipv6Addr, dst: Ipv6Addr, ident: u32, rcvif: u16) -> FragmentKey {
        let on_link = src.is_unicast_link_local() || dst.is_unicast_link_local() || dst.is_multicast();
        FragmentKey {
            src: src.to_bits(),
            dst: dst.to_bits(),
            ident,
            zone: if on_link { rcvif } else { 0 },
            protocol: 0,
            v6: true,
        }
    }

    /// Of a packet whose data starts at the IP header; `None` if it is no fragment (or no IP packet).
    pub fn of(mbuf: &Mbuf) -> Option<FragmentKey> {
        let data = mbuf.data();
        match data.first()? >> 4 {
            4 => {
                let ip = Ipv4::new_quoted(data).ok().filter(Ipv4::is_fragment)?;
                Some(FragmentKey::v4(ip.src(), ip.dst(), ip.ident(), ip.protocol()))
            }
            6 => {
                let ip = Ipv6::new_quoted(data).ok()?;
                let fragment = fragment_header(&ip)?;
                Some(FragmentKey::v6(ip.src(), ip.dst(), fragment.ident, mbuf.rcvif()))
            }
            _ => None,
        }
    }

    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    #[inline]
    pub(super) fn hash(&self, hash: &KeyedHash) -> u64 {
        if self.v6 {
            let (src, dst) = (self.src, self.dst);
            let rest = u64::from(self.ident) | u64::from(self.zone) << 32;
            hash.words([(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64, rest])
        } else {
            let rest = u64::from(self.ident) | u64::from(self.protocol) << 16;
            hash.words([(self.src as u64) << 32 | self.dst as u64, rest])
        }
    }

    /// The hash of who sent it. An IPv6 sender owns at least a /64 and counts as one.
    #[inline]
    pub(super) fn source_hash(&self, hash: &KeyedHash) -> u64 {
        hash.words([if self.v6 { (self.src >> 64) as u64 } else { self.src as u64 }])
    }
}

/// Which worker reassembles which datagram. All workers use the same one.
#[derive(Clone, Copy)]
pub struct Steering(KeyedHash);

impl Steering {
    /// `key` is random, and not that of a [`Reassembler`](super::Reassembler): two tables with one key would put what is
    /// together in the first together in the second.
    pub const fn new(key: [u64; 2]) -> Steering {
        Steering(KeyedHash::new(key))
    }

    /// The keyed hash of what the fragments share.
    #[inline]
    pub fn key_hash(&self, key: &FragmentKey) -> u64 {
        key.hash(&self.0)
    }

    /// The worker out of `workers`, below it (0 if there are none).
    #[inline]
    pub fn worker(&self, key: &FragmentKey, workers: usize) -> usize {
        scale(self.key_hash(key), workers)
    }
}
