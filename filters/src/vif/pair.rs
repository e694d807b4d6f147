//! `pair`: two Ethernet interfaces back to back. What is sent by one is received by the other.
//!
//! Arguments: `peer` (name of the other end, which is made in the same way and names this one), `mac` (optional; without it
//! an address of the locally administered range is derived from the name, the same in every run), `mtu` (bytes, default
//! 1500).
//!
//! An end whose other end is not there drops as `no_peer`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{IndexCell, Tally, goes_round, mac_arg, reason};
use crate::{
    Args, Batch, CreateError, Cx, DropReason, IfEvent, IfEventKind, IfFamily, IfFlags, IfIndex, IfParams,
    IfnetDriver, IfnetEnv, IfnetKind,
};

/// The kind, with the wires there are. A wire lasts as long as one of its ends.
#[derive(Default)]
pub struct Pair(Mutex<Vec<Weak<Wire>>>);

/// The names of both ends, and their numbers while they are attached.
struct Wire {
    names: [String; 2],
    ends: [IndexCell; 2],
}

impl Pair {
    /// The wire between `name` and `peer`, and which end `name` is.
    fn wire(&self, name: &str, peer: &str) -> Result<(Arc<Wire>, usize), CreateError> {
        // A panic leaves a valid list.
        let mut wires = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wires.retain(|wire| wire.strong_count() > 0);
        for wire in wires.iter().filter_map(Weak::upgrade) {
            match [wire.names[0].as_str(), wire.names[1].as_str()] {
                [a, b] if [a, b] == [name, peer] => return Ok((wire, 0)),
                [a, b] if [b, a] == [name, peer] => return Ok((wire, 1)),
                known if known.contains(&name) || known.contains(&peer) => {
                    return Err(CreateError::new(
                        format!("`{}` and `{}` are the ends of a pair already", known[0], known[1]),
                        "let each end name the other as its `peer`",
                    ));
                }
                _ => (),
            }
        }
        let wire = Arc::new(Wire { names: [name.to_owned(), peer.to_owned()], ends: Default::default() });
        wires.push(Arc::downgrade(&wire));
        Ok((wire, 0))
    }
}

impl IfnetKind for Pair {
    fn name(&self) -> &str {
        "pair"
    }

    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        args.only(&["peer", "mac", "mtu"])?;
        let peer = args.text("peer")?.filter(|peer| *peer != env.name);
        let peer = peer.ok_or_else(|| {
            CreateError::new("a pair needs another end", "write peer = \"the other interface\"")
        })?;
        let params = IfParams {
            name: env.name.clone(),
            kind: "pair",
            family: IfFamily::ETHERNET,
            flags: IfFlags::UP.with(IfFlags::BROADCAST).with(IfFlags::MULTICAST),
            mtu: args.number("mtu", 68..=65_535, 1500)? as u32,
            hdrlen: 14,
            lladdr: Some(mac_arg(args, &env.name)?),
        };
        let (wire, side) = self.wire(&env.name, peer)?;
        let driver = Driver {
            wire,
            side,
            no_peer: reason(env, "no_peer")?,
            looped: reason(env, "loop")?,
            tally: Tally::new(env.workers),
        };
        Ok((params, Arc::new(driver)))
    }
}

struct Driver {
    wire: Arc<Wire>,
    side: usize,
    no_peer: DropReason,
    looped: DropReason,
    tally: Tally,
}

impl IfnetDriver for Driver {
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let peer = self.wire.ends[1 - self.side].get();
        for place in batch.places() {
            if peer == IfIndex::NONE {
                batch.drop(place, self.no_peer);
            } else if !goes_round(batch, place, self.looped) {
                let Some(frame) = batch.take(place) else { continue };
                let outcome = cx.input(peer, frame);
                self.tally.settle(cx, outcome);
            }
        }
    }

    fn event(&self, event: &IfEvent) {
        match event.kind {
            IfEventKind::Attached => self.wire.ends[self.side].set(event.interface),
            IfEventKind::Detaching => self.wire.ends[self.side].set(IfIndex::NONE),
            _ => (),
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("passed", self.tally.sum(0)), ("queue_full", self.tally.sum(1))]
    }
}
