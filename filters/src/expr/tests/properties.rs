//! Any tree survives printing, and runs compiled as it reads.

use super::oracle;
use crate::expr::ast::Ast;
use crate::expr::primitive::{Dir, Primitive};
use crate::expr::program::Program;
use crate::expr::{Expr, harness, parser};
use nke_mbuf::wire::*;
use proptest::prelude::*;

/// Values are drawn from few, so that expressions and frames meet.
fn few_u16() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), Just(53), Just(80), Just(443), Just(4000), any::<u16>()]
}

fn few_v4() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0x0a00_0001), Just(0x0a00_0002), Just(0xc000_0201), any::<u32>()]
}

fn few_v6() -> impl Strategy<Value = u128> {
    prop_oneof![Just(1u128), Just(0x2001_0db8 << 96 | 1), Just(0x2001_0db8 << 96 | 2), any::<u128>()]
}

fn few_mac() -> impl Strategy<Value = EtherAddr> {
    prop_oneof![Just([0xff; 6]), Just([2, 0, 0, 0, 0, 1]), Just([2, 0, 0, 0, 0, 2])].prop_map(EtherAddr)
}

fn few_types() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0x0800u16), Just(0x0806), Just(0x86dd), any::<u16>()]
}

fn few_protocols() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(1u8), Just(6), Just(17), Just(58), any::<u8>()].prop_map(Protocol)
}

fn dir() -> impl Strategy<Value = Dir> {
    prop_oneof![Just(Dir::Src), Just(Dir::Dst), Just(Dir::Either)]
}

fn primitive() -> impl Strategy<Value = Primitive> {
    let mask4 = (0..=32u32).prop_map(|len| u32::MAX.checked_shl(32 - len).unwrap_or(0));
    let mask6 = (0..=128u32).prop_map(|len| u128::MAX.checked_shl(128 - len).unwrap_or(0));
    prop_oneof![
        (dir(), few_mac()).prop_map(|(dir, addr)| Primitive::Ether(dir, addr)),
        few_types().prop_map(|ethertype| Primitive::EtherProto(EtherType(ethertype))),
        prop::option::of(prop_oneof![Just(1u16), Just(100), 0..4096u16]).prop_map(Primitive::Vlan),
        few_protocols().prop_map(Primitive::Proto),
        Just(Primitive::Icmp),
        Just(Primitive::Icmp6),
        (dir(), few_v4(), mask4).prop_map(|(dir, addr, mask)| Primitive::Net4 {
            dir,
            addr: addr & mask,
            mask
        }),
        (dir(), few_v6(), mask6).prop_map(|(dir, addr, mask)| Primitive::Net6 {
            dir,
            addr: addr & mask,
            mask
        }),
        (dir(), few_u16(), few_u16()).prop_map(|(dir, a, b)| Primitive::Port {
            dir,
            low: a.min(b),
            high: a.max(b)
        }),
        (0..200u32).prop_map(Primitive::LenAtLeast),
        (0..200u32).prop_map(Primitive::LenAtMost),
        Just(Primitive::Fragment),
        Just(Primitive::Malformed),
    ]
}

