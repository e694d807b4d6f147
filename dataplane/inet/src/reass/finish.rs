//! The header of the whole datagram, made from that of its first fragment.

use nke_mbuf::wire::{FragmentHeader, Ipv4, Ipv6, Protocol};
use nke_mbuf::{Flags, Mbuf};

use super::DropReason;
use super::piece::{DATAGRAM_MAX, extension_len};

const NOT_ECT: u8 = 0;
const CE: u8 = 3;

/// The ECN field of a datagram whose fragments had these ones, a bit each (RFC 3168 section 5.3). Congestion met by
/// one fragment was met by the datagram; `None` where a sender that does not know ECN would be told of it.
pub(super) fn ecn(seen: u8, of_first: u8) -> Option<u8> {
    let has = |ecn: u8| seen & 1 << ecn != 0;
    match (has(CE), has(NOT_ECT)) {
        (true, true) => None,
        (true, false) => Some(CE),
        (false, true) => Some(NOT_ECT),
        (false, false) => Some(of_first),
    }
}

/// Turns the headers of the first fragment, `header_len` bytes, into those of the datagram with `payload_len` bytes
/// behind them. The payload of later fragments may still be missing from the chain.
pub(super) fn datagram(
    first: &mut Mbuf,
    header_len: usize,
    payload_len: usize,
    seen: u8,
) -> Result<(), DropReason> {
    // A device that checked a transport checksum checked that of a fragment.
    first.flags_mut().remove(Flags::CSUM_L4_GOOD);
    if first.data().first().is_some_and(|byte| byte >> 4 == 4) {
        datagram_v4(first, header_len, payload_len, seen)
    } else {
        let ip = Ipv6::new_quoted(first.data()).map_err(|_| DropReason::BadHeader)?;
        let class = ip.traffic_class();
        let ecn = ecn(seen, class & 3).ok_or(DropReason::Ecn)?;
        let header_at = header_len - FragmentHeader::LEN;
        let payload_len = header_at - Ipv6::HEADER_LEN + payload_len;
        if payload_len > DATAGRAM_MAX {
            return Err(DropReason::TooLong);
        }
        strip_fragment_header(first, header_at);
        let mut ip = Ipv6::new_quoted(first.data_mut()).map_err(|_| DropReason::BadHeader)?;
        ip.set_traffic_class(class & !3 | ecn);
        ip.set_payload_len(payload_len as u16);
        Ok(())
    }
}

fn datagram_v4(first: &mut Mbuf, header_len: usize, payload_len: usize, seen: u8) -> Result<(), DropReason> {
    let mut ip = Ipv4::new_quoted(first.data_mut()).map_err(|_| DropReason::BadHeader)?;
    let total_len = header_len + payload_len;
    if total_len > DATAGRAM_MAX {
        return Err(DropReason::TooLong);
    }
    let ecn = ecn(seen, ip.ecn()).ok_or(DropReason::Ecn)?;
    ip.set_ecn(ecn);
    ip.set_total_len(total_len as u16);
    ip.set_fragment(false, false, 0);
    ip.fill_checksum();
    Ok(())
}

/// Makes an atomic fragment the packet it is without its fragment header (RFC 6946).
pub(super) fn atomic(mbuf: &mut Mbuf, header_at: usize) {
    strip_fragment_header(mbuf, header_at);
    if let Ok(mut ip) = Ipv6::new_quoted(mbuf.data_mut()) {
        let payload_len = ip.payload_len().saturating_sub(FragmentHeader::LEN);
        ip.set_payload_len(payload_len as u16);
    }
}

/// Takes the fragment header that starts `header_at` bytes in out of an IPv6 packet. Lengths are the caller's.
fn strip_fragment_header(mbuf: &mut Mbuf, header_at: usize) {
    let data = mbuf.data_mut();
    let link = next_header_field(data, header_at);
    let (Some(next), true) = (data.get(header_at).copied(), data.len() >= header_at + FragmentHeader::LEN)
    else {
        return;
    };
    data[link] = next;
    data.copy_within(..header_at, FragmentHeader::LEN);
    mbuf.adj(FragmentHeader::LEN);
}

/// Where the header in front of the one at `header_at` names what follows it.
pub(crate) fn next_header_field(data: &[u8], header_at: usize) -> usize {
    const OF_FIXED_HEADER: usize = 6;
    let (mut field, mut at) = (OF_FIXED_HEADER, Ipv6::HEADER_LEN);
    while at < header_at {
        let kind = Protocol(data[field]);
        let Some(len) = data.get(at..).and_then(|rest| extension_len(kind, rest)) else { break };
        field = at; // in every extension header it is the first byte
        at += len;
    }
    field
}
