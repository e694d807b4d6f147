//! Echo: the request becomes its answer, in the same frame.

use std::net::Ipv4Addr;

use nke_mbuf::wire::{Icmp, Ipv4, Ipv6, Opt, Protocol, checksum, icmp};
use nke_mbuf::{Flags, Mbuf};

use super::TTL;

/// Why a packet was not answered. It is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotEcho {
    /// No ICMP echo request, or one whose headers do not hold.
    NotARequest,
    /// A fragment; reassemble it first.
    Fragment,
    /// To a group, or by link-level broadcast (RFC 1122 section 3.2.2.6 allows silence; answers to groups amplify).
    Group,
    /// From nobody that could be answered.
    BadSource,
}

/// Turns an echo request, of either version, into the reply (RFC 792, RFC 4443 section 4.2).
///
/// Checksums are updated, not computed anew: a request that was damaged makes a reply that is. IPv4 options are blanked
/// and IPv6 extension headers removed: a sender does not choose the way of the reply.
pub fn echo_reply(mbuf: &mut Mbuf) -> Result<(), NotEcho> {
    if mbuf.flags().contains(Flags::BCAST) || mbuf.flags().contains(Flags::MCAST) {
        return Err(NotEcho::Group);
    }
    match mbuf.data().first().map(|byte| byte >> 4) {
        Some(4) => reply_v4(mbuf),
        Some(6) => reply_v6(mbuf),
        _ => Err(NotEcho::NotARequest),
    }
}

fn reply_v4(mbuf: &mut Mbuf) -> Result<(), NotEcho> {
    let len = mbuf.len();
    let mut ip = Ipv4::new_quoted(mbuf.data_mut()).map_err(|_| NotEcho::NotARequest)?;
    let (src, dst, header_len, total_len) = (ip.src(), ip.dst(), ip.header_len(), ip.total_len());
    let request = Icmp::new_checked(ip.payload()).map(|echo| echo.icmp_type());
    if ip.is_fragment() {
        return Err(NotEcho::Fragment);
    }
    if ip.protocol() != Protocol::ICMP || request != Ok(icmp::v4::ECHO_REQUEST) || total_len > len {
        return Err(NotEcho::NotARequest);
    }
    if dst.is_multicast() || dst == Ipv4Addr::BROADCAST {
        return Err(NotEcho::Group);
    }
    if !super::error::is_one_host_v4(src, true) {
        return Err(NotEcho::BadSource);
    }
    // Addresses change places, which their sum does not show; the time to live is one word with the protocol.
    let word = |ttl: u8| u16::from_be_bytes([ttl, Protocol::ICMP.0]);
    let check = checksum::update(ip.checksum(), word(ip.ttl()), word(TTL));
    ip.set_src(dst);
    ip.set_dst(src);
    ip.set_ttl(TTL);
    ip.set_checksum(check);
    if header_len > Ipv4::HEADER_LEN {
        ip.options_mut().fill(Opt::NOP);
        ip.fill_checksum();
    }
    turn(ip.payload_mut(), icmp::v4::ECHO_REPLY);
    mbuf.trim(len - total_len);
    Ok(())
}

fn reply_v6(mbuf: &mut Mbuf) -> Result<(), NotEcho> {
    let len = mbuf.len();
    let mut ip = Ipv6::new_quoted(mbuf.data_mut()).map_err(|_| NotEcho::NotARequest)?;
    let (src, dst, total_len) = (ip.src(), ip.dst(), ip.total_len());
    let walk = ip.extensions().map_err(|_| NotEcho::NotARequest)?;
    if walk.fragment.is_some() {
        return Err(NotEcho::Fragment);
    }
    let message = ip.payload().get(walk.offset..).unwrap_or(&[]);
    let request = Icmp::new_checked(message).map(|echo| echo.icmp_type());
    if walk.protocol != Protocol::ICMPV6 || request != Ok(icmp::v6::ECHO_REQUEST) || total_len > len {
        return Err(NotEcho::NotARequest);
    }
    if dst.is_multicast() {
        return Err(NotEcho::Group);
    }
    if src.is_unspecified() || src.is_multicast() {
        return Err(NotEcho::BadSource);
    }
    ip.set_src(dst);
    ip.set_dst(src);
    ip.set_hop_limit(TTL);
    ip.set_flow_label(0);
    ip.set_next_header(Protocol::ICMPV6);
    ip.set_payload_len((ip.payload_len() - walk.offset) as u16);
    let data = mbuf.data_mut();
    turn(&mut data[Ipv6::HEADER_LEN + walk.offset..], icmp::v6::ECHO_REPLY);
    data.copy_within(..Ipv6::HEADER_LEN, walk.offset);
    mbuf.trim(len - total_len);
    mbuf.adj(walk.offset);
    Ok(())
}

/// Makes the message of another type; that it is as long as its header was checked.
fn turn(message: &mut [u8], icmp_type: u8) {
    let Ok(mut echo) = Icmp::new_checked(message) else { return };
    let word = |icmp_type: u8, code: u8| u16::from_be_bytes([icmp_type, code]);
    let (old, new) = (word(echo.icmp_type(), echo.code()), word(icmp_type, echo.code()));
    let check = checksum::update(echo.checksum(), old, new);
    echo.set_icmp_type(icmp_type);
    echo.set_checksum(check);
}
