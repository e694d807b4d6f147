//! How fast is solicited (RFC 6583 section 7.1).

use std::net::IpAddr;

use super::config::Config;
use crate::icmp::limit::{Bucket, TOKEN};

/// Interfaces with buckets of their own; more of them share. The user makes interfaces, strangers do not.
const INTERFACES: usize = 64;

/// Buckets for solicitations: one for all, and for neighbours that never answered one for each interface and version of
/// IP, and only what is above a quarter of the one for all.
pub(super) struct Rate {
    all: Bucket,
    per_second: u32,
    depth: u64,
    parts: Box<[Bucket]>,
    part_per_second: u32,
    part_depth: u64,
}

impl Rate {
    pub(super) fn new(config: &Config) -> Rate {
        let part_burst = (config.solicit_burst / 4).max(1);
        Rate {
            all: Bucket::full(config.solicit_burst),
            per_second: config.solicit_per_second,
            depth: u64::from(config.solicit_burst) * TOKEN,
            parts: vec![Bucket::full(part_burst); INTERFACES * 2].into(),
            part_per_second: config.solicit_per_interface,
            part_depth: u64::from(part_burst) * TOKEN,
        }
    }

    /// Whether one more solicitation fits.
    pub(super) fn allows(&mut self, interface: u16, address: IpAddr, preferred: bool, now_ms: u64) -> bool {
        self.all.fill(now_ms, self.per_second, self.depth);
        if preferred {
            return self.all.tokens() >= TOKEN;
        }
        let (per_second, depth) = (self.part_per_second, self.part_depth);
        let part = self.part(interface, address);
        part.fill(now_ms, per_second, depth);
        part.tokens() >= TOKEN && self.all.tokens() >= TOKEN + self.depth / 4
    }

    /// The same, and if it fits it counts as sent.
    pub(super) fn take(&mut self, interface: u16, address: IpAddr, preferred: bool, now_ms: u64) -> bool {
        let fits = self.allows(interface, address, preferred, now_ms);
        fits && (preferred || self.part(interface, address).take()) && self.all.take()
    }

    fn part(&mut self, interface: u16, address: IpAddr) -> &mut Bucket {
        let at = usize::from(interface) % INTERFACES * 2 + usize::from(address.is_ipv6());
        &mut self.parts[at]
    }
}
