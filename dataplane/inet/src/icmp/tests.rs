use super::*;
use crate::reass::harness::{Shape, bytes, mbuf, pool};
use nke_mbuf::wire::{Icmp, Ipv4, Ipv6, Protocol, PseudoHeader, icmp};
use nke_mbuf::{Cache, Flags, Mbuf, Owner, Pool};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const OURS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

fn ours_v6() -> Ipv6Addr {
    "2001:db8::fe".parse().unwrap()
}

/// A packet of either version with this upper protocol and payload, `options` words or headers in front of it.
fn packet(v6: bool, protocol: Protocol, options: usize, payload: &[u8]) -> Vec<u8> {
    if v6 {
        let mut ip = Ipv6::init(vec![0; 40 + options * 8 + payload.len()]).unwrap();
        ip.set_src("2001:db8::1".parse().unwrap());
        ip.set_dst("2001:db8::2".parse().unwrap());
        ip.set_hop_limit(7);
        ip.set_next_header(if options > 0 { Protocol::DEST_OPTIONS } else { protocol });
        let (front, rest) = ip.payload_mut().split_at_mut(options * 8);
        for (at, header) in front.chunks_mut(8).enumerate() {
            let next = if at + 1 == options { protocol } else { Protocol::DEST_OPTIONS };
            header.copy_from_slice(&[next.0, 0, 1, 4, 0, 0, 0, 0]);
        }
        rest.copy_from_slice(payload);
        ip.into_inner()
    } else {
        let mut ip = Ipv4::init(vec![0; 20 + options * 4 + payload.len()]).unwrap();
        ip.set_header_len(20 + options * 4).unwrap();
        ip.options_mut().fill(1);
        ip.set_src([192, 0, 2, 1].into());
        ip.set_dst([192, 0, 2, 2].into());
        ip.set_ttl(7);
        ip.set_protocol(protocol);
        ip.payload_mut().copy_from_slice(payload);
        ip.fill_checksum();
        ip.into_inner()
    }
}

fn echo(v6: bool, icmp_type: u8, len: usize) -> Vec<u8> {
    let mut message = Icmp::init((0..8 + len).map(|n| n as u8).collect::<Vec<u8>>()).unwrap();
    message.set_icmp_type(icmp_type);
    message.set_echo(0xabcd, 5);
    let pseudo =
        PseudoHeader::V6 { src: "2001:db8::1".parse().unwrap(), dst: "2001:db8::2".parse().unwrap() };
    message.fill_checksum(v6.then_some(&pseudo));
    message.into_inner()
}

const fn icmp_of(v6: bool) -> (Protocol, u8, u8) {
    if v6 {
        (Protocol::ICMPV6, icmp::v6::ECHO_REQUEST, icmp::v6::ECHO_REPLY)
    } else {
        (Protocol::ICMP, icmp::v4::ECHO_REQUEST, icmp::v4::ECHO_REPLY)
    }
}

struct Rig {
    pool: Pool,
    cache: Cache,
}

impl Rig {
    fn new() -> Rig {
        let pool = pool(64, 2048);
        let cache = Cache::new(&pool);
        Rig { pool, cache }
    }

    fn mbuf(&mut self, bytes: &[u8]) -> Mbuf {
        mbuf(bytes, 1200, &mut self.cache).unwrap()
    }

