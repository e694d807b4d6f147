//! Fragments put together again are the packet that was cut, in any order, some twice.

use super::*;
use crate::reass::harness::{Shape, bytes, mbuf, pool};
use crate::reass::{Config, Outcome, Reassembler};
use nke_mbuf::{Owner, TagId};
use proptest::prelude::*;

/// An IPv4 packet with `words` words of options, the first of which (if two) is copied, the others not.
fn packet_v4(words: usize, len: usize) -> Vec<u8> {
    let header_len = 20 + words * 4;
    let mut ip = Ipv4::init(vec![0; header_len + len]).unwrap();
    ip.set_header_len(header_len).unwrap();
    for (at, option) in ip.options_mut().chunks_mut(4).enumerate() {
        option.copy_from_slice(&[if at % 2 == 0 { 0x94 } else { 0x44 }, 4, at as u8, 9]);
    }
    ip.set_src([192, 0, 2, 1].into());
    ip.set_dst([192, 0, 2, 2].into());
    ip.set_ident(0x1234);
    ip.set_ttl(9);
    ip.set_protocol(Protocol::UDP);
    ip.payload_mut().iter_mut().enumerate().for_each(|(n, byte)| *byte = (n + (n >> 8)) as u8);
    ip.fill_checksum();
    ip.into_inner()
}

/// An IPv6 packet with these extension headers, of 8 bytes each.
fn packet_v6(kinds: &[Protocol], len: usize) -> Vec<u8> {
    let mut ip = Ipv6::init(vec![0; 40 + kinds.len() * 8 + len]).unwrap();
    ip.set_src("2001:db8::1".parse().unwrap());
    ip.set_dst("2001:db8::2".parse().unwrap());
    ip.set_hop_limit(3);
    ip.set_traffic_class(2);
    ip.set_next_header(kinds.first().copied().unwrap_or(Protocol::UDP));
    let (ext, data) = ip.payload_mut().split_at_mut(kinds.len() * 8);
    for (at, header) in ext.chunks_mut(8).enumerate() {
        let next = kinds.get(at + 1).copied().unwrap_or(Protocol::UDP);
        header.copy_from_slice(&[next.0, 0, 1, 4, 0, 0, 0, 0]);
    }
    data.iter_mut().enumerate().for_each(|(n, byte)| *byte = (n + (n >> 8)) as u8);
    ip.into_inner()
}

fn cut(packet: Mbuf, mtu: usize, cache: &mut Cache) -> Result<Vec<Mbuf>, (Mbuf, FragError)> {
    let mut out = Vec::new();
    let count = if packet.data()[0] >> 4 == 4 {
        fragment_v4(packet, mtu, cache, |piece| out.push(piece))?
    } else {
        fragment_v6(packet, mtu, 0xfeed_beef, cache, |piece| out.push(piece))?
    };
    assert_eq!(count, out.len());
    Ok(out)
}

