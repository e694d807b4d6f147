//! Frames that sources and benches send.

use nke_mbuf::wire::checksum::checksum;

/// Ethernet, IPv4 and UDP headers, in bytes.
pub const HEADERS_LEN: usize = 14 + 20 + 8;

/// Fills `frame` with a UDP datagram of flow number `flow`: source address, destination address and source port
/// differ between flows (198.18.0.0/15 is set aside for benchmarks by RFC 2544). The UDP checksum is 0, "not used".
///
/// # Panics
/// When `frame` is shorter than [`HEADERS_LEN`] or longer than an IPv4 packet can be.
pub fn udp_frame(frame: &mut [u8], flow: u32) {
    let ip_len = u16::try_from(frame.len() - 14).unwrap_or_else(|_| panic!("frame of {} bytes", frame.len()));
    let [f0, f1, f2, f3] = flow.to_be_bytes();
    frame.fill(0);
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&[198, 18, f2, f3]);
    ip[16..20].copy_from_slice(&[198, 19, f3, f2]);
    let sum = checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = &mut frame[34..];
    udp[..2].copy_from_slice(
        &(1024 + (u16::from_be_bytes([f0, f1]) ^ u16::from_be_bytes([f2, f3])) % 60000).to_be_bytes(),
    );
    udp[2..4].copy_from_slice(&9u16.to_be_bytes());
    udp[4..6].copy_from_slice(&(ip_len - 20).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_mbuf::wire::{Ipv4, Udp};
    use std::collections::HashSet;

    #[test]
    fn frames_are_well_formed_and_flows_differ() {
        let mut flows = HashSet::new();
        for flow in 0..70_000 {
            let mut frame = [0; 60];
            udp_frame(&mut frame, flow);
            let ip = Ipv4::new_checked(&frame[14..]).unwrap();
            assert!(ip.verify_checksum());
            let udp = Udp::new_checked(ip.payload()).unwrap();
            assert_eq!(udp.total_len(), 60 - 34);
            flows.insert((ip.src(), ip.dst(), udp.src_port(), udp.dst_port()));
        }
        assert_eq!(flows.len(), 70_000);
    }
}
