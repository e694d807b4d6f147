//! The rules for one datagram, for both versions.

use super::super::harness::bytes;
use super::*;
use nke_mbuf::Flags;
use nke_mbuf::wire::{Ipv4, Ipv6, Protocol};

fn whole(outcome: Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Whole(mbuf) => bytes(&mbuf),
        other => panic!("{other:?}"),
    }
}

fn payload(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 4 {
        let ip = Ipv4::new_checked(packet).unwrap();
        assert!(ip.verify_checksum() && !ip.is_fragment() && ip.total_len() == packet.len());
        &packet[ip.header_len()..]
    } else {
        let ip = Ipv6::new_checked(packet).unwrap();
        let walk = ip.extensions().unwrap();
        assert!(walk.fragment.is_none() && walk.protocol == Protocol::UDP && ip.total_len() == packet.len());
        &packet[40 + walk.offset..]
    }
}

#[test]
fn three_pieces_in_every_order() {
    for v6 in [false, true] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut rig = Rig::new(Config::default());
            let pieces = [
                Shape { options: 2, ..piece(v6, 0, 1000) },
                Shape { options: 1, ..piece(v6, 1000, 1600) },
                last(piece(v6, 1600, 1777)),
            ];
            assert!(matches!(rig.send(&pieces[order[0]], 0), Outcome::Held));
            assert!(matches!(rig.send(&pieces[order[1]], 1), Outcome::Held));
            assert_eq!(rig.reass.frames_held(), 2);
            let packet = whole(rig.send(&pieces[order[2]], 2));
            assert_eq!(payload(&packet), piece(v6, 0, 1777).payload);
            // The headers are those of the first fragment: its options too.
            let headers = packet.len() - 1777;
            assert_eq!(headers, if v6 { 40 + 16 } else { 20 + 8 });
            assert_eq!((rig.reass.frames_held(), rig.reass.datagrams()), (0, 0));
            rig.all_home();
        }
    }
}

#[test]
fn a_datagram_of_64_kib_and_not_a_byte_more() {
    for v6 in [false, true] {
        let longest = if v6 { 65535 } else { 65515 };
        for (end, fits) in [(longest, true), (longest + 1, false)] {
            let mut rig = Rig::new(Config::default());
            let mut outcome = None;
            for start in (0..end).step_by(1448) {
                let shape = piece(v6, start, (start + 1448).min(end));
                let shape = if start + 1448 >= end { last(shape) } else { shape };
                outcome = Some(rig.send(&shape, 0));
            }
            let outcome = outcome.unwrap();
            if fits {
                assert_eq!(payload(&whole(outcome)).len(), end);
            } else {
                // For IPv6 the last piece alone shows it, for IPv4 its header makes the difference.
                assert!(matches!(
                    &outcome,
                    Outcome::Dropped(DropReason::TooLong) | Outcome::Answer(_, DropReason::TooLong, _)
                ));
                drop(outcome);
            }
            rig.all_home();
        }
    }
}

/// Eight ways to overlap bytes 800..1600 (RFC 5722 and its relatives): each kills the datagram and what is to come.
#[test]
fn every_overlap_kills_the_datagram() {
    let ways = [
        (792, 1608),
        (800, 1608),
        (792, 1600),
        (800, 1592),
        (808, 1600),
        (808, 1592),
        (792, 808),
        (1592, 1608),
    ];
    for v6 in [false, true] {
        for (start, end) in ways {
            let mut rig = Rig::new(Config::default());
            assert!(rig.reason(&piece(v6, 0, 400), 0).is_none());
            assert!(rig.reason(&piece(v6, 800, 1600), 0).is_none());
            assert_eq!(rig.reason(&piece(v6, start, end), 0), Some(DropReason::Overlap), "{start}..{end}");
            assert_eq!((rig.reass.frames_held(), rig.reass.datagrams()), (0, 1));
            // What would have completed it is dropped, until the time is over.
            assert_eq!(rig.reason(&piece(v6, 400, 800), 1), Some(DropReason::Dead));
            assert_eq!(rig.reason(&last(piece(v6, 1600, 1601)), 29_999), Some(DropReason::Dead));
            assert_eq!(rig.reason(&piece(v6, 0, 400), 60_000), None);
            assert_eq!(rig.reass.stats().killed, 2);
            assert_eq!(rig.reass.stats().timeouts, 0);
            rig.all_home();
        }
    }
}