fn ast() -> impl Strategy<Value = Ast> {
    primitive().prop_map(Ast::Test).prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|ast| Ast::Not(Box::new(ast))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Ast::All),
            prop::collection::vec(inner, 2..4).prop_map(Ast::Any),
        ]
    })
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let vlans = prop::collection::vec(prop_oneof![Just(1u16), Just(100), any::<u16>()], 0..4);
    let damage = prop::collection::vec((0usize..80, any::<u8>()), 0..3);
    let fragment = prop_oneof![3 => Just(0u16), 1 => any::<u16>()];
    let v4 = (few_v4(), few_v4());
    let v6 = (few_v6(), few_v6());
    let ends = (few_mac(), few_mac(), vlans, few_types());
    let upper = (few_protocols(), fragment, few_u16(), few_u16());
    (ends, v4, v6, upper, damage, 0..100usize).prop_map(
        |((dst, src, vlans, ethertype), v4, v6, (protocol, fragment, src_port, dst_port), damage, cut)| {
            let mut frame = [dst.0, src.0].concat();
            for tci in vlans {
                frame.extend([0x81, 0]);
                frame.extend(tci.to_be_bytes());
            }
            frame.extend(ethertype.to_be_bytes());
            let mut l4 = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
            l4.extend([0, 24, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            match EtherType(ethertype) {
                EtherType::IPV6 => {
                    let mut ip = Ipv6::init(vec![0; 48 + l4.len()]).unwrap();
                    ip.set_src(v6.0.into());
                    ip.set_dst(v6.1.into());
                    ip.set_next_header(Protocol::FRAGMENT);
                    ip.payload_mut()[0] = protocol.0;
                    ip.payload_mut()[2..4].copy_from_slice(&fragment.to_be_bytes());
                    ip.payload_mut()[8..].copy_from_slice(&l4);
                    frame.extend(ip.into_inner());
                }
                EtherType::ARP => {
                    let mut arp = Arp::init(vec![0; 28]).unwrap();
                    arp.set_sender(src, v4.0.into());
                    arp.set_target(dst, v4.1.into());
                    frame.extend(arp.into_inner());
                }
                _ => {
                    let mut ip = Ipv4::init(vec![0; 20 + l4.len()]).unwrap();
                    ip.set_src(v4.0.into());
                    ip.set_dst(v4.1.into());
                    ip.set_protocol(protocol);
                    ip.set_fragment(false, fragment & 1 != 0, fragment & !7);
                    ip.payload_mut().copy_from_slice(&l4);
                    frame.extend(ip.into_inner());
                }
            }
            for (at, byte) in damage {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            if cut < frame.len() && cut % 5 == 0 {
                frame.truncate(cut);
            }
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_parses_to_itself(ast in ast()) {
        let text = ast.to_string();
        prop_assert_eq!(parser::parse(&text), Ok(ast));
        prop_assert_eq!(Expr::parse(&text).unwrap().to_string(), text);
    }

    #[test]
    fn the_program_does_what_the_tree_says(ast in ast(), frames in prop::collection::vec(frame(), 16)) {
        let program = Program::compile(&ast);
        for frame in frames {
            let found = program.run(&Layers::parse(&frame), frame.len());
            prop_assert_eq!(found, oracle::matches(&ast, &frame), "{} on {:02x?}", ast, frame);
        }
    }

    #[test]
    fn one_primitive_does_what_it_says(primitive in primitive(), frames in prop::collection::vec(frame(), 16)) {
        let ast = Ast::Test(primitive);
        for frame in frames {
            let found = primitive.matches(&Layers::parse(&frame), frame.len());
            prop_assert_eq!(found, oracle::matches(&ast, &frame), "{} on {:02x?}", ast, frame);
        }
    }

    #[test]
    fn noise_is_refused_politely(text in "[a-z0-9 ().!&|<>=:/\\PC-]{0,60}") {
        harness::expr(text.as_bytes());
    }

    /// Words of the language in any order get further into the parser than noise does.
    #[test]
    fn word_salad_is_refused_politely(words in prop::collection::vec(prop::sample::select(WORDS), 0..14), glue in any::<bool>()) {
        harness::expr(words.join(if glue { " " } else { "" }).as_bytes());
    }
}

const WORDS: &[&str] = &[
    "ether",
    "src",
    "dst",
    "host",
    "net",
    "port",
    "portrange",
    "proto",
    "vlan",
    "arp",
    "ip",
    "ip6",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "len",
    ">=",
    "<=",
    "fragment",
    "malformed",
    "and",
    "&&",
    "or",
    "||",
    "not",
    "!",
    "(",
    ")",
    "80",
    "0x6",
    "1-2",
    "10.0.0.1",
    "10.0.0.0/8",
    "::1",
    "fe80::/10",
    "2:0:0:0:0:1",
    "\0",
];
