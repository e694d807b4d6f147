//! The fast sum beside the definition, updates beside recomputation.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_mbuf::wire::harness::checksums(bytes));
