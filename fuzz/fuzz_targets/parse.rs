//! Any frame through `Layers::parse`, beside a slow second reading.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_mbuf::wire::harness::parse(bytes));