#[test]
fn exact_duplicates_are_ignored_and_false_ones_are_overlaps() {
    for v6 in [false, true] {
        let mut rig = Rig::new(Config::default());
        let pieces = [piece(v6, 0, 800), piece(v6, 800, 1200), last(piece(v6, 1600, 1700))];
        for shape in &pieces {
            assert!(matches!(rig.send(shape, 0), Outcome::Held));
        }
        for shape in &pieces {
            // Other headers make no difference: a duplicate went another way.
            let other = Shape { options: 1, ..shape.clone() };
            assert_eq!(rig.reason(&other, 0), Some(DropReason::Duplicate));
        }
        assert_eq!(payload(&whole(rig.send(&piece(v6, 1200, 1600), 0))).len(), 1700);

        let mut forged = piece(v6, 800, 1200);
        forged.payload[399] ^= 1;
        for forged in [forged, last(piece(v6, 800, 1200))] {
            let mut rig = Rig::new(Config::default());
            rig.reason(&pieces[0], 0);
            rig.reason(&pieces[1], 0);
            assert_eq!(rig.reason(&forged, 0), Some(DropReason::Overlap));
        }
        // The same for the last one, sent again with "more".
        let mut rig = Rig::new(Config::default());
        rig.reason(&last(piece(v6, 800, 1600)), 0);
        assert_eq!(rig.reason(&piece(v6, 800, 1600), 0), Some(DropReason::Overlap));
    }
}

#[test]
fn two_ends_kill_the_datagram() {
    for v6 in [false, true] {
        let end = last(piece(v6, 800, 1600));
        for other in [
            piece(v6, 1600, 1608),       // behind the end
            last(piece(v6, 1600, 1608)), // a later end
            last(piece(v6, 400, 800)),   // an earlier end
        ] {
            let mut rig = Rig::new(Config::default());
            assert!(rig.reason(&end, 0).is_none());
            assert_eq!(rig.reason(&other, 0), Some(DropReason::BadEnd));
            assert_eq!(rig.reason(&piece(v6, 0, 400), 0), Some(DropReason::Dead));
        }
        let mut rig = Rig::new(Config::default());
        rig.reason(&piece(v6, 800, 1600), 0);
        assert_eq!(rig.reason(&last(piece(v6, 8, 80)), 0), Some(DropReason::BadEnd));
    }
}

#[test]
fn bad_lengths_are_refused_and_harm_nothing() {
    for v6 in [false, true] {
        let mut rig = Rig::new(Config::default());
        assert!(rig.reason(&piece(v6, 0, 800), 0).is_none());
        for bad in [piece(v6, 800, 801), piece(v6, 800, 1207), piece(v6, 800, 800), last(piece(v6, 800, 800))]
        {
            assert_eq!(rig.reason(&bad, 0), Some(DropReason::BadLength));
        }
        // Ping of death: the last fragment at the highest offset.
        let death = last(Shape { start: 65528, ..piece(v6, 0, 1400) });
        assert_eq!(rig.reason(&death, 0), Some(DropReason::TooLong));
        assert_eq!(payload(&whole(rig.send(&last(piece(v6, 800, 900)), 0))).len(), 900);
        rig.all_home();
    }
}

