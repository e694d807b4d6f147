//! Big-endian field access, and the saturating slices that the panic promise of [`super`] rests on.
//!
//! The fixed-offset helpers index: the views call them only with offsets below `HEADER_LEN`. The slicing
//! helpers never panic for any arguments.

#[inline]
pub(super) fn array<const N: usize>(buf: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&buf[at..at + N]);
    out
}

#[inline]
pub(super) fn be16(buf: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(buf, at))
}

#[inline]
pub(super) fn be32(buf: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(buf, at))
}

#[inline]
pub(super) fn put(buf: &mut [u8], at: usize, bytes: &[u8]) {
    buf[at..at + bytes.len()].copy_from_slice(bytes);
}

#[inline]
pub(super) fn put16(buf: &mut [u8], at: usize, value: u16) {
    put(buf, at, &value.to_be_bytes());
}

#[inline]
pub(super) fn put32(buf: &mut [u8], at: usize, value: u32) {
    put(buf, at, &value.to_be_bytes());
}

/// The part of `from..to` that exists; empty if none does.
#[inline]
pub(super) fn cut(buf: &[u8], from: usize, to: usize) -> &[u8] {
    buf.get(from..to.min(buf.len())).unwrap_or(&[])
}

/// [`cut`] for writing.
#[inline]
pub(super) fn cut_mut(buf: &mut [u8], from: usize, to: usize) -> &mut [u8] {
    let to = to.min(buf.len());
    buf.get_mut(from..to).unwrap_or(&mut [])
}
