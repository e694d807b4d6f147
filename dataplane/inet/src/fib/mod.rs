//! Longest-prefix match and next hops.
