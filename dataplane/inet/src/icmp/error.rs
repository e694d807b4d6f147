//! Errors we send: RFC 792, RFC 1122 section 3.2.2, RFC 1812 section 4.3, RFC 4443.

use std::net::{Ipv4Addr, Ipv6Addr};

use nke_mbuf::wire::{EtherType, Icmp, Ipv4, Ipv6, Protocol, icmp};
use nke_mbuf::{Cache, Flags, Mbuf};

use super::TTL;

/// The longest ICMP error, IP header included (RFC 1812 section 4.3.2.3).
const LEN_MAX_V4: usize = 576;
/// The longest ICMPv6 error: what every link carries (RFC 4443 section 2.4 (c)).
const LEN_MAX_V6: usize = 1280;
/// Precedence "internetwork control" (RFC 1812 section 4.3.2.5).
const DSCP_CS6: u8 = 48;

/// An ICMP error for IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorV4 {
    /// No route.
    NetUnreachable,
    /// The next hop does not answer.
    HostUnreachable,
    /// Nobody takes this protocol.
    ProtocolUnreachable,
    /// Nobody takes this port.
    PortUnreachable,
    /// Too big for the next link, and not to be fragmented.
    FragmentationNeeded {
        /// MTU of the next link (RFC 1191).
        mtu: u16,
    },
    /// Forbidden by a filter.
    AdminProhibited,
    /// The time to live was used up.
    TtlExceeded,
    /// Fragments did not come in time; `offending` is the first of them.
    ReassemblyTimeExceeded,
    /// A header that cannot be used.
    ParameterProblem {
        /// The byte that is wrong.
        pointer: u8,
    },
}

/// An ICMPv6 error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorV6 {
    /// No route.
    NoRoute,
    /// Forbidden by a filter.
    AdminProhibited,
    /// The source address has no meaning where the packet would go.
    BeyondScope,
    /// The next hop does not answer.
    AddressUnreachable,
    /// Nobody takes this port.
    PortUnreachable,
    /// Too big for the next link.
    PacketTooBig {
        /// MTU of the next link.
        mtu: u32,
    },
    /// The hop limit was used up.
    HopLimitExceeded,
    /// Fragments did not come in time; `offending` is the first of them.
    ReassemblyTimeExceeded,
    /// A header that cannot be used.
    ParameterProblem {
        /// 0 field, 1 next header, 2 option, 3 incomplete chain of headers.
        code: u8,
        /// The byte that is wrong.
        pointer: u32,
    },
}

/// Why no error is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suppressed {
    /// The packet is an ICMP error, or may be one.
    AboutError,
    /// A fragment other than the first: its sender is told once.
    LaterFragment,
    /// It was for a group, by its address or on the link.
    Group,
    /// Its source is not one host.
    BadSource,
    /// It has no header to quote.
    Malformed,
    /// No frame was free.
    NoFrame,
}

impl ErrorV4 {
    /// Type, code and the four bytes behind the checksum.
    fn fields(self) -> (u8, u8, [u8; 4]) {
        use icmp::v4;
        match self {
            ErrorV4::NetUnreachable => (v4::UNREACHABLE, 0, [0; 4]),
            ErrorV4::HostUnreachable => (v4::UNREACHABLE, 1, [0; 4]),
            ErrorV4::ProtocolUnreachable => (v4::UNREACHABLE, 2, [0; 4]),
            ErrorV4::PortUnreachable => (v4::UNREACHABLE, 3, [0; 4]),
            ErrorV4::FragmentationNeeded { mtu } => {
                (v4::UNREACHABLE, v4::CODE_FRAGMENTATION_NEEDED, u32::from(mtu).to_be_bytes())
            }
            ErrorV4::AdminProhibited => (v4::UNREACHABLE, 13, [0; 4]),
            ErrorV4::TtlExceeded => (v4::TIME_EXCEEDED, 0, [0; 4]),
            ErrorV4::ReassemblyTimeExceeded => (v4::TIME_EXCEEDED, 1, [0; 4]),
            ErrorV4::ParameterProblem { pointer } => (v4::PARAMETER_PROBLEM, 0, [pointer, 0, 0, 0]),
        }
    }
}