fn arb_packet() -> impl Strategy<Value = Vec<u8>> {
    use Protocol as P;
    let chains = vec![
        vec![],
        vec![P::HOP_BY_HOP],
        vec![P::DEST_OPTIONS],
        vec![P::HOP_BY_HOP, P::DEST_OPTIONS, P::ROUTING, P::DEST_OPTIONS],
    ];
    prop_oneof![
        (0usize..=10, 8usize..9000).prop_map(|(words, len)| packet_v4(words, len)),
        (prop::sample::select(chains), 8usize..20000).prop_map(|(kinds, len)| packet_v6(&kinds, len)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn fragments_put_together_are_the_packet(
        packet in arb_packet(), mtu in 300usize..3000, segment in 400usize..1800, keys in prop::collection::vec(any::<u32>(), 64)
    ) {
        let v6 = packet[0] >> 4 == 6;
        let mtu = if v6 { mtu + 1000 } else { mtu };
        let pool = pool(400, 2048);
        let mut cache = Cache::new(&pool);
        let whole = mbuf(&packet, segment, &mut cache).unwrap();
        prop_assume!(whole.segment_count() < 60);
        let mut pieces = cut(whole, mtu, &mut cache).unwrap();
        prop_assert!(pieces.iter().all(|piece| piece.len() <= mtu && piece.headroom() >= 32));
        prop_assert_eq!(pieces.len() > 1, packet.len() > mtu);
        prop_assume!(pieces.len() <= 64);

        // In the order of random keys; those with odd ones twice.
        let copies: Vec<_> =
            pieces.iter().zip(&keys).filter(|(_, key)| *key & 1 == 1).map(|(m, key)| (key.wrapping_mul(77), m.dup(&mut cache).unwrap())).collect();
        let mut script: Vec<_> = keys.iter().copied().zip(pieces.drain(..)).chain(copies).collect();
        script.sort_by_key(|(key, _)| *key);
        let mut reass = Reassembler::new(Config::default(), [5, 6]);
        let mut got = Vec::new();
        for (_, piece) in script {
            match reass.input(piece, 0, &mut cache) {
                Outcome::Whole(mbuf) | Outcome::NotAFragment(mbuf) => got.push(bytes(&mbuf)),
                Outcome::Held | Outcome::Dropped(crate::reass::DropReason::Duplicate) => {}
                other => panic!("{other:?}"),
            }
        }
        prop_assert!(got.iter().all(|got| *got == packet));
        prop_assert!(!got.is_empty());
        reass.flush(&mut cache);
        drop(cache);
        prop_assert_eq!(pool.census().of(Owner::FREE), pool.capacity());
    }

    /// A fragment is fragmented again; all pieces together are still the packet.
    #[test]
    fn fragments_of_fragments(len in 2000usize..6000, first in 600usize..1500, second in 68usize..600) {
        let pool = pool(400, 2048);
        let mut cache = Cache::new(&pool);
        let packet = packet_v4(1, len);
        let whole = mbuf(&packet, 2048, &mut cache).unwrap();
        let mut reass = Reassembler::new(Config::default(), [5, 6]);
        let pieces = cut(whole, first, &mut cache).unwrap();
        let smaller: Vec<_> = pieces.into_iter().flat_map(|piece| cut(piece, second, &mut cache).unwrap()).collect();
        prop_assume!(smaller.len() <= 64);
        let mut got = None;
        for piece in smaller {
            prop_assert!(Ipv4::new_checked(piece.data()).unwrap().verify_checksum());
            if let Outcome::Whole(mbuf) = reass.input(piece, 0, &mut cache) {
                got = Some(bytes(&mbuf));
            }
        }
        prop_assert_eq!(got, Some(packet));
    }
}

#[test]
fn options_are_copied_by_their_flag() {
    let pool = pool(16, 2048);
    let mut cache = Cache::new(&pool);
    let packet = mbuf(&packet_v4(3, 200), 2048, &mut cache).unwrap();
    let pieces = cut(packet, 120, &mut cache).unwrap();
    let headers: Vec<_> = pieces.iter().map(|piece| Ipv4::new_checked(piece.data()).unwrap()).collect();
    assert_eq!(headers.iter().map(|ip| ip.header_len()).collect::<Vec<_>>(), [32, 28, 28]);
    let kinds = |at: usize| headers[at].options().map(|o| o.unwrap().kind).collect::<Vec<_>>();
    assert_eq!((kinds(0), kinds(1)), (vec![0x94, 0x44, 0x94], vec![0x94, 0x94]));
    let cuts: Vec<_> = headers.iter().map(|ip| (ip.fragment_offset(), ip.more_fragments())).collect();
    assert_eq!(cuts, [(0, true), (88, true), (176, false)]);
    assert!(headers.iter().all(|ip| ip.verify_checksum() && ip.ident() == 0x1234 && ip.ttl() == 9));
}

#[test]
fn only_what_every_router_reads_comes_before_the_fragment_header() {
    use Protocol as P;
    let pool = pool(16, 2048);
    let mut cache = Cache::new(&pool);
    for (chain, front) in [
        (&[][..], 0),
        (&[P::HOP_BY_HOP], 8),
        (&[P::DEST_OPTIONS], 0),
        (&[P::HOP_BY_HOP, P::DEST_OPTIONS], 8),
        (&[P::DEST_OPTIONS, P::ROUTING, P::DEST_OPTIONS], 16),
    ] {
        let packet = mbuf(&packet_v6(chain, 1400), 2048, &mut cache).unwrap();
        for piece in cut(packet, 1280, &mut cache).unwrap() {
            let walk = Ipv6::new_checked(piece.data()).unwrap().extensions().unwrap();
            assert_eq!(walk.fragment.map(|f| (f.header_offset, f.ident)), Some((front, 0xfeed_beef)));
        }
    }
}

#[test]
fn what_must_not_be_cut_comes_back() {
    let pool = pool(16, 2048);
    let mut cache = Cache::new(&pool);
    let mut check = |mut packet: Vec<u8>, mtu: usize, change: fn(&mut Mbuf), expect: FragError| {
        if packet[0] >> 4 == 4 {
            Ipv4::new_checked(&mut packet[..]).unwrap().fill_checksum();
        }
        let mut mbuf = mbuf(&packet, 2048, &mut cache).unwrap();
        change(&mut mbuf);
        let before = bytes(&mbuf);
        let (mbuf, error) = cut(mbuf, mtu, &mut cache).unwrap_err();
        assert_eq!((error, bytes(&mbuf)), (expect, before));
    };
    let nothing: fn(&mut Mbuf) = |_| ();
    let mut dont = packet_v4(0, 1400);
    dont[6] = 0x40;
    check(dont, 576, nothing, FragError::NeedFrag(576));
    check(packet_v4(0, 1400), 67, nothing, FragError::MtuTooSmall);
    check(packet_v6(&[], 1400), 1279, nothing, FragError::MtuTooSmall);
    let partial: fn(&mut Mbuf) = |mbuf| mbuf.flags_mut().insert(Flags::CSUM_L4_PARTIAL);
    check(packet_v4(0, 1400), 576, partial, FragError::ChecksumPending);
    check(packet_v6(&[], 1400), 1280, partial, FragError::ChecksumPending);
    check(packet_v4(0, 1400), 576, |mbuf| mbuf.trim(1), FragError::Malformed);
    let mut bad_option = packet_v4(1, 1400);
    bad_option[21] = 0;
    check(bad_option, 576, nothing, FragError::Malformed);
    let shape = Shape {
        v6: true,
        src: 1,
        ident: 1,
        start: 8,
        more: true,
        options: 0,
        ecn: 0,
        payload: vec![0; 1400],
    };
    check(shape.bytes(), 1280, nothing, FragError::IsFragment);
}

#[test]
fn frames_that_end_at_the_borders_are_not_copied() {
    let pool = pool(8, 2048);
    let mut cache = Cache::new(&pool);
    // Headers, then three frames of payload, with the room that received headers left.
    let packet = packet_v4(0, 1480 * 2 + 700);
    let mut whole = mbuf(&packet[..20], 2048, &mut cache).unwrap();
    for part in packet[20..].chunks(1480) {
        whole.chain(mbuf(part, 2048, &mut cache).unwrap()).unwrap();
    }
    whole.set_rcvif(4);
    let starts: Vec<_> = whole.segments().map(<[u8]>::as_ptr).collect();
    let pieces = cut(whole, 1500, &mut cache).unwrap();
    for (piece, start) in pieces.iter().zip(&starts[1..]) {
        assert_eq!(piece.data()[20..].as_ptr(), *start);
        assert_eq!(piece.rcvif(), 4);
    }
    assert_eq!(pool.census().of(Owner::DATAPLANE), 3);
}

#[test]
fn without_frames_what_is_left_comes_back() {
    let pool = pool(2, 2048);
    let mut cache = Cache::new(&pool);
    let mut packet = mbuf(&packet_v4(0, 1500), 2048, &mut cache).unwrap();
    packet.tag_add(TagId(1), 0, 4).unwrap();
    let mut out = Vec::new();
    let (rest, error) = fragment_v4(packet, 576, &mut cache, |piece| out.push(piece)).unwrap_err();
    assert_eq!((error, out.len(), rest.len()), (FragError::NoFrame, 1, 1500 - 552));
    drop((rest, out, cache));
    assert_eq!(pool.census().of(Owner::FREE), 2);
}
