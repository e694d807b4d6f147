//! `vlan`: an Ethernet interface made of the frames of another one that carry its tag (IEEE 802.1Q, 802.1ad).
//!
//! ```text
//!   to | from | 0x8100 tag | type | packet               `tag` alone
//!   to | from | 0x88a8 outer | 0x8100 tag | type | ...   with `outer` (QinQ)
//! ```
//!
//! Arguments: `parent` (name of an Ethernet interface), `tag` (1 to 4094), `outer` (1 to 4094, optional).
//!
//! All VLANs of one parent share a trunk: the protocol `PF_VLAN`, attached to the parent with the first of them and
//! detached with the last. The trunk looks a tag up, takes it off, and has the VLAN receive the frame; the VLAN's output puts
//! the tag on and sends by the parent. So the filters of both see the frame, those of the parent with its tag.
//!
//! A VLAN has its parent's link address (that of its making; a later change is not followed) and MTU: tags are not part of
//! the payload, so the parent's link carries frames longer by 4 bytes for each tag, as 802.3 since 1998 allows; where it
//! cannot, lower the MTU of the VLAN. Priorities are not kept, and sent as 0; frames with a priority tag alone (tag 0) are
//! dropped as `unknown_tag`. When the parent goes, its VLANs stay and drop what they send as `parent_gone`, until they are
//! made anew on another parent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nke_mbuf::Mbuf;

use super::{Tally, goes_round, reason};
use crate::{
    Args, Batch, CreateError, Cx, DemuxDesc, DropReason, Host, IfEvent, IfEventKind, IfFamily, IfFlags,
    IfIndex, IfIoctl, IfParams, IfProtocol, Ifnet, IfnetDriver, IfnetEnv, IfnetKind, IoctlAnswer,
    ProtocolFamily, ProtocolHandler, ProtocolSpec, Swap,
};
use nke_mbuf::Owner;

const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;
/// Both addresses: what stands before a tag.
const ADDRESSES_LEN: usize = 12;
const TAG_LEN: usize = 4;

/// The kind, with the trunks there are.
#[derive(Default)]
pub struct Vlan(Trunks);

type Trunks = Arc<Mutex<Vec<Arc<Trunk>>>>;

/// What tells a VLAN from the others of its parent; `outer` is 0 without.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    outer: u16,
    tag: u16,
}

impl Key {
    /// The tags of a frame, and how many bytes they take.
    #[inline]
    fn of(frame: &[u8]) -> Option<(Key, usize)> {
        let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..at + 2)?.first_chunk()?));
        let vid = |at: usize| Some(word(at)? & 0xfff);
        // The type behind the last tag is asked for too: a frame that ends in a tag is none.
        match word(ADDRESSES_LEN)? {
            C_TAG => word(16).and(Some((Key { outer: 0, tag: vid(14)? }, TAG_LEN))),
            S_TAG if word(16)? == C_TAG => {
                word(20).and(Some((Key { outer: vid(14)?, tag: vid(18)? }, 2 * TAG_LEN)))
            }
            _ => None,
        }
    }

    /// The tags as they stand in a frame, and their length.
    #[inline]
    fn bytes(self) -> ([u8; 2 * TAG_LEN], usize) {
        let ([a, b], [c, d], [e, f]) =
            (self.outer.to_be_bytes(), self.tag.to_be_bytes(), C_TAG.to_be_bytes());
        let [g, h] = S_TAG.to_be_bytes();
        match self.outer {
            0 => ([e, f, c, d, 0, 0, 0, 0], TAG_LEN),
            _ => ([g, h, a, b, e, f, c, d], 2 * TAG_LEN),
        }
    }
}

/// Tags of a parent, in order, and the interfaces they belong to.
type Members = Vec<(Key, IfIndex)>;

/// What the VLANs of one parent share.
struct Trunk {
    parent: Ifnet,
    host: Arc<dyn Host>,
    owner: Owner,
    /// Set by the control thread when the parent is detached.
    gone: AtomicBool,
    members: Swap<Members>,
    unknown_tag: DropReason,
    looped: DropReason,
    tally: Tally,
}

impl Trunk {
    fn change(&self, change: impl FnOnce(&mut Members)) -> usize {
        let mut members = self.members.newest(Members::clone);
        change(&mut members);
        let len = members.len();
        self.members.publish(members);
        len
    }

    fn has(&self, key: Key) -> bool {
        self.members.newest(|members| members.iter().any(|(k, _)| *k == key))
    }
}

