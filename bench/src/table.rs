//! A routing table of realistic shape, and traffic for it. The same every time.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use nke_dataplane::inet::Net;
use nke_dataplane::port::frames::udp_frame;
use nke_mbuf::wire::EtherAddr;
use nke_mbuf::wire::checksum::checksum;

/// Of a thousand routes so many have a prefix of this length: about what the Internet's routing table looks like, and a few
/// longer ones as networks have inside.
const LENGTHS: [(u8, u32); 16] = [
    (24, 592),
    (23, 100),
    (22, 115),
    (21, 50),
    (20, 45),
    (19, 26),
    (18, 14),
    (17, 9),
    (16, 14),
    (15, 3),
    (14, 3),
    (13, 2),
    (12, 2),
    (25, 5),
    (28, 8),
    (32, 12),
];

/// Numbers that look random (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % u64::from(n)) as u32
    }

    /// An address of the unicast space that is not set aside for something.
    fn address(&mut self) -> u32 {
        let first = 11 + self.below(115);
        first << 24 | self.below(1 << 24)
    }
}

/// Prefixes, all different, in no order.
pub struct Table(Vec<(u32, u8)>);

impl Table {
    /// `count` of them.
    pub fn new(count: usize) -> Table {
        let (mut dice, mut seen) = (Dice(1), HashSet::new());
        let mut prefixes = Vec::with_capacity(count);
        while prefixes.len() < count {
            let mut at = dice.below(1000);
            let len = LENGTHS.iter().find_map(|&(len, share)| match at.checked_sub(share) {
                None => Some(len),
                Some(rest) => {
                    at = rest;
                    None
                }
            });
            let len = len.unwrap_or(24);
            let prefix = (dice.address() & (u32::MAX << (32 - len)), len);
            if seen.insert(prefix) {
                prefixes.push(prefix);
            }
        }
        Table(prefixes)
    }

    /// The prefixes.
    pub fn nets(&self) -> impl Iterator<Item = Net> {
        self.0.iter().map(|&(address, len)| Net { address: IpAddr::V4(address.into()), len })
    }

    /// An address in each of the first `count` prefixes.
    pub fn destinations(&self, count: usize) -> Vec<Ipv4Addr> {
        let mut dice = Dice(2);
        let hosts = |len: u8| u32::MAX.checked_shr(len.into()).unwrap_or(0);
        let inside = |&(address, len): &(u32, u8)| (address | (dice.below(u32::MAX) & hosts(len))).into();
        self.0.iter().cycle().take(count).map(inside).collect()
    }
}

/// Fills `frame` with a UDP datagram of flow `flow` to `to`, in a frame to station `station`.
pub fn routed_frame(frame: &mut [u8], flow: u32, to: Ipv4Addr, station: EtherAddr) {
    udp_frame(frame, flow);
    frame[..6].copy_from_slice(&station.0);
    frame[30..34].copy_from_slice(&to.octets());
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_mbuf::wire::Ipv4;

    #[test]
    fn traffic_is_for_the_table() {
        assert_eq!(LENGTHS.iter().map(|(_, share)| share).sum::<u32>(), 1000);
        let table = Table::new(2000);
        let nets: Vec<_> = table.nets().collect();
        let destinations = table.destinations(1000);
        assert!(destinations.iter().zip(&nets).all(|(to, net)| net.contains(IpAddr::V4(*to))));
        assert_eq!(destinations.iter().collect::<HashSet<_>>().len(), 1000);
        let mut frame = [0; 60];
        routed_frame(&mut frame, 7, destinations[7], EtherAddr([2, 0, 0, 0, 0, 9]));
        let ip = Ipv4::new_checked(&frame[14..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.dst(), frame[5]), (destinations[7], 9));
    }
}
