//! The pre-shared key, where it comes from, and the keys that are made of it.
//!
//! The pre-shared key encrypts nothing. Every stream of frames (one worker of one run of one sender, and of that 2^32
//! frames) has a key of its own: HKDF-SHA-256 (RFC 5869) over the pre-shared key and the names of the stream. So packet
//! numbers may start at 0 after a restart, and workers count for themselves.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::frame::{Head, SESSION_BYTES, TAG_BYTES};
use crate::CreateError;

/// Bytes of the pre-shared key.
pub const KEY_BYTES: usize = 32;

/// A file with more bytes than this is no key file.
const FILE_BYTES_MAX: u64 = 4096;

/// The pre-shared key. Overwritten when it is dropped; has no `Debug`.
pub struct PresharedKey(Zeroizing<[u8; KEY_BYTES]>);

impl PresharedKey {
    /// This key.
    pub fn new(bytes: [u8; KEY_BYTES]) -> PresharedKey {
        PresharedKey(Zeroizing::new(bytes))
    }

    /// Reads 64 hexadecimal digits from a file that nobody but its owner may read. For the control thread.
    pub fn read(path: &Path) -> Result<PresharedKey, CreateError> {
        let shown = path.display();
        let system = |e: std::io::Error| {
            CreateError::new(
                format!("the key file {shown} cannot be read: {e}"),
                "name a file with a key in it",
            )
        };
        // Before it is opened: to open a pipe is to wait for somebody who writes.
        if !path.metadata().map_err(system)?.is_file() {
            return Err(CreateError::new(format!("{shown} is not a file"), "name a file with a key in it"));
        }
        let mut file = File::open(path).map_err(system)?;
        let mode = file.metadata().map_err(system)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(CreateError::new(
                format!("others than its owner can use the key file {shown} (mode {mode:04o})"),
                format!("chmod 600 {shown}; if somebody may have read it, make another key"),
            ));
        }
        // Room from the start: a buffer that grows leaves copies behind that nobody overwrites.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
        (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(system)?;
        let mut key = PresharedKey::new([0; KEY_BYTES]);
        if hex(text.trim_ascii(), &mut key.0).is_none() {
            return Err(CreateError::new(
                format!("the key file {shown} does not hold 64 hexadecimal digits"),
                format!("make one: (umask 077; openssl rand -hex 32 > {shown})"),
            ));
        }
        Ok(key)
    }

    /// The key of the stream that the frame with this header belongs to.
    ///
    /// `None` if the key derivation refused its lengths, which are constants: then nothing is sealed and nothing opened.
    pub(super) fn stream(&self, head: &Head) -> Option<StreamKey> {
        const LABEL: &[u8] = b"nke cipher 1";
        let mut name = [0; SESSION_BYTES + 6];
        name[0] = head.id;
        name[1] = head.lane;
        name[2..6].copy_from_slice(&(head.phase() as u32).to_be_bytes());
        name[6..].copy_from_slice(&head.session);
        let mut bytes = Zeroizing::new([0; KEY_BYTES + 4]);
        Hkdf::<Sha256>::new(Some(LABEL), &self.0[..]).expand(&name, &mut bytes[..]).ok()?;
        let (key, salt) = bytes.split_first_chunk::<KEY_BYTES>()?;
        Some(StreamKey { aead: Aes256Gcm::new(key.into()), salt: *salt.first_chunk()? })
    }
}

fn hex(text: &[u8], out: &mut [u8; KEY_BYTES]) -> Option<()> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != KEY_BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(pairs) {
        let digit = |at: usize| (pair[at] as char).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(())
}

/// The key of one stream: AES-256-GCM, and the four bytes that the nonce starts with. Overwritten when dropped.
pub(super) struct StreamKey {
    aead: Aes256Gcm,
    salt: [u8; 4],
}

impl StreamKey {
    /// Encrypts `body` in place. `head` is what goes in clear and is authenticated along.
    #[inline]
    pub(super) fn seal(&self, number: [u8; 8], head: &[u8], body: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        self.aead.encrypt_inout_detached(&self.nonce(number), head, body.into()).ok().map(Into::into)
    }

    /// Decrypts `body` in place; `false`, and `body` as it was, when it is not what was sealed.
    #[inline]
    pub(super) fn open(&self, number: [u8; 8], head: &[u8], body: &mut [u8], tag: &[u8; TAG_BYTES]) -> bool {
        let tag: &Tag = tag.into();
        self.aead.decrypt_inout_detached(&self.nonce(number), head, body.into(), tag).is_ok()
    }

    /// Deterministic construction of NIST SP 800-38D section 8.2.1: a fixed field of 32 bits and a count of 64.
    #[inline]
    fn nonce(&self, number: [u8; 8]) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&number);
        nonce.into()
    }
}
