//! Errors of others: which of our packets they are about, and what they say of the path (RFC 1191, RFC 8201).
//!
//! An error proves nothing of its sender. What is read here is what the error *claims*; that we sent such a packet is
//! for the caller to check, by its table of connections, and for TCP by the sequence number (RFC 5927 section 4).

use std::net::IpAddr;

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Checksum, Icmp, Ipv4, Ipv6, Protocol, icmp};

/// The least path MTU believed of IPv4 (RFC 1191 says 68; that serves attackers only).
pub const PMTU_FLOOR_V4: u32 = 552;
/// The least path MTU of IPv6; an error that says less is not believed at all (RFC 8201 section 4).
pub const PMTU_FLOOR_V6: u32 = 1280;

/// MTUs of links, for routers that do not say theirs (RFC 1191 section 7).
const PLATEAUS: [u32; 9] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 552, 508];

/// A received ICMP error, and the packet quoted in it. Whether the packet has ports depends on how much is quoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Type of the error.
    pub icmp_type: u8,
    /// Its code.
    pub code: u8,
    /// Protocol of the quoted packet.
    pub protocol: Protocol,
    /// Where the quoted packet came from; of the same family as the error.
    pub src: IpAddr,
    /// Where it went.
    pub dst: IpAddr,
    /// Its source port (TCP, UDP, SCTP), or the identifier of an echo.
    pub src_port: Option<u16>,
    /// Its destination port.
    pub dst_port: Option<u16>,
    /// Its sequence number, if TCP.
    pub tcp_seq: Option<u32>,
    /// The path MTU to use from now on, if the error is about that and is to be believed.
    pub mtu: Option<u32>,
    /// Where the quoted IP header starts, in bytes from the start of the packet, for whoever rewrites it.
    pub l3_offset: usize,
    /// Where the quoted upper header starts.
    pub l4_offset: usize,
}

/// Reads an ICMP error of either version whose headers, the quoted ones too, are contiguous. `None` if it is no error, if
/// its checksum is wrong, or if what it quotes cannot be read or is a later fragment.
pub fn quoted(mbuf: &Mbuf) -> Option<Quoted> {
    match mbuf.data().first()? >> 4 {
        4 => quoted_v4(mbuf),
        6 => quoted_v6(mbuf),
        _ => None,
    }
}

fn quoted_v4(mbuf: &Mbuf) -> Option<Quoted> {
    let ip = Ipv4::new_quoted(mbuf.data()).ok()?;
    if ip.protocol() != Protocol::ICMP || ip.is_fragment() {
        return None;
    }
    let message = Icmp::new_checked(ip.payload()).ok()?;
    let icmp_type = message.icmp_type();
    if !matches!(icmp_type, icmp::v4::UNREACHABLE | icmp::v4::TIME_EXCEEDED | icmp::v4::PARAMETER_PROBLEM)
        || !is_intact(mbuf, Checksum::new(), ip.header_len(), ip.total_len())
    {
        return None;
    }
    let l3_offset = ip.header_len() + Icmp::HEADER_LEN;
    let inner = Ipv4::new_quoted(message.payload()).ok()?;
    if inner.fragment_offset() != 0 {
        return None;
    }
    let too_big = (icmp_type, message.code()) == (icmp::v4::UNREACHABLE, icmp::v4::CODE_FRAGMENTATION_NEEDED);
    let upper = Upper::read(inner.protocol(), Protocol::ICMP, inner.payload());
    Some(Quoted {
        icmp_type,
        code: message.code(),
        protocol: inner.protocol(),
        src: inner.src().into(),
        dst: inner.dst().into(),
        src_port: upper.src_port,
        dst_port: upper.dst_port,
        tcp_seq: upper.tcp_seq,
        mtu: if too_big { mtu_v4(message.mtu() & 0xffff, inner.total_len() as u32) } else { None },
        l3_offset,
        l4_offset: l3_offset + inner.header_len(),
    })
}

