//! A token bucket in one word, for any number of workers.
//!
//! The word is a point in time: when the bucket will be full again, if nothing is taken any more (the "virtual
//! scheduling" form of GCRA, ITU-T I.371 annex A). A packet moves it on by its cost, and is within the rate if it then lies
//! at most the depth ahead. That is a token bucket to the token, and needs no pair of time and tokens to be kept in step.
//!
//! Time is counted in units of which a millisecond has a whole number and a byte (or a packet) costs a whole number:
//! nothing is ever rounded, and a millisecond is fine enough a clock.
//!
//! **Bound.** The word only grows, and never to more than the depth past the time of the worker that moves it. So what
//! all workers together take between two moments is at most `burst + rate * (time between them + d)`, where `d` is how
//! far the clocks of two workers differ.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::CreateError;

/// More than this is for no interface there is.
const BITS_PER_S_MAX: u64 = 400_000_000_000;
const PACKETS_PER_S_MAX: u64 = 1_000_000_000;

/// Units in a millisecond at most. A bucket that nobody touches for 2^63 units, 4 years then, would be taken for an
/// overdrawn one.
const PER_MS_MAX: u64 = 1 << 26;

/// Largest burst, in bytes or packets.
const BURST_MAX: u64 = 1 << 32;

/// A frame of 1500 bytes with header and two VLAN tags: a smaller bucket would pass none.
const FRAME_BYTES: u64 = 1522;

/// A rate and a depth, in units that make both whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    per_ms: u64,
    per_byte: u64,
    per_packet: u64,
    depth: u64,
}

impl Rate {
    /// From the arguments `rate` (such as `10mbit` or `1000pps`) and `burst` (bytes, or packets for a rate in packets;
    /// with `k` or `m` thousands or millions).
    pub fn parse(rate: &str, burst: Option<&str>) -> Result<Rate, CreateError> {
        let refused = || {
            CreateError::new(
                format!("`{rate}` is not a rate"),
                "write a whole number and kbit, mbit or gbit (per second), or pps, kpps or mpps (packets per second)",
            )
        };
        let digits = rate.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
        let (number, unit) = rate.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refused())?;
        let (scale, packets) = match unit {
            "bit" => (1, false),
            "kbit" => (1_000, false),
            "mbit" => (1_000_000, false),
            "gbit" => (1_000_000_000, false),
            "pps" => (1, true),
            "kpps" => (1_000, true),
            "mpps" => (1_000_000, true),
            _ => return Err(refused()),
        };
        let most = if packets { PACKETS_PER_S_MAX } else { BITS_PER_S_MAX };
        let per_s = number.checked_mul(scale).filter(|n| (1..=most).contains(n)).ok_or_else(|| {
            CreateError::new(
                format!("the rate {rate} is out of range"),
                "write 1 bit to 400gbit, or 1 to 1000mpps",
            )
        })?;
        // What accrues in a millisecond and what a byte (a packet) costs, in the largest unit that fits both.
        let per_token = if packets { 1_000 } else { 8_000 };
        let unit = gcd(per_s, per_token);
        let (per_ms, cost) = (per_s / unit, per_token / unit);
        if per_ms > PER_MS_MAX {
            return Err(CreateError::new(
                format!("the rate {rate} is too fine for its size"),
                "write a multiple of 8kbit, or of 1kpps",
            ));
        }
        let tokens_in = |ms: u64| (per_ms * ms).div_ceil(cost);
        let (least, usual) = if packets { (1, 16) } else { (FRAME_BYTES, 16 * FRAME_BYTES) };
        let least = tokens_in(2).max(least);
        let burst = match burst {
            None => tokens_in(20).max(usual),
            Some(text) => tokens(text).filter(|n| (least..=BURST_MAX).contains(n)).ok_or_else(|| {
                let what = if packets { "packets" } else { "bytes" };
                CreateError::new(
                    format!("`burst` is not a number of {what} from {least} to {BURST_MAX}"),
                    format!("write burst = {}: time goes by in milliseconds", tokens_in(20).max(usual)),
                )
            })?,
        };
        let (per_byte, per_packet) = if packets { (0, cost) } else { (cost, 0) };
        Ok(Rate { per_ms, per_byte, per_packet, depth: burst * cost })
    }

    /// The time in units.
    #[inline(always)]
    pub(super) fn at(&self, now_ms: u64) -> u64 {
        now_ms.wrapping_mul(self.per_ms)
    }

    /// What a packet costs, in units.
    #[inline(always)]
    pub(super) fn cost(&self, len_bytes: usize) -> u64 {
        self.per_byte * len_bytes as u64 + self.per_packet
    }
}

/// A whole number, perhaps of thousands or millions.
fn tokens(text: &str) -> Option<u64> {
    let (number, scale) = match text.strip_suffix('k') {
        Some(number) => (number, 1_000),
        None => text.strip_suffix('m').map_or((text, 1), |number| (number, 1_000_000)),
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| number.parse::<u64>().ok()?.checked_mul(scale))?
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A bucket. New ones are full.
#[derive(Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a packet's cost out if that much is in: whether it was. `at` is [`Rate::at`].
    #[inline]
    pub(super) fn take(&self, rate: &Rate, at: u64, cost: u64) -> bool {
        // Relaxed: the word is all there is to the bucket.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let base = if is_past(full_at, at) { at } else { full_at };
                let next = base.wrapping_add(cost);
                (next.wrapping_sub(at) <= rate.depth).then_some(next)
            })
            .is_ok()
    }

    /// Whether nothing of it is taken: then it is like any other full bucket.
    #[inline]
    pub(super) fn is_full(&self, at: u64) -> bool {
        is_past(self.0.load(Ordering::Relaxed), at)
    }
}

/// Whether `full_at` is not after `at`, counted round.
#[inline(always)]
fn is_past(full_at: u64, at: u64) -> bool {
    at.wrapping_sub(full_at) < 1 << 63
}
