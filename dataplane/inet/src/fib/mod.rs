//! Longest-prefix match (RFC 1812 section 5.2.4.3): one control thread changes the tables, workers look up without locks.
//!
//! A table is a trie whose root is indexed by the first 24 bits of the address and whose nodes by 8 bits each: an IPv4
//! lookup reads the root, and for prefixes longer than /24 one node. Every entry a lookup may end at holds its answer;
//! the routes themselves are kept beside the trie, where only the control thread looks.
//!
//! # Why no reader ever sees a hole
//!
//! An entry is one word, written in place. A change goes over the entries it concerns one by one, and each holds either
//! the old answer or the new one. A node is filled before its parent points at it. One that became superfluous is
//! unhooked and *retired*: it is used again only after [`Fib::reclaim`], which the control thread calls when every worker
//! has passed a quiescent state, so that a lookup under way never lands in a node that means something else by now.

mod memory;
mod prefix;
mod rib;
#[cfg(test)]
mod tests;
mod trie;
mod way;

pub use prefix::{Address, Prefix, PrefixError};
pub use rib::{Fib, Full, Retired};
pub use trie::{Trie, Twin};
pub use way::{Found, Groups, MEMBERS_MAX, Way};
