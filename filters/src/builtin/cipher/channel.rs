//! The cipher itself: what all workers share, and what each has for itself.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nke_mbuf::wire::Ethernet;
use nke_mbuf::{Flags, Mbuf};

use super::Refusal;
use super::frame::{
    ADDRS_BYTES, ETHERTYPE, FRONT_BYTES, HEAD_BYTES, Head, IDS, LANES_MAX, NUMBERS_MAX, PLAIN_BYTES_MIN,
    SESSION_BYTES, TAG_BYTES, is_sealed, network_protocol,
};
use super::key::{PresharedKey, StreamKey};
use super::window::Peer;
use crate::CreateError;

/// Keys that a worker makes in a millisecond at most. Making one takes some microseconds, and anybody can send frames
/// that name a session nobody knows.
const KEYS_PER_MS: u32 = 16;

/// Checksums that nobody has computed yet: once the packet is encrypted, nobody can.
const CHECKSUM_PENDING: [Flags; 4] =
    [Flags::CSUM_L4_PARTIAL, Flags::CSUM_REQ_IP, Flags::CSUM_REQ_TCP, Flags::CSUM_REQ_UDP];

/// One end of the encrypted segment: key, identity, and what was received from the others.
pub struct Channel {
    key: PresharedKey,
    id: u8,
    session: [u8; SESSION_BYTES],
    peers: [Peer; IDS],
    /// A bit for each lane that was handed out.
    lanes: AtomicU32,
}

const _: () = assert!(LANES_MAX == u32::BITS as usize);

impl Channel {
    /// A new session of the end called `id` (below [`IDS`]), named by the time of day and `/dev/urandom`.
    pub fn new(key: PresharedKey, id: u8) -> Result<Channel, CreateError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| {
            CreateError::new(
                "the clock says that it is before 1970",
                "set the clock: sessions are told apart by it",
            )
        })?;
        let mut random = [0; 6];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).map_err(|e| {
            CreateError::new(format!("/dev/urandom cannot be read: {e}"), "make the device visible to NKE")
        })?;
        Ok(Channel::with_session(key, id, since.as_millis() as u64, random))
    }

    /// The same with a session of one's own choice, for tests. Two sessions alike with one key give everything away.
    pub(super) fn with_session(key: PresharedKey, id: u8, start_ms: u64, random: [u8; 6]) -> Channel {
        let mut session = [0; SESSION_BYTES];
        session[..6].copy_from_slice(&start_ms.to_be_bytes()[2..]);
        session[6..].copy_from_slice(&random);
        Channel { key, id, session, peers: std::array::from_fn(|_| Peer::new()), lanes: AtomicU32::new(0) }
    }

    /// What worker `worker`, below [`LANES_MAX`], seals and opens with. `None` the second time: two with one number would
    /// use packet numbers twice.
    pub fn lane(&self, worker: usize) -> Option<Lane> {
        let bit = 1u32.checked_shl(worker as u32)?;
        if self.lanes.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return None;
        }
        Some(Lane {
            next: Head { id: self.id, lane: worker as u8, session: self.session, number: 0 },
            seals: None,
            opens: (0..IDS * LANES_MAX).map(|_| None).collect(),
            made: 0,
            made_ms: 0,
        })
    }
}

/// What one worker needs: the key it seals with and those it opens with.
pub struct Lane {
    /// The next frame.
    next: Head,
    seals: Option<(u64, StreamKey)>,
    /// For each lane of each peer the key last used, with session and phase.
    opens: Box<[Option<(Head, StreamKey)>]>,
    /// Keys made in the millisecond `made_ms`.
    made: u32,
    made_ms: u64,
}

