//! Takes a payload apart from the front.

use nke_mbuf::{Cache, Flags, Mbuf};

/// Bytes left free in front of a fragment for the headers of the link: Ethernet and two tags, and some.
const LINK_HEADROOM: usize = 32;

/// What is known of the packet, and is true of every fragment.
#[derive(Clone, Copy)]
struct Facts {
    rcvif: u16,
    flags: Flags,
    ethertype: u16,
    timestamp: u64,
    inject_depth: u8,
}

/// A payload that is not empty, and starts with a frame that is not.
pub(super) struct Peel {
    rest: Mbuf,
    facts: Facts,
}

impl Peel {
    /// `mbuf` is the payload alone; `None` if there is none.
    pub(super) fn new(mut mbuf: Mbuf, cache: &mut Cache) -> Option<Peel> {
        mbuf.flags_mut().remove(Flags::CSUM_L4_GOOD);
        let facts = Facts {
            rcvif: mbuf.rcvif(),
            flags: mbuf.flags(),
            ethertype: mbuf.ethertype(),
            timestamp: mbuf.timestamp(),
            inject_depth: mbuf.inject_depth(),
        };
        Peel::of(mbuf, facts, cache)
    }

    fn of(mut rest: Mbuf, facts: Facts, cache: &mut Cache) -> Option<Peel> {
        while rest.data().is_empty() {
            let (empty, more) = rest.split_first();
            cache.free(empty);
            rest = more?;
        }
        Some(Peel { rest, facts })
    }

    /// Bytes left, at least one.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The first `len` bytes, with room for `header_len` bytes and a link header in front, and what is behind them. What
    /// there was, if no frame is free.
    pub(super) fn take(
        self,
        len: usize,
        header_len: usize,
        cache: &mut Cache,
    ) -> Result<(Mbuf, Option<Peel>), Mbuf> {
        let Peel { mut rest, facts } = self;
        let headroom = header_len + LINK_HEADROOM;
        let (mut piece, rest) = if rest.data().len() == len && rest.headroom() >= headroom {
            let (mut piece, rest) = rest.split_first();
            piece.clear_tags();
            (piece, rest)
        } else {
            let Some(piece) = copy(&rest, len, headroom, cache) else { return Err(rest) };
            rest.adj(len);
            (piece, Some(rest))
        };
        facts.put_on(&mut piece);
        Ok((piece, rest.and_then(|rest| Peel::of(rest, facts, cache))))
    }
}

impl Facts {
    fn put_on(&self, mbuf: &mut Mbuf) {
        mbuf.set_rcvif(self.rcvif);
        mbuf.set_ethertype(self.ethertype);
        mbuf.set_timestamp(self.timestamp);
        while mbuf.inject_depth() < self.inject_depth {
            mbuf.count_injection();
        }
        *mbuf.flags_mut() = self.flags;
    }
}

/// The first `len` bytes of a packet, in as few frames as they fit into.
fn copy(from: &Mbuf, len: usize, headroom: usize, cache: &mut Cache) -> Option<Mbuf> {
    let mut copy: Option<Mbuf> = None;
    let mut done = 0;
    while done < len {
        let mut part = cache.alloc()?;
        let missing = headroom.saturating_sub(part.headroom());
        if copy.is_none() && missing > 0 {
            part.append(missing)?;
            part.adj(missing);
        }
        let n = (len - done).min(part.tailroom());
        let copied = n > 0 && from.copy_out(done, part.append(n)?);
        let chained = match &mut copy {
            None => {
                copy = Some(part);
                true
            }
            Some(copy) => copy.chain(part).is_ok(),
        };
        if !(copied && chained) {
            return None;
        }
        done += n;
    }
    copy
}
