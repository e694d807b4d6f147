//! A router in memory: a source, IPv4 forwarding, a sink, on one worker. What `route`, `acl` and `reconf --what routes` measure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nke_dataplane::control_handle::Control;
use nke_dataplane::inet::{NextHop, Request, RouteChange, RouteTo};
use nke_dataplane::port::memory::{FrameSet, Sink, SinkTally, Source, SourceControl};
use nke_dataplane::runtime::{Builder, Runtime, Settings};
use nke_filters::IfIndex;
use nke_mbuf::wire::EtherAddr;
use nke_mbuf::{Pool, PoolConfig, Region};

use crate::stats::Error;
use crate::table::{Table, routed_frame};

/// As in the pipeline.
const POOL_FRAMES: usize = 16384;
/// Routers the routes lead to.
pub const NEXT_HOPS: usize = 64;
/// The station the source sends to.
pub const MAC: EtherAddr = EtherAddr([2, 0, 0, 0, 0, 0xa]);
/// Routes of one request.
const BATCH: usize = 1000;

/// For a change to be made.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A router that forwards.
pub struct RouterRig {
    runtime: Runtime,
    source: Arc<SourceControl>,
    sink: Arc<SinkTally>,
}

/// The next hop of route `i`.
pub fn hop(i: usize) -> RouteTo {
    let router = IpAddr::from([198, 51, 100, 2 + (i % NEXT_HOPS) as u8]);
    RouteTo::Via(vec![NextHop { via: Some(router), interface: Some(IfIndex(1)), weight: 1 }])
}

impl RouterRig {
    /// With the routes of `table` and 64-byte frames (60 in the buffer) to `flows` destinations of it, pinned to `core`,
    /// bursts of `burst`. It is going.
    pub fn new(table: &Table, flows: usize, core: usize, burst: usize) -> Result<RouterRig, Error> {
        let config = PoolConfig::default();
        let region = Region::heap(POOL_FRAMES * config.frame_size as usize);
        let pool = Pool::new(region, &config)?;
        let mut builder =
            Builder::new(pool, Settings { cores: vec![Some(core)], burst, ..Settings::default() });
        let source = Arc::new(SourceControl::default());
        let sink = Arc::new(SinkTally::new(1));
        let [a, b] = ["a", "b"].map(|name| builder.plain_interface(name, "memory", 0));
        builder.link(a, MAC, 1500);
        builder.link(b, EtherAddr([2, 0, 0, 0, 0, 0xb]), 1500);
        let destinations = table.destinations(flows);
        let frames = FrameSet::made(flows, 60, |frame, flow| {
            routed_frame(frame, flow, destinations[flow as usize], MAC);
        });
        builder.queue(a, 0, Box::new(Source::new(frames, source.clone(), Instant::now(), false, 0)));
        builder.queue(b, 0, Box::new(Sink::new(sink.clone(), 0, None)));
        let mut rig = RouterRig { runtime: builder.start()?, source, sink };
        let control = rig.control();
        control.add_address("a", [192, 0, 2, 1].into(), 24)?.wait(PATIENCE)?;
        control.add_address("b", [198, 51, 100, 1].into(), 24)?.wait(PATIENCE)?;
        for i in 0..NEXT_HOPS as u8 {
            let (address, mac) = (IpAddr::from([198, 51, 100, 2 + i]), EtherAddr([2, 0, 0, 0, 1, i]));
            control.inet(Request::Neighbor(b, address, Some(mac)))?.wait(PATIENCE)?;
        }
        let nets: Vec<_> = table.nets().enumerate().collect();
        for batch in nets.chunks(BATCH) {
            let changes = batch.iter().map(|&(i, net)| RouteChange { net, to: Some(hop(i)) }).collect();
            control.inet(Request::Routes(changes))?.wait(PATIENCE)?;
        }
        rig.runtime.go();
        std::thread::sleep(Duration::from_millis(50));
        Ok(rig)
    }

    /// The way to its control thread.
    pub fn control(&self) -> Control {
        self.runtime.control()
    }

    /// Packets that arrived so far.
    pub fn arrived(&self) -> u64 {
        self.sink.packets()
    }

    /// Nanoseconds per packet, for `seconds`.
    pub fn measure(&self, seconds: f64) -> f64 {
        let (begin, before) = (Instant::now(), self.arrived());
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let (took, packets) = (begin.elapsed(), self.arrived() - before);
        took.as_nanos() as f64 / packets as f64
    }

    /// Ends it; the packets that were sent, and those of them that did not arrive.
    pub fn stop(self) -> Result<(u64, u64), Error> {
        self.source.stop();
        let account = self.runtime.stop();
        if account.free != account.capacity {
            return Err(format!("frames were lost: {account:?}").into());
        }
        let offered = self.source.offered.get();
        Ok((offered, offered - self.sink.packets()))
    }

    /// Ends it; an error if not all packets arrived.
    pub fn finish(self) -> Result<(), Error> {
        match self.stop()? {
            (_, 0) => Ok(()),
            (offered, lost) => Err(format!("{lost} of {offered} packets were lost").into()),
        }
    }
}
