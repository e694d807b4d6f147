//! ICMP errors this host sends: rate-limited, from an address of ours, by the way back.

use std::net::IpAddr;

use nke_filters::Family;
use nke_inet::icmp::{ErrorV4, ErrorV6, error_v4, error_v6};
use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Ipv4, Ipv6};

use super::stage::Path;

impl Path<'_> {
    /// Tells the sender of an IPv4 packet what became of it; the packet stays the caller's.
    #[cold]
    pub(super) fn icmp_error_v4(&mut self, about: &Mbuf, error: ErrorV4) {
        let Ok(ip) = Ipv4::new_quoted(about.data()) else { return };
        let to = ip.src();
        // From the address of the interface it came in by (RFC 1812 section 4.3.2.4), or any we have.
        let links = &self.snapshot.links;
        let own = links.get(usize::from(about.rcvif())).and_then(|l| l.v4());
        let Some(from) = own.or_else(|| links.iter().find_map(|l| l.v4())) else { return };
        let now = self.hook.now_ms;
        let made =
            self.inet.limiter.allow(to.into(), now).then(|| error_v4(error, about, from, self.hook.cache));
        self.answer(Family::V4, made.and_then(Result::ok));
    }

    /// The same for IPv6.
    #[cold]
    pub(super) fn icmp_error_v6(&mut self, about: &Mbuf, error: ErrorV6) {
        let Ok(ip) = Ipv6::new_quoted(about.data()) else { return };
        let to = ip.src();
        let links = &self.snapshot.links;
        let own = links.get(usize::from(about.rcvif())).and_then(|l| l.v6_for(to));
        let Some(from) = own.or_else(|| links.iter().find_map(|l| l.v6_for(to))) else { return };
        let now = self.hook.now_ms;
        let to = IpAddr::V6(to);
        let made = self.inet.limiter.allow(to, now).then(|| error_v6(error, about, from, self.hook.cache));
        self.answer(Family::V6, made.and_then(Result::ok));
    }

    fn answer(&mut self, family: Family, made: Option<Mbuf>) {
        match made {
            Some(mbuf) => {
                self.hook.status.inet.icmp_errors.add(1);
                self.originate(family, mbuf, None);
            }
            None => self.hook.status.inet.icmp_suppressed.add(1),
        }
    }
}
