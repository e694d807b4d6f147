//! Frames by hand.

pub(crate) const TAG: [u8; 4] = [0x81, 0, 0x60, 5];
pub(crate) const SERVICE_TAG: [u8; 4] = [0x88, 0xa8, 0, 7];

/// MAC addresses, `tags`, and what follows.
pub(crate) fn ether(tags: &[[u8; 4]], rest: &[&[u8]]) -> Vec<u8> {
    [&[2; 12], &tags.concat()[..], &rest.concat()].concat()
}

/// IPv4 with its ethertype: `words` of header, flags and fragment offset, protocol.
pub(crate) fn ipv4(words: u8, fragment: u16, protocol: u8) -> Vec<u8> {
    let mut header = vec![0x40 | words, 0, 0, 60, 0, 0, 0, 0, 64, protocol];
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header.resize(usize::from(words.max(5)) * 4, 0xee);
    [&[0x08, 0], &header[..]].concat()
}

pub(crate) fn ipv6(next: u8) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 20, next, 64];
    header.resize(40, 0xee);
    [&[0x86, 0xdd], &header[..]].concat()
}

pub(crate) fn ports(src: u16, dst: u16) -> Vec<u8> {
    [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0; 16]].concat()
}

pub(crate) fn udp_frame() -> Vec<u8> {
    ether(&[], &[&ipv4(5, 0, 17), &ports(9, 9), &[0; 20]])
}

/// One's complement sum of an IPv4 or IPv6 UDP or TCP segment with its pseudo header: 0xffff if the checksum is right.
pub(crate) fn verify(frame: &[u8], protocol: u8, l4: usize) -> u16 {
    let addresses = if frame[14] >> 4 == 4 { &frame[26..34] } else { &frame[22..54] };
    let len = (frame.len() - l4) as u16;
    let pseudo = [addresses, &[0, protocol], &len.to_be_bytes(), &frame[l4..]].concat();
    let mut sum: u32 =
        pseudo.chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Numbers below what is asked for, the same ones in each run.
pub(crate) fn numbers() -> impl FnMut(usize) -> usize {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    move |below| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    }
}
