//! What a selection selects: cases by hand, and random ones against the same rules in plain Rust.

use af_xdp::program::{Action, MATCHES_MAX, Match, ProgramConfig, Redirect, Selection, Sink, SinkAction};

use crate::common::root;
use crate::frames::{SERVICE_TAG, TAG, ether, ipv4, ipv6, ports};
use crate::{load, refusal};

/// The same rules in plain Rust, for comparison.
fn fits(m: &Match, frame: &[u8]) -> bool {
    if *m == Match::default() {
        return true;
    }
    let half = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let (mut at, mut vlans) = (14, Vec::new());
    let Some(mut ethertype) = half(12) else { return false };
    while vlans.len() < 2 && matches!(ethertype, 0x8100 | 0x88a8) {
        let (Some(tag), Some(inner)) = (half(at), half(at + 2)) else { return false };
        vlans.push(tag & 0xfff);
        (ethertype, at) = (inner, at + 4);
    }
    let (mut protocol, mut transport) = (None, None);
    match (ethertype, frame.get(at)) {
        (0x0800, Some(first @ 0x45..=0x4f)) if frame.len() >= at + 20 => {
            protocol = Some(frame[at + 9]);
            let whole_or_first = half(at + 6).unwrap() & 0x1fff == 0;
            transport = whole_or_first.then_some(at + usize::from(first & 15) * 4);
        }
        (0x86dd, Some(0x60..=0x6f)) if frame.len() >= at + 40 => {
            protocol = Some(frame[at + 6]);
            transport = Some(at + 40);
        }
        _ => {}
    }
    let ports = match (protocol, transport) {
        (Some(6 | 17 | 132), Some(at)) => half(at).zip(half(at + 2)),
        _ => None,
    };
    m.ethertype.is_none_or(|e| e == ethertype)
        && m.vlan.is_none_or(|v| vlans.contains(&v))
        && m.protocol.is_none_or(|p| Some(p) == protocol)
        && m.src_port.is_none_or(|p| ports.is_some_and(|(src, _)| src == p))
        && m.dst_port.is_none_or(|p| ports.is_some_and(|(_, dst)| dst == p))
}

#[test]
fn the_verifier_takes_every_combination_of_fields() {
    if !root() {
        return;
    }
    for fields in 0..32u32 {
        let with = |bit: u32| fields >> bit & 1 == 1;
        let one = Match {
            ethertype: with(0).then_some(0x0800),
            vlan: with(1).then_some(5),
            protocol: with(2).then_some(17),
            src_port: with(3).then_some(53),
            dst_port: with(4).then_some(80),
        };
        for frags in [false, true] {
            load(std::slice::from_ref(&one), frags);
            load(&[one.clone(), Match { ethertype: Some(0x0806), ..Default::default() }], frags);
        }
    }
    for action in [SinkAction::Drop, SinkAction::Pass] {
        Sink::load_with(action).unwrap();
    }
    Sink::load_with_latency().unwrap();
}

#[test]
fn the_verifier_takes_the_largest_selection() {
    if !root() {
        return;
    }
    let all = |i: usize| Match {
        ethertype: Some(0x0800),
        vlan: Some(i as u16),
        protocol: Some(17),
        src_port: Some(i as u16),
        dst_port: Some(i as u16),
    };
    let matches: Vec<_> = (0..MATCHES_MAX).map(all).collect();
    let program = load(&matches, true);
    let last = (MATCHES_MAX - 1) as u16;
    let tag = [0x81, 0, 0, last as u8];
    assert!(program.selects(&ether(&[tag], &[&ipv4(5, 0, 17), &ports(last, last)])).unwrap());
    assert!(!program.selects(&ether(&[tag], &[&ipv4(5, 0, 17), &ports(last, 0)])).unwrap());
    let too_many = Selection::Any((0..=MATCHES_MAX).map(all).collect());
    let refused = Redirect::load(&ProgramConfig { selection: too_many, ..Default::default() });
    assert_eq!(refusal(refused).id(), "AFXDP-PROGRAM-MATCHES");
    let beyond = Selection::Any(vec![Match { vlan: Some(4096), ..Default::default() }]);
    let refused = Redirect::load(&ProgramConfig { selection: beyond, ..Default::default() });
    assert_eq!(refusal(refused).id(), "AFXDP-PROGRAM-VLAN");
}

