//! Fragmentation (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Payload is copied only where it must be: a frame cannot belong to two packets. Where the frames of a chain end at
//! the borders of fragments, as those of a reassembled datagram that goes on by a link of the same MTU do, every frame
//! becomes a fragment as it is.

mod peel;
#[cfg(test)]
mod tests;

use nke_mbuf::wire::{FragmentHeader, Ipv4, Ipv6, Opt, Options, Protocol};
use nke_mbuf::{Cache, Flags, Mbuf};

use crate::reass::next_header_field;
use crate::reass::piece::{extension_len, upper_header_len};
use peel::Peel;

/// The smallest MTU of a link that carries IPv4 (RFC 791).
pub const MTU_MIN_V4: usize = 68;
/// The smallest MTU of a link that carries IPv6 (RFC 8200 section 5).
pub const MTU_MIN_V6: usize = 1280;

/// The longest headers in front of the fragmentable part: the fixed header, the extension headers that are followed.
const UNFRAGMENTABLE_MAX: usize = Ipv6::HEADER_LEN + nke_mbuf::wire::EXT_BYTES_MAX + FragmentHeader::LEN;

/// What the fragments of this packet would need a device, or us, to do first.
const UNFINISHED: [Flags; 3] = [Flags::CSUM_L4_PARTIAL, Flags::CSUM_REQ_TCP, Flags::CSUM_REQ_UDP];

/// Why a packet was not fragmented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FragError {
    /// It must not be (DF). The sender is to be told this MTU: ICMP "fragmentation needed".
    NeedFrag(usize),
    /// The MTU is below what the protocol asks of a link, or leaves no room for payload.
    MtuTooSmall,
    /// The headers do not hold, or are not contiguous.
    Malformed,
    /// An IPv6 packet that has a fragment header already.
    IsFragment,
    /// The headers are too long for the first fragment, which must have them all (RFC 7112).
    HeadersTooLong,
    /// The checksum of the transport is still to be computed, and no fragment has all it covers.
    ChecksumPending,
    /// No frame was free. The fragments made before that are out; the packet given back is what is left of the payload.
    NoFrame,
}

/// Fragments an IPv4 packet whose data starts at the IP header, to packets of `mtu` bytes at most, and hands them to
/// `emit` in order; how many there were. One that fits is handed on as it is.
///
/// Receiving interface, flags, ethertype and time stamp are copied; tags are not.
pub fn fragment_v4(
    mut mbuf: Mbuf,
    mtu: usize,
    cache: &mut Cache,
    emit: impl FnMut(Mbuf),
) -> Result<usize, (Mbuf, FragError)> {
    let (layout, headers) = match plan_v4(&mut mbuf, mtu) {
        Ok(Some(plan)) => plan,
        Ok(None) => return whole(mbuf, emit),
        Err(error) => return Err((mbuf, error)),
    };
    run(mbuf, layout, cache, emit, |front, piece| {
        let header = if piece.at == 0 { headers.first() } else { headers.later() };
        front.copy_from_slice(header);
        let Ok(mut ip) = Ipv4::new_quoted(front) else { return };
        ip.set_total_len((header.len() + piece.len) as u16);
        ip.set_fragment(
            headers.dont_fragment,
            piece.more || headers.more,
            (headers.offset + piece.at) as u16,
        );
        ip.fill_checksum();
    })
}

/// Fragments an IPv6 packet whose data starts at the IP header, as its *source*: routers do not. `ident` is not to
/// recur between the two hosts for as long as fragments live, nor to be guessed (RFC 7739). Otherwise as
/// [`fragment_v4`].
pub fn fragment_v6(
    mut mbuf: Mbuf,
    mtu: usize,
    ident: u32,
    cache: &mut Cache,
    emit: impl FnMut(Mbuf),
) -> Result<usize, (Mbuf, FragError)> {
    let mut scratch = [0; UNFRAGMENTABLE_MAX];
    let (layout, next) = match plan_v6(&mut mbuf, mtu, &mut scratch) {
        Ok(Some(plan)) => plan,
        Ok(None) => return whole(mbuf, emit),
        Err(error) => return Err((mbuf, error)),
    };
    let front_len = layout.strip;
    run(mbuf, layout, cache, emit, |front, piece| {
        let (headers, fragment) = front.split_at_mut(front_len);
        headers.copy_from_slice(&scratch[..front_len]);
        fragment[..2].copy_from_slice(&[next.0, 0]);
        fragment[2..4].copy_from_slice(&(piece.at as u16 | u16::from(piece.more)).to_be_bytes());
        fragment[4..].copy_from_slice(&ident.to_be_bytes());
        let Ok(mut ip) = Ipv6::new_quoted(front) else { return };
        ip.set_payload_len((front_len + FragmentHeader::LEN - Ipv6::HEADER_LEN + piece.len) as u16);
    })
}

