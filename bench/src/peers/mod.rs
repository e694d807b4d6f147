//! What a user would otherwise run.

pub mod hugepages;
pub mod testpmd;
