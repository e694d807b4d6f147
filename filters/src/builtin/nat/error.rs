//! ICMP errors (RFC 5508 section 4): the packet they quote is one that was translated, so it is translated back, and with
//! it the end of the error itself.
//!
//! An error from outside needs a session that the quoted packet belongs to, or a forward; others are the host's own
//! business. An error never keeps a session alive nor ends one (REQ-6). One whose checksum is wrong is left as it is: who
//! receives it drops it.

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Icmp, Ipv4};

use super::args::Endpoint;
use super::nat44::{Nat44, inside_of, outside_of};
use super::rewrite::{End, is_intact, rewrite, rewrite_quoted};
use super::tally::Tally;
use crate::flow::packet::{V4, key_v4};

/// An error whose ICMP checksum holds, with what it quotes.
struct Error {
    icmp_at: usize,
    end_at: usize,
    quoted: V4,
}

impl Error {
    #[cold]
    fn read(mbuf: &Mbuf, packet: &V4) -> Option<Error> {
        let ip = Ipv4::new_quoted(mbuf.data()).ok()?;
        let (icmp_at, end_at) = (packet.upper.offset, ip.total_len());
        let quoted = mbuf.data().get(icmp_at + Icmp::HEADER_LEN..end_at.min(mbuf.data().len()))?;
        // Of the quoted packet only the IP checksum is verified (RFC 5508 REQ-3).
        let sound = Ipv4::new_quoted(quoted).is_ok_and(|ip| ip.verify_checksum());
        let quoted = V4::read_quoted(quoted).ok()?;
        (sound && is_intact(mbuf, icmp_at, end_at)).then_some(Error { icmp_at, end_at, quoted })
    }

    /// Translates one end of the quoted packet, and the end of the error that it is about.
    fn write(&self, mbuf: &mut Mbuf, packet: &V4, quoted: (End, Endpoint), outer: Option<(End, u32)>) {
        let data = mbuf.data_mut();
        rewrite_quoted(data, self.icmp_at, self.end_at, &self.quoted, quoted.0, quoted.1);
        if let Some((end, addr)) = outer {
            rewrite(data, &packet.upper, end, (addr, 0), false);
        }
    }
}

/// An error for an outside address. From inside it is a hairpin's: both of its ends are translated (REQ-4, REQ-5).
#[cold]
pub(super) fn prerouting(nat: &Nat44, mbuf: &mut Mbuf, packet: &V4, tally: &Tally) {
    if nat.inside.contains(packet.src) && !outward(nat, mbuf, packet) {
        return;
    }
    let Some(error) = Error::read(mbuf, packet) else { return };
    let quoted = &error.quoted;
    if quoted.src != packet.dst {
        return;
    }
    let (source, remote) = ((quoted.src, quoted.upper.src_port), (quoted.dst, quoted.upper.dst_port));
    // What comes from outside to the session that the quoted packet went out by.
    let reverse = key_v4(quoted.upper.protocol, remote, source);
    let session = nat.sessions.table().find(&reverse).filter(|session| session.side == 1);
    let inside = session.map(|session| inside_of(&session)).or_else(|| {
        let forward = nat.mappings.by_outside(quoted.upper.protocol, source);
        forward.filter(|mapping| mapping.for_ever).map(|mapping| mapping.inside)
    });
    if let Some(inside) = inside {
        error.write(mbuf, packet, (End::Src, inside), Some((End::Dst, inside.0)));
        tally.icmp_errors.add(1);
    }
}

/// An error that leaves, about a packet that came in for an inside host: from that host, or from a router on the way, this
/// one too.
#[cold]
pub(super) fn output(nat: &Nat44, mbuf: &mut Mbuf, packet: &V4, tally: &Tally) {
    if !nat.inside.contains(packet.dst) && outward(nat, mbuf, packet) {
        tally.icmp_errors.add(1);
    }
}

fn outward(nat: &Nat44, mbuf: &mut Mbuf, packet: &V4) -> bool {
    let Some(error) = Error::read(mbuf, packet) else { return false };
    let quoted = &error.quoted;
    let (inside, remote) = ((quoted.dst, quoted.upper.dst_port), (quoted.src, quoted.upper.src_port));
    if !nat.inside.contains(inside.0) {
        return false;
    }
    let reverse = key_v4(quoted.upper.protocol, inside, remote);
    let session = nat.sessions.table().find(&reverse).filter(|session| session.side == 0);
    let outside = session
        .map(|session| outside_of(&session))
        .or_else(|| nat.mappings.by_inside(quoted.upper.protocol, inside).map(|mapping| mapping.outside));
    let Some(outside) = outside else { return false };
    let outer = nat.inside.contains(packet.src).then_some((End::Src, outside.0));
    error.write(mbuf, packet, (End::Dst, outside), outer);
    true
}
