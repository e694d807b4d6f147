//! nke-bench
fn main() {}
