//! The one memory everything shares: a UMEM the kernel knows, and the pool over it.
#![allow(unsafe_code)]

use std::fmt;

use af_xdp::{Backing, Pages, Umem, UmemConfig};
use nke_mbuf::{Pool, PoolConfig, PoolError, Region};

/// Why the memory was not made.
#[derive(Clone, Debug)]
pub enum ArenaError {
    /// The UMEM.
    Umem(af_xdp::Error),
    /// The pool.
    Pool(PoolError),
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArenaError::Umem(e) => e.fmt(f),
            ArenaError::Pool(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ArenaError {}

/// UMEM and pool.
pub struct Arena {
    /// For sockets.
    pub umem: Umem,
    /// For packets.
    pub pool: Pool,
}

impl Arena {
    /// Maps memory for `frames` frames of `frame_size` bytes.
    pub fn new(frames: u32, frame_size: u32, pages: Pages) -> Result<Arena, ArenaError> {
        let config = UmemConfig { frame_size, frame_count: frames, headroom: 0, pages };
        let umem = Umem::new(config).map_err(ArenaError::Umem)?;
        // The pool is from here on the holder of every frame; tokens are made again when frames are lent to a ring.
        for frame in umem.take_frames() {
            let _ = frame.into_addr();
        }
        // SAFETY: the UMEM maps this memory as long as it lives, and the region keeps a handle to it. Frames are only
        // touched by the pool's holders and, while lent through a token, by the kernel.
        let region = unsafe { Region::from_raw(umem.base(), umem.len(), Box::new(umem.clone())) };
        let config = PoolConfig { frame_size, ..PoolConfig::default() };
        let pool = Pool::new(region, &config).map_err(ArenaError::Pool)?;
        Ok(Arena { umem, pool })
    }

    /// What backs the memory, for users.
    pub fn backing(&self) -> &'static str {
        match self.umem.backing() {
            Backing::Huge2M => "2 MiB pages",
            Backing::Plain => "4 KiB pages",
            Backing::Caller => "caller's memory",
        }
    }
}
