//! Packets for others: one hop less, the forward hook, and on to output (RFC 1812 section 5.3.1, RFC 8200 section 3).

use nke_filters::{AttachId, Family, IpHook, Stage};
use nke_inet::icmp::{ErrorV4, ErrorV6};
use nke_mbuf::{Flags, Mbuf};

use super::stage::{Path, places};
use crate::drop::{HOPS_EXHAUSTED, IP_MARTIAN};

/// What keeps a packet from being forwarded.
pub(super) enum Stop {
    Hops,
    Martian,
}

impl Path<'_> {
    /// Takes a hop off the packets at the places of `mask`; returns those that had one left. The others are dropped and answered.
    pub(super) fn take_hop(&mut self, family: Family, mask: u64) -> u64 {
        let mut left = mask;
        for place in places(mask) {
            let Some(mbuf) = &mut self.burst.slots_mut()[place] else { continue };
            if let Err(stop) = hop(family, mbuf) {
                left &= !(1 << place);
                self.stopped(family, place, stop);
            }
        }
        left
    }

    /// Forwards the packets at the places of `mask`, which have a hop less already, on their ways.
    #[inline]
    pub(super) fn forward(&mut self, family: Family, mask: u64, after: Option<AttachId>) {
        self.trace_route(mask);
        self.hook.trace(self.burst, mask, &Stage::Hook(IpHook::Forward));
        let left = self.filters(family, IpHook::Forward, mask, after);
        self.hook.status.inet.forwarded.add(u64::from(left.count_ones()));
        self.ip_output(family, left, None);
    }

    #[cold]
    fn stopped(&mut self, family: Family, place: usize, stop: Stop) {
        let Some(mbuf) = self.burst.take(place) else { return };
        match stop {
            Stop::Martian => self.drop(mbuf, IP_MARTIAN),
            Stop::Hops => {
                match family {
                    Family::V4 => self.icmp_error_v4(&mbuf, ErrorV4::TtlExceeded),
                    Family::V6 => self.icmp_error_v6(&mbuf, ErrorV6::HopLimitExceeded),
                }
                self.drop(mbuf, HOPS_EXHAUSTED);
            }
        }
    }
}

/// Takes one hop off a packet; does nothing to one that stops here.
#[inline(always)]
pub(super) fn hop(family: Family, mbuf: &mut Mbuf) -> Result<(), Stop> {
    match family {
        Family::V4 => hop_v4(mbuf),
        Family::V6 => hop_v6(mbuf),
    }
}

/// Frames to a link's group do not carry packets for one host elsewhere (RFC 1122 section 3.3.6).
const GROUPS: u16 = Flags::BCAST.0 | Flags::MCAST.0;

/// Takes one hop off an IPv4 packet and updates its checksum (RFC 1141, RFC 1624).
#[inline(always)]
fn hop_v4(mbuf: &mut Mbuf) -> Result<(), Stop> {
    if mbuf.flags().0 & GROUPS != 0 {
        return Err(Stop::Martian);
    }
    let Some(header) = mbuf.data_mut().first_chunk_mut::<20>() else { return Err(Stop::Martian) };
    if header[8] <= 1 {
        return Err(Stop::Hops);
    }
    // The word with the time to live in its high byte is 0x100 less, so the checksum is 0x100 more, with the carry
    // brought round. One store for both.
    let sum = u32::from(u16::from_be_bytes([header[10], header[11]])) + 0x100;
    let [high, low] = ((sum + (sum >> 16)) as u16).to_be_bytes();
    let changed = [header[8] - 1, header[9], high, low];
    header[8..12].copy_from_slice(&u32::from_ne_bytes(changed).to_ne_bytes());
    Ok(())
}

/// Takes one hop off an IPv6 packet. Packets from or to a link-local address stay on their link (RFC 4291, 2.5.6), and
/// those without a source are for this link only.
#[inline(always)]
fn hop_v6(mbuf: &mut Mbuf) -> Result<(), Stop> {
    if mbuf.flags().0 & GROUPS != 0 {
        return Err(Stop::Martian);
    }
    let Some(header) = mbuf.data_mut().first_chunk_mut::<40>() else { return Err(Stop::Martian) };
    let link_local = |at: usize| header[at] == 0xfe && header[at + 1] & 0xc0 == 0x80;
    if link_local(8) || link_local(24) || header[8..24] == [0; 16] {
        return Err(Stop::Martian);
    }
    if header[7] <= 1 {
        return Err(Stop::Hops);
    }
    header[7] -= 1;
    Ok(())
}
