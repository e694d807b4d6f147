//! What tunnels over IP have in common: two ends, the header in front, and the place where what arrives is told apart.
//!
//! ```text
//!   stack sends ─▶ driver.output: transport header ─▶ Ends::wrap: IP header ─▶ Cx::ip_output ─▶ routed like any packet
//!   IP input hook ─▶ Terminus: whose is it? ─▶ headers off ─▶ Cx::input(interface)
//! ```
//!
//! A [`Terminus`] is an IP filter of its own making at the input hook: it sees whole datagrams for this host. The first
//! interface of a kind and IP version attaches it, the last one takes it away.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use nke_mbuf::wire::checksum::checksum;
use nke_mbuf::wire::{Ipv4, Ipv6, Protocol};
use nke_mbuf::{Flags, Mbuf, Owner};

use super::{Tally, by_version, goes_round, reason};
use crate::{
    Args, AttachId, Batch, CreateError, Cx, Demux, DropReason, Family, Host, IfEvent, IfEventKind, IfIndex,
    IfnetDriver, IfnetEnv, IpFilter, IpHook, IpHooks, Swap,
};

/// The two ends of a tunnel, of one IP version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ends {
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
}

impl Ends {
    /// From the arguments `local` and `remote`.
    pub(super) fn of(args: &Args) -> Result<Ends, CreateError> {
        let end = |name: &str| -> Result<IpAddr, CreateError> {
            let cure = || format!("write {name} = \"an address\"");
            let text = args.text(name)?;
            let text = text.ok_or_else(|| CreateError::new(format!("a tunnel needs `{name}`"), cure()))?;
            let address = text.parse().ok().filter(|a: &IpAddr| !a.is_multicast() && !a.is_unspecified());
            address
                .ok_or_else(|| CreateError::new(format!("`{name}` is not the address of one host"), cure()))
        };
        let ends = Ends { local: end("local")?, remote: end("remote")? };
        if ends.local.is_ipv4() != ends.remote.is_ipv4() || ends.local == ends.remote {
            return Err(CreateError::new(
                "`local` and `remote` are not two addresses of one IP version",
                "give both ends, both IPv4 or both IPv6",
            ));
        }
        Ok(ends)
    }

    pub(super) fn family(&self) -> Family {
        if self.local.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Bytes of the IP header in front.
    pub(super) fn header_len(&self) -> usize {
        match self.family() {
            Family::V4 => Ipv4::HEADER_LEN,
            Family::V6 => Ipv6::HEADER_LEN,
        }
    }

    /// Of a packet that came to this host, so that its source is the remote end; and its protocol and where that begins.
    fn from_packet(data: &[u8]) -> Option<(Ends, Protocol, usize)> {
        match data.first()? >> 4 {
            4 => {
                let ip = Ipv4::new_quoted(data).ok()?;
                Some((
                    Ends { local: ip.dst().into(), remote: ip.src().into() },
                    ip.protocol(),
                    ip.header_len(),
                ))
            }
            6 => {
                let ip = Ipv6::new_quoted(data).ok()?;
                let walk = ip.extensions().ok()?;
                let ends = Ends { local: ip.dst().into(), remote: ip.src().into() };
                Some((ends, walk.protocol, Ipv6::HEADER_LEN + walk.offset))
            }
            _ => None,
        }
    }

    /// Puts the IP header of a new packet in front; `false`, and nothing is changed, without headroom. It is not to be cut on its
    /// way: whole packets are what the other end gets, or none.
    pub(super) fn wrap(&self, mbuf: &mut Mbuf, protocol: Protocol) -> bool {
        let len = mbuf.len();
        let Ok(v4_len) = u16::try_from(len + Ipv4::HEADER_LEN) else { return false };
        let Some(header) = mbuf.prepend(self.header_len()) else { return false };
        match (self.local, self.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                let [high, low] = v4_len.to_be_bytes();
                // An identification is for pieces (RFC 6864 section 4.1); it may not be cut: 0x40.
                header[..12].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, protocol.0, 0, 0]);
                header[12..16].copy_from_slice(&local.octets());
                header[16..].copy_from_slice(&remote.octets());
                let sum = checksum(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (local, remote) => {
                let [high, low] = (len as u16).to_be_bytes();
                header[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, protocol.0, HOPS]);
                header[8..24].copy_from_slice(&v6(local).octets());
                header[24..].copy_from_slice(&v6(remote).octets());
            }
        }
        // What was known of the packet inside is not true of this one.
        let flags = mbuf.flags_mut();
        *flags = Flags(flags.0 & KEPT);
        true
    }
}