#[test]
fn ipv6_senders_are_told_which_byte_is_wrong() {
    let mut rig = Rig::new(Config::default());
    let problem = |rig: &mut Rig, shape: &Shape| match rig.send(shape, 0) {
        Outcome::Answer(mbuf, reason, problem) => {
            assert_eq!(bytes(&mbuf), shape.bytes());
            (reason, problem.code, problem.pointer)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(&mut rig, &piece(true, 8, 17)), (DropReason::BadLength, 0, 4));
    let far = Shape { start: 65528, options: 1, ..piece(true, 0, 16) };
    assert_eq!(problem(&mut rig, &far), (DropReason::TooLong, 0, 40 + 8 + 2));
    // RFC 7112: eight bytes of UDP are enough, seven would be none (and no multiple of eight); of TCP, 16 are not.
    let mut shape = piece(true, 0, 16);
    let mut bytes = shape.bytes();
    bytes[40] = Protocol::TCP.0;
    match rig.send_bytes(&bytes, 0) {
        Outcome::Answer(_, DropReason::IncompleteChain, Problem { code: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    // A chain of headers that goes on in the next fragment.
    bytes[40] = Protocol::DEST_OPTIONS.0;
    bytes[49] = 1; // 24 bytes, of which 16 are here
    bytes[48] = 17;
    bytes[49] = 2;
    match rig.send_bytes(&bytes, 0) {
        Outcome::Answer(_, DropReason::IncompleteChain, _) => {}
        other => panic!("{other:?}"),
    }
    shape.payload.truncate(8);
    assert!(matches!(rig.send(&shape, 0), Outcome::Held));
    rig.all_home();
}

#[test]
fn atomic_fragments_are_handled_in_isolation() {
    let mut rig = Rig::new(Config::default());
    assert!(matches!(rig.send(&piece(true, 0, 800), 0), Outcome::Held));
    for options in [0, 1, 2] {
        let atomic = last(Shape { options, ..piece(true, 0, 333) });
        let packet = whole(rig.send(&atomic, 0));
        assert_eq!(payload(&packet), atomic.payload);
        assert_eq!(packet.len(), 40 + options * 8 + 333);
    }
    assert_eq!((rig.reass.datagrams(), rig.reass.stats().atomic), (1, 3));
    assert_eq!(payload(&whole(rig.send(&last(piece(true, 800, 900)), 0))).len(), 900);
    rig.all_home();
}

#[test]
fn congestion_on_the_way_is_not_lost() {
    for v6 in [false, true] {
        let ecn = |first, second| {
            let mut rig = Rig::new(Config::default());
            let _ = rig.send(&Shape { ecn: first, ..piece(v6, 0, 800) }, 0);
            match rig.send(&last(Shape { ecn: second, ..piece(v6, 800, 900) }), 0) {
                Outcome::Whole(mbuf) => {
                    let byte = if v6 { mbuf.data()[1] >> 4 } else { mbuf.data()[1] };
                    Some(byte & 3)
                }
                Outcome::Dropped(reason) => {
                    assert_eq!(reason, DropReason::Ecn);
                    None
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((ecn(0, 0), ecn(1, 1), ecn(2, 2), ecn(3, 3)), (Some(0), Some(1), Some(2), Some(3)));
        assert_eq!((ecn(2, 3), ecn(3, 1)), (Some(3), Some(3)));
        assert_eq!((ecn(0, 3), ecn(3, 0)), (None, None));
        assert_eq!((ecn(2, 0), ecn(2, 1)), (Some(0), Some(2)));
    }
}

#[test]
fn padding_is_cut_off_and_facts_come_from_the_first() {
    let mut rig = Rig::new(Config::default());
    let mut facts = |shape: &Shape, rcvif, flag| {
        let mut bytes = shape.bytes();
        bytes.extend([0xee; 18]);
        let mut mbuf = mbuf(&bytes, 1600, &mut rig.cache).unwrap();
        mbuf.set_rcvif(rcvif);
        mbuf.flags_mut().insert(flag);
        rig.reass.input(mbuf, 0, &mut rig.cache)
    };
    let _ = facts(&last(piece(false, 8, 11)), 5, Flags::PROMISC);
    let Outcome::Whole(mbuf) = facts(&piece(false, 0, 8), 3, Flags::CSUM_L4_GOOD) else { panic!() };
    assert_eq!(mbuf.rcvif(), 3);
    assert_eq!(mbuf.flags(), Flags(0));
    assert_eq!(payload(&bytes(&mbuf)), piece(false, 0, 11).payload);
}

#[test]
fn packets_that_are_no_fragments_pass_untouched() {
    let mut rig = Rig::new(Config::default());
    let mut other = piece(false, 0, 100);
    other.more = false;
    let Outcome::NotAFragment(mbuf) = rig.send(&other, 0) else { panic!() };
    assert_eq!(bytes(&mbuf), other.bytes());
    assert!(FragmentKey::of(&mbuf).is_none());
    assert_eq!(rig.reass.stats(), &Stats::default());
    for junk in [&[][..], &[0x45], &[0x60, 0, 0], &[0xff; 60]] {
        let Outcome::Dropped(DropReason::BadHeader) = rig.send_bytes(junk, 0) else { panic!() };
    }
}

#[test]
fn what_fragments_share_keeps_datagrams_apart() {
    let base = piece(false, 0, 8).bytes();
    let key = |at: usize, byte: u8, rcvif| {
        let mut rig = Rig::new(Config::default());
        let mut bytes = base.clone();
        bytes[at] ^= byte;
        let mut mbuf = mbuf(&bytes, 1600, &mut rig.cache).unwrap();
        mbuf.set_rcvif(rcvif);
        FragmentKey::of(&mbuf).unwrap()
    };
    let same = key(8, 1, 0); // TTL
    assert_eq!(key(8, 0, 9), same);
    for at in [4, 5, 9, 12, 15, 16, 19] {
        assert_ne!(key(at, 1, 0), same, "byte {at}");
    }
    let steering = Steering::new([3, 4]);
    let workers: Vec<_> = (0..64).map(|n| steering.worker(&key(5, n, 0), 4)).collect();
    assert!((0..4).all(|worker| workers.contains(&worker)));
    assert_eq!(steering.worker(&same, 4), steering.worker(&key(8, 0, 0), 4));
    // On a link, the interface is part of who is who.
    let v6 =
        |src: &str, rcvif| FragmentKey::v6(src.parse().unwrap(), "2001:db8::1".parse().unwrap(), 1, rcvif);
    assert_ne!(v6("fe80::1", 1), v6("fe80::1", 2));
    assert_eq!(v6("2001:db8::2", 1), v6("2001:db8::2", 2));
}
