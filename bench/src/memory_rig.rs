//! A pipeline in memory: source, wire, sink on one worker. What `pipeline` and `reconf` measure.

use std::sync::Arc;
use std::time::Instant;

use nke_dataplane::port::memory::{FrameSet, Sink, SinkTally, Source, SourceControl};
use nke_dataplane::runtime::{Builder, Runtime, Settings};
use nke_mbuf::{Pool, PoolConfig, Region};

/// Frames in the pool: as many as DPDK's testpmd gets here would not fit the cache either; the working set is what
/// counts, and the free list is last in, first out on both sides.
const POOL_FRAMES: usize = 16384;

/// A running pipeline.
pub struct Rig {
    /// The dataplane.
    pub runtime: Runtime,
    /// The source.
    pub source: Arc<SourceControl>,
    /// The sink.
    pub sink: Arc<SinkTally>,
}

impl Rig {
    /// 64-byte frames (60 in the buffer) of `flows` flows, pinned to `core`, bursts of `burst`. Not yet going.
    pub fn new(flows: usize, core: Option<usize>, burst: usize) -> std::io::Result<Rig> {
        let config = PoolConfig::default();
        let region = Region::heap(POOL_FRAMES * config.frame_size as usize);
        let pool = Pool::new(region, &config).map_err(std::io::Error::other)?;
        let mut builder = Builder::new(pool, Settings { cores: vec![core], burst, ..Settings::default() });
        let source = Arc::new(SourceControl::default());
        let sink = Arc::new(SinkTally::new(1));
        let a = builder.plain_interface("a", "memory", 0);
        let b = builder.plain_interface("b", "memory", 0);
        let frames = FrameSet::udp(flows, 60, None);
        let from = Source::new(frames, source.clone(), Instant::now(), false, 0);
        let from = builder.queue(a, 0, Box::new(from));
        let to = builder.queue(b, 0, Box::new(Sink::new(sink.clone(), 0, None)));
        builder.wire(from, to);
        Ok(Rig { runtime: builder.start()?, source, sink })
    }
}
