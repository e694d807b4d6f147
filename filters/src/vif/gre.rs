//! `gre`: IP packets to one other host over IP (RFC 2784, RFC 2890, RFC 7676).
//!
//! ```text
//!   IP local ─▶ remote, protocol 47 | K flag, type | key (with `key`) | packet
//! ```
//!
//! Arguments: `local`, `remote` (addresses of one IP version; `local` is one of this host's), `key` (0 to 4294967295, optional),
//! `mtu` (bytes, default what an underlay of 1500 leaves).
//!
//! A point-to-point interface without link header or neighbours: route into it by its name. Packets that carry a checksum are
//! verified, sequence numbers are skipped; neither is sent. Everything else (routing of RFC 1701, other versions, payloads other
//! than IPv4 and IPv6) is dropped as `malformed`. Outer packets are not to be cut.

use std::sync::Arc;

use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Checksum, Protocol};

use super::by_version;
use super::tunnel::{Driver, Ends, Found, Termini, Tunnel};
use crate::{
    Args, CreateError, Demux, IfFamily, IfFlags, IfIndex, IfParams, IfnetDriver, IfnetEnv, IfnetKind,
    ProtocolFamily,
};

const CHECKSUM: u8 = 0x80;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;

/// The kind.
#[derive(Default)]
pub struct Gre(Termini<Kind>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    ends: Ends,
    key: Option<u32>,
}

struct Kind;

impl Tunnel for Kind {
    type Key = Key;
    const HEADER_MAX: usize = 16 + 20;
    const PROTOCOL: Protocol = Protocol::GRE;
    const NAME: &'static str = "gre";

    fn find(ends: Ends, packet: &Mbuf, at: usize, _: &[(Key, IfIndex)]) -> Found<Key> {
        let data = packet.data().get(at..).unwrap_or_default();
        let Some(&[flags, version, a, b]) = data.first_chunk() else { return Found::Bad };
        if flags & !(CHECKSUM | KEY | SEQUENCE) != 0 || version & 7 != 0 {
            return Found::Bad;
        }
        let has = |flag: u8| usize::from(flags & flag != 0) * 4;
        let key_at = 4 + has(CHECKSUM);
        let len = key_at + has(KEY) + has(SEQUENCE);
        let payload = (u16::from_be_bytes([a, b]), data.get(len).map(|byte| byte >> 4));
        if !matches!(payload, (0x0800, Some(4)) | (0x86dd, Some(6)))
            || (flags & CHECKSUM != 0 && !packet.sum_from(at, Checksum::new()).is_valid())
        {
            return Found::Bad;
        }
        let key = (flags & KEY != 0).then(|| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| data[key_at + i]);
            u32::from_be_bytes([a, b, c, d])
        });
        Found::At(Key { ends, key }, len)
    }

    fn wrap(key: Key, packet: &mut Mbuf) -> bool {
        let [a, b] = match by_version(packet) {
            Demux::Protocol(ProtocolFamily::INET, _) => [0x08, 0x00],
            Demux::Protocol(..) => [0x86, 0xdd],
            Demux::Unknown => return false,
        };
        let Some(header) = packet.prepend(key.header_len()) else { return false };
        header[..4].copy_from_slice(&[0, 0, a, b]);
        if let Some(number) = key.key {
            header[0] = KEY;
            header[4..].copy_from_slice(&number.to_be_bytes());
        }
        key.ends.wrap(packet, Kind::PROTOCOL)
    }
}

impl IfnetKind for Gre {
    fn name(&self) -> &str {
        "gre"
    }

    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        args.only(&["local", "remote", "key", "mtu"])?;
        let ends = Ends::of(args)?;
        let given = args.0.contains_key("key");
        let key = given.then_some(args.number("key", 0..=0xffff_ffff, 0)? as u32);
        let key = Key { ends, key };
        let params = IfParams {
            name: env.name.clone(),
            kind: "gre",
            family: IfFamily::TUN,
            flags: IfFlags::UP.with(IfFlags::POINTOPOINT).with(IfFlags::NOARP).with(IfFlags::MULTICAST),
            mtu: args.number("mtu", 68..=65_000, 1500 - (ends.header_len() + key.header_len()) as i64)?
                as u32,
            hdrlen: 0,
            lladdr: None,
        };
        Ok((params, Driver::of(&self.0, env, ends.family(), key)?))
    }
}

impl Key {
    /// Of GRE's header, which has a key or not.
    fn header_len(self) -> usize {
        if self.key.is_some() { 8 } else { 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_mbuf::{Pool, PoolConfig, Region};
    use proptest::prelude::*;

    fn ends() -> Ends {
        Ends { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into() }
    }

    /// Key and length of the header, if it holds.
    fn read(bytes: &[u8]) -> Option<(Option<u32>, usize)> {
        let pool = Pool::new(Region::heap(2048 * 2), &PoolConfig::default()).unwrap();
        let mut mbuf = pool.alloc().unwrap();
        mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
        match Kind::find(ends(), &mbuf, 0, &[]) {
            Found::At(key, len) => Some((key.key, len)),
            Found::None => panic!("all of the protocol is for tunnels"),
            Found::Bad => None,
        }
    }

    #[test]
    fn headers_are_read_as_in_rfc_2784_and_2890() {
        let v4 = [0x45, 0, 0, 20];
        let with = |header: &[u8]| read(&[header, &v4].concat());
        assert_eq!(with(&[0, 0, 8, 0]), Some((None, 4)));
        assert_eq!(with(&[0x20, 0, 8, 0, 0, 0, 1, 2]), Some((Some(0x102), 8)));
        assert_eq!(with(&[0x30, 0, 8, 0, 0, 0, 1, 2, 9, 9, 9, 9]), Some((Some(0x102), 12)));
        assert_eq!(with(&[0x10, 0, 8, 0, 9, 9, 9, 9]), Some((None, 8)));
        // 0x8000 + 0x0800 + 0x4500 + 0x0014 = 0xcd14.
        assert_eq!(with(&[0x80, 0, 8, 0, 0x32, 0xeb, 0, 0]), Some((None, 8)));
        assert_eq!(with(&[0x80, 0, 8, 0, 0x32, 0xec, 0, 0]), None, "a wrong checksum");
        assert_eq!(with(&[0x40, 0, 8, 0, 0, 0, 0, 0]), None, "routing");
        assert_eq!(with(&[0, 1, 8, 0]), None, "PPTP");
        assert_eq!(with(&[0, 0, 0x86, 0xdd]), None, "it says IPv6");
        assert_eq!(with(&[0, 0, 0x65, 0x58]), None, "a bridged frame");
        assert_eq!(read(&[0, 0, 8, 0]), None, "nothing inside");
        assert_eq!(read(&[0x20, 0, 8]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some((_, len)) = read(&bytes) {
                prop_assert!((4..=16).contains(&len) && len < bytes.len());
            }
        }
    }
}