impl Lane {
    /// Encrypts a frame in place. When it is refused it is as it was.
    #[inline]
    pub fn seal(&mut self, channel: &Channel, mbuf: &mut Mbuf) -> Result<(), Refusal> {
        if CHECKSUM_PENDING.iter().any(|flag| mbuf.flags().contains(*flag)) {
            return Err(Refusal::ChecksumPending);
        }
        if mbuf.len() < Ethernet::HEADER_LEN {
            return Err(Refusal::Malformed);
        }
        let padding = PLAIN_BYTES_MIN.saturating_sub(mbuf.len());
        if !mbuf.is_contiguous() || mbuf.headroom() < FRONT_BYTES || mbuf.tailroom() < padding + TAG_BYTES {
            return Err(Refusal::NoRoom);
        }
        if self.next.number >= NUMBERS_MAX {
            return Err(Refusal::Exhausted);
        }
        let head = self.next;
        // Before anything is encrypted: whatever happens then, the number is not used again.
        self.next.number += 1;
        if self.seals.as_ref().is_none_or(|(phase, _)| *phase != head.phase()) {
            self.seals = channel.key.stream(&head).map(|key| (head.phase(), key));
        }
        let Some((_, key)) = &self.seals else { return Err(Refusal::Busy) };

        mbuf.append(padding).ok_or(Refusal::NoRoom)?.fill(0);
        mbuf.prepend(FRONT_BYTES).ok_or(Refusal::NoRoom)?;
        mbuf.append(TAG_BYTES).ok_or(Refusal::NoRoom)?;
        let data = mbuf.data_mut();
        data.copy_within(FRONT_BYTES..HEAD_BYTES, 0);
        let (clear, body, tag) = parts(data).ok_or(Refusal::NoRoom)?;
        head.write(clear);
        *tag = key.seal(head.number_bytes(), clear, body).ok_or(Refusal::NoRoom)?;
        mbuf.set_ethertype(ETHERTYPE);
        Ok(())
    }

    /// Decrypts a frame in place. When it is refused it may have been decrypted, and is not to be used.
    #[inline]
    pub fn open(&mut self, channel: &Channel, now_ms: u64, mbuf: &mut Mbuf) -> Result<(), Refusal> {
        if !is_sealed(mbuf.data()) {
            return Err(Refusal::Clear);
        }
        if !mbuf.is_contiguous() {
            return Err(Refusal::NoRoom);
        }
        let head = Head::read(mbuf.data()).ok_or(Refusal::Malformed)?;
        if head.id == channel.id {
            return Err(Refusal::Reflected);
        }
        let peer = &channel.peers[usize::from(head.id) % IDS];
        if peer.is_stale(head.start_ms()) {
            return Err(Refusal::Stale);
        }
        let place = (usize::from(head.id) * LANES_MAX + usize::from(head.lane)) % self.opens.len();
        let fits = |known: &Head| known.session == head.session && known.phase() == head.phase();
        let made = match &self.opens[place] {
            Some((known, _)) if fits(known) => None,
            _ => Some(self.make(channel, now_ms, &head)?),
        };
        let key = match (&made, &self.opens[place]) {
            (Some(key), _) | (None, Some((_, key))) => key,
            (None, None) => return Err(Refusal::Busy),
        };
        let (clear, body, tag) = parts(mbuf.data_mut()).ok_or(Refusal::Malformed)?;
        if !key.open(head.number_bytes(), clear, body, tag) {
            return Err(Refusal::Auth);
        }
        // Only now it is known that the peer has sent this, and the key is worth keeping.
        if let Some(key) = made {
            self.opens[place] = Some((head, key));
        }
        peer.take(head.start_ms(), head.lane, head.number)?;

        mbuf.data_mut().copy_within(..ADDRS_BYTES, FRONT_BYTES);
        mbuf.adj(FRONT_BYTES);
        mbuf.trim(TAG_BYTES);
        let protocol = network_protocol(mbuf.data());
        mbuf.set_ethertype(protocol);
        // What the card verified was not this packet.
        mbuf.flags_mut().remove(Flags::CSUM_IP_GOOD);
        mbuf.flags_mut().remove(Flags::CSUM_L4_GOOD);
        Ok(())
    }

    #[cold]
    fn make(&mut self, channel: &Channel, now_ms: u64, head: &Head) -> Result<StreamKey, Refusal> {
        if self.made_ms != now_ms {
            (self.made_ms, self.made) = (now_ms, 0);
        }
        if self.made >= KEYS_PER_MS {
            return Err(Refusal::Busy);
        }
        self.made += 1;
        channel.key.stream(head).ok_or(Refusal::Busy)
    }

    #[cfg(test)]
    pub(super) fn made_ms(&self) -> u64 {
        self.made_ms
    }

    /// Skips to packet number `number`, for tests.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, number: u64) {
        self.next.number = self.next.number.max(number);
    }
}

/// The header, the encrypted part and the tag of a frame.
#[inline]
fn parts(frame: &mut [u8]) -> Option<(&mut [u8; HEAD_BYTES], &mut [u8], &mut [u8; TAG_BYTES])> {
    let (clear, rest) = frame.split_first_chunk_mut()?;
    let (body, tag) = rest.split_last_chunk_mut()?;
    Some((clear, body, tag))
}
