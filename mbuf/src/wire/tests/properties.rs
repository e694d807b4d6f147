//! What must hold for all bytes, and for all frames we build.

use super::build::Recipe;
use crate::wire::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_harness_fails_on_noise(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, harness) in harness::ALL {
            harness(&bytes);
        }
    }

    /// Noise rarely gets past a version field; a valid frame with a few wrong bytes gets everywhere.
    #[test]
    fn no_harness_fails_on_damaged_frames(
        recipe in Recipe::any(),
        damage in prop::collection::vec((0usize..90, any::<u8>()), 0..4),
    ) {
        let mut frame = recipe.frame();
        for (at, byte) in damage {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        harness::parse(&frame);
        for from in [0, 14, 18, 22, 34, 54].into_iter().filter(|from| *from <= frame.len()) {
            harness::views(&frame[from..]);
            harness::rewrite(&frame[from..]);
        }
    }

    /// Cut at each length: the parser must find either a layer cut short, or nothing but padding missing.
    #[test]
    fn truncation_at_every_length_is_noticed(recipe in Recipe::any()) {
        let frame = recipe.frame();
        let packet_end = frame.len() - recipe.padding;
        for len in 0..frame.len() {
            let cut = &frame[..len];
            harness::parse(cut);
            let found = Layers::parse(cut).malformed;
            if len < packet_end {
                prop_assert_eq!(found.map(|found| found.error), Some(WireError::Truncated), "at {}", len);
            } else {
                prop_assert_eq!(found, None);
            }
        }
    }

    #[test]
    fn what_was_built_is_what_is_parsed(recipe in Recipe::any()) {
        let frame = recipe.frame();
        let layers = Layers::parse(&frame);
        prop_assert_eq!(layers.malformed, None);
        prop_assert_eq!(layers.ether, recipe.ether);
        prop_assert_eq!(layers.vlans().iter().map(|tag| tag.tci).collect::<Vec<_>>(), recipe.tags);
        prop_assert_eq!((layers.src(), layers.dst()), (Some(recipe.addrs.0), Some(recipe.addrs.1)));
        prop_assert_eq!(layers.protocol, Some(recipe.protocol));
        prop_assert_eq!(layers.fragment, recipe.fragment);
        prop_assert_eq!(layers.l3_end as usize, frame.len() - recipe.padding);
        let has_ports = matches!(recipe.protocol, Protocol::TCP | Protocol::UDP);
        if has_ports && recipe.fragment != Fragment::Later {
            prop_assert_eq!(layers.ports, Some(Ports { src: recipe.ports.0, dst: recipe.ports.1 }));
            let pseudo = match layers.addrs {
                Addrs::V4 { src, dst } => PseudoHeader::V4 { src, dst },
                Addrs::V6 { src, dst } => PseudoHeader::V6 { src, dst },
                _ => unreachable!("a recipe is IP"),
            };
            let l4 = layers.l4(&frame).unwrap();
            let intact = if recipe.protocol == Protocol::TCP {
                Tcp::new_checked(l4).unwrap().verify_checksum(&pseudo)
            } else {
                Udp::new_checked(l4).unwrap().verify_checksum(&pseudo)
            };
            prop_assert!(intact);
        } else {
            prop_assert_eq!(layers.ports, None);
        }
    }
}