impl ErrorV6 {
    fn fields(self) -> (u8, u8, [u8; 4]) {
        use icmp::v6;
        match self {
            ErrorV6::NoRoute => (v6::UNREACHABLE, 0, [0; 4]),
            ErrorV6::AdminProhibited => (v6::UNREACHABLE, 1, [0; 4]),
            ErrorV6::BeyondScope => (v6::UNREACHABLE, 2, [0; 4]),
            ErrorV6::AddressUnreachable => (v6::UNREACHABLE, 3, [0; 4]),
            ErrorV6::PortUnreachable => (v6::UNREACHABLE, 4, [0; 4]),
            ErrorV6::PacketTooBig { mtu } => (v6::PACKET_TOO_BIG, 0, mtu.to_be_bytes()),
            ErrorV6::HopLimitExceeded => (v6::TIME_EXCEEDED, 0, [0; 4]),
            ErrorV6::ReassemblyTimeExceeded => (v6::TIME_EXCEEDED, 1, [0; 4]),
            ErrorV6::ParameterProblem { code, pointer } => {
                (v6::PARAMETER_PROBLEM, code, pointer.to_be_bytes())
            }
        }
    }

    /// The two that are sent about packets to groups too: multicast needs a path MTU, and code 2 tells of an option
    /// whose bits ask for it (RFC 4443 section 2.4 (e.3)).
    fn answers_groups(self) -> bool {
        matches!(self, ErrorV6::PacketTooBig { .. } | ErrorV6::ParameterProblem { code: 2, .. })
    }
}

/// Builds the error about an IPv4 packet, from `src`, an address of ours.
pub fn error_v4(
    kind: ErrorV4,
    offending: &Mbuf,
    src: Ipv4Addr,
    cache: &mut Cache,
) -> Result<Mbuf, Suppressed> {
    let dst = may_answer_v4(offending)?;
    const HEADERS: usize = Ipv4::HEADER_LEN + Icmp::HEADER_LEN;
    let mut mbuf = quote(offending, HEADERS, LEN_MAX_V4, cache)?;
    mbuf.set_ethertype(EtherType::IPV4.0);
    let (icmp_type, code, rest) = kind.fields();
    let mut message =
        Icmp::new_checked(&mut mbuf.data_mut()[Ipv4::HEADER_LEN..]).map_err(|_| Suppressed::NoFrame)?;
    message.set_icmp_type(icmp_type);
    message.set_code(code);
    message.set_rest(rest);
    message.fill_checksum(None);
    let mut ip = Ipv4::init(mbuf.data_mut()).map_err(|_| Suppressed::NoFrame)?;
    ip.set_dscp(DSCP_CS6);
    ip.set_fragment(true, false, 0); // atomic, so that no identification is needed (RFC 6864)
    ip.set_ttl(TTL);
    ip.set_protocol(Protocol::ICMP);
    ip.set_src(src);
    ip.set_dst(dst);
    ip.fill_checksum();
    Ok(mbuf)
}

/// Builds the error about an IPv6 packet, from `src`, an address of ours.
pub fn error_v6(
    kind: ErrorV6,
    offending: &Mbuf,
    src: Ipv6Addr,
    cache: &mut Cache,
) -> Result<Mbuf, Suppressed> {
    let dst = may_answer_v6(kind, offending)?;
    const HEADERS: usize = Ipv6::HEADER_LEN + Icmp::HEADER_LEN;
    let mut mbuf = quote(offending, HEADERS, LEN_MAX_V6, cache)?;
    mbuf.set_ethertype(EtherType::IPV6.0);
    let mut ip = Ipv6::init(mbuf.data_mut()).map_err(|_| Suppressed::NoFrame)?;
    ip.set_next_header(Protocol::ICMPV6);
    ip.set_hop_limit(TTL);
    ip.set_src(src);
    ip.set_dst(dst);
    let pseudo = ip.pseudo_header();
    let (icmp_type, code, rest) = kind.fields();
    let mut message = Icmp::new_checked(ip.payload_mut()).map_err(|_| Suppressed::NoFrame)?;
    message.set_icmp_type(icmp_type);
    message.set_code(code);
    message.set_rest(rest);
    message.fill_checksum(Some(&pseudo));
    Ok(mbuf)
}

