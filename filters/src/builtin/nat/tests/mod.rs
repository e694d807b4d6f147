mod config;
mod errors;
mod many;
mod prefix;
mod rules;

use nke_mbuf::{Mbuf, Pool};

use super::args::Config;
use super::nat44::Nat44;
use super::tally::{Tally, Why};
use crate::flow::testing::{Packet, args, bytes_of, mbuf, pool, show};
use crate::{Batch, DropReason};

/// A translator with its packets. What comes back is bytes, or the reason for the drop.
struct Rig {
    nat: Nat44,
    tally: Tally,
    pool: Pool,
}

const REASONS: [DropReason; Why::COUNT] = {
    let mut reasons = [DropReason::from_index(0); Why::COUNT];
    let mut at = 0;
    while at < Why::COUNT {
        reasons[at] = DropReason::from_index(at as u8);
        at += 1;
    }
    reasons
};

/// The usual arguments: 10.0.0.0/8 inside, 203.0.113.1 outside.
fn rig(more: &[(&str, &str)]) -> Rig {
    let mut given = vec![("inside", "10.0.0.0/8"), ("to", "203.0.113.1")];
    given.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    given.extend(more);
    let config = Config::from_args(&args(&given)).unwrap();
    Rig { nat: Nat44::new(&config).unwrap(), tally: Tally::default(), pool: pool() }
}

impl Rig {
    fn at(&self, mbuf: Mbuf, call: impl FnOnce(&mut Batch<'_>)) -> Result<Vec<u8>, Why> {
        let whys = [Why::NoPort, Why::TableFull, Why::Busy, Why::Filtered, Why::Invalid];
        match show(mbuf, call) {
            Ok(mbuf) => Ok(bytes_of(&mbuf)),
            Err(reason) => Err(whys[reason]),
        }
    }

    fn output_mbuf(&self, mbuf: Mbuf) -> Result<Vec<u8>, Why> {
        self.at(mbuf, |batch| self.nat.output(batch, &self.tally, &REASONS))
    }

    fn output(&self, bytes: &[u8]) -> Result<Vec<u8>, Why> {
        self.output_mbuf(mbuf(&self.pool, bytes))
    }

    fn prerouting_mbuf(&self, mbuf: Mbuf) -> Result<Vec<u8>, Why> {
        self.at(mbuf, |batch| self.nat.prerouting(batch, &self.tally, &REASONS))
    }

    fn prerouting(&self, bytes: &[u8]) -> Result<Vec<u8>, Why> {
        self.prerouting_mbuf(mbuf(&self.pool, bytes))
    }

    /// The packet leaves with this source.
    #[track_caller]
    fn leaves(&self, packet: &Packet, src: &str) {
        assert_eq!(self.output(&packet.bytes()), Ok(packet.with_src(src).bytes()), "{packet:?}");
    }

    /// The packet arrives with this destination.
    #[track_caller]
    fn arrives(&self, packet: &Packet, dst: &str) {
        assert_eq!(self.prerouting(&packet.bytes()), Ok(packet.with_dst(dst).bytes()), "{packet:?}");
    }

    /// The packet is passed on as it is, at both hooks.
    #[track_caller]
    fn untouched(&self, packet: &Packet) {
        assert_eq!(self.prerouting(&packet.bytes()), Ok(packet.bytes()), "{packet:?}");
        assert_eq!(self.output(&packet.bytes()), Ok(packet.bytes()), "{packet:?}");
    }

    fn figure(&self, name: &str) -> u64 {
        self.nat.sessions.figures().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// Time goes on to this second, and whatever timed out is found.
    fn at_s(&self, now_s: u32) {
        (0..crate::flow::SWEEP_TICKS).for_each(|_| self.nat.age(now_s));
    }

    fn check(&self) {
        self.nat.sessions.table().check();
        self.nat.mappings.check();
    }
}

/// The source a packet has, as text.
fn src_of(bytes: &[u8]) -> String {
    let ip = nke_mbuf::wire::Ipv4::new_checked(bytes).unwrap();
    format!("{}:{}", ip.src(), u16::from_be_bytes([bytes[20], bytes[21]]))
}
