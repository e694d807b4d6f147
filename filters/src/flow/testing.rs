//! Packets and calls for tests of what works with flows.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr};

use nke_mbuf::wire::{Icmp, Ipv4, Ipv6, Protocol, PseudoHeader, Tcp, TcpFlags, Udp, icmp};
use nke_mbuf::{Burst, Cache, Mbuf, Owner, Pool, PoolConfig, Region};

use crate::*;

/// An IPv4 packet to be built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packet {
    pub(crate) protocol: Protocol,
    pub(crate) src: (Ipv4Addr, u16),
    pub(crate) dst: (Ipv4Addr, u16),
    pub(crate) flags: TcpFlags,
    /// Of an ICMP query or answer: `src.1` or `dst.1` is the identifier.
    pub(crate) icmp_type: u8,
    pub(crate) payload: Vec<u8>,
    /// TCP options.
    pub(crate) options: Vec<u8>,
    /// No UDP checksum.
    pub(crate) unsummed: bool,
}

/// `10.0.0.5:1000`, the port optional.
pub(crate) fn end(text: &str) -> (Ipv4Addr, u16) {
    let (addr, port) = text.split_once(':').unwrap_or((text, "0"));
    (addr.parse().unwrap(), port.parse().unwrap())
}

impl Packet {
    pub(crate) fn new(protocol: Protocol, src: &str, dst: &str) -> Packet {
        Packet {
            protocol,
            src: end(src),
            dst: end(dst),
            flags: TcpFlags::ACK,
            icmp_type: icmp::v4::ECHO_REQUEST,
            payload: b"payload".to_vec(),
            options: Vec::new(),
            unsummed: false,
        }
    }

    pub(crate) fn udp(src: &str, dst: &str) -> Packet {
        Packet::new(Protocol::UDP, src, dst)
    }

    pub(crate) fn tcp(src: &str, dst: &str, flags: TcpFlags) -> Packet {
        Packet { flags, ..Packet::new(Protocol::TCP, src, dst) }
    }

    pub(crate) fn echo(src: &str, dst: &str, ident: u16) -> Packet {
        let mut packet = Packet::new(Protocol::ICMP, src, dst);
        packet.src.1 = ident;
        packet
    }

    pub(crate) fn with_src(&self, src: &str) -> Packet {
        Packet { src: end(src), ..self.clone() }
    }

    pub(crate) fn with_dst(&self, dst: &str) -> Packet {
        Packet { dst: end(dst), ..self.clone() }
    }

    /// What the other end answers.
    pub(crate) fn answer(&self) -> Packet {
        let mut answer = Packet { src: self.dst, dst: self.src, ..self.clone() };
        if self.icmp_type == icmp::v4::ECHO_REQUEST {
            answer.icmp_type = icmp::v4::ECHO_REPLY;
        }
        answer
    }

    /// Its bytes, with every checksum computed from scratch.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = match self.protocol {
            Protocol::TCP => 20 + self.options.len(),
            Protocol::UDP | Protocol::ICMP => 8,
            _ => 0,
        };
        let mut ip = Ipv4::init(vec![0; 20 + header + self.payload.len()]).unwrap();
        ip.set_src(self.src.0);
        ip.set_dst(self.dst.0);
        ip.set_ttl(64);
        ip.set_protocol(self.protocol);
        ip.fill_checksum();
        let pseudo = ip.pseudo_header();
        let upper = ip.payload_mut();
        upper[header..].copy_from_slice(&self.payload);
        match self.protocol {
            Protocol::TCP => {
                let mut tcp = Tcp::init(upper).unwrap();
                tcp.set_header_len(header).unwrap();
                tcp.options_mut().copy_from_slice(&self.options);
                tcp.set_src_port(self.src.1);
                tcp.set_dst_port(self.dst.1);
                tcp.set_flags(self.flags);
                tcp.fill_checksum(&pseudo);
            }
            Protocol::UDP => {
                let mut udp = Udp::init(upper).unwrap();
                udp.set_src_port(self.src.1);
                udp.set_dst_port(self.dst.1);
                if !self.unsummed {
                    udp.fill_checksum(&pseudo);
                }
            }
            Protocol::ICMP => {
                let mut echo = Icmp::init(upper).unwrap();
                echo.set_icmp_type(self.icmp_type);
                let asks = matches!(self.icmp_type, icmp::v4::ECHO_REQUEST | 13);
                echo.set_echo(if asks { self.src.1 } else { self.dst.1 }, 7);
                echo.fill_checksum(None);
            }
            _ => {}
        }
        ip.into_inner()
    }

    /// What the sender of an ICMP error about this packet sends back; `len` bytes of it are quoted.
    pub(crate) fn error(&self, from: &str, to: &str, len: usize) -> Vec<u8> {
        let quoted = self.bytes();
        let quoted = &quoted[..len.min(quoted.len())];
        let mut ip = Ipv4::init(vec![0; 28 + quoted.len()]).unwrap();
        ip.set_src(end(from).0);
        ip.set_dst(end(to).0);
        ip.set_ttl(64);
        ip.set_protocol(Protocol::ICMP);
        ip.fill_checksum();
        let mut error = Icmp::init(ip.payload_mut()).unwrap();
        error.set_icmp_type(icmp::v4::UNREACHABLE);
        error.set_code(3);
        error.payload_mut().copy_from_slice(quoted);
        error.fill_checksum(None);
        ip.into_inner()
    }
}

