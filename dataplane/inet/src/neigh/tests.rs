use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn any_script_keeps_the_promises(data in prop::collection::vec(any::<u8>(), 0..1600)) {
        harness::script(&data);
    }

    #[test]
    fn any_bytes_are_read_and_answered_in_bounds(data in prop::collection::vec(any::<u8>(), 0..200)) {
        harness::packets(&data);
    }
}
