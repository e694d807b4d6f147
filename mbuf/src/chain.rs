//! Packets larger than a frame: chains of frames, and the operations that cross frame borders.
#![allow(unsafe_code)]

use crate::cache::Cache;
use crate::mbuf::Mbuf;
use crate::wire::Checksum;

/// Frames in a chain at most: a 64 KiB packet in the smallest AF_XDP frames, twice over.
pub(crate) const SEGMENTS_MAX: usize = 64;

impl Mbuf {
    /// The data of each frame, first to last.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = Some(self);
        std::iter::from_fn(move || {
            let mbuf = next?;
            next = mbuf.next();
            Some(mbuf.data())
        })
    }

    /// Frames in the chain.
    pub fn segment_count(&self) -> usize {
        self.segments().count()
    }

    /// Whether the packet is in one frame.
    #[inline(always)]
    pub fn is_contiguous(&self) -> bool {
        self.meta().next.is_none()
    }

    fn next(&self) -> Option<&Mbuf> {
        // SAFETY: Mbuf is a transparent pointer to a header; the next frame belongs to this chain, so a shared
        // reference to its handle may live as long as one to ours.
        self.meta().next.as_ref().map(|hdr| unsafe { &*std::ptr::from_ref(hdr).cast::<Mbuf>() })
    }

    pub(crate) fn detach_next(&mut self) -> Option<Mbuf> {
        let rest = Mbuf::from_hdr(self.meta_mut().next.take()?);
        let meta = self.meta_mut();
        meta.pkt_len = u32::from(meta.data_len);
        Some(rest)
    }

    /// Takes the first frame off: it, as a packet of its own, and the rest. Used to hand a chain to a device.
    pub fn split_first(mut self) -> (Mbuf, Option<Mbuf>) {
        let whole = self.len();
        let first = self.data().len();
        let mut rest = self.detach_next();
        if let Some(rest) = &mut rest {
            rest.meta_mut().pkt_len = (whole - first) as u32;
        }
        (self, rest)
    }

    /// Chains `tail` behind the last frame. Gives `tail` back when the chain would get too long, or it is of another pool.
    pub fn chain(&mut self, tail: Mbuf) -> Result<(), Mbuf> {
        self.chain_all([tail])
    }

    /// Chains packets one behind the other, in a single walk however many there are. Gives back the first one that
    /// [`Mbuf::chain`] would; what the iterator still holds is then not asked for.
    pub fn chain_all(&mut self, tails: impl IntoIterator<Item = Mbuf>) -> Result<(), Mbuf> {
        let (pool, mut last) = (self.hdr().pool, self.0);
        let mut count = 1;
        // SAFETY: every frame of the chain is ours, and `&mut self` keeps others away.
        while let Some(next) = unsafe { &*last.as_ref().meta.get() }.next {
            last = next;
            count += 1;
        }
        for mut tail in tails {
            if count + tail.segment_count() > SEGMENTS_MAX || pool != tail.hdr().pool {
                return Err(tail);
            }
            tail.clear_tags();
            self.meta_mut().pkt_len += tail.meta().pkt_len;
            let mut next = Some(tail.into_hdr());
            while let Some(hdr) = next {
                // SAFETY: as above; the tail's frames became ours when it was given to us.
                unsafe {
                    (*last.as_ref().meta.get()).next = Some(hdr);
                    next = (*hdr.as_ref().meta.get()).next;
                }
                last = hdr;
                count += 1;
            }
        }
        Ok(())
    }

    /// Copies `out.len()` bytes from `offset` of the packet, across frames. `false`, with `out` partly written, when
    /// the packet is shorter.
    pub fn copy_out(&self, mut offset: usize, out: &mut [u8]) -> bool {
        let mut done = 0;
        for data in self.segments() {
            if done == out.len() {
                break;
            }
            if offset >= data.len() {
                offset -= data.len();
                continue;
            }
            let n = (data.len() - offset).min(out.len() - done);
            out[done..done + n].copy_from_slice(&data[offset..offset + n]);
            done += n;
            offset = 0;
        }
        done == out.len()
    }

    /// All bytes of the packet in one piece: its own frame, or a copy in `spare` of as many as that holds.
    pub fn in_one_piece<'a>(&'a self, spare: &'a mut [u8]) -> &'a [u8] {
        if self.is_contiguous() {
            return self.data();
        }
        let len = self.len().min(spare.len());
        self.copy_out(0, &mut spare[..len]);
        &spare[..len]
    }

    /// `sum`, and all bytes from `offset` of the packet on, across frames.
    pub fn sum_from(&self, offset: usize, sum: Checksum) -> Checksum {
        let mut skip = offset;
        self.segments().fold(sum, |sum, segment| {
            let begin = skip.min(segment.len());
            skip -= begin;
            sum.add_bytes(&segment[begin..])
        })
    }

    /// Cuts the packet to the `len` bytes behind the first `n`: [`Mbuf::adj`] and [`Mbuf::trim`] in one. Less when there
    /// are not so many.
    #[inline(always)]
    pub fn narrow(&mut self, n: usize, len: usize) {
        let meta = self.meta_mut();
        if meta.next.is_none() && n + len <= usize::from(meta.data_len) {
            meta.set_window(meta.data_off + n as u16, len as u16, len as u32);
        } else {
            self.narrow_chain(n, len);
        }
    }

    #[cold]
    fn narrow_chain(&mut self, n: usize, len: usize) {
        self.adj(n);
        self.trim(self.len().saturating_sub(len));
    }

    /// Cuts `n` bytes (or all there are) off the front, across frames. The first frame stays, empty if need be.
    pub fn adj(&mut self, n: usize) {
        let mut left = n.min(self.len()) as u32;
        self.meta_mut().pkt_len -= left;
        let mut hdr = self.hdr();
        loop {
            // SAFETY: every frame of the chain is ours, and `&mut self` keeps others away.
            let meta = unsafe { &mut *hdr.meta.get() };
            let cut = left.min(u32::from(meta.data_len));
            meta.data_off += cut as u16;
            meta.data_len -= cut as u16;
            left -= cut;
            match meta.next {
                // SAFETY: as above.
                Some(next) if left > 0 => hdr = unsafe { next.as_ref() },
                _ => return,
            }
        }
    }

    /// Cuts `n` bytes (or all there are) off the end. Frames left empty behind the first one go back to the pool.
    pub fn trim(&mut self, n: usize) {
        let keep = self.len().saturating_sub(n);
        self.meta_mut().pkt_len = keep as u32;
        let mut left = keep;
        let mut hdr = self.hdr();
        loop {
            // SAFETY: every frame of the chain is ours, and `&mut self` keeps others away.
            let meta = unsafe { &mut *hdr.meta.get() };
            meta.data_len = left.min(usize::from(meta.data_len)) as u16;
            left -= usize::from(meta.data_len);
            if left == 0 {
                drop(meta.next.take().map(Mbuf::from_hdr));
                return;
            }
            match meta.next {
                // SAFETY: as above.
                Some(next) => hdr = unsafe { next.as_ref() },
                None => return,
            }
        }
    }

    /// Makes the first `n` bytes contiguous in the first frame. `false`, and no change, when the packet is shorter
    /// or the frame too small.
    pub fn pullup(&mut self, n: usize) -> bool {
        let have = self.data().len();
        if n <= have {
            return true;
        }
        if n > self.len() {
            return false;
        }
        let need = n - have;
        if need > self.tailroom() {
            // The window may stand far back in the frame: move it to the front when that makes the room.
            if n > self.frame_size() {
                return false;
            }
            self.shift_to_front();
        }
        let whole = self.meta().pkt_len;
        let Some(mut rest) = self.detach_next() else { return false };
        rest.meta_mut().pkt_len = whole - have as u32;
        let meta = self.meta_mut();
        meta.data_len += need as u16;
        let copied = rest.copy_out(0, &mut self.data_mut()[have..]);
        debug_assert!(copied, "the chain is at least n long");
        rest.adj(need);
        while rest.data().is_empty() {
            match rest.split_first().1 {
                Some(more) => rest = more,
                None => {
                    self.meta_mut().pkt_len = whole;
                    return true;
                }
            }
        }
        self.meta_mut().next = Some(rest.into_hdr());
        self.meta_mut().pkt_len = whole;
        true
    }

    fn shift_to_front(&mut self) {
        let (base, meta) = (self.hdr().base.as_ptr(), self.meta_mut());
        // SAFETY: source and target lie in this frame, which is ours; `copy` allows the overlap.
        unsafe { std::ptr::copy(base.add(usize::from(meta.data_off)), base, usize::from(meta.data_len)) };
        meta.data_off = 0;
    }

    /// A copy of the packet with its header facts, without its tags. `None` when frames run out; nothing is kept
    /// then.
    pub fn dup(&self, cache: &mut Cache) -> Option<Mbuf> {
        let mut copy: Option<Mbuf> = None;
        for data in self.segments() {
            let mut segment = cache.alloc()?;
            // A received frame may hold more than a fresh one with its headroom has room for.
            let split = data.len().min(segment.tailroom());
            segment.append(split)?.copy_from_slice(&data[..split]);
            let mut rest = None;
            if split < data.len() {
                let mut more = cache.alloc()?;
                more.append(data.len() - split)?.copy_from_slice(&data[split..]);
                rest = Some(more);
            }
            for part in [Some(segment), rest].into_iter().flatten() {
                match &mut copy {
                    None => copy = Some(part),
                    Some(head) => head.chain(part).ok()?,
                }
            }
        }
        let mut copy = copy?;
        let (from, to) = (*self.meta(), copy.meta_mut());
        to.rcvif = from.rcvif;
        to.flags = from.flags;
        to.ethertype = from.ethertype;
        to.timestamp = from.timestamp;
        to.inject_depth = from.inject_depth;
        Some(copy)
    }
}