/// What is said of the packet as such, and not of its headers.
const KEPT: u16 = Flags::INJECTED.0 | Flags::TRACED.0;

/// Time to live of a new packet.
const HOPS: u8 = 64;

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(a) => a,
        // Both ends are of one version.
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    }
}

/// Whose a packet is.
pub(super) enum Found<K> {
    /// No tunnel's: it goes on.
    None,
    /// A tunnel's by its protocol, but it does not hold.
    Bad,
    /// The tunnel's with this key, and its payload begins here.
    At(K, usize),
}

/// How a kind of tunnel tells its packets.
pub(super) trait Tunnel: Send + Sync + 'static {
    /// What tells one tunnel from another.
    type Key: Copy + Ord + Send + Sync;
    /// Longest header behind the IP header in bytes, with the start of the payload that its interface reads first.
    const HEADER_MAX: usize;
    /// The protocol of its packets.
    const PROTOCOL: Protocol;
    /// Its name, which its filter is shown by.
    const NAME: &'static str;
    /// Whether the packet between `ends`, whose protocol begins at `at`, belongs to a tunnel, and to which. The members are those there
    /// are, in order.
    fn find(ends: Ends, packet: &Mbuf, at: usize, members: &[(Self::Key, IfIndex)]) -> Found<Self::Key>;
    /// Makes a whole IP packet of what the tunnel sends; `false` drops it as `no_room`.
    fn wrap(key: Self::Key, packet: &mut Mbuf) -> bool;
}

type Members<T> = Vec<(<T as Tunnel>::Key, IfIndex)>;

/// Where the tunnels of a kind end that run over one version of IP.
struct Terminus<T: Tunnel> {
    host: Arc<dyn Host>,
    owner: Owner,
    family: Family,
    members: Swap<Members<T>>,
    filter: Mutex<Option<AttachId>>,
    unknown: DropReason,
    malformed: DropReason,
    looped: DropReason,
    tally: Tally,
}

/// The termini of a kind: one for each version of IP in use.
pub(super) struct Termini<T: Tunnel>(Mutex<Vec<Arc<Terminus<T>>>>);

impl<T: Tunnel> Default for Termini<T> {
    fn default() -> Self {
        Termini(Mutex::new(Vec::new()))
    }
}

impl<T: Tunnel> Termini<T> {
    /// The terminus for tunnels over `family`, for a new one of key `key`.
    fn of(&self, env: &IfnetEnv, family: Family, key: T::Key) -> Result<Arc<Terminus<T>>, CreateError> {
        // A panic leaves a valid list.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let terminus = match known.iter().find(|terminus| terminus.family == family) {
            Some(terminus) => terminus.clone(),
            None => {
                let terminus = Arc::new(Terminus {
                    host: env.host.clone(),
                    owner: env.owner,
                    family,
                    members: Swap::new(env.workers, Vec::new()),
                    filter: Mutex::new(None),
                    unknown: reason(env, "unknown_tunnel")?,
                    malformed: reason(env, "malformed")?,
                    looped: reason(env, "loop")?,
                    tally: Tally::new(env.workers),
                });
                known.push(terminus.clone());
                terminus
            }
        };
        if terminus.members.newest(|members| members.iter().any(|(k, _)| *k == key)) {
            return Err(CreateError::new(
                "there is such a tunnel between these ends already",
                "choose other ends, or another number",
            ));
        }
        Ok(terminus)
    }
}

impl<T: Tunnel> Terminus<T> {
    /// The interface is attached: what arrives under `key` is received by it.
    fn join(self: &Arc<Self>, key: T::Key, interface: IfIndex) {
        self.change(|members| {
            members.push((key, interface));
            members.sort_unstable();
        });
        let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        if filter.is_none() {
            // What keeps it from being carried out is said by the control thread; the tunnel receives nothing then.
            let input = Box::new(Input(self.clone()));
            *filter = self.host.attach_ip_filter(self.owner, T::NAME, self.family, input).ok();
        }
    }