#[test]
fn frames_by_hand_are_selected_as_they_should() {
    if !root() {
        return;
    }
    let any = Match::default();
    let udp53 = Match { protocol: Some(17), dst_port: Some(53), ..any.clone() };
    let port53 = Match { dst_port: Some(53), ..any.clone() };
    let tcp = Match { protocol: Some(6), ..any.clone() };
    let arp = Match { ethertype: Some(0x0806), ..any.clone() };
    let vlan5 = Match { vlan: Some(5), ..any.clone() };
    let vlan5_udp53 = Match { vlan: Some(5), ..udp53.clone() };
    let to53 = ports(9, 53);
    let v4 = |words, fragment| ether(&[], &[&ipv4(words, fragment, 17), &to53]);
    let whole = v4(5, 0);
    let wrong_version = {
        let mut frame = whole.clone();
        frame[14] = 0x65;
        frame
    };
    let udp = Match { protocol: Some(17), ..any.clone() };
    let version5 = {
        let mut frame = whole.clone();
        frame[14] = 0x55;
        frame
    };
    let cases: Vec<(&str, &Match, Vec<u8>, bool)> = vec![
        ("UDP to 53", &udp53, whole.clone(), true),
        ("don't fragment", &udp53, v4(5, 0x4000), true),
        ("UDP to 54", &udp53, ether(&[], &[&ipv4(5, 0, 17), &ports(53, 54)]), false),
        ("TCP to 53", &udp53, ether(&[], &[&ipv4(5, 0, 6), &to53]), false),
        ("ICMP that looks like to 53", &port53, ether(&[], &[&ipv4(5, 0, 1), &to53]), false),
        ("options", &udp53, v4(7, 0), true),
        ("as many options as there can be", &udp53, v4(15, 0), true),
        ("a header too short to be one", &udp53, v4(4, 0), false),
        ("version 6 in a frame of version 4", &udp53, wrong_version, false),
        ("version 5 in a frame of version 4", &udp, version5, false),
        ("first fragment", &udp53, v4(5, 0x2000), true),
        ("later fragment", &udp53, v4(5, 0x2001), false),
        ("last fragment", &udp53, v4(5, 0x0100), false),
        ("later fragment, by protocol", &tcp, ether(&[], &[&ipv4(5, 0x2001, 6), &to53]), true),
        ("IPv6", &udp53, ether(&[], &[&ipv6(17), &to53]), true),
        ("IPv6 with a fragment header", &udp53, ether(&[], &[&ipv6(44), &to53]), false),
        ("one tag", &udp53, ether(&[TAG], &[&ipv4(5, 0, 17), &to53]), true),
        ("QinQ", &udp53, ether(&[SERVICE_TAG, TAG], &[&ipv4(6, 0, 17), &to53]), true),
        ("three tags", &udp53, ether(&[SERVICE_TAG, TAG, TAG], &[&ipv4(5, 0, 17), &to53]), false),
        ("inner VLAN", &vlan5_udp53, ether(&[SERVICE_TAG, TAG], &[&ipv6(17), &to53]), true),
        ("outer VLAN", &vlan5, ether(&[TAG, SERVICE_TAG], &[&[0x88, 0xb5], &[0; 46]]), true),
        ("no VLAN", &vlan5_udp53, whole.clone(), false),
        ("another VLAN", &vlan5, ether(&[SERVICE_TAG], &[&ipv4(5, 0, 17), &to53]), false),
        ("ARP", &arp, ether(&[], &[&[0x08, 0x06], &[0; 28]]), true),
        ("tagged ARP", &arp, ether(&[TAG], &[&[0x08, 0x06], &[0; 28]]), true),
        ("not ARP", &arp, whole.clone(), false),
        ("IPv4 without its ports", &udp53, whole[..34].to_vec(), false),
        ("IPv4 with half its ports", &udp53, whole[..37].to_vec(), false),
        ("IPv4 with just its ports", &udp53, whole[..38].to_vec(), true),
        ("half an IPv4 header", &tcp, ether(&[], &[&ipv4(5, 0, 6)[..12]]), false),
        ("half an IPv6 header", &tcp, ether(&[], &[&ipv6(6)[..30]]), false),
        ("half a tag", &vlan5, ether(&[TAG], &[&[8]]), false),
        ("a tag and nothing more", &vlan5, ether(&[TAG], &[&[8, 0]]), true),
        ("everything", &any, ether(&[], &[&[0, 0]]), true),
    ];
    for (name, m, frame, selected) in cases {
        let program = load(std::slice::from_ref(m), false);
        // No socket is there: whatever the program thinks of it, the kernel gets it.
        assert_eq!(program.action_on(&frame).unwrap(), Action::Pass, "{name}");
        let counters = program.counters().unwrap();
        let counted = (counters.no_socket, counters.passed, counters.redirected);
        assert_eq!(counted, if selected { (1, 0, 0) } else { (0, 1, 0) }, "{name}");
        assert_eq!(counters.no_socket_bytes + counters.passed_bytes, frame.len() as u64, "{name}");
        assert_eq!(fits(m, &frame), selected, "the oracle: {name}");
    }
    let dns = load(&Match::default().either_port(53), false);
    for (src, dst, selected) in [(53, 1, true), (1, 53, true), (1, 1, false)] {
        assert_eq!(dns.selects(&ether(&[], &[&ipv4(5, 0, 17), &ports(src, dst)])).unwrap(), selected);
    }
}

