//! Any bytes as ARP and neighbour discovery, and as a script of calls to a small table.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nke_inet::neigh::harness::harness(bytes));