fn quoted_v6(mbuf: &Mbuf) -> Option<Quoted> {
    let ip = Ipv6::new_quoted(mbuf.data()).ok()?;
    let walk = ip.extensions().ok()?;
    if walk.protocol != Protocol::ICMPV6 || walk.fragment.is_some() {
        return None;
    }
    let message = Icmp::new_checked(ip.payload().get(walk.offset..)?).ok()?;
    let icmp_type = message.icmp_type();
    let from = Ipv6::HEADER_LEN + walk.offset;
    let pseudo = ip.pseudo_header().sum(Protocol::ICMPV6, ip.total_len().checked_sub(from)?);
    if !(icmp::v6::UNREACHABLE..=icmp::v6::PARAMETER_PROBLEM).contains(&icmp_type)
        || !is_intact(mbuf, pseudo, from, ip.total_len())
    {
        return None;
    }
    let l3_offset = from + Icmp::HEADER_LEN;
    let inner = Ipv6::new_quoted(message.payload()).ok()?;
    let inner_walk = inner.extensions().ok().filter(|walk| walk.has_upper())?;
    let data = inner.payload().get(inner_walk.offset..).unwrap_or(&[]);
    let upper = Upper::read(inner_walk.protocol, Protocol::ICMPV6, data);
    let mtu = message.mtu();
    let believed =
        icmp_type == icmp::v6::PACKET_TOO_BIG && mtu >= PMTU_FLOOR_V6 && (mtu as usize) < inner.total_len();
    Some(Quoted {
        icmp_type,
        code: message.code(),
        protocol: inner_walk.protocol,
        src: inner.src().into(),
        dst: inner.dst().into(),
        src_port: upper.src_port,
        dst_port: upper.dst_port,
        tcp_seq: upper.tcp_seq,
        mtu: believed.then_some(mtu),
        l3_offset,
        l4_offset: l3_offset + Ipv6::HEADER_LEN + inner_walk.offset,
    })
}

/// What the first bytes of the quoted upper header say.
#[derive(Default)]
struct Upper {
    src_port: Option<u16>,
    dst_port: Option<u16>,
    tcp_seq: Option<u32>,
}

impl Upper {
    /// RFC 792 asks routers for 8 bytes, which hold all of this. `icmp` is the ICMP of this IP version.
    fn read(protocol: Protocol, icmp: Protocol, bytes: &[u8]) -> Upper {
        let Some([a, b, c, d, rest @ ..]) = bytes.first_chunk::<8>() else { return Upper::default() };
        let (first, second) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        match protocol {
            Protocol::TCP | Protocol::UDP | Protocol::SCTP => Upper {
                src_port: Some(first),
                dst_port: Some(second),
                tcp_seq: (protocol == Protocol::TCP).then_some(u32::from_be_bytes(*rest)),
            },
            _ if protocol == icmp && matches!(a, 0 | 8 | 128 | 129) => {
                Upper { src_port: Some(u16::from_be_bytes([rest[0], rest[1]])), ..Upper::default() }
            }
            _ => Upper::default(),
        }
    }
}

/// The path MTU behind a router that wants packets of `len` bytes smaller and says `mtu`, or 0 if it is older than
/// RFC 1191. An MTU the packet would have fitted into is not believed.
fn mtu_v4(mtu: u32, len: u32) -> Option<u32> {
    let mtu = match mtu {
        0 => PLATEAUS.into_iter().find(|plateau| *plateau < len)?,
        mtu => mtu,
    };
    (mtu < len).then_some(mtu.max(PMTU_FLOOR_V4)).filter(|mtu| *mtu < len)
}

/// Whether bytes `from..to` of the packet, across its frames, sum up to all ones with `sum`.
fn is_intact(mbuf: &Mbuf, mut sum: Checksum, from: usize, to: usize) -> bool {
    let mut at = 0;
    for data in mbuf.segments() {
        let (start, end) = (from.saturating_sub(at), to.saturating_sub(at).min(data.len()));
        sum = sum.add_bytes(data.get(start..end).unwrap_or(&[]));
        at += data.len();
    }
    at >= to && sum.is_valid()
}