impl Vlan {
    /// The trunk of `parent`; a new one is entered when its first VLAN is attached.
    fn trunk(&self, env: &IfnetEnv, parent: Ifnet) -> Result<Arc<Trunk>, CreateError> {
        let known = locked(&self.0).iter().find(|t| t.parent.index() == parent.index()).cloned();
        if let Some(trunk) = known {
            return Ok(trunk);
        }
        Ok(Arc::new(Trunk {
            parent,
            host: env.host.clone(),
            owner: env.owner,
            gone: AtomicBool::new(false),
            members: Swap::new(env.workers, Members::new()),
            unknown_tag: reason(env, "unknown_tag")?,
            looped: reason(env, "loop")?,
            tally: Tally::new(env.workers),
        }))
    }
}

fn locked(trunks: &Trunks) -> std::sync::MutexGuard<'_, Vec<Arc<Trunk>>> {
    // A panic leaves a valid list.
    trunks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tag_arg(args: &Args, name: &str) -> Result<Option<u16>, CreateError> {
    let given = args.0.contains_key(name);
    Ok(given.then_some(args.number(name, 1..=4094, 1)? as u16))
}

impl IfnetKind for Vlan {
    fn name(&self) -> &str {
        "vlan"
    }

    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        args.only(&["parent", "tag", "outer"])?;
        let tag = tag_arg(args, "tag")?
            .ok_or_else(|| CreateError::new("a vlan needs its tag", "write tag = 1 to 4094"))?;
        let key = Key { outer: tag_arg(args, "outer")?.unwrap_or(0), tag };
        let name = args
            .text("parent")?
            .ok_or_else(|| CreateError::new("a vlan needs a parent", "write parent = \"an interface\""))?;
        let missing =
            |_| CreateError::new(format!("no interface is called `{name}`"), "see `nke show interfaces`");
        let parent = env.host.ifnet_find(name).map_err(missing)?;
        let on = env.host.ifnet_info(parent.index()).filter(|on| on.family.is_ethernet());
        let on = on.ok_or_else(|| {
            CreateError::new(
                format!("`{name}` has no Ethernet frames"),
                "name an Ethernet interface as parent",
            )
        })?;
        let trunk = self.trunk(env, parent)?;
        if trunk.has(key) {
            return Err(CreateError::new(
                format!("`{name}` has a vlan of these tags already"),
                "choose another `tag` or `outer`",
            ));
        }
        let params = IfParams {
            name: env.name.clone(),
            kind: "vlan",
            family: IfFamily::VLAN,
            flags: IfFlags::UP.with(IfFlags::BROADCAST).with(IfFlags::MULTICAST),
            mtu: on.mtu,
            hdrlen: 14,
            lladdr: on.lladdr,
        };
        let driver = Driver {
            key,
            no_room: reason(env, "no_room")?,
            parent_gone: reason(env, "parent_gone")?,
            tally: Tally::new(env.workers),
            trunks: self.0.clone(),
            trunk,
        };
        Ok((params, Arc::new(driver)))
    }
}

/// Takes the tags off: the addresses move up to the type behind them.
#[inline]
fn untag(frame: &mut Mbuf, tags_len: usize) {
    frame.data_mut().copy_within(..ADDRESSES_LEN, tags_len);
    frame.adj(tags_len);
}

/// Puts the tags between addresses and type. Without headroom, or a whole header to move, the frame is left as it was.
#[inline]
fn retag(frame: &mut Mbuf, key: Key) -> bool {
    let (tags, len) = key.bytes();
    if frame.data().len() < ADDRESSES_LEN || frame.prepend(len).is_none() {
        return false;
    }
    let data = frame.data_mut();
    data.copy_within(len..len + ADDRESSES_LEN, 0);
    data[ADDRESSES_LEN..ADDRESSES_LEN + len].copy_from_slice(&tags[..len]);
    true
}

/// The protocol on the parent.
struct Protocol(Arc<Trunk>, Trunks);

impl IfProtocol for Protocol {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let Protocol(trunk, _) = self;
        trunk.members.read(cx.worker, |members| {
            for place in batch.places() {
                let found =
                    batch.get(place).and_then(|frame| Key::of(frame.data())).and_then(|(key, len)| {
                        let at = members.binary_search_by_key(&key, |(key, _)| *key).ok()?;
                        Some((members[at].1, len))
                    });
                let Some((vlan, tags_len)) = found else {
                    batch.drop(place, trunk.unknown_tag);
                    continue;
                };
                if goes_round(batch, place, trunk.looped) {
                    continue;
                }
                let Some(mut frame) = batch.take(place) else { continue };
                untag(&mut frame, tags_len);
                let outcome = cx.input(vlan, frame);
                trunk.tally.settle(cx, outcome);
            }
        });
    }

    fn event(&self, event: &IfEvent) {
        if event.kind == IfEventKind::Detaching {
            self.0.gone.store(true, Ordering::Relaxed);
            // An interface of that name that comes later gets a trunk of its own.
            locked(&self.1).retain(|trunk| !Arc::ptr_eq(trunk, &self.0));
        }
    }
}

