//! Any bytes as a script of fragments for a small reassembler.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_inet::reass::harness::harness(bytes));
