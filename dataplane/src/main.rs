//! nke
fn main() {}