/// How a packet is cut.
struct Layout {
    /// Bytes of headers taken off it.
    strip: usize,
    /// Bytes of headers put before the first piece, and before the others.
    header_len: [usize; 2],
    mtu: usize,
}

/// A piece of payload.
struct Cut {
    at: usize,
    len: usize,
    more: bool,
}

fn whole(mbuf: Mbuf, mut emit: impl FnMut(Mbuf)) -> Result<usize, (Mbuf, FragError)> {
    emit(mbuf);
    Ok(1)
}

/// Cuts the payload and puts headers before the pieces; `write` fills them in.
fn run(
    mut mbuf: Mbuf,
    layout: Layout,
    cache: &mut Cache,
    mut emit: impl FnMut(Mbuf),
    write: impl Fn(&mut [u8], &Cut),
) -> Result<usize, (Mbuf, FragError)> {
    mbuf.adj(layout.strip);
    let (mut rest, mut at, mut count) = (Peel::new(mbuf, cache), 0, 0);
    while let Some(peel) = rest {
        let header_len = layout.header_len[usize::from(at > 0)];
        let room = layout.mtu - header_len;
        let more = peel.left() > room;
        let len = if more { room & !7 } else { peel.left() };
        let (mut piece, left) = match peel.take(len, header_len, cache) {
            Ok(taken) => taken,
            Err(mbuf) => return Err((mbuf, FragError::NoFrame)),
        };
        rest = left;
        // `take` left the room.
        if let Some(front) = piece.prepend(header_len) {
            write(front, &Cut { at, len, more });
        }
        emit(piece);
        at += len;
        count += 1;
    }
    Ok(count)
}

/// The headers of IPv4 fragments.
struct HeadersV4 {
    first: [u8; Ipv4::HEADER_LEN_MAX],
    first_len: usize,
    later: [u8; Ipv4::HEADER_LEN_MAX],
    later_len: usize,
    offset: usize,
    more: bool,
    dont_fragment: bool,
}

impl HeadersV4 {
    fn first(&self) -> &[u8] {
        &self.first[..self.first_len]
    }

    fn later(&self) -> &[u8] {
        &self.later[..self.later_len]
    }
}

/// `None` when the packet fits.
fn plan_v4(mbuf: &mut Mbuf, mtu: usize) -> Result<Option<(Layout, HeadersV4)>, FragError> {
    let ip = Ipv4::new_quoted(mbuf.data()).map_err(|_| FragError::Malformed)?;
    let (total_len, first_len) = (ip.total_len(), ip.header_len());
    let surplus = mbuf.len().checked_sub(total_len).ok_or(FragError::Malformed)?;
    if mtu < MTU_MIN_V4 {
        return Err(FragError::MtuTooSmall);
    }
    if total_len > mtu {
        if ip.dont_fragment() {
            return Err(FragError::NeedFrag(mtu));
        }
        if UNFINISHED.iter().any(|flag| mbuf.flags().contains(*flag)) {
            return Err(FragError::ChecksumPending);
        }
        if ip.fragment_offset() + total_len - first_len > usize::from(u16::MAX) {
            return Err(FragError::Malformed);
        }
    }
    let mut headers = HeadersV4 {
        first: [0; Ipv4::HEADER_LEN_MAX],
        first_len,
        later: [0; Ipv4::HEADER_LEN_MAX],
        later_len: first_len,
        offset: ip.fragment_offset(),
        more: ip.more_fragments(),
        dont_fragment: ip.dont_fragment(),
    };
    if total_len > mtu {
        headers.first[..first_len].copy_from_slice(&mbuf.data()[..first_len]);
        headers.later = headers.first;
        headers.later_len = keep_copied_options(&mut headers.later, first_len)?;
    }
    mbuf.trim(surplus);
    let header_len = [first_len, headers.later_len];
    Ok((total_len > mtu).then_some((Layout { strip: first_len, header_len, mtu }, headers)))
}

