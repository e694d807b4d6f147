//! SipHash-1-3 over a few words (Aumasson and Bernstein, 2012), for tables keyed by what is in packets: strangers fill them,
//! and a hash whose key they do not know is what keeps them from choosing the bucket.

/// The keyed hash.
#[derive(Clone, Copy)]
pub struct KeyedHash([u64; 2]);

impl KeyedHash {
    /// `key` is random, drawn once when the table is made.
    pub const fn new(key: [u64; 2]) -> KeyedHash {
        KeyedHash(key)
    }

    /// The hash of the words, as of their little-endian bytes.
    #[inline(always)]
    pub fn words<const N: usize>(&self, words: [u64; N]) -> u64 {
        let [k0, k1] = self.0;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        for word in words {
            compress(&mut v, word);
        }
        compress(&mut v, (N as u64 * 8) << 56);
        v[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

/// A slot of `slots`, evenly, without a division: the high half of the product.
#[inline(always)]
pub fn scale(hash: u64, slots: usize) -> usize {
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

#[inline(always)]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hasher};

    /// The standard library's hasher is SipHash-1-3 with a key of zeros.
    #[test]
    fn equals_the_standard_library() {
        let mut oracle = DefaultHasher::new();
        assert_eq!(KeyedHash::new([0, 0]).words([]), oracle.finish());
        let words = [1, u64::MAX, 0x0123_4567_89ab_cdef];
        for word in words {
            oracle.write(&word.to_le_bytes());
        }
        assert_eq!(KeyedHash::new([0, 0]).words(words), oracle.finish());
        assert_ne!(KeyedHash::new([0, 1]).words(words), oracle.finish());
    }

    #[test]
    fn scaling_stays_in_range() {
        for slots in [1, 2, 3, 7, 4096] {
            assert_eq!(scale(0, slots), 0);
            assert_eq!(scale(u64::MAX, slots), slots - 1);
        }
    }
}
