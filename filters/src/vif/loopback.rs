//! `loopback`: what is sent by it comes in by it again.
//!
//! Arguments: `mtu` (bytes, 68 to 65535, default 65535).
//!
//! It has no link header: a packet tells its protocol by the version of IP in its first byte. Its use is to carry
//! addresses that belong to the router rather than to one of its links. Addresses of 127.0.0.0/8 and ::1 are refused on
//! input as everywhere else. A route that leads foreign packets into it brings them back to the router, with one hop
//! less each time; they end as `loop` or `looped`, or when their hops are used up.

use std::sync::Arc;

use nke_mbuf::Mbuf;

use super::{Tally, by_version, goes_round, reason};
use crate::{
    Args, Batch, CreateError, Cx, Demux, DropReason, IfFamily, IfFlags, IfParams, IfnetDriver, IfnetEnv,
    IfnetKind,
};

/// The kind.
pub struct Loopback;

impl IfnetKind for Loopback {
    fn name(&self) -> &str {
        "loopback"
    }

    fn create(&self, env: &IfnetEnv, args: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        args.only(&["mtu"])?;
        let params = IfParams {
            name: env.name.clone(),
            kind: "loopback",
            family: IfFamily::LOOPBACK,
            flags: IfFlags::UP.with(IfFlags::LOOPBACK),
            mtu: args.number("mtu", 68..=65_535, 65_535)? as u32,
            hdrlen: 0,
            lladdr: None,
        };
        let driver = Driver { looped: reason(env, "loop")?, tally: Tally::new(env.workers) };
        Ok((params, Arc::new(driver)))
    }
}

struct Driver {
    looped: DropReason,
    tally: Tally,
}

impl IfnetDriver for Driver {
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let me = cx.interface;
        for place in batch.places() {
            if goes_round(batch, place, self.looped) {
                continue;
            }
            let Some(packet) = batch.take(place) else { continue };
            let outcome = cx.input(me, packet);
            self.tally.settle(cx, outcome);
        }
    }

    fn demux(&self, frame: &Mbuf) -> Demux {
        by_version(frame)
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("returned", self.tally.sum(0)), ("queue_full", self.tally.sum(1))]
    }
}
