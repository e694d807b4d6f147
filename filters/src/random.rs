//! Keys nobody can guess, for tables that strangers fill.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A key for [`nke_mbuf::hash::KeyedHash`], from the randomness the standard library gets from the system. Not for the path.
pub fn random_key() -> [u64; 2] {
    [(); 2].map(|()| RandomState::new().build_hasher().finish())
}
