//! Packet tags: small records that travel with a packet, by which an extension knows its own packets again.
//!
//! Records lie beside the frame while they fit into 48 bytes, and move together to a frame of the pool when they do
//! not. No allocator is involved, and what tags can take is bounded by the pool.
#![allow(unsafe_code)]

use std::fmt;

use crate::hdr::{INLINE_TAG_BYTES, Owner};
use crate::mbuf::Mbuf;

/// A tag family, one per extension. Zero is never given out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TagId(pub u32);

/// Longest data of one tag, in bytes.
pub const TAG_BYTES_MAX: usize = 256;

const HEAD: usize = 8; // id u32, kind u16, length u16
/// In `tag_len`: the records are in `tag_frame`, whose data length says how many bytes they take.
const IN_FRAME: u8 = u8::MAX;

/// Why a tag was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagError {
    /// The packet has a tag of this id and kind (KPI: EEXIST).
    Exists,
    /// Longer than [`TAG_BYTES_MAX`], or id 0 (KPI: EINVAL).
    Invalid,
    /// No frame free for tags that do not fit beside the packet, or that frame is full (KPI: ENOMEM).
    NoMemory,
}

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TagError::Exists => "the packet already has this tag",
            TagError::Invalid => "tag id 0, or tag data too long",
            TagError::NoMemory => "no room for another tag",
        })
    }
}

impl std::error::Error for TagError {}

const fn record_len(data_len: usize) -> usize {
    HEAD + data_len.next_multiple_of(8)
}

fn head(area: &[u8], at: usize) -> (u32, u16, usize) {
    let b = &area[at..at + HEAD];
    (
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
        u16::from_ne_bytes([b[4], b[5]]),
        usize::from(u16::from_ne_bytes([b[6], b[7]])),
    )
}

fn position(area: &[u8], id: TagId, kind: u16) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < area.len() {
        let (rec_id, rec_kind, len) = head(area, at);
        if rec_id == id.0 && rec_kind == kind {
            return Some((at, len));
        }
        at += record_len(len);
    }
    None
}

impl Mbuf {
    fn tag_area(&self) -> &[u8] {
        let meta = self.meta();
        match meta.tag_frame {
            // SAFETY: the tag frame belongs to this packet; its data window holds the records.
            Some(hdr) => unsafe {
                let len = (*hdr.as_ref().meta.get()).data_len;
                std::slice::from_raw_parts(hdr.as_ref().base.as_ptr(), usize::from(len))
            },
            // SAFETY: inline tags belong to the holder of the frame; `&self` excludes writers.
            None => unsafe { &(&*self.hdr().inline_tags.get())[..usize::from(meta.tag_len)] },
        }
    }

    /// The whole area, used and free.
    fn tag_room(&mut self) -> &mut [u8] {
        match self.meta().tag_frame {
            // SAFETY: the tag frame belongs to this packet, all of it.
            Some(hdr) => unsafe {
                std::slice::from_raw_parts_mut(hdr.as_ref().base.as_ptr(), self.frame_size())
            },
            // SAFETY: inline tags belong to the holder of the frame, and `&mut self` is the only access.
            None => unsafe { &mut *self.hdr().inline_tags.get() },
        }
    }

    fn set_tag_used(&mut self, used: usize) {
        match self.meta().tag_frame {
            // SAFETY: the tag frame belongs to this packet.
            Some(hdr) => unsafe { (*hdr.as_ref().meta.get()).data_len = used as u16 },
            None => self.meta_mut().tag_len = used as u8,
        }
    }

    /// The data of a tag.
    pub fn tag_find(&self, id: TagId, kind: u16) -> Option<&[u8]> {
        if self.meta().tag_len == 0 {
            return None;
        }
        let area = self.tag_area();
        let (at, len) = position(area, id, kind)?;
        Some(&area[at + HEAD..at + HEAD + len])
    }

    /// The data of a tag, to be changed.
    pub fn tag_find_mut(&mut self, id: TagId, kind: u16) -> Option<&mut [u8]> {
        if self.meta().tag_len == 0 {
            return None;
        }
        let (at, len) = position(self.tag_area(), id, kind)?;
        Some(&mut self.tag_room()[at + HEAD..at + HEAD + len])
    }

    /// Adds a tag with `len` zero bytes of data and returns them.
    pub fn tag_add(&mut self, id: TagId, kind: u16, len: usize) -> Result<&mut [u8], TagError> {
        if id.0 == 0 || len > TAG_BYTES_MAX {
            return Err(TagError::Invalid);
        }
        if self.tag_find(id, kind).is_some() {
            return Err(TagError::Exists);
        }
        let used = self.tag_area().len();
        let need = record_len(len);
        if self.meta().tag_frame.is_none() && used + need > INLINE_TAG_BYTES {
            self.move_tags_to_frame(used)?;
        }
        let room = self.tag_room();
        if used + need > room.len() {
            return Err(TagError::NoMemory);
        }
        room[used..used + 4].copy_from_slice(&id.0.to_ne_bytes());
        room[used + 4..used + 6].copy_from_slice(&kind.to_ne_bytes());
        room[used + 6..used + HEAD].copy_from_slice(&(len as u16).to_ne_bytes());
        room[used + HEAD..used + need].fill(0);
        self.set_tag_used(used + need);
        Ok(&mut self.tag_room()[used + HEAD..used + HEAD + len])
    }

    /// Removes a tag; `false` when there is none.
    pub fn tag_remove(&mut self, id: TagId, kind: u16) -> bool {
        if self.meta().tag_len == 0 {
            return false;
        }
        let used = self.tag_area().len();
        let Some((at, len)) = position(self.tag_area(), id, kind) else { return false };
        let end = at + record_len(len);
        self.tag_room().copy_within(end..used, at);
        self.set_tag_used(used - (end - at));
        true
    }

    /// Removes every tag.
    pub fn clear_tags(&mut self) {
        let meta = self.meta_mut();
        meta.tag_len = 0;
        drop(meta.tag_frame.take().map(Mbuf::from_hdr));
    }

    #[cold]
    fn move_tags_to_frame(&mut self, used: usize) -> Result<(), TagError> {
        // SAFETY: the pool outlives the frame.
        let hdr = unsafe { &*self.hdr().pool }.alloc_slow().ok_or(TagError::NoMemory)?;
        let owner = self.owner();
        // SAFETY: `alloc_slow` gave us the only claim to the frame; its bytes and the inline area are disjoint.
        unsafe {
            hdr.as_ref().set_owner(if owner == Owner::FREE { Owner::DATAPLANE } else { owner });
            (*hdr.as_ref().meta.get()).data_len = used as u16;
            let from = (*self.hdr().inline_tags.get()).as_ptr();
            std::ptr::copy_nonoverlapping(from, hdr.as_ref().base.as_ptr(), used);
        }
        let meta = self.meta_mut();
        meta.tag_frame = Some(hdr);
        meta.tag_len = IN_FRAME;
        Ok(())
    }
}
