//! What of a packet tells the flow it belongs to. The IP header was validated; what is behind it was not.

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{EXT_BYTES_MAX, Icmp, Ipv4, Ipv6, Protocol, Tcp, TcpFlags, Udp, icmp};

/// Makes the first `headers_max` bytes contiguous, or as many as there are. When the frame is too small for that, the headers
/// that do not fit read as cut short.
#[inline(always)]
pub(crate) fn pullup(mbuf: &mut Mbuf, headers_max: usize) {
    if !mbuf.is_contiguous() {
        mbuf.pullup(mbuf.len().min(headers_max));
    }
}

/// Why a packet belongs to no flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bad {
    /// A piece of a datagram that was not put together.
    Fragment,
    /// The header of the upper protocol is cut short, or contradicts itself.
    Header,
}

/// What a packet is to its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Role {
    /// Part of it.
    #[default]
    Data,
    /// An ICMP query: only such a one opens a flow of ICMP.
    Query,
    /// The answer to a query.
    Answer,
    /// An ICMP error, about the packet it quotes.
    Error,
    /// Another ICMP message: part of no flow.
    Message,
}

/// What is read of the header of an upper protocol. For ICMP queries and answers the identifier stands for the port of who
/// asks, and the other port is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Upper {
    pub(crate) protocol: u8,
    pub(crate) role: Role,
    /// The flags, if TCP.
    pub(crate) tcp: TcpFlags,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    /// Where it starts, from the start of the IP header.
    pub(crate) offset: usize,
}

/// An IPv4 packet, as far as a flow is concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct V4 {
    pub(crate) src: u32,
    pub(crate) dst: u32,
    pub(crate) upper: Upper,
}

impl V4 {
    /// Bytes of the longest headers that are read: those of an ICMP error, and those it quotes.
    pub(crate) const HEADERS_MAX: usize = Ipv4::HEADER_LEN_MAX * 2 + Icmp::HEADER_LEN + Tcp::HEADER_LEN;

    /// Reads a packet whose headers are contiguous at the start of `data`.
    #[inline(always)]
    pub(crate) fn read(data: &[u8]) -> Result<V4, Bad> {
        let ip = Ipv4::new_quoted(data).map_err(|_| Bad::Header)?;
        if ip.is_fragment() {
            return Err(Bad::Fragment);
        }
        let (offset, end) = (ip.header_len(), ip.total_len().min(data.len()));
        let bytes = data.get(offset..end).unwrap_or(&[]);
        let upper = read_upper(ip.protocol(), Protocol::ICMP, bytes, offset)?;
        Ok(V4 { src: ip.src().to_bits(), dst: ip.dst().to_bits(), upper })
    }

    /// Reads the packet that an ICMP error quotes; only 8 bytes behind its IP header are asked for (RFC 792).
    pub(crate) fn read_quoted(data: &[u8]) -> Result<V4, Bad> {
        let ip = Ipv4::new_quoted(data).map_err(|_| Bad::Header)?;
        if ip.fragment_offset() != 0 {
            return Err(Bad::Fragment);
        }
        let offset = ip.header_len();
        let bytes = ip.payload().first_chunk::<8>().ok_or(Bad::Header)?;
        let upper = quoted_upper(ip.protocol(), Protocol::ICMP, bytes, offset)?;
        Ok(V4 { src: ip.src().to_bits(), dst: ip.dst().to_bits(), upper })
    }

    /// The key of packets like this one.
    #[inline(always)]
    pub(crate) fn key(&self) -> [u64; 2] {
        key_v4(self.upper.protocol, (self.src, self.upper.src_port), (self.dst, self.upper.dst_port))
    }
}

/// The key of packets from one end to another.
#[inline(always)]
pub(crate) fn key_v4(protocol: u8, src: (u32, u16), dst: (u32, u16)) -> [u64; 2] {
    let ports = u64::from(src.1) << 32 | u64::from(dst.1) << 16 | u64::from(protocol);
    [u64::from(src.0) << 32 | u64::from(dst.0), ports]
}

/// An IPv6 packet, as far as a flow is concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct V6 {
    pub(crate) src: u128,
    pub(crate) dst: u128,
    pub(crate) upper: Upper,
}

impl V6 {
    /// Bytes of the longest headers that are read. What an ICMPv6 error quotes is read up to the extension headers.
    pub(crate) const HEADERS_MAX: usize =
        Ipv6::HEADER_LEN * 2 + EXT_BYTES_MAX + Icmp::HEADER_LEN + Tcp::HEADER_LEN_MAX;

