//! Where the fields of a frame are that a generator changes.

/// Offsets in a frame of TCP, UDP or another transport protocol that begins with two ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) src_port: usize,
    /// The transport checksum, if the frame has one.
    pub(super) checksum: Option<usize>,
    /// UDP: a checksum of 0 means "none", so one that is 0 is written as 0xffff.
    pub(super) udp: bool,
    pub(super) payload: usize,
}

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;

impl Layout {
    /// Looks behind at most two VLAN tags, IPv4 with its options or the fixed IPv6 header. `None` if there are no ports,
    /// or not all of the transport header. Takes for granted that a fragment is the first.
    pub(super) fn of(frame: &[u8]) -> Option<Layout> {
        let half = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let (mut at, mut ethertype) = (14, half(12)?);
        for _ in 0..2 {
            if matches!(ethertype, 0x8100 | 0x88a8) {
                ethertype = half(at + 2)?;
                at += 4;
            }
        }
        let (protocol, transport) = match (ethertype, frame.get(at)?) {
            (0x0800, first @ 0x45..=0x4f) => (*frame.get(at + 9)?, at + usize::from(first & 0xf) * 4),
            (0x86dd, 0x60..=0x6f) => (*frame.get(at + 6)?, at + 40),
            _ => return None,
        };
        let (checksum, header) = match protocol {
            TCP => (Some(transport + 16), usize::from(frame.get(transport + 12)? >> 4) * 4),
            UDP => (Some(transport + 6).filter(|at| half(*at) != Some(0)), 8),
            _ => (None, 8),
        };
        let layout =
            Layout { src_port: transport, checksum, udp: protocol == UDP, payload: transport + header };
        let whole = layout.payload <= frame.len() && checksum.is_none_or(|at| at + 2 <= frame.len());
        whole.then_some(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tags: &[u8], ip: &[u8], ip_len: usize, rest: usize) -> Vec<u8> {
        let mut bytes = [&[2u8; 12], tags, ip].concat();
        bytes.resize(12 + tags.len() + 2 + ip_len + rest, 1);
        bytes
    }

    #[test]
    fn fields_are_found_behind_tags_and_options() {
        let v4 = [8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, UDP];
        let plain = Layout { src_port: 34, checksum: Some(40), udp: true, payload: 42 };
        assert_eq!(Layout::of(&frame(&[], &v4, 20, 8)), Some(plain));
        assert_eq!(Layout::of(&frame(&[], &v4, 20, 7)), None, "half a header");
        let mut unsummed = frame(&[], &v4, 20, 8);
        unsummed[40..42].fill(0);
        assert_eq!(Layout::of(&unsummed), Some(Layout { checksum: None, ..plain }));
        let tagged = Layout::of(&frame(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5], &v4, 20, 8));
        assert_eq!(tagged.map(|l| l.src_port), Some(42));
        let options = [&[8, 0, 0x47], &v4[3..]].concat();
        assert_eq!(Layout::of(&frame(&[], &options, 28, 8)).map(|l| l.src_port), Some(42));
        let v6 = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, TCP];
        let mut tcp = frame(&[], &v6, 40, 24);
        tcp[54 + 12] = 0x60;
        let expected = Layout { src_port: 54, checksum: Some(70), udp: false, payload: 78 };
        assert_eq!(Layout::of(&tcp), Some(expected));
        assert_eq!(Layout::of(&frame(&[], &[8, 6], 28, 18)), None, "ARP");
        for len in 0..plain.payload {
            assert_eq!(Layout::of(&frame(&[], &v4, 20, 8)[..len]), None, "{len}");
        }
    }
}
