//! What a user would otherwise run.

pub mod capture;
pub mod hugepages;
pub mod l3fwd;
mod output;
mod program;
pub mod testpmd;
