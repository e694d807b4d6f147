//! The bounds of a reassembler.

/// Fragments, and frames, of one datagram at most: as many frames as a chain may have. A datagram of 64 KiB that came
/// by Ethernet has 45.
pub const FRAGMENTS_MAX: u16 = 64;

/// The bounds of a [`Reassembler`](super::Reassembler).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Datagrams under way, tombstones among them.
    pub datagrams_max: u32,
    /// Frames held. Times the frame size this is the memory taken from the pool.
    pub frames_max: u32,
    /// Frames held of one source: an IPv4 address, an IPv6 /64.
    pub per_source_frames: u32,
    /// Fragments of one datagram, up to [`FRAGMENTS_MAX`].
    pub fragments_max: u16,
    /// How long an IPv4 datagram may take (RFC 1122 section 3.3.2 asks for 60 to 120 s; 30 is what Linux and the BSDs use).
    pub timeout_v4_ms: u64,
    /// How long an IPv6 datagram may take (RFC 8200 section 4.5: 60 s).
    pub timeout_v6_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            datagrams_max: 4096,
            frames_max: 4096,
            per_source_frames: 512,
            fragments_max: FRAGMENTS_MAX,
            timeout_v4_ms: 30_000,
            timeout_v6_ms: 60_000,
        }
    }
}

impl Config {
    /// The default within `bytes` of frames of `frame_size` bytes.
    pub fn within(bytes: usize, frame_size: u32) -> Config {
        let frames = u32::try_from(bytes / frame_size.max(1) as usize).unwrap_or(u32::MAX);
        Config {
            datagrams_max: frames,
            frames_max: frames,
            per_source_frames: frames / 8,
            ..Config::default()
        }
        .bounded()
    }

    /// With every value where the others make sense: one datagram of the largest size always fits.
    pub(super) fn bounded(self) -> Config {
        let fragments_max = self.fragments_max.clamp(2, FRAGMENTS_MAX);
        let least = u32::from(fragments_max);
        let frames_max = self.frames_max.clamp(least, 1 << 24);
        let datagrams_max = self.datagrams_max.clamp(1, 1 << 24);
        // Whom to evict is looked for among the sources above half their share: these are 256 at most.
        let least = least.max((frames_max + datagrams_max) / 128).min(frames_max);
        Config {
            datagrams_max,
            frames_max,
            per_source_frames: self.per_source_frames.clamp(least, frames_max),
            fragments_max,
            ..self
        }
    }
}
