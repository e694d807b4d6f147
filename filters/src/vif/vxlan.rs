//! `vxlan`: an Ethernet link to one other host over IP (RFC 7348).
//!
//! ```text
//!   IP local ─▶ remote | UDP hash ─▶ 4789 | flags 0x08, 0, VNI, 0 | to | from | type | packet
//! ```
//!
//! Arguments: `vni` (0 to 16777215), `local`, `remote` (addresses of one IP version; `local` is one of this host's), `port` (UDP,
//! default 4789), `mtu` (bytes, default 1450 over IPv4 and 1430 over IPv6: an underlay of 1500), `mac` (default: made of the name).
//!
//! It has one other end, as `ip link add type vxlan id VNI local L remote R dstport P` makes it: frames of others are dropped as
//! `unknown_tunnel`. The source port is made of the frame's flow, so that the underlay spreads flows over its ways. Outer packets
//! are not to be cut (`DF`), as the RFC asks of both ends. The UDP checksum is 0 over IPv4 and computed over IPv6, and not looked
//! at on receipt: the frame inside has checksums of its own.

use std::sync::Arc;

use nke_mbuf::wire::Protocol;
use nke_mbuf::{Flags, Mbuf};

use super::mac_arg;
use super::tunnel::{Driver, Ends, Found, Termini, Tunnel, flow_of};
use crate::{
    Args, CreateError, Family, IfFamily, IfFlags, IfIndex, IfParams, IfnetDriver, IfnetEnv, IfnetKind,
};

/// UDP's and VXLAN's.
const HEADER_LEN: usize = 16;
const ETHER_LEN: usize = 14;
/// The VNI is valid.
const FLAG_VNI: u8 = 0x08;

/// The kind.
#[derive(Default)]
pub struct Vxlan(Termini<Kind>);

/// What tells one from another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    port: u16,
    vni: u32,
    ends: Ends,
}

struct Kind;

impl Tunnel for Kind {
    type Key = Key;
    const HEADER_MAX: usize = HEADER_LEN + ETHER_LEN;
    const PROTOCOL: Protocol = Protocol::UDP;
    const NAME: &'static str = "vxlan";

    fn find(ends: Ends, packet: &Mbuf, at: usize, members: &[(Key, IfIndex)]) -> Found<Key> {
        find(ends, packet.data().get(at..).unwrap_or_default(), members)
    }

    fn wrap(key: Key, frame: &mut Mbuf) -> bool {
        let Key { port, vni, ends } = key;
        // The dynamic ports (RFC 7348 section 5, RFC 6335 section 6).
        let from = 0xc000 | flow_of(frame.data()) as u16;
        let Ok(len) = u16::try_from(frame.len() + HEADER_LEN) else { return false };
        let Some(header) = frame.prepend(HEADER_LEN) else { return false };
        let ([a, b], [c, d], [e, f]) = (from.to_be_bytes(), port.to_be_bytes(), len.to_be_bytes());
        let [_, x, y, z] = vni.to_be_bytes();
        header.copy_from_slice(&[a, b, c, d, e, f, 0, 0, FLAG_VNI, 0, 0, 0, x, y, z, 0]);
        if !ends.wrap(frame, Protocol::UDP) {
            return false;
        }
        if ends.family() == Family::V6 {
            frame.flags_mut().insert(Flags::CSUM_REQ_UDP);
        }
        true
    }
}

/// `data` begins at the UDP header.
fn find(ends: Ends, data: &[u8], members: &[(Key, IfIndex)]) -> Found<Key> {
    let Some([_, _, a, b]) = data.first_chunk() else { return Found::None };
    let port = u16::from_be_bytes([*a, *b]);
    // In order of their ports.
    let first = members.partition_point(|(key, _)| key.port < port);
    if members.get(first).is_none_or(|(key, _)| key.port != port) {
        return Found::None;
    }
    match data.get(8..HEADER_LEN) {
        Some([flags, _, _, _, vni @ .., _])
            if flags & FLAG_VNI != 0 && data.len() >= HEADER_LEN + ETHER_LEN =>
        {
            let vni = vni.iter().fold(0, |vni, byte| vni << 8 | u32::from(*byte));
            Found::At(Key { port, vni, ends }, HEADER_LEN)
        }
        _ => Found::Bad,
    }
}

impl IfnetKind for Vxlan {
    fn name(&self) -> &str {
        "vxlan"
    }

    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        args.only(&["vni", "local", "remote", "port", "mtu", "mac"])?;
        if !args.0.contains_key("vni") {
            return Err(CreateError::new("a vxlan needs its number", "write vni = 0 to 16777215"));
        }
        let vni = args.number("vni", 0..=0xff_ffff, 0)? as u32;
        let ends = Ends::of(args)?;
        let key = Key { port: args.number("port", 1..=65535, 4789)? as u16, vni, ends };
        let default_mtu = 1500 - (ends.header_len() + HEADER_LEN + ETHER_LEN) as i64;
        let params = IfParams {
            name: env.name.clone(),
            kind: "vxlan",
            family: IfFamily::ETHERNET,
            flags: IfFlags::UP.with(IfFlags::BROADCAST).with(IfFlags::MULTICAST),
            mtu: args.number("mtu", 68..=65_000, default_mtu)? as u32,
            hdrlen: ETHER_LEN as u8,
            lladdr: Some(mac_arg(args, &env.name)?),
        };
        Ok((params, Driver::of(&self.0, env, ends.family(), key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(port: u16, vni: u32) -> Key {
        let ends = Ends { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into() };
        Key { port, vni, ends }
    }

    #[test]
    fn frames_are_told_apart_by_port_and_number() {
        let members = [(key(4789, 7), IfIndex(1)), (key(8472, 5), IfIndex(2))];
        let packet = |port: u16, flags: u8, len: usize| {
            let mut data = vec![0; 60];
            data[2..4].copy_from_slice(&port.to_be_bytes());
            data[8] = flags;
            data[12..15].copy_from_slice(&[1, 2, 3]);
            data.truncate(len);
            find(members[0].0.ends, &data, &members)
        };
        let Found::At(found, 16) = packet(4789, 0x08, 60) else { panic!() };
        assert!(found == Key { vni: 0x01_0203, ..members[0].0 });
        assert!(matches!(packet(8472, 0xff, 30), Found::At(..)), "other flags are not looked at");
        assert!(matches!(packet(4790, 0x08, 60), Found::None), "another port is not ours");
        assert!(matches!(packet(4789, 0xf7, 60), Found::Bad), "without a number");
        assert!(matches!(packet(4789, 0x08, 29), Found::Bad), "no frame inside");
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..80)) {
            let members = [(key(u16::from_be_bytes([*data.get(2).unwrap_or(&0), *data.get(3).unwrap_or(&0)]), 7), IfIndex(1))];
            let found = find(members[0].0.ends, &data, &members);
            prop_assert!(matches!(found, Found::None) == (data.len() < 4));
        }
    }
}
