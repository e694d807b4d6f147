//! The frame on the wire.
//!
//! ```text
//!  0 dst 6 | 6 src 6 | 12 0x88b5 | 14 version 1 | 15 sender's id 1 | 16 session 12 | 28 packet number 8 |
//!  36 encrypted: the original ethertype 2, the original payload | tag 16
//! ```
//!
//! The session is the time the sender's filter was attached (48 bits, milliseconds since 1970) and 48 random bits. The
//! packet number is the lane (which worker of the sender, 8 bits), 8 zero bits and a count of 48. Everything before the
//! encrypted part is authenticated along with it. All numbers are big endian.
//!
//! 0x88b5 is the first of the two ethertypes for local experiments (IEEE 802, clause 9.2.3).

use nke_mbuf::wire::Ethernet;

/// The ethertype of encrypted frames.
pub const ETHERTYPE: u16 = 0x88b5;

/// Bytes by which a frame grows.
pub const OVERHEAD_BYTES: usize = FRONT_BYTES + TAG_BYTES;

/// Senders that share a key: ids are below this.
pub const IDS: usize = 8;

/// Workers of one sender.
pub const LANES_MAX: usize = 32;

/// Frames that one worker sends before the filter has to be attached anew.
pub const NUMBERS_MAX: u64 = 1 << 48;

pub(super) const TAG_BYTES: usize = 16;
pub(super) const SESSION_BYTES: usize = 12;
/// What the front grows by: the new ethertype, version, id, session, number.
pub(super) const FRONT_BYTES: usize = HEAD_BYTES - ADDRS_BYTES;
/// What goes in clear.
pub(super) const HEAD_BYTES: usize = 36;
pub(super) const ADDRS_BYTES: usize = 12;
/// Shorter frames are padded before they are sealed. A card pads what is below 60 bytes, and the tag would no longer be
/// at the end.
pub(super) const PLAIN_BYTES_MIN: usize = 60 - OVERHEAD_BYTES;
/// The shortest frame that can hold an ethertype and a tag.
pub(super) const SEALED_BYTES_MIN: usize = HEAD_BYTES + 2 + TAG_BYTES;

const _: () = assert!(PLAIN_BYTES_MIN >= Ethernet::HEADER_LEN);

const VERSION: u8 = 1;
/// A key seals 2^32 frames: with frames of 1500 bytes, 2^39 blocks, far below what GCM bears.
const PHASE_BITS: u32 = 32;

/// The fields between the addresses and the encrypted part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// Who sends: below [`IDS`].
    pub(super) id: u8,
    /// Which of its workers: below [`LANES_MAX`].
    pub(super) lane: u8,
    /// Which run of it.
    pub(super) session: [u8; SESSION_BYTES],
    /// How many frames that worker sent before: below [`NUMBERS_MAX`].
    pub(super) number: u64,
}

impl Head {
    /// Reads the header of a frame; `None` if it is malformed or cut short.
    #[inline]
    pub(super) fn read(frame: &[u8]) -> Option<Head> {
        let head = frame.first_chunk::<HEAD_BYTES>()?;
        let word = u64::from_be_bytes(*head.last_chunk()?);
        let fields = Head {
            id: head[15],
            lane: (word >> 56) as u8,
            session: *head[16..].first_chunk()?,
            number: word & 0x00ff_ffff_ffff_ffff,
        };
        let known = head[14] == VERSION
            && usize::from(fields.id) < IDS
            && usize::from(fields.lane) < LANES_MAX
            && fields.number < NUMBERS_MAX;
        (known && frame.len() >= SEALED_BYTES_MIN).then_some(fields)
    }

    /// Writes everything behind the addresses.
    #[inline]
    pub(super) fn write(&self, head: &mut [u8; HEAD_BYTES]) {
        head[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        head[14] = VERSION;
        head[15] = self.id;
        head[16..28].copy_from_slice(&self.session);
        head[28..].copy_from_slice(&self.number_bytes());
    }

    /// The packet number as it is on the wire and in the nonce.
    #[inline]
    pub(super) fn number_bytes(&self) -> [u8; 8] {
        (u64::from(self.lane) << 56 | self.number).to_be_bytes()
    }

    /// When the session began, in milliseconds since 1970.
    #[inline]
    pub(super) fn start_ms(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.session[..6]);
        u64::from_be_bytes(bytes)
    }

    /// Which of the lane's keys: they change every 2^32 frames.
    #[inline]
    pub(super) fn phase(&self) -> u64 {
        self.number >> PHASE_BITS
    }
}

/// Whether a frame says that it is encrypted.
#[inline]
pub(super) fn is_sealed(frame: &[u8]) -> bool {
    frame.get(ADDRS_BYTES..ADDRS_BYTES + 2) == Some(&ETHERTYPE.to_be_bytes())
}

/// The network protocol of a frame: the type behind at most two tags, as demux finds it. 0 if it is cut short.
#[inline]
pub(super) fn network_protocol(frame: &[u8]) -> u16 {
    let at = |offset: usize| {
        let bytes = frame.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
    };
    let mut offset = ADDRS_BYTES;
    while offset < ADDRS_BYTES + 8 && matches!(at(offset), 0x8100 | 0x88a8) {
        offset += 4;
    }
    at(offset)
}