/// Random selections and random frames, most of them nearly right.
#[test]
fn random_selections_equal_their_oracle() {
    if !root() {
        return;
    }
    let mut random = Random(7);
    let (mut selected, mut frames) = (0, 0);
    for round in 0..120 {
        let matches: Vec<_> = (0..=random.below(4))
            .map(|_| Match {
                ethertype: random.maybe(&[0x0800, 0x86dd, 0x0806]),
                vlan: random.maybe(&[5, 7]),
                protocol: random.maybe(&[6, 17]),
                src_port: random.maybe(&[53, 80]),
                dst_port: random.maybe(&[53, 80]),
            })
            .collect();
        let program = load(&matches, round % 2 == 0);
        for _ in 0..250 {
            let frame = random_frame(&mut random);
            let expected = matches.iter().any(|m| fits(m, &frame));
            assert_eq!(program.selects(&frame).unwrap(), expected, "{matches:?} on {frame:02x?}");
            selected += u32::from(expected);
            frames += 1;
        }
    }
    println!("{selected} of {frames} selected");
    assert!((frames / 10..frames * 9 / 10).contains(&selected), "both outcomes: {selected} of {frames}");
}

/// Repeatable numbers: PCG's multiplier, upper bits.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
    fn maybe<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (self.below(2) == 0).then(|| self.pick(of))
    }
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    let tags: Vec<_> = (0..random.pick(&[0, 0, 1, 1, 2, 3]))
        .map(|_| {
            let [high, low] = random.pick(&[[0x81, 0], [0x88, 0xa8]]);
            [high, low, (random.below(16) << 4) as u8, random.pick(&[5, 7, 9])]
        })
        .collect();
    let protocol = random.pick(&[6, 17, 17, 132, 1, 44]);
    let ip = match random.below(8) {
        0..4 => ipv4(random.pick(&[5, 5, 6, 15, 4]), random.pick(&[0, 0, 0x4000, 0x2000, 1]), protocol),
        4..7 => ipv6(protocol),
        _ => vec![0x08, 0x06],
    };
    let mut frame = ether(&tags, &[&ip, &ports(random.pick(&[53, 80, 99]), random.pick(&[53, 80, 99]))]);
    if random.below(4) == 0 {
        // A byte is wrong, or some are missing; the kernel runs programs on 14 bytes and more.
        let at = random.below(frame.len());
        frame[at] = random.below(256) as u8;
        frame.truncate((frame.len() - random.below(50).min(frame.len())).max(14));
    }
    frame
}
