//! The internet layer of NKE, without threads, devices or system calls: what the workers call to route, fragment,
//! reassemble, find neighbours and answer errors. All state is bounded when it is made; time is a number the caller
//! passes in.

pub mod fib;
pub mod finalize;
pub mod fragment;
pub mod icmp;
pub mod neigh;
pub mod reass;