    /// The interface is on its way out.
    fn leave(&self, interface: IfIndex) {
        if self.change(|members| members.retain(|(_, index)| *index != interface)) > 0 {
            return;
        }
        let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = filter.take() {
            let _ = self.host.detach(id);
        }
    }

    /// Changes the members; how many there are then.
    fn change(&self, change: impl FnOnce(&mut Members<T>)) -> usize {
        let mut members = self.members.newest(Members::<T>::clone);
        change(&mut members);
        let len = members.len();
        self.members.publish(members);
        len
    }

    /// The interface that receives a packet, [`IfIndex::NONE`] for one that is not there, and the length of its headers.
    fn packet(&self, packet: &mut Mbuf, members: &[(T::Key, IfIndex)]) -> Found<IfIndex> {
        let Some((ends, protocol, at)) = Ends::from_packet(packet.data()) else { return Found::None };
        if protocol != T::PROTOCOL {
            return Found::None;
        }
        let need = (at + T::HEADER_MAX).min(packet.len());
        if !packet.pullup(need) {
            return Found::Bad;
        }
        match T::find(ends, packet, at, members) {
            Found::None => Found::None,
            Found::Bad => Found::Bad,
            Found::At(key, header_len) => match members.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(member) => Found::At(members[member].1, at + header_len),
                Err(_) => Found::At(IfIndex::NONE, 0),
            },
        }
    }
}

/// The terminus as an IP filter.
struct Input<T: Tunnel>(Arc<Terminus<T>>);

impl<T: Tunnel> IpFilter for Input<T> {
    fn hooks(&self) -> IpHooks {
        IpHooks::NONE.with(IpHook::Input)
    }

    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let terminus = &*self.0;
        terminus.members.read(cx.worker, |members| {
            for place in batch.places() {
                let Some(packet) = batch.get_mut(place) else { continue };
                match terminus.packet(packet, members) {
                    Found::None => (),
                    Found::Bad => batch.drop(place, terminus.malformed),
                    Found::At(IfIndex::NONE, _) => batch.drop(place, terminus.unknown),
                    Found::At(interface, headers_len) => {
                        if goes_round(batch, place, terminus.looped) {
                            continue;
                        }
                        let Some(mut frame) = batch.take(place) else { continue };
                        frame.adj(headers_len);
                        let flags = frame.flags_mut();
                        *flags = Flags(flags.0 & KEPT);
                        let outcome = cx.input(interface, frame);
                        terminus.tally.settle(cx, outcome);
                    }
                }
            }
        });
    }

    fn detached(&self, _: crate::Cookie) {
        // Whoever detached it, the next member attaches it anew.
        self.0.filter.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The driver of a tunnel's interface.
pub(super) struct Driver<T: Tunnel> {
    key: T::Key,
    terminus: Arc<Terminus<T>>,
    no_room: DropReason,
    looped: DropReason,
    tally: Tally,
}

impl<T: Tunnel> Driver<T> {
    /// For a new interface.
    pub(super) fn of(
        termini: &Termini<T>,
        env: &IfnetEnv,
        family: Family,
        key: T::Key,
    ) -> Result<Arc<dyn IfnetDriver>, CreateError> {
        Ok(Arc::new(Driver {
            key,
            terminus: termini.of(env, family, key)?,
            no_room: reason(env, "no_room")?,
            looped: reason(env, "loop")?,
            tally: Tally::new(env.workers),
        }))
    }
}

impl<T: Tunnel> IfnetDriver for Driver<T> {
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for place in batch.places() {
            if goes_round(batch, place, self.looped) {
                continue;
            }
            if !batch.get_mut(place).is_some_and(|packet| T::wrap(self.key, packet)) {
                batch.drop(place, self.no_room);
                continue;
            }
            let Some(packet) = batch.take(place) else { continue };
            let outcome = cx.ip_output(packet, None);
            self.tally.settle(cx, outcome);
        }
    }

    fn demux(&self, frame: &Mbuf) -> Demux {
        by_version(frame)
    }

    fn event(&self, event: &IfEvent) {
        match event.kind {
            IfEventKind::Attached => self.terminus.join(self.key, event.interface),
            IfEventKind::Detaching => self.terminus.leave(event.interface),
            _ => (),
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sent", self.tally.sum(0)),
            ("queue_full", self.tally.sum(1)),
            // By all tunnels of the kind over this version of IP.
            ("all_received", self.terminus.tally.sum(0)),
            ("all_receive_queue_full", self.terminus.tally.sum(1)),
        ]
    }
}

