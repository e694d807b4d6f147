//! Any text as an expression; what parses is printed, parsed again and run.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_filters::expr::harness::expr(bytes));
