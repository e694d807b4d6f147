//! Validation of IP headers as they come off a link (RFC 1122 section 3.2.1, RFC 1812 section 5.2.2, RFC 8200).

use nke_filters::DropReason;
use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Ipv4, Ipv6, WireError};

use crate::drop::{IP_BAD_CHECKSUM, IP_BAD_HEADER, IP_BAD_OPTION, IP_MARTIAN, IP_SHORT};

/// Length of Ethernet's header.
pub(super) const ETHER_LEN: usize = 14;

/// Checks the IPv4 packet behind `link_len` bytes of link header and cuts `mbuf` to it: data starts at the IP header
/// afterwards, padding is gone. The header is contiguous, its lengths and checksum are right, its source can be one.
#[inline(always)]
pub(super) fn v4(mbuf: &mut Mbuf, link_len: usize) -> Result<(), DropReason> {
    let data = mbuf.data();
    let Some(header) = data.get(link_len..).and_then(<[u8]>::first_chunk::<20>) else {
        return v4_scattered(mbuf, link_len);
    };
    if header[0] != 0x45 {
        return v4_options(mbuf, link_len);
    }
    if !sums_up(header) {
        return Err(IP_BAD_CHECKSUM);
    }
    if unlikely_source(header[12]) && !v4_source(header) {
        return Err(IP_MARTIAN);
    }
    if matches!(header[16], 0 | 127) {
        return Err(IP_MARTIAN);
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    cut(mbuf, link_len, total, Ipv4::HEADER_LEN)
}

/// The nearly only case, in few steps: an intact IPv4 packet without options behind `ETHER_LEN` bytes, in one frame, between
/// addresses that can be. Cuts `mbuf` to it as [`v4`] does and returns its destination; of any other packet nothing is said.
#[inline(always)]
pub(super) fn plain_v4(mbuf: &mut Mbuf, ip: &[u8; 20]) -> Option<u32> {
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let there = mbuf.len() - ETHER_LEN;
    let possible = !unlikely_source(ip[12]) && !matches!(ip[16], 0 | 127);
    if ip[0] != 0x45 || total < Ipv4::HEADER_LEN || total > there || !possible || !sums_up(ip) {
        return None;
    }
    let destination = u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]);
    mbuf.narrow(ETHER_LEN, total);
    Some(destination)
}

/// Takes the link header and the padding off.
#[inline(always)]
fn cut(mbuf: &mut Mbuf, link_len: usize, total: usize, least: usize) -> Result<(), DropReason> {
    let there = mbuf.len() - link_len;
    if total < least {
        return Err(IP_BAD_HEADER);
    }
    if total > there {
        return Err(IP_SHORT);
    }
    mbuf.narrow(link_len, total);
    Ok(())
}

/// Whether the sum over an IPv4 header without options is that of an intact one.
#[inline(always)]
fn sums_up(header: &[u8; 20]) -> bool {
    let [a, b, c, d, e] = *header.as_chunks::<4>().0 else { return false };
    let word = |bytes| u64::from(u32::from_ne_bytes(bytes));
    let sum = word(a) + word(b) + word(c) + word(d) + word(e);
    // In ones' complement an intact header's words add up to 0xffff, which is a multiple of it; none of them is 0 as a whole.
    sum % 0xffff == 0
}

/// First bytes of addresses that are nobody's, or not on a link: 0, 127, and 224 and up.
#[inline(always)]
fn unlikely_source(first: u8) -> bool {
    matches!(first, 0 | 127 | 224..)
}

/// 0.0.0.0 is a source only to find out what one's address is (RFC 1122 section 3.2.1.3): DHCP.
#[cold]
fn v4_source(header: &[u8; 20]) -> bool {
    header[12..16] == [0; 4] && header[16..20] == [255; 4]
}

/// A header that is not in the first frame of a chain.
#[cold]
fn v4_scattered(mbuf: &mut Mbuf, link_len: usize) -> Result<(), DropReason> {
    if mbuf.len() < link_len + Ipv4::HEADER_LEN || !mbuf.pullup(link_len + Ipv4::HEADER_LEN) {
        return Err(IP_SHORT);
    }
    v4(mbuf, link_len)
}

/// Options: well-formed ones are carried on, source routes are not (RFC 7126 section 4.3).
#[cold]
fn v4_options(mbuf: &mut Mbuf, link_len: usize) -> Result<(), DropReason> {
    let words = usize::from(mbuf.data()[link_len] & 15);
    let header_len = words * 4;
    if mbuf.data()[link_len] >> 4 != 4 || words < 5 {
        return Err(IP_BAD_HEADER);
    }
    let len = mbuf.len();
    if len < link_len + header_len || !mbuf.pullup(link_len + header_len) {
        return Err(IP_SHORT);
    }
    let ip = Ipv4::new_quoted(&mbuf.data()[link_len..]).map_err(|e| match e {
        WireError::Truncated => IP_SHORT,
        _ => IP_BAD_HEADER,
    })?;
    if !ip.verify_checksum() {
        return Err(IP_BAD_CHECKSUM);
    }
    let (src, dst) = (ip.src().octets(), ip.dst().octets());
    if unlikely_source(src[0]) || matches!(dst[0], 0 | 127) {
        return Err(IP_MARTIAN);
    }
    for option in ip.options() {
        match option {
            // Loose and strict source route.
            Ok(option) if matches!(option.kind, 131 | 137) => return Err(IP_BAD_OPTION),
            Ok(_) => (),
            Err(_) => return Err(IP_BAD_OPTION),
        }
    }
    let total = ip.total_len();
    cut(mbuf, link_len, total, header_len)
}

/// Checks the IPv6 packet behind `link_len` bytes of link header and cuts `mbuf` to it. The fixed header is contiguous, and as many of
/// the extension headers as the first frame has.
#[inline(always)]
pub(super) fn v6(mbuf: &mut Mbuf, link_len: usize) -> Result<(), DropReason> {
    let there = mbuf.len();
    if mbuf.data().len() < link_len + Ipv6::HEADER_LEN
        && (there < link_len + Ipv6::HEADER_LEN || !mbuf.pullup(link_len + Ipv6::HEADER_LEN))
    {
        return Err(IP_SHORT);
    }
    let data = &mbuf.data()[link_len..];
    if data[0] >> 4 != 6 {
        return Err(IP_BAD_HEADER);
    }
    let Ok(ip) = Ipv6::new_quoted(data) else { return Err(IP_BAD_HEADER) };
    let (src, dst) = (ip.src(), ip.dst());
    // RFC 4291 sections 2.5.2, 2.5.3, 2.7; the mapped and the old compatible form are not for links (RFC 4942, 2.2).
    let nobody = |a: std::net::Ipv6Addr| a.is_loopback() || a.to_ipv4_mapped().is_some();
    if src.is_multicast() || nobody(src) || nobody(dst) || dst.is_unspecified() {
        return Err(IP_MARTIAN);
    }
    let total = ip.total_len();
    cut(mbuf, link_len, total, Ipv6::HEADER_LEN)
}
