//! How many errors we send: token buckets, for all and for each destination (RFC 1812 section 4.3.2.8, RFC 4443
//! section 2.4 (f)).
//!
//! A limit that strangers share is a channel between them: who sees whether his own error came learns whether somebody
//! else's was sent, and from that which ports are open (CVE-2020-25705, "SAD DNS"; CVE-2016-5696 is the same for TCP).
//! So the destination's bucket is asked first, and only what it grants is taken from the one for all; the depth of that
//! one is drawn anew every time it fills up; and destinations fall into buckets by a keyed hash.

use std::net::IpAddr;

use nke_mbuf::hash::{KeyedHash, scale};

/// Rates and depths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Errors a second, in all.
    pub per_second: u32,
    /// Errors at once, in all; a quarter of it is random.
    pub burst: u32,
    /// Errors a second to one destination.
    pub per_destination: u32,
    /// Errors at once to one destination.
    pub destination_burst: u32,
    /// Buckets for destinations, rounded up to a power of two.
    pub destinations: u32,
}

impl Default for Limits {
    /// As Linux had it for long: 1000 a second, 50 at once, and to one host one a second after 6.
    fn default() -> Limits {
        Limits { per_second: 1000, burst: 50, per_destination: 1, destination_burst: 6, destinations: 1024 }
    }
}

/// A token is a thousand of these, so that a rate per second is one per millisecond.
pub(crate) const TOKEN: u64 = 1000;

/// A token bucket.
#[derive(Clone, Copy)]
pub(crate) struct Bucket {
    tokens: u64,
    filled_ms: u64,
}

impl Bucket {
    /// A full one: `burst` tokens.
    pub(crate) fn full(burst: u32) -> Bucket {
        Bucket { tokens: u64::from(burst) * TOKEN, filled_ms: 0 }
    }

    /// What is in it, in thousandths of a token.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds what has come since the last time; `depth` is in thousandths.
    pub(crate) fn fill(&mut self, now_ms: u64, per_second: u32, depth: u64) {
        let elapsed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        self.tokens = elapsed.saturating_mul(per_second.into()).saturating_add(self.tokens).min(depth);
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self) -> bool {
        let left = self.tokens.checked_sub(TOKEN);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

/// Says whether one more error may be sent. One belongs to one worker.
pub struct RateLimiter {
    limits: Limits,
    hash: KeyedHash,
    all: Bucket,
    /// The depth of `all`, until it is drawn again.
    depth: u64,
    draws: u64,
    destinations: Box<[Bucket]>,
}

impl RateLimiter {
    /// `key` is random.
    pub fn new(limits: Limits, key: [u64; 2]) -> RateLimiter {
        let count = limits.destinations.clamp(1, 1 << 20).next_power_of_two();
        let mut limiter = RateLimiter {
            limits,
            hash: KeyedHash::new(key),
            all: Bucket::full(limits.burst),
            depth: 0,
            draws: 0,
            destinations: vec![Bucket::full(limits.destination_burst); count as usize].into(),
        };
        limiter.draw();
        limiter
    }

    /// Whether an error may be sent to `dst`; if so, it counts as sent.
    pub fn allow(&mut self, dst: IpAddr, now_ms: u64) -> bool {
        let words = match dst {
            IpAddr::V4(addr) => [u64::from(addr.to_bits()), 4],
            // Who has one address of a /64 has them all.
            IpAddr::V6(addr) => [(addr.to_bits() >> 64) as u64, 6],
        };
        let slot = scale(self.hash.words(words), self.destinations.len());
        let bucket = &mut self.destinations[slot];
        let depth = u64::from(self.limits.destination_burst) * TOKEN;
        bucket.fill(now_ms, self.limits.per_destination, depth);
        if !bucket.take() {
            return false;
        }
        self.all.fill(now_ms, self.limits.per_second, self.depth);
        if self.all.tokens == self.depth {
            self.draw();
        }
        self.all.take()
    }

    /// Draws the depth: the burst, less up to a quarter of it.
    fn draw(&mut self) {
        self.draws += 1;
        let full = u64::from(self.limits.burst) * TOKEN;
        let random = scale(self.hash.words([self.draws, 0, 0]), (full / 4 + 1) as usize) as u64;
        self.depth = full - random / TOKEN * TOKEN;
        self.all.tokens = self.all.tokens.min(self.depth);
    }
}
