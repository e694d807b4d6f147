//! Checksums that were left to whoever sends (KPI: `mbuf_outbound_finalize`).
//!
//! No port of NKE has a device that computes checksums, so IP output does, before a packet is cut or framed: for packets of
//! extensions that asked for it, and for those whose field holds the sum over the pseudo header only, as local stacks
//! leave it.

use nke_mbuf::wire::checksum::PseudoHeader;
use nke_mbuf::wire::{Ipv4, Ipv6, Protocol};
use nke_mbuf::{Flags, Mbuf};

/// What of a packet is still to be computed.
pub const PENDING: u16 =
    Flags::CSUM_REQ_IP.0 | Flags::CSUM_REQ_TCP.0 | Flags::CSUM_REQ_UDP.0 | Flags::CSUM_L4_PARTIAL.0;

/// Where the checksum is in a header of this protocol.
fn field_of(protocol: Protocol) -> Option<usize> {
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP => Some(6),
        _ => None,
    }
}

/// Computes what is pending. Data starts at the IP header, which is contiguous with all before the transport's checksum;
/// the rest may be a chain. `false`, and nothing is changed, when the headers do not hold or the packet is a fragment.
pub fn finalize(mbuf: &mut Mbuf) -> bool {
    let flags = mbuf.flags();
    if flags.0 & PENDING == 0 {
        return true;
    }
    let transport = flags.0 & (PENDING & !Flags::CSUM_REQ_IP.0) != 0;
    if transport && !fill_transport(mbuf) {
        return false;
    }
    if flags.contains(Flags::CSUM_REQ_IP)
        && let Ok(mut ip) = Ipv4::new_quoted(mbuf.data_mut())
    {
        ip.fill_checksum();
    }
    *mbuf.flags_mut() = Flags(flags.0 & !PENDING);
    true
}

fn fill_transport(mbuf: &mut Mbuf) -> bool {
    let Some((pseudo, protocol, at)) = place(mbuf.data()) else { return false };
    let Some(field) = field_of(protocol).map(|field| at + field) else { return false };
    let Some(len) = mbuf.len().checked_sub(at) else { return false };
    match mbuf.data_mut().get_mut(field..field + 2) {
        Some(bytes) => bytes.fill(0),
        None => return false,
    }
    let value = mbuf.sum_from(at, pseudo.sum(protocol, len)).finish_for(protocol);
    mbuf.data_mut()[field..field + 2].copy_from_slice(&value.to_be_bytes());
    true
}

/// Pseudo header, protocol and place of the transport.
fn place(data: &[u8]) -> Option<(PseudoHeader, Protocol, usize)> {
    match data.first()? >> 4 {
        4 => {
            let ip = Ipv4::new_quoted(data).ok()?;
            let whole = !ip.more_fragments() && ip.fragment_offset() == 0;
            whole.then(|| (ip.pseudo_header(), ip.protocol(), ip.header_len()))
        }
        6 => {
            let ip = Ipv6::new_quoted(data).ok()?;
            let walk = ip.extensions().ok()?;
            walk.fragment
                .is_none()
                .then(|| (ip.pseudo_header(), walk.protocol, Ipv6::HEADER_LEN + walk.offset))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_mbuf::wire::Udp;
    use nke_mbuf::{Cache, Pool, PoolConfig, Region};

    fn packet(cache: &mut Cache, payload: &[u8], split: usize) -> Mbuf {
        let mut bytes = vec![0; 28 + payload.len()];
        bytes[28..].copy_from_slice(payload);
        let mut udp = Udp::init(&mut bytes[20..]).unwrap();
        udp.set_src_port(7);
        udp.set_dst_port(9);
        let mut ip = Ipv4::init(&mut bytes[..]).unwrap();
        ip.set_protocol(Protocol::UDP);
        ip.set_src([192, 0, 2, 1].into());
        ip.set_dst([192, 0, 2, 2].into());
        let mut mbuf = cache.alloc().unwrap();
        mbuf.append(split).unwrap().copy_from_slice(&bytes[..split]);
        if split < bytes.len() {
            let mut tail = cache.alloc().unwrap();
            tail.append(bytes.len() - split).unwrap().copy_from_slice(&bytes[split..]);
            mbuf.chain(tail).unwrap();
        }
        mbuf
    }

    #[test]
    fn both_checksums_come_out_right_over_any_cut() {
        let pool = Pool::new(Region::heap(2048 * 16), &PoolConfig::default()).unwrap();
        let mut cache = Cache::new(&pool);
        let payload: Vec<u8> = (0..61).collect();
        for split in [28, 29, 50, 89] {
            let mut mbuf = packet(&mut cache, &payload, split);
            mbuf.flags_mut().insert(Flags::CSUM_REQ_IP);
            mbuf.flags_mut().insert(Flags::CSUM_REQ_UDP);
            assert!(finalize(&mut mbuf));
            assert_eq!(mbuf.flags().0 & PENDING, 0);
            let mut all = vec![0; mbuf.len()];
            assert!(mbuf.copy_out(0, &mut all));
            let ip = Ipv4::new_checked(&all[..]).unwrap();
            assert!(ip.verify_checksum());
            let udp = Udp::new_checked(ip.payload()).unwrap();
            assert!(udp.checksum() != 0 && udp.verify_checksum(&ip.pseudo_header()), "split at {split}");
        }
    }

    #[test]
    fn extension_headers_of_ipv6_are_passed_over() {
        let pool = Pool::new(Region::heap(2048 * 16), &PoolConfig::default()).unwrap();
        let mut mbuf = pool.alloc().unwrap();
        let bytes = mbuf.append(40 + 8 + 8 + 3).unwrap();
        bytes.fill(0);
        bytes[56..].copy_from_slice(b"abc");
        bytes[40..48].copy_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0]); // destination options: padding
        let mut udp = Udp::init(&mut bytes[48..]).unwrap();
        udp.set_dst_port(9);
        let mut ip = Ipv6::init(&mut bytes[..]).unwrap();
        ip.set_next_header(Protocol(60));
        mbuf.flags_mut().insert(Flags::CSUM_REQ_UDP);
        assert!(finalize(&mut mbuf));
        let ip = Ipv6::new_checked(mbuf.data()).unwrap();
        assert!(Udp::new_checked(&mbuf.data()[48..]).unwrap().verify_checksum(&ip.pseudo_header()));
    }

    #[test]
    fn what_cannot_be_computed_stays_as_it_is() {
        let pool = Pool::new(Region::heap(2048 * 16), &PoolConfig::default()).unwrap();
        let mut cache = Cache::new(&pool);
        let mut mbuf = packet(&mut cache, b"abc", 31);
        mbuf.data_mut()[6] = 0x20; // more fragments
        mbuf.flags_mut().insert(Flags::CSUM_REQ_UDP);
        let before = mbuf.data().to_vec();
        assert!(!finalize(&mut mbuf));
        assert_eq!(mbuf.data(), before);
        assert!(mbuf.flags().contains(Flags::CSUM_REQ_UDP));
    }
}
