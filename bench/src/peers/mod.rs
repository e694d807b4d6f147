//! What a user would otherwise run.

pub mod hugepages;
mod output;
pub mod testpmd;
