//! Maps: memory that programs and user space share.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::sys::{bpf, bpf_fd};
use crate::map::Mapping;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;

/// Kinds of maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MapKind {
    /// With keys of 16 bytes.
    Hash16 = 1,
    Array = 2,
    PerCpuArray = 6,
    /// Of one other map, which stands for itself: for [`Map::around`].
    ArrayOfMaps = 12,
    DevMap = 14,
    XskMap = 17,
}

/// The map's memory can be mapped (from Linux 5.5 on).
const F_MMAPABLE: u32 = 1 << 10;

/// A map with keys of four bytes, or of sixteen.
pub(crate) struct Map {
    fd: OwnedFd,
    key_size: u32,
    value_size: usize,
    /// How many copies of a value a lookup writes.
    copies: usize,
}

#[repr(C)]
struct Element {
    fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Map {
    pub(crate) fn new(kind: MapKind, value_size: u32, entries: u32) -> io::Result<Map> {
        Map::create(kind, value_size, entries, 0, 0)
    }

    /// An array with one entry, another map like `inner`.
    pub(crate) fn around(inner: &Map) -> io::Result<Map> {
        Map::create(MapKind::ArrayOfMaps, 4, 1, 0, inner.fd() as u32)
    }

    fn create(kind: MapKind, value_size: u32, entries: u32, flags: u32, inner: u32) -> io::Result<Map> {
        #[repr(C)]
        struct Attr {
            kind: u32,
            key_size: u32,
            value_size: u32,
            entries: u32,
            flags: u32,
            inner: u32,
        }
        let copies = if kind == MapKind::PerCpuArray { possible_cpus()? } else { 1 };
        let key_size = if kind == MapKind::Hash16 { 16 } else { 4 };
        let mut attr = Attr { kind: kind as u32, key_size, value_size, entries, flags, inner };
        // SAFETY: MAP_CREATE reads this much of the attribute, without addresses, and returns a descriptor.
        let fd = unsafe { bpf_fd(MAP_CREATE, &mut attr)? };
        Ok(Map { fd, key_size, value_size: value_size as usize, copies })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn element(&self, key: &u32, value: u64) -> Element {
        assert_eq!(self.key_size, 4, "the map's keys have four bytes");
        let key = std::ptr::from_ref(key) as u64;
        Element { fd: self.fd() as u32, _pad: 0, key, value, flags: 0 }
    }

    /// Sets an entry of four bytes.
    pub(crate) fn set(&self, key: u32, value: u32) -> io::Result<()> {
        assert_eq!(self.value_size, 4, "set is for values of four bytes");
        let mut attr = self.element(&key, std::ptr::from_ref(&value) as u64);
        // SAFETY: four bytes each are read at key and value, which are locals.
        unsafe { bpf(MAP_UPDATE, &mut attr).map(drop) }
    }

    /// Sets an entry of `N` times eight bytes.
    pub(crate) fn set_words<const N: usize>(&self, key: u32, words: [u64; N]) -> io::Result<()> {
        assert!(
            self.value_size == N * 8 && self.copies == 1,
            "the map's values are as large, and not per CPU"
        );
        let mut attr = self.element(&key, words.as_ptr() as u64);
        // SAFETY: four bytes are read at key, the value's size at words.
        unsafe { bpf(MAP_UPDATE, &mut attr).map(drop) }
    }

    fn wide(&self, key: &[u8; 16], value: u64) -> Element {
        assert_eq!(self.key_size, 16, "the map's keys have sixteen bytes");
        Element { fd: self.fd() as u32, _pad: 0, key: key.as_ptr() as u64, value, flags: 0 }
    }

    /// Sets an entry of four bytes under a key of sixteen.
    pub(crate) fn set_key(&self, key: &[u8; 16], value: u32) -> io::Result<()> {
        assert_eq!(self.value_size, 4, "set is for values of four bytes");
        let mut attr = self.wide(key, std::ptr::from_ref(&value) as u64);
        // SAFETY: sixteen bytes are read at key, four at value; both outlive the call.
        unsafe { bpf(MAP_UPDATE, &mut attr).map(drop) }
    }

    /// Removes the entry of a key of sixteen bytes.
    pub(crate) fn remove_key(&self, key: &[u8; 16]) -> io::Result<()> {
        let mut attr = self.wide(key, 0);
        // SAFETY: sixteen bytes are read at key, which outlives the call.
        unsafe { bpf(MAP_DELETE, &mut attr).map(drop) }
    }

    pub(crate) fn remove(&self, key: u32) -> io::Result<()> {
        let mut attr = self.element(&key, 0);
        // SAFETY: four bytes are read at key, a local.
        unsafe { bpf(MAP_DELETE, &mut attr).map(drop) }
    }

    /// An entry of `N` counters of eight bytes, summed over all CPUs where each has its own.
    pub(crate) fn sum<const N: usize>(&self, key: u32) -> io::Result<[u64; N]> {
        assert_eq!(self.value_size, N * 8, "an entry has as many counters as are asked for");
        let mut values = vec![[0u64; N]; self.copies];
        let mut attr = self.element(&key, values.as_mut_ptr() as u64);
        // SAFETY: the kernel writes `value_size` bytes for each copy, for which the vector has room.
        unsafe { bpf(MAP_LOOKUP, &mut attr)? };
        Ok(values.into_iter().fold([0; N], |sum, one| std::array::from_fn(|i| sum[i].wrapping_add(one[i]))))
    }
}

/// An array of one entry whose memory programs and this process share: words, all zero at first.
pub(crate) struct SharedWords {
    map: Map,
    memory: Mapping,
    bytes: usize,
}

impl SharedWords {
    /// With so many bytes, a multiple of eight.
    pub(crate) fn new(bytes: usize) -> io::Result<SharedWords> {
        let size = u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        assert!(size > 0 && size.is_multiple_of(8), "whole words");
        let map = Map::create(MapKind::Array, size, 1, F_MMAPABLE, 0)?;
        let memory = Mapping::shared(map.fd(), bytes, 0)?;
        Ok(SharedWords { map, memory, bytes })
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// As words of four bytes.
    pub(crate) fn halves(&self) -> &[AtomicU32] {
        // SAFETY: so many bytes are mapped as long as this lives, at a page's beginning; any bits are a word, and programs
        // and this process alike read and write them as whole words.
        unsafe { slice::from_raw_parts(self.memory.base().as_ptr().cast(), self.bytes / 4) }
    }

    /// As words of eight bytes.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(self.memory.base().as_ptr().cast(), self.bytes / 8) }
    }
}

/// CPUs to make room for in a lookup of per-CPU values: the kernel writes one value for each *possible* CPU, present or
/// not. Their list may have gaps; one more than its last number is then more than enough.
fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    last_cpu(&text).map(|n| n + 1).ok_or_else(|| io::Error::other(format!("possible CPUs: {text:?}")))
}

/// The last number of a list such as `0-3,8`.
fn last_cpu(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::last_cpu;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(last_cpu("0\n"), Some(0));
        assert_eq!(last_cpu("0-7\n"), Some(7));
        assert_eq!(last_cpu("0,2-3,12\n"), Some(12));
        assert_eq!(last_cpu("\n"), None);
    }
}
