//! ICMP and ICMPv6: answers, errors, and what errors of others say.
//!
//! Every packet here has its data at the IP header. What is sent on behalf of a stranger is bounded twice: by the rules
//! on what is never answered ([`Suppressed`]), and by the [`RateLimiter`], which the caller asks before it builds.

mod echo;
mod error;
pub(crate) mod limit;
mod quoted;
#[cfg(test)]
mod tests;

pub use echo::{NotEcho, echo_reply};
pub(crate) use error::is_one_host_v4;
pub use error::{ErrorV4, ErrorV6, Suppressed, error_v4, error_v6};
pub use limit::{Limits, RateLimiter};
pub use quoted::{PMTU_FLOOR_V4, PMTU_FLOOR_V6, Quoted, quoted};

/// Time to live and hop limit of what we send.
const TTL: u8 = 64;