/// A packet with as much of the offending one behind `headers` bytes as `len_max` and a frame allow.
fn quote(offending: &Mbuf, headers: usize, len_max: usize, cache: &mut Cache) -> Result<Mbuf, Suppressed> {
    let total_len = match Ipv4::new_quoted(offending.data()) {
        Ok(ip) => ip.total_len(),
        Err(_) => Ipv6::new_quoted(offending.data()).map_err(|_| Suppressed::Malformed)?.total_len(),
    };
    let mut mbuf = cache.alloc().ok_or(Suppressed::NoFrame)?;
    let room = len_max.min(mbuf.tailroom()).checked_sub(headers).ok_or(Suppressed::NoFrame)?;
    let quoted = total_len.min(offending.len()).min(room);
    if let Some(data) = mbuf.append(headers + quoted)
        && offending.copy_out(0, &mut data[headers..])
    {
        return Ok(mbuf);
    }
    cache.free(mbuf);
    Err(Suppressed::NoFrame)
}

fn by_group_on_link(mbuf: &Mbuf) -> bool {
    mbuf.flags().contains(Flags::BCAST) || mbuf.flags().contains(Flags::MCAST)
}

/// The host an error about this packet goes to (RFC 1812 section 4.3.2.7).
fn may_answer_v4(mbuf: &Mbuf) -> Result<Ipv4Addr, Suppressed> {
    let ip = Ipv4::new_quoted(mbuf.data()).map_err(|_| Suppressed::Malformed)?;
    if ip.fragment_offset() != 0 {
        return Err(Suppressed::LaterFragment);
    }
    if ip.protocol() == Protocol::ICMP && ip.payload().first().is_none_or(|kind| !is_query_v4(*kind)) {
        return Err(Suppressed::AboutError);
    }
    if by_group_on_link(mbuf) || ip.dst().is_multicast() || ip.dst().octets()[0] >= 240 {
        return Err(Suppressed::Group);
    }
    if !is_one_host_v4(ip.src(), mbuf.flags().contains(Flags::LOOP)) {
        return Err(Suppressed::BadSource);
    }
    Ok(ip.src())
}

/// Whether the address is that of one host: not of a network, a group or the reserved class, nor (unless the packet
/// never left us) a loopback address.
pub(crate) fn is_one_host_v4(addr: Ipv4Addr, looped: bool) -> bool {
    match addr.octets()[0] {
        0 => false,
        127 => looped,
        first => first < 224,
    }
}

/// Types that are no errors; any other may be one.
const fn is_query_v4(icmp_type: u8) -> bool {
    matches!(icmp_type, 0 | 8 | 9 | 10 | 13..=18)
}

/// The host an error about this packet goes to (RFC 4443 section 2.4 (e)).
fn may_answer_v6(kind: ErrorV6, mbuf: &Mbuf) -> Result<Ipv6Addr, Suppressed> {
    let ip = Ipv6::new_quoted(mbuf.data()).map_err(|_| Suppressed::Malformed)?;
    match ip.extensions() {
        Ok(walk) if walk.protocol == Protocol::ICMPV6 => {
            let icmp_type = ip.payload().get(walk.offset).filter(|_| walk.has_upper());
            // Errors are below 128; a redirect is no error, but is treated as one. A later fragment does not say.
            if icmp_type.is_none_or(|kind| *kind < 128 || *kind == 137) {
                return Err(Suppressed::AboutError);
            }
        }
        Ok(_) => {}
        // A chain of headers that cannot be followed is told of as such only.
        Err(_) if matches!(kind, ErrorV6::ParameterProblem { .. }) => {}
        Err(_) => return Err(Suppressed::Malformed),
    }
    if (by_group_on_link(mbuf) || ip.dst().is_multicast()) && !kind.answers_groups() {
        return Err(Suppressed::Group);
    }
    let src = ip.src();
    let looped = mbuf.flags().contains(Flags::LOOP);
    if src.is_unspecified() || src.is_multicast() || src.is_loopback() && !looped {
        return Err(Suppressed::BadSource);
    }
    Ok(src)
}