/// An IPv6 UDP datagram.
pub(crate) fn udp6(src: (&str, u16), dst: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let (src_addr, dst_addr): (Ipv6Addr, Ipv6Addr) = (src.0.parse().unwrap(), dst.0.parse().unwrap());
    let mut ip = Ipv6::init(vec![0; 48 + payload.len()]).unwrap();
    ip.set_src(src_addr);
    ip.set_dst(dst_addr);
    ip.set_hop_limit(64);
    ip.set_next_header(Protocol::UDP);
    let mut udp = Udp::init(ip.payload_mut()).unwrap();
    udp.set_src_port(src.1);
    udp.set_dst_port(dst.1);
    udp.payload_mut().copy_from_slice(payload);
    udp.fill_checksum(&PseudoHeader::V6 { src: src_addr, dst: dst_addr });
    ip.into_inner()
}

/// An ICMPv6 error that quotes `quoted`.
pub(crate) fn error6(src: &str, dst: &str, quoted: &[u8]) -> Vec<u8> {
    let mut ip = Ipv6::init(vec![0; 48 + quoted.len()]).unwrap();
    ip.set_src(src.parse().unwrap());
    ip.set_dst(dst.parse().unwrap());
    ip.set_hop_limit(64);
    ip.set_next_header(Protocol::ICMPV6);
    let pseudo = ip.pseudo_header();
    let mut error = Icmp::init(ip.payload_mut()).unwrap();
    error.set_icmp_type(icmp::v6::TIME_EXCEEDED);
    error.payload_mut().copy_from_slice(quoted);
    error.fill_checksum(Some(&pseudo));
    ip.into_inner()
}

pub(crate) fn pool() -> Pool {
    Pool::new(Region::heap(2048 * 512), &PoolConfig::default()).unwrap()
}

pub(crate) fn mbuf(pool: &Pool, bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
    mbuf
}

/// A packet in two frames, the first of `first` bytes.
pub(crate) fn chained(pool: &Pool, bytes: &[u8], first: usize) -> Mbuf {
    let mut head = mbuf(pool, &bytes[..first]);
    head.chain(mbuf(pool, &bytes[first..])).unwrap();
    head
}

pub(crate) fn bytes_of(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

/// Shows one packet to `call`: what is left of it, or the number of the reason it was dropped for.
pub(crate) fn show(mbuf: Mbuf, call: impl FnOnce(&mut Batch<'_>)) -> Result<Mbuf, usize> {
    let (mut burst, mut removed) = (Burst::new(), Removed::default());
    burst.push(mbuf).unwrap();
    let mut batch = Batch::new(&mut burst, 1, &mut removed, Owner::FIRST_EXTENSION);
    call(&mut batch);
    match removed.pop() {
        Some((_, reason)) => Err(reason.index()),
        None => Ok(burst.take(0).unwrap()),
    }
}

/// Gives each drop reason a number, and each number its name.
#[derive(Default)]
pub(crate) struct Reasons(RefCell<Vec<String>>);

impl Reasons {
    pub(crate) fn make(&self, name: &str) -> Result<DropReason, HostError> {
        self.0.borrow_mut().push(name.into());
        Ok(DropReason::from_index(self.0.borrow().len() as u8 - 1))
    }

    pub(crate) fn name(&self, index: usize) -> String {
        self.0.borrow()[index].clone()
    }
}

/// Lets `use_it` have a call context.
pub(crate) fn with_cx<T>(pool: &Pool, use_it: impl FnOnce(&mut Cx<'_>) -> T) -> T {
    let (mut cache, mut requeue) = (Cache::new(pool), Requeue::default());
    let env = CallEnv {
        interface: IfIndex::NONE,
        attachment: AttachId(1),
        cookie: Cookie(0),
        worker: 1,
        now_ms: 0,
        owner: Owner::FIRST_EXTENSION,
    };
    use_it(&mut Cx::new(env, &mut cache, &mut requeue))
}

/// Arguments as the command line gives them.
pub(crate) fn args(given: &[(&str, &str)]) -> Args {
    let given = given.iter().map(|(name, text)| ((*name).into(), ArgValue::Text((*text).into())));
    Args(given.collect())
}