struct Driver {
    key: Key,
    no_room: DropReason,
    parent_gone: DropReason,
    tally: Tally,
    trunks: Trunks,
    trunk: Arc<Trunk>,
}

impl Driver {
    fn joined(&self, vlan: IfIndex) {
        let trunk = &self.trunk;
        let members = trunk.change(|members| {
            members.push((self.key, vlan));
            members.sort_unstable();
        });
        if members == 1 {
            locked(&self.trunks).push(trunk.clone());
            let spec = ProtocolSpec {
                demux: vec![DemuxDesc::EtherType(C_TAG), DemuxDesc::EtherType(S_TAG)],
                handler: ProtocolHandler::Own(Box::new(Protocol(trunk.clone(), self.trunks.clone()))),
            };
            // What keeps it from being carried out is said by the control thread; the VLAN receives nothing then.
            let _ = trunk.host.attach_protocol(trunk.owner, trunk.parent.index(), ProtocolFamily::VLAN, spec);
        }
    }

    fn left(&self, vlan: IfIndex) {
        let trunk = &self.trunk;
        let members = trunk.change(|members| members.retain(|(_, index)| *index != vlan));
        if members == 0 && !trunk.gone.load(Ordering::Relaxed) {
            locked(&self.trunks).retain(|known| !Arc::ptr_eq(known, trunk));
            let _ = trunk.host.detach_protocol(trunk.parent.index(), ProtocolFamily::VLAN);
        }
    }
}

impl IfnetDriver for Driver {
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let gone = self.trunk.gone.load(Ordering::Relaxed);
        for place in batch.places() {
            if gone {
                batch.drop(place, self.parent_gone);
                continue;
            }
            if goes_round(batch, place, self.trunk.looped) {
                continue;
            }
            if !batch.get_mut(place).is_some_and(|frame| retag(frame, self.key)) {
                batch.drop(place, self.no_room);
                continue;
            }
            let Some(frame) = batch.take(place) else { continue };
            let outcome = cx.output(self.trunk.parent.index(), frame);
            self.tally.settle(cx, outcome);
        }
    }

    fn ioctl(&self, request: &mut IfIoctl<'_>) -> IoctlAnswer {
        let parent_mtu = self.trunk.host.ifnet_info(self.trunk.parent.index()).map_or(0, |on| on.mtu);
        match request {
            IfIoctl::SetMtu(mtu) if *mtu > parent_mtu => {
                IoctlAnswer::Refuse(format!("{parent_mtu} at most, the MTU of the parent"))
            }
            IfIoctl::SetLladdr(_) => IoctlAnswer::Refuse("a vlan has its parent's link address".into()),
            _ => IoctlAnswer::NotMine,
        }
    }

    fn event(&self, event: &IfEvent) {
        match event.kind {
            IfEventKind::Attached => self.joined(event.interface),
            IfEventKind::Detaching => self.left(event.interface),
            _ => (),
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sent", self.tally.sum(0)),
            ("queue_full", self.tally.sum(1)),
            ("trunk_received", self.trunk.tally.sum(0)),
            ("trunk_queue_full", self.trunk.tally.sum(1)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nke_mbuf::{Pool, PoolConfig, Region};

    #[test]
    fn tags_come_off_as_they_were_put_on() {
        let pool = Pool::new(Region::heap(2048 * 4), &PoolConfig::default()).unwrap();
        let plain: Vec<u8> = (0..60).collect();
        for (key, head) in [
            (Key { outer: 0, tag: 5 }, &[0x81, 0, 0, 5, 12, 13][..]),
            (Key { outer: 4094, tag: 257 }, &[0x88, 0xa8, 0x0f, 0xfe, 0x81, 0, 1, 1, 12, 13][..]),
        ] {
            let mut frame = pool.alloc().unwrap();
            frame.append(60).unwrap().copy_from_slice(&plain);
            assert!(retag(&mut frame, key));
            assert_eq!(frame.data()[..12], plain[..12]);
            assert_eq!(&frame.data()[12..12 + head.len()], head);
            let (read, len) = Key::of(frame.data()).unwrap();
            assert!(read == key && len == head.len() - 2);
            untag(&mut frame, len);
            assert_eq!(frame.data(), plain);
        }
    }

    #[test]
    fn a_frame_that_ends_within_its_tags_has_none() {
        let whole = [&[0; 12][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 8, 0]].concat();
        assert!(Key::of(&whole).is_some());
        assert!((0..whole.len()).all(|len| Key::of(&whole[..len]).is_none()));
        assert!(Key::of(&[&whole[..12], &whole[16..]].concat()).is_some());
        // An outer tag alone.
        let lone = [&whole[..16], &[8, 0, 0, 0, 0, 0]].concat();
        assert!(Key::of(&lone).is_none());
    }
}
