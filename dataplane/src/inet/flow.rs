//! Which packets belong to one flow, for spreading flows over ways of equal cost (RFC 2992, RFC 6438).

use nke_filters::Family;

/// A number that packets of one flow share: of addresses, protocol, and ports where the packet has them. `data` is at the
/// IP header. IPv6 with extension headers goes by addresses and flow label.
pub(super) fn flow_hash(family: Family, data: &[u8]) -> u32 {
    let word = |at: usize| match data.get(at..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => u32::from_le_bytes(*bytes),
        None => 0,
    };
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let (addresses, protocol, ports) = match family {
        Family::V4 => (12..20, byte(9), usize::from(byte(0) & 15) * 4),
        Family::V6 => (8..40, byte(6), 40),
    };
    let mut hash = u32::from(protocol);
    for at in addresses.step_by(4) {
        hash = mix(hash, word(at));
    }
    match family {
        // Fragments of one datagram stay together: none of them goes by ports.
        Family::V4 if byte(6) & 0x3f != 0 || byte(7) != 0 => (),
        _ if matches!(protocol, 6 | 17 | 132 | 136) => hash = mix(hash, word(ports)),
        Family::V6 => hash = mix(hash, word(0) & u32::from_le_bytes([0, 0x0f, 0xff, 0xff])),
        Family::V4 => (),
    }
    // The low bits choose the bucket.
    hash ^ hash >> 16
}

fn mix(hash: u32, word: u32) -> u32 {
    (hash ^ word).wrapping_mul(0x9e37_79b1).rotate_left(15).wrapping_mul(0x85eb_ca77)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_and_fragments_stay_together() {
        let mut packet = [0u8; 28];
        (packet[0], packet[9]) = (0x45, 17);
        let mut buckets = [0u32; 4];
        for port in 0..4096u16 {
            packet[20..22].copy_from_slice(&port.to_be_bytes());
            buckets[flow_hash(Family::V4, &packet) as usize % 4] += 1;
        }
        assert!(buckets.iter().all(|n| (900..1150).contains(n)), "{buckets:?}");
        let (mut first, mut later) = (packet, packet);
        (first[6], later[7]) = (0x20, 185);
        later[20..24].fill(0xaa);
        assert_eq!(flow_hash(Family::V4, &first), flow_hash(Family::V4, &later));
        assert_eq!(
            flow_hash(Family::V6, &packet[..3]),
            flow_hash(Family::V6, &packet[..3]),
            "short data is read as zeros"
        );
    }
}
