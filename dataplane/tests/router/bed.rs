//! A router with two interfaces, `a` (192.0.2.1/24, 2001:db8:a::1/64) and `b` (198.51.100.1/24, 2001:db8:b::1/64), whose far
//! ends are in the test's hands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nke_dataplane::control_handle::Control;
use nke_dataplane::inet::{Net, NextHop, Request, RouteChange, RouteTo, Settings as InetSettings};
use nke_dataplane::port::ring::{RingPeer, ring};
use nke_dataplane::runtime::{Account, Builder, Runtime, Settings};
use nke_filters::IfIndex;
use nke_mbuf::wire::{EtherAddr, EtherType, Ethernet, Ipv4, Ipv6, Protocol, Udp};
use nke_mbuf::{Mbuf, Owner, Pool, PoolConfig, Region};

pub const WAIT: Duration = Duration::from_secs(10);
pub const MAC: [EtherAddr; 2] = [EtherAddr([2, 0, 0, 0, 0, 0xa]), EtherAddr([2, 0, 0, 0, 0, 0xb])];
/// The stations beyond each interface.
pub const HOST: [EtherAddr; 2] = [EtherAddr([2, 0, 0, 0, 1, 0xa]), EtherAddr([2, 0, 0, 0, 1, 0xb])];

pub struct Bed {
    pub runtime: Runtime,
    pub pool: Pool,
    pub ends: Vec<RingPeer>,
}

pub fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> Net {
    let (address, len) = text.split_once('/').unwrap();
    Net { address: address.parse().unwrap(), len: len.parse().unwrap() }
}

impl Bed {
    pub fn new() -> Bed {
        Bed::with(1)
    }

    /// With each interface's queue on another worker, if there are several.
    pub fn with(workers: usize) -> Bed {
        Bed::with_mtu(workers, [1500; 2])
    }

    pub fn with_mtu(workers: usize, mtu: [u32; 2]) -> Bed {
        let pool = Pool::new(Region::heap(4096 * 2048), &PoolConfig::default()).unwrap();
        let settings = Settings { cores: vec![None; workers], ..Settings::default() };
        let mut builder = Builder::new(pool.clone(), settings);
        builder.inet(InetSettings { neighbors: 64, ..InetSettings::default() });
        let mut ends = Vec::new();
        for (i, name) in ["a", "b"].into_iter().enumerate() {
            let (near, far) = ring(256);
            let interface = builder.plain_interface(name, "ring", i % workers);
            builder.link(interface, MAC[i], mtu[i]);
            builder.queue(interface, i % workers, Box::new(near));
            ends.push(far);
        }
        let mut runtime = builder.start().unwrap();
        runtime.go();
        let control = runtime.control();
        for (name, address, len) in [
            ("a", "192.0.2.1", 24),
            ("a", "2001:db8:a::1", 64),
            ("b", "198.51.100.1", 24),
            ("b", "2001:db8:b::1", 64),
        ] {
            control.add_address(name, address.parse().unwrap(), len).unwrap().wait(WAIT).unwrap();
        }
        Bed { runtime, pool, ends }
    }

    pub fn control(&self) -> Control {
        self.runtime.control()
    }

    pub fn route(&self, to: &str, via: Option<&str>, interface: Option<u16>) {
        let hop =
            NextHop { via: via.map(|v| v.parse().unwrap()), interface: interface.map(IfIndex), weight: 1 };
        self.change(to, Some(RouteTo::Via(vec![hop])));
    }

    pub fn change(&self, to: &str, how: Option<RouteTo>) {
        let change = RouteChange { net: net(to), to: how };
        self.control().inet(Request::Routes(vec![change])).unwrap().wait(WAIT).unwrap();
    }

    /// Makes the station beyond interface `i` known under `address`.
    pub fn neighbor(&self, i: usize, address: &str) {
        let request = Request::Neighbor(IfIndex(i as u16), address.parse().unwrap(), Some(HOST[i]));
        self.control().inet(request).unwrap().wait(WAIT).unwrap();
    }

    pub fn mbuf(&self, bytes: &[u8]) -> Mbuf {
        let mut mbuf = self.pool.alloc().expect("a frame");
        mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
        mbuf
    }

    pub fn send(&self, i: usize, bytes: &[u8]) {
        let mut mbuf = self.mbuf(bytes);
        while let Err(back) = self.ends[i].send(mbuf) {
            mbuf = back;
        }
    }

