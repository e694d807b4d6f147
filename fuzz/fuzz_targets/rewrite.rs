//! Any value through the setters, then through the readers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_mbuf::wire::harness::rewrite(bytes));