    /// The error about these bytes, of either version.
    fn error(&mut self, bytes: &[u8], flags: Flags) -> Result<Vec<u8>, Suppressed> {
        let mut offending = self.mbuf(bytes);
        offending.flags_mut().insert(flags);
        let error = if bytes[0] >> 4 == 4 {
            error_v4(ErrorV4::PortUnreachable, &offending, OURS_V4, &mut self.cache)?
        } else {
            error_v6(ErrorV6::PortUnreachable, &offending, ours_v6(), &mut self.cache)?
        };
        Ok(super::tests::bytes(&error))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_reply_is_the_request_turned_round(v6: bool, options in 0usize..4, len in 0usize..3000, padding in 0usize..20) {
        let (protocol, request, reply) = icmp_of(v6);
        let mut rig = Rig::new();
        let mut frame = packet(v6, protocol, options, &echo(v6, request, len));
        frame.extend(vec![0xee; padding]);
        let mut mbuf = rig.mbuf(&frame);
        prop_assert_eq!(echo_reply(&mut mbuf), Ok(()));
        let got = bytes(&mbuf);
        let message = if v6 {
            let ip = Ipv6::new_checked(&got[..]).unwrap();
            prop_assert_eq!((ip.total_len(), ip.hop_limit(), ip.next_header()), (got.len(), 64, protocol));
            prop_assert_eq!(ip.src(), "2001:db8::2".parse::<Ipv6Addr>().unwrap());
            let message = Icmp::new_checked(ip.payload()).unwrap();
            prop_assert!(message.verify_checksum(Some(&ip.pseudo_header())));
            message.into_inner().to_vec()
        } else {
            let ip = Ipv4::new_checked(&got[..]).unwrap();
            prop_assert_eq!((ip.total_len(), ip.ttl(), ip.verify_checksum()), (got.len(), 64, true));
            prop_assert_eq!((ip.src(), ip.dst()), ([192, 0, 2, 2].into(), [192, 0, 2, 1].into()));
            let message = Icmp::new_checked(ip.payload()).unwrap();
            prop_assert!(message.verify_checksum(None));
            message.into_inner().to_vec()
        };
        let mut expect = echo(v6, request, len);
        expect[0] = reply;
        prop_assert_eq!(&message[4..], &expect[4..]);
        prop_assert_eq!(message[0], reply);
    }

    /// Nothing that can be received makes these panic, and what they build holds.
    #[test]
    fn any_bytes_are_survived(mut data in prop::collection::vec(any::<u8>(), 0..200), version in 0usize..3, protocol in 0usize..3) {
        if let Some(first) = data.first_mut() {
            *first = [0x45, 0x60, *first][version];
        }
        if let (Some(field), true) = (data.get_mut([9, 6, 9][version]), protocol < 2) {
            *field = [[1, 58, 1], [6, 44, 17]][protocol][version];
        }
        let mut rig = Rig::new();
        let _ = quoted(&rig.mbuf(&data));
        let _ = echo_reply(&mut rig.mbuf(&data));
        let offending = rig.mbuf(&data);
        if let Ok(error) = error_v4(ErrorV4::TtlExceeded, &offending, OURS_V4, &mut rig.cache) {
            prop_assert!(Ipv4::new_checked(error.data()).unwrap().verify_checksum());
        }
        let _ = error_v6(ErrorV6::PacketTooBig { mtu: 1280 }, &offending, ours_v6(), &mut rig.cache);
        drop((offending, rig.cache));
        prop_assert_eq!(rig.pool.census().of(Owner::FREE), 64);
    }
}

#[test]
fn what_is_no_echo_request_to_us_stays_as_it_is() {
    let mut rig = Rig::new();
    let mut check = |bytes: &[u8], flags: Flags, expect: NotEcho| {
        let mut mbuf = rig.mbuf(bytes);
        mbuf.flags_mut().insert(flags);
        assert_eq!(echo_reply(&mut mbuf), Err(expect));
        assert_eq!(super::tests::bytes(&mbuf), bytes);
    };
    let none = Flags(0);
    for v6 in [false, true] {
        let (protocol, request, reply) = icmp_of(v6);
        let good = packet(v6, protocol, 0, &echo(v6, request, 8));
        check(&packet(v6, protocol, 0, &echo(v6, reply, 8)), none, NotEcho::NotARequest);
        check(&packet(v6, Protocol::UDP, 0, &echo(v6, request, 8)), none, NotEcho::NotARequest);
        check(&packet(v6, protocol, 0, &[request, 0, 0]), none, NotEcho::NotARequest);
        check(&good[..good.len() - 1], none, NotEcho::NotARequest);
        check(&good, Flags::BCAST, NotEcho::Group);
        check(&good, Flags::MCAST, NotEcho::Group);
        let mut to_group = good.clone();
        to_group[if v6 { 24 } else { 16 }] = if v6 { 0xff } else { 224 };
        check(&to_group, none, NotEcho::Group);
        let mut from_group = good.clone();
        from_group[if v6 { 8 } else { 12 }] = if v6 { 0xff } else { 224 };
        check(&from_group, none, NotEcho::BadSource);
    }
    let fragment =
        Shape { v6: false, src: 1, ident: 1, start: 0, more: true, options: 0, ecn: 0, payload: vec![8; 16] };
    check(&fragment.bytes(), none, NotEcho::Fragment);
    check(&[], none, NotEcho::NotARequest);
}

#[test]
fn errors_quote_as_much_as_they_may() {
    let mut rig = Rig::new();
    for v6 in [false, true] {
        for len in [0, 8, 400, 1184, 1185, 3000] {
            let mut offending = packet(v6, Protocol::UDP, 1, &vec![9; len]);
            let total = offending.len();
            offending.extend([0xee; 7]); // padding is not quoted
            let error = rig.error(&offending, Flags(0)).unwrap();
            let (headers, max) = if v6 { (48, 1280) } else { (28, 576) };
            assert_eq!(error.len(), (headers + total).min(max));
            assert_eq!(error[headers..], offending[..error.len() - headers]);
            if v6 {
                let ip = Ipv6::new_checked(&error[..]).unwrap();
                assert_eq!((ip.src(), ip.dst().to_string()), (ours_v6(), "2001:db8::1".to_string()));
                let message = Icmp::new_checked(ip.payload()).unwrap();
                assert!(message.verify_checksum(Some(&ip.pseudo_header())));
                assert_eq!((message.icmp_type(), message.code()), (1, 4));
            } else {
                let ip = Ipv4::new_checked(&error[..]).unwrap();
                assert!(ip.verify_checksum());
                assert_eq!((ip.src(), ip.dst()), (OURS_V4, [192, 0, 2, 1].into()));
                let message = Icmp::new_checked(ip.payload()).unwrap();
                assert!(message.verify_checksum(None));
                assert_eq!((message.icmp_type(), message.code()), (3, 3));
            }
        }
    }
}

#[test]
fn what_is_never_answered() {
    use Suppressed::*;
    let mut rig = Rig::new();
    let none = Flags(0);
    for v6 in [false, true] {
        let good = packet(v6, Protocol::UDP, 0, &[0; 8]);
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        assert!(rig.error(&good, none).is_ok());
        assert_eq!(rig.error(&good, Flags::BCAST), Err(Group));
        assert_eq!(rig.error(&good, Flags::MCAST), Err(Group));
        let (src, dst) = if v6 { (8, 24) } else { (12, 16) };
        if v6 {
            assert_eq!(rig.error(&with(dst, &[0xff, 2]), none), Err(Group));
            assert_eq!(rig.error(&with(src, &[0xff, 2]), none), Err(BadSource));
            assert_eq!(rig.error(&with(src, &[0; 16]), none), Err(BadSource));
        } else {
            for (dst_byte, src_byte) in [(224, 224), (239, 240), (255, 255)] {
                assert_eq!(rig.error(&with(dst, &[dst_byte]), none), Err(Group));
                assert_eq!(rig.error(&with(src, &[src_byte]), none), Err(BadSource));
            }
            assert_eq!(rig.error(&with(src, &[0]), none), Err(BadSource));
            assert_eq!(rig.error(&with(src, &[127]), none), Err(BadSource));
            assert!(rig.error(&with(src, &[127]), Flags::LOOP).is_ok());
            assert_eq!(rig.error(&with(6, &[0, 1]), none), Err(LaterFragment));
            assert!(rig.error(&with(6, &[0x20, 0]), none).is_ok());
        }
        let (protocol, request, reply) = icmp_of(v6);
        for (icmp_type, errors) in
            [(request, false), (reply, false), (3, true), (1, true), (4, true), (5, true)]
        {
            let about = packet(v6, protocol, 1, &[icmp_type, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(rig.error(&about, none).is_err(), errors, "type {icmp_type}");
        }
        assert_eq!(rig.error(&packet(v6, protocol, 0, &[]), none), Err(AboutError));
        assert_eq!(rig.error(&good[..19], none), Err(Malformed));
    }
    // IPv6: path MTU and option problems are told to senders to groups, and later fragments are answered.
    let mut to_group = packet(true, Protocol::UDP, 0, &[0; 8]);
    to_group[24] = 0xff;
    let offending = rig.mbuf(&to_group);
    for kind in [ErrorV6::PacketTooBig { mtu: 1400 }, ErrorV6::ParameterProblem { code: 2, pointer: 42 }] {
        assert!(error_v6(kind, &offending, ours_v6(), &mut rig.cache).is_ok());
    }
    let code_1 = ErrorV6::ParameterProblem { code: 1, pointer: 6 };
    assert_eq!(error_v6(code_1, &offending, ours_v6(), &mut rig.cache).err(), Some(Group));
    let later =
        Shape { v6: true, src: 1, ident: 1, start: 8, more: true, options: 0, ecn: 0, payload: vec![1; 8] };
    assert!(rig.error(&later.bytes(), none).is_ok());
    // A later fragment of ICMPv6 may be of an error.
    let mut later = later.bytes();
    later[40] = Protocol::ICMPV6.0;
    assert_eq!(rig.error(&later, none), Err(AboutError));
}

#[test]
fn every_error_has_its_numbers() {
    let mut rig = Rig::new();
    let v4 = [
        (ErrorV4::NetUnreachable, [3, 0, 0, 0, 0, 0]),
        (ErrorV4::HostUnreachable, [3, 1, 0, 0, 0, 0]),
        (ErrorV4::ProtocolUnreachable, [3, 2, 0, 0, 0, 0]),
        (ErrorV4::FragmentationNeeded { mtu: 1400 }, [3, 4, 0, 0, 5, 120]),
        (ErrorV4::AdminProhibited, [3, 13, 0, 0, 0, 0]),
        (ErrorV4::TtlExceeded, [11, 0, 0, 0, 0, 0]),
        (ErrorV4::ReassemblyTimeExceeded, [11, 1, 0, 0, 0, 0]),
        (ErrorV4::ParameterProblem { pointer: 20 }, [12, 0, 20, 0, 0, 0]),
    ];
    let offending = rig.mbuf(&packet(false, Protocol::TCP, 0, &[0; 20]));
    for (kind, expect) in v4 {
        let error = error_v4(kind, &offending, OURS_V4, &mut rig.cache).unwrap();
        assert_eq!([&error.data()[20..22], &error.data()[24..28]].concat(), expect);
    }
    let v6 = [
        (ErrorV6::NoRoute, [1, 0, 0, 0, 0, 0]),
        (ErrorV6::AdminProhibited, [1, 1, 0, 0, 0, 0]),
        (ErrorV6::BeyondScope, [1, 2, 0, 0, 0, 0]),
        (ErrorV6::AddressUnreachable, [1, 3, 0, 0, 0, 0]),
        (ErrorV6::PacketTooBig { mtu: 1400 }, [2, 0, 0, 0, 5, 120]),
        (ErrorV6::HopLimitExceeded, [3, 0, 0, 0, 0, 0]),
        (ErrorV6::ReassemblyTimeExceeded, [3, 1, 0, 0, 0, 0]),
        (ErrorV6::ParameterProblem { code: 1, pointer: 258 }, [4, 1, 0, 0, 1, 2]),
    ];
    let offending = rig.mbuf(&packet(true, Protocol::TCP, 0, &[0; 20]));
    for (kind, expect) in v6 {
        let error = error_v6(kind, &offending, ours_v6(), &mut rig.cache).unwrap();
        assert_eq!([&error.data()[40..42], &error.data()[44..48]].concat(), expect);
    }
}

#[test]
fn what_we_say_is_what_is_read() {
    let mut rig = Rig::new();
    let segment = [0x01, 0xbb, 0xc0, 0x00, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0];
    let body = [&segment[..], &[0; 1480]].concat();
    for v6 in [false, true] {
        let offending = rig.mbuf(&packet(v6, Protocol::TCP, 1, &body));
        let mut error = if v6 {
            error_v6(ErrorV6::PacketTooBig { mtu: 1400 }, &offending, ours_v6(), &mut rig.cache)
        } else {
            error_v4(ErrorV4::FragmentationNeeded { mtu: 1400 }, &offending, OURS_V4, &mut rig.cache)
        }
        .unwrap();
        let read = quoted(&error).unwrap();
        assert_eq!((read.src_port, read.dst_port, read.tcp_seq), (Some(443), Some(49152), Some(0xdead_beef)));
        assert_eq!((read.protocol, read.mtu), (Protocol::TCP, Some(1400)));
        let src: IpAddr = if v6 { "2001:db8::1".parse().unwrap() } else { [192, 0, 2, 1].into() };
        assert_eq!(read.src, src);
        assert_eq!(error.data()[read.l4_offset..read.l4_offset + 20], segment);
        assert_eq!(error.data()[read.l3_offset..read.l3_offset + 8], offending.data()[..8]);
        // A byte turned is a checksum that fails.
        let last = error.data().len() - 1;
        error.data_mut()[last] ^= 1;
        assert_eq!(quoted(&error), None);
    }
}

#[test]
fn path_mtus_that_cannot_be_are_not_believed() {
    let mut rig = Rig::new();
    let mut mtu_v4 = |len: usize, mtu| {
        let offending = rig.mbuf(&packet(false, Protocol::UDP, 0, &vec![0; len - 20]));
        let kind = ErrorV4::FragmentationNeeded { mtu };
        quoted(&error_v4(kind, &offending, OURS_V4, &mut rig.cache).unwrap()).unwrap().mtu
    };
    assert_eq!(mtu_v4(1500, 1492), Some(1492));
    assert_eq!(mtu_v4(1500, 68), Some(PMTU_FLOOR_V4));
    assert_eq!(mtu_v4(552, 68), None);
    assert_eq!((mtu_v4(1500, 1500), mtu_v4(1500, 9000)), (None, None));
    assert_eq!((mtu_v4(1500, 0), mtu_v4(1492, 0), mtu_v4(2003, 0)), (Some(1492), Some(1006), Some(2002)));
    let mut mtu_v6 = |len: usize, mtu| {
        let offending = rig.mbuf(&packet(true, Protocol::UDP, 0, &vec![0; len - 40]));
        let kind = ErrorV6::PacketTooBig { mtu };
        quoted(&error_v6(kind, &offending, ours_v6(), &mut rig.cache).unwrap()).unwrap().mtu
    };
    assert_eq!((mtu_v6(1500, 1280), mtu_v6(1500, 1279), mtu_v6(1500, 1500)), (Some(1280), None, None));
    assert_eq!((mtu_v6(1500, 0), mtu_v6(1500, u32::MAX)), (None, None));
}

#[test]
fn an_echo_quoted_names_its_identifier() {
    let mut rig = Rig::new();
    for v6 in [false, true] {
        let (protocol, request, _) = icmp_of(v6);
        let error = rig.error(&packet(v6, protocol, 0, &echo(v6, request, 8)), Flags(0)).unwrap();
        let read = quoted(&rig.mbuf(&error)).unwrap();
        assert_eq!((read.src_port, read.dst_port, read.mtu), (Some(0xabcd), None, None));
        // The echo itself is no error.
        assert_eq!(quoted(&rig.mbuf(&packet(v6, protocol, 0, &echo(v6, request, 8)))), None);
    }
}

#[test]
fn the_rate_holds_for_one_and_for_all() {
    let limits =
        Limits { per_second: 100, burst: 40, per_destination: 2, destination_burst: 4, destinations: 4096 };
    let mut limiter = RateLimiter::new(limits, [1, 2]);
    let one: IpAddr = [192, 0, 2, 1].into();
    let granted = (0..1000).filter(|ms| limiter.allow(one, *ms)).count();
    assert!((5..=6).contains(&granted), "a burst of 4 and 2 a second: {granted}");
    // Ever new destinations: the burst, then the rate.
    let mut limiter = RateLimiter::new(limits, [1, 2]);
    let mut many = 0u32;
    let mut flood = |limiter: &mut RateLimiter, ms: u64| {
        many += 1;
        limiter.allow(Ipv4Addr::from_bits(many.wrapping_mul(0x9e37_79b9)).into(), ms)
    };
    let at_once = (0..1000).filter(|_| flood(&mut limiter, 5000)).count();
    assert!((30..=40).contains(&at_once), "{at_once}");
    let in_ten_seconds = (0..100_000).filter(|n| flood(&mut limiter, 5000 + n / 10)).count();
    assert!((950..=1050).contains(&in_ten_seconds), "{in_ten_seconds}");
    // A clock that stands still or goes back gives nothing.
    assert!((0..1000).filter(|_| flood(&mut limiter, 0)).count() <= 1);
}

#[test]
fn the_depth_of_the_common_bucket_is_not_foreseeable() {
    let limits = Limits { per_destination: 1000, destination_burst: 1000, ..Limits::default() };
    let bursts = |key| {
        let mut limiter = RateLimiter::new(limits, key);
        let dst: IpAddr = Ipv6Addr::LOCALHOST.into();
        (1..40u64).map(|s| (0..200).filter(|_| limiter.allow(dst, s * 1000)).count()).collect::<Vec<_>>()
    };
    let seen = bursts([1, 2]);
    assert!(seen.iter().all(|count| (37..=50).contains(count)), "{seen:?}");
    assert!(seen.iter().collect::<std::collections::BTreeSet<_>>().len() > 5, "{seen:?}");
    assert_ne!(seen, bursts([1, 3]));
}