/// Leaves of the options those that go into every fragment (RFC 791 section 3.1, "copied flag"). The new length of the
/// header.
fn keep_copied_options(header: &mut [u8; Ipv4::HEADER_LEN_MAX], len: usize) -> Result<usize, FragError> {
    const COPIED: u8 = 0x80;
    const FIXED: usize = Ipv4::HEADER_LEN;
    if len == FIXED {
        return Ok(len);
    }
    let all = *header;
    let mut to = FIXED;
    for option in Options::new(&all[FIXED..len]) {
        let Opt { kind, offset, data } = option.map_err(|_| FragError::Malformed)?;
        if kind & COPIED != 0 {
            let bytes = &all[FIXED + offset..FIXED + offset + 2 + data.len()];
            header[to..to + bytes.len()].copy_from_slice(bytes);
            to += bytes.len();
        }
    }
    let len = to.next_multiple_of(4);
    header[to..].fill(Opt::END);
    header[0] = 0x40 | (len / 4) as u8;
    Ok(len)
}

/// `None` when the packet fits; else the headers in front of the fragment header are left in `scratch`, and the answer
/// says what follows it.
fn plan_v6(
    mbuf: &mut Mbuf,
    mtu: usize,
    scratch: &mut [u8; UNFRAGMENTABLE_MAX],
) -> Result<Option<(Layout, Protocol)>, FragError> {
    let ip = Ipv6::new_quoted(mbuf.data()).map_err(|_| FragError::Malformed)?;
    let total_len = ip.total_len();
    let surplus = mbuf.len().checked_sub(total_len).ok_or(FragError::Malformed)?;
    if mtu < MTU_MIN_V6 {
        return Err(FragError::MtuTooSmall);
    }
    if total_len <= mtu {
        mbuf.trim(surplus);
        return Ok(None);
    }
    if UNFINISHED.iter().any(|flag| mbuf.flags().contains(*flag)) {
        return Err(FragError::ChecksumPending);
    }
    let walk = ip.extensions().map_err(|_| FragError::Malformed)?;
    if walk.fragment.is_some() {
        return Err(FragError::IsFragment);
    }
    let strip = Ipv6::HEADER_LEN + unfragmentable_len(&ip);
    let header_len = strip + FragmentHeader::LEN;
    // All headers, the upper one too, are in the first fragment (RFC 7112).
    let needed = Ipv6::HEADER_LEN + walk.offset + upper_header_len(walk.protocol) - strip;
    if header_len + needed.next_multiple_of(8) > mtu {
        return Err(FragError::HeadersTooLong);
    }
    scratch[..strip].copy_from_slice(mbuf.data().get(..strip).ok_or(FragError::Malformed)?);
    let link = next_header_field(scratch, strip);
    let next = Protocol(std::mem::replace(&mut scratch[link], Protocol::FRAGMENT.0));
    mbuf.trim(surplus);
    Ok(Some((Layout { strip, header_len: [header_len; 2], mtu }, next)))
}

/// Bytes of the extension headers that every router on the way reads: up to the routing header, or the hop-by-hop
/// options if there is none.
fn unfragmentable_len(ip: &Ipv6<&[u8]>) -> usize {
    let (mut kind, mut at, mut keep) = (ip.next_header(), 0, 0);
    while let Some(rest) = ip.payload().get(at..) {
        let Some(len) = extension_len(kind, rest) else { break };
        at += len;
        if matches!(kind, Protocol::HOP_BY_HOP | Protocol::ROUTING) {
            keep = at;
        }
        kind = Protocol(rest[0]);
    }
    keep
}
