//! Any bytes as a script of rtnetlink dumps and notifications.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_rtnl::harness::harness(bytes));