    /// Reads a packet whose headers are contiguous at the start of `data`.
    pub(crate) fn read(data: &[u8]) -> Result<V6, Bad> {
        let ip = Ipv6::new_quoted(data).map_err(|_| Bad::Header)?;
        let walk = ip.extensions().map_err(|_| Bad::Header)?;
        if walk.fragment.is_some_and(|fragment| !fragment.is_atomic()) {
            return Err(Bad::Fragment);
        }
        let bytes = ip.payload().get(walk.offset..).unwrap_or(&[]);
        let offset = Ipv6::HEADER_LEN + walk.offset;
        let upper = read_upper(walk.protocol, Protocol::ICMPV6, bytes, offset)?;
        Ok(V6 { src: ip.src().to_bits(), dst: ip.dst().to_bits(), upper })
    }

    /// Reads the packet that an ICMPv6 error quotes.
    pub(crate) fn read_quoted(data: &[u8]) -> Result<V6, Bad> {
        let ip = Ipv6::new_quoted(data).map_err(|_| Bad::Header)?;
        let walk = ip.extensions().ok().filter(|walk| walk.has_upper()).ok_or(Bad::Header)?;
        let bytes = ip.payload().get(walk.offset..).and_then(|b| b.first_chunk::<8>()).ok_or(Bad::Header)?;
        let upper = quoted_upper(walk.protocol, Protocol::ICMPV6, bytes, Ipv6::HEADER_LEN + walk.offset)?;
        Ok(V6 { src: ip.src().to_bits(), dst: ip.dst().to_bits(), upper })
    }
}

#[inline(always)]
fn read_upper(protocol: Protocol, icmp: Protocol, bytes: &[u8], offset: usize) -> Result<Upper, Bad> {
    let mut upper = Upper { protocol: protocol.0, offset, ..Upper::default() };
    match protocol {
        Protocol::TCP => {
            let tcp = Tcp::new_checked(bytes).map_err(|_| Bad::Header)?;
            (upper.src_port, upper.dst_port, upper.tcp) = (tcp.src_port(), tcp.dst_port(), tcp.flags());
        }
        Protocol::UDP => {
            // A long datagram need not be contiguous.
            let udp = Udp::new_quoted(bytes).map_err(|_| Bad::Header)?;
            (upper.src_port, upper.dst_port) = (udp.src_port(), udp.dst_port());
        }
        _ if protocol == icmp => {
            let message = Icmp::new_checked(bytes).map_err(|_| Bad::Header)?;
            upper.role = role(message.icmp_type(), if icmp == Protocol::ICMP { 4 } else { 6 });
            match upper.role {
                Role::Query => upper.src_port = message.ident(),
                Role::Answer => upper.dst_port = message.ident(),
                _ => {}
            }
        }
        _ => {}
    }
    Ok(upper)
}

/// `bytes` are the first ones of the upper header.
fn quoted_upper(protocol: Protocol, icmp: Protocol, bytes: &[u8; 8], offset: usize) -> Result<Upper, Bad> {
    let mut upper = Upper { protocol: protocol.0, offset, ..Upper::default() };
    match protocol {
        Protocol::TCP | Protocol::UDP => (upper.src_port, upper.dst_port) = (be16(bytes, 0), be16(bytes, 2)),
        _ if protocol == icmp => {
            upper.role = role(bytes[0], if icmp == Protocol::ICMP { 4 } else { 6 });
            match upper.role {
                Role::Query => upper.src_port = be16(bytes, 4),
                Role::Answer => upper.dst_port = be16(bytes, 4),
                _ => return Err(Bad::Header),
            }
        }
        _ => {}
    }
    Ok(upper)
}

/// What a message of this type is; echo and time stamp are the queries that are still in use (RFC 6918).
#[inline(always)]
fn role(icmp_type: u8, version: u8) -> Role {
    const TIMESTAMP: u8 = 13;
    const TIMESTAMP_REPLY: u8 = 14;
    match (version, icmp_type) {
        (4, icmp::v4::ECHO_REQUEST | TIMESTAMP) | (6, icmp::v6::ECHO_REQUEST) => Role::Query,
        (4, icmp::v4::ECHO_REPLY | TIMESTAMP_REPLY) | (6, icmp::v6::ECHO_REPLY) => Role::Answer,
        (4, icmp::v4::UNREACHABLE | icmp::v4::TIME_EXCEEDED | icmp::v4::PARAMETER_PROBLEM) => Role::Error,
        (6, icmp::v6::UNREACHABLE..=icmp::v6::PARAMETER_PROBLEM) => Role::Error,
        _ => Role::Message,
    }
}

#[inline(always)]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(b) => u16::from_be_bytes([b[0], b[1]]),
        None => 0,
    }
}