    /// The next frame that leaves by interface `i`.
    pub fn next(&self, i: usize) -> Vec<u8> {
        let mbuf = until("a frame", || self.ends[i].recv());
        // It may be in several frames.
        let mut bytes = vec![0; mbuf.len()];
        assert!(mbuf.copy_out(0, &mut bytes));
        bytes
    }

    /// Asserts that nothing leaves by any interface for a while.
    pub fn silence(&self) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            for (i, end) in self.ends.iter().enumerate() {
                if let Some(mbuf) = end.recv() {
                    panic!("unexpected on {i}: {:02x?}", mbuf.data());
                }
            }
        }
    }

    pub fn drops(&self, reason: &str) -> u64 {
        self.runtime.shared().drops().into_iter().find(|(name, ..)| name == reason).map_or(0, |(.., n)| n)
    }

    pub fn finish(self) -> Account {
        let drain = |ends: &[RingPeer]| ends.iter().for_each(|end| while end.recv().is_some() {});
        drain(&self.ends);
        let account = self.runtime.stop();
        drain(&self.ends);
        assert_eq!(self.pool.census().of(Owner::FREE), self.pool.capacity(), "every frame is home");
        assert_eq!(account.outstanding, 0, "nothing is left on the ledger");
        account
    }
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < WAIT, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// An Ethernet frame around `packet`.
pub fn frame(to: EtherAddr, from: EtherAddr, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + packet.len()];
    let mut ether = Ethernet::init(&mut bytes[..]).unwrap();
    ether.set_dst(to);
    ether.set_src(from);
    ether.set_ethertype(EtherType(ethertype));
    bytes[14..].copy_from_slice(packet);
    bytes
}

/// A UDP packet with `payload`, of either version, hop limit 64.
pub fn udp(src: IpAddr, dst: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_len = 8 + payload.len();
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut bytes = vec![0; 20 + udp_len];
            let mut ip = Ipv4::init(&mut bytes[..]).unwrap();
            ip.set_ttl(64);
            ip.set_protocol(Protocol::UDP);
            ip.set_src(src);
            ip.set_dst(dst);
            ip.fill_checksum();
            let pseudo = ip.pseudo_header();
            fill_udp(&mut bytes[20..], port, payload, &pseudo);
            bytes
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut bytes = vec![0; 40 + udp_len];
            let mut ip = Ipv6::init(&mut bytes[..]).unwrap();
            ip.set_next_header(Protocol::UDP);
            ip.set_hop_limit(64);
            ip.set_src(src);
            ip.set_dst(dst);
            let pseudo = ip.pseudo_header();
            fill_udp(&mut bytes[40..], port, payload, &pseudo);
            bytes
        }
        _ => panic!("one version"),
    }
}

fn fill_udp(bytes: &mut [u8], port: u16, payload: &[u8], pseudo: &nke_mbuf::wire::PseudoHeader) {
    bytes[8..].copy_from_slice(payload);
    let mut udp = Udp::init(&mut bytes[..]).unwrap();
    udp.set_src_port(4000);
    udp.set_dst_port(port);
    udp.fill_checksum(pseudo);
}

/// The answer of `host` at `address` to an ARP request in `frame`, if it is one for that address.
pub fn arp_answer(request: &[u8], host: EtherAddr, address: Ipv4Addr) -> Option<Vec<u8>> {
    if request.get(12..14) != Some(&[8, 6])
        || request[38..42] != address.octets()
        || request[20..22] != [0, 1]
    {
        return None;
    }
    let mut bytes = request.to_vec();
    bytes[..6].copy_from_slice(&request[6..12]);
    bytes[6..12].copy_from_slice(&host.0);
    bytes[20..22].copy_from_slice(&2u16.to_be_bytes());
    bytes[22..28].copy_from_slice(&host.0);
    bytes[28..32].copy_from_slice(&address.octets());
    bytes[32..42].copy_from_slice(&request[22..32]);
    Some(bytes)
}

/// Computes the checksum of the IPv4 header that begins `packet` anew, if it is all there.
pub fn fix_ipv4(packet: &mut [u8]) {
    let len = packet.first().map_or(0, |b| usize::from(b & 15) * 4);
    if len >= 20 && packet.len() >= len {
        packet[10..12].fill(0);
        let sum = nke_mbuf::wire::checksum::checksum(&packet[..len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}
