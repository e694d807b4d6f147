//! What a source writes into its frames, seen without sending them.

use af_xdp::program::{LiveConfig, LiveSource};

use crate::common::root;
use crate::frames::{ether, ipv4, ipv6, verify};
use crate::refusal;

#[test]
fn generated_frames_have_flows_numbers_stamps_and_checksums() {
    if !root() {
        return;
    }
    for (name, ip, protocol, header, sequence) in [
        ("UDP", ipv4(5, 0, 17), 17, 8, 50),
        ("TCP", ipv4(5, 0, 6), 6, 20, 54),
        ("UDP on IPv6", ipv6(17), 17, 8, 62),
        ("TCP on IPv6 and options", ipv6(6), 6, 24, 80),
    ] {
        let l4 = 12 + ip.len();
        let mut frame = ether(&[], &[&ip]);
        frame.resize(l4 + header, 0x11);
        frame.extend((0..41).map(|i| i as u8));
        let checksum = if protocol == 17 { l4 + 6 } else { l4 + 16 };
        if protocol == 6 {
            frame[l4 + 12] = (header as u8 / 4) << 4;
        }
        frame[checksum..checksum + 2].fill(0);
        let right = !verify(&frame, protocol, l4);
        frame[checksum..checksum + 2].copy_from_slice(&right.to_be_bytes());
        assert_eq!(verify(&frame, protocol, l4), 0xffff);

        let flows = 5u16;
        let config = LiveConfig { flows: flows.into(), stamp: true, sequence: Some(sequence) };
        let source = LiveSource::with("lo", &frame, &config).unwrap();
        let stamped = header == 8 && l4 == 34;
        let mut last = 0;
        for number in 0..300u64 {
            let made = source.preview().unwrap();
            assert_eq!(made.len(), frame.len());
            let port = u16::from_be_bytes([made[l4], made[l4 + 1]]);
            assert_eq!(port, 1024 + (number % u64::from(flows)) as u16, "{name} {number}");
            assert_eq!(made[sequence..sequence + 8], number.to_be_bytes(), "{name}");
            if stamped {
                let stamp = u64::from_ne_bytes(made[42..50].try_into().unwrap());
                assert!(stamp > last, "time goes on");
                last = stamp;
            }
            assert_eq!(verify(&made, protocol, l4), 0xffff, "{name} {number}: {made:02x?}");
            let mut rest = made.clone();
            let restore = [(l4, 2), (checksum, 2), (sequence, 8), (42, if stamped { 8 } else { 0 })];
            for (at, len) in restore {
                rest[at..at + len].copy_from_slice(&frame[at..at + len]);
            }
            assert_eq!(rest, frame, "{name}: nothing else is changed");
        }
        assert_eq!(source.counters().unwrap().packets, 300);
    }
    // A frame without a checksum keeps none, one flow keeps its port.
    let frame = [&ether(&[], &[&ipv4(5, 0, 17)])[..], &[0, 7, 0, 9, 0, 8, 0, 0], &[0; 30]].concat();
    let plain = LiveSource::with("lo", &frame, &LiveConfig { stamp: false, ..Default::default() }).unwrap();
    assert_eq!(plain.preview().unwrap(), frame);
    let id = |frame: &[u8], config: &LiveConfig| refusal(LiveSource::with("lo", frame, config)).id();
    let numbered = |at| LiveConfig { sequence: Some(at), ..Default::default() };
    // Odd, in the header, on the stamp, beyond the end.
    for at in [51, 40, 48, 66] {
        assert_eq!(id(&frame, &numbered(at)), "AFXDP-SOURCE-FRAME", "{at}");
    }
    let arp = ether(&[], &[&[0x08, 0x06], &[0; 28]]);
    assert_eq!(id(&arp, &LiveConfig { flows: 2, ..Default::default() }), "AFXDP-SOURCE-FRAME");
    assert_eq!(id(&[0; 13], &LiveConfig::default()), "AFXDP-SOURCE-FRAME");
    assert_eq!(id(&[0; 4000], &LiveConfig::default()), "AFXDP-SOURCE-FRAME");
}

/// Sums that carry twice, and a checksum that comes out as 0, which UDP writes as 0xffff.
#[test]
fn checksums_are_right_at_the_edges() {
    if !root() {
        return;
    }
    const PORT: usize = 34;
    const CHECKSUM: usize = 40;
    const FILLER: usize = 42;
    const SEQUENCE: usize = 44;
    // With these fields zero, `filler` brings the sum of what is left to `wanted`.
    let frame_with_sum = |wanted: u16| {
        let mut frame = [&ether(&[], &[&ipv4(5, 0, 17)])[..], &[0; 18]].concat();
        let left = u32::from(verify(&frame, 17, PORT));
        let filler = (u32::from(wanted) + 0xffff - left) % 0xffff;
        frame[FILLER..FILLER + 2].copy_from_slice(&(filler as u16).to_be_bytes());
        // The checksum that is right for these zeros.
        let right = !verify(&frame, 17, PORT);
        frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&right.to_be_bytes());
        assert_eq!(verify(&frame, 17, PORT), 0xffff);
        frame
    };
    let config = LiveConfig { flows: 5, stamp: false, sequence: Some(SEQUENCE) };
    // Frame 254 has port 1028: in the other byte order 0x0404 + 0xfe00 + 0xfdfb is 0x1ffff.
    let twice = LiveSource::with("lo", &frame_with_sum(0xfdfbu16.swap_bytes()), &config).unwrap();
    for number in 0..300 {
        let made = twice.preview().unwrap();
        assert_eq!(verify(&made, 17, PORT), 0xffff, "{number}");
    }
    // Frame 0 has port 1024 = 0x0400.
    let zero = LiveSource::with("lo", &frame_with_sum(0xffff - 0x0400), &config).unwrap();
    let made = zero.preview().unwrap();
    assert_eq!(made[CHECKSUM..CHECKSUM + 2], [0xff, 0xff]);
}