/// Number of an IPv4 or IPv6 packet's flow, for what spreads flows over ways: addresses, protocol, ports, as far as they stand
/// where they do in nearly all packets. Of other frames their addresses.
pub(super) fn flow_of(frame: &[u8]) -> u32 {
    let range = match frame.get(12..22) {
        Some([0x08, 0x00, 0x45, .., 0 | 0x40, 0]) => 26..38,
        // A piece has no ports.
        Some([0x08, 0x00, 0x45, ..]) => 26..34,
        Some([0x86, 0xdd, ..]) => 22..58,
        _ => 0..12,
    };
    let bytes = frame.get(range).or(frame.get(..12)).unwrap_or_default();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArgValue;
    use nke_mbuf::{Pool, PoolConfig, Region};

    fn args(given: &[(&str, &str)]) -> Args {
        Args(given.iter().map(|(k, v)| ((*k).into(), ArgValue::Text((*v).into()))).collect())
    }

    #[test]
    fn ends_are_two_hosts_of_one_version() {
        let of = |local: &str, remote: &str| Ends::of(&args(&[("local", local), ("remote", remote)]));
        assert!(of("192.0.2.1", "198.51.100.1").is_ok() && of("2001:db8::1", "2001:db8::2").is_ok());
        for (local, remote) in [
            ("192.0.2.1", "2001:db8::1"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "239.1.1.1"),
            ("0.0.0.0", "192.0.2.1"),
            ("192.0.2.1", "somewhere"),
        ] {
            assert!(of(local, remote).is_err(), "{local} {remote}");
        }
        assert!(Ends::of(&args(&[("local", "192.0.2.1")])).is_err());
    }

    #[test]
    fn what_is_wrapped_is_a_packet_between_the_ends() {
        let pool = Pool::new(Region::heap(2048 * 4), &PoolConfig::default()).unwrap();
        for (local, remote) in [("192.0.2.1", "198.51.100.1"), ("2001:db8::1", "2001:db8::2")] {
            let ends = Ends::of(&args(&[("local", local), ("remote", remote)])).unwrap();
            let mut mbuf = pool.alloc().unwrap();
            mbuf.append(33).unwrap().fill(7);
            mbuf.flags_mut().insert(Flags::MCAST);
            assert!(ends.wrap(&mut mbuf, Protocol(47)));
            assert_eq!((mbuf.len(), mbuf.flags()), (33 + ends.header_len(), Flags(0)));
            let data = mbuf.data();
            if ends.family() == Family::V4 {
                let ip = Ipv4::new_checked(data).unwrap();
                assert!(ip.verify_checksum() && ip.total_len() == 53);
            } else {
                assert_eq!(Ipv6::new_checked(data).unwrap().total_len(), 73);
            }
            let back = Ends { local: ends.remote, remote: ends.local };
            assert_eq!(Ends::from_packet(data), Some((back, Protocol(47), ends.header_len())));
            mbuf.adj(mbuf.len());
            let headroom = mbuf.headroom();
            assert!(mbuf.prepend(headroom - 10).is_some());
            assert!(!ends.wrap(&mut mbuf, Protocol(47)), "no headroom");
        }
    }

    #[test]
    fn flows_differ_where_their_ports_do() {
        let mut frame = [0; 60];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        let one = flow_of(&frame);
        frame[37] = 1;
        assert_ne!(flow_of(&frame), one);
        let other = flow_of(&frame);
        frame[18..20].fill(9);
        frame[24..26].fill(7);
        assert_eq!(flow_of(&frame), other, "identification and header checksum are no part of a flow");
        frame[20] = 0x20;
        let piece = flow_of(&frame);
        frame[36] = 1;
        assert_eq!(flow_of(&frame), piece);
        assert_eq!(flow_of(&[]), flow_of(&[]));
    }
}
