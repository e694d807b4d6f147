//! Any bytes through every header view.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_mbuf::wire::harness::views(bytes));
