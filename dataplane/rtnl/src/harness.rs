pub fn harness(_: &[u8]) {}
