//! Two ends of a segment, and everything that somebody between them may do.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nke_mbuf::{Burst, Cache, Flags, Mbuf, Owner, Pool, PoolConfig, Region};
use proptest::prelude::*;

use super::frame::{FRONT_BYTES, PLAIN_BYTES_MIN, SEALED_BYTES_MIN, TAG_BYTES};
use super::*;
use crate::{ArgValue, Removed};

const KEY: [u8; KEY_BYTES] = [0x42; KEY_BYTES];

fn pool() -> Pool {
    Pool::new(Region::heap(2048 * 64), &PoolConfig::default()).unwrap()
}

fn mbuf(pool: &Pool, bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
    mbuf
}

/// A frame of `len` bytes with an ethertype of its own.
fn plain(len: usize) -> Vec<u8> {
    (0..len).map(|i| if i == 12 { 0x08 } else { i as u8 }).collect()
}

fn channel(id: u8, start_ms: u64) -> Channel {
    Channel::with_session(PresharedKey::new(KEY), id, start_ms, [id; 6])
}

/// One end with one worker.
struct End(Channel, Lane);

impl End {
    fn new(id: u8, start_ms: u64) -> End {
        let channel = channel(id, start_ms);
        let lane = channel.lane(0).unwrap();
        End(channel, lane)
    }

    fn seal(&mut self, pool: &Pool, bytes: &[u8]) -> Vec<u8> {
        let mut frame = mbuf(pool, bytes);
        self.1.seal(&self.0, &mut frame).unwrap();
        frame.data().to_vec()
    }

    fn open_at(&mut self, now_ms: u64, pool: &Pool, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut frame = mbuf(pool, bytes);
        self.1.open(&self.0, now_ms, &mut frame).map(|()| frame.data().to_vec())
    }

    fn open(&mut self, pool: &Pool, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        // A millisecond of its own for each call: what is looked at here is not the bound on keys.
        let now_ms = self.1.made_ms() + 1;
        self.open_at(now_ms, pool, bytes)
    }
}

#[test]
fn the_frame_is_what_another_implementation_computes() {
    // HKDF and AES-GCM of the Python package `cryptography` (OpenSSL), over the format in docs/cipher.md.
    let pool = pool();
    let key = std::array::from_fn(|i| i as u8);
    let channel = Channel::with_session(
        PresharedKey::new(key),
        3,
        0x0102_0304_0506,
        [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5],
    );
    let mut lane = channel.lane(2).unwrap();
    lane.skip_to(0x1_0000_0007);
    let mut frame = mbuf(&pool, b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0attack at dawn");
    lane.seal(&channel, &mut frame).unwrap();
    let hex: String = frame.data().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, VECTOR);
}

/// Header, encrypted part, tag.
const VECTOR: &str = concat!(
    "02000000000102000000000288b50103010203040506a0a1a2a3a4a50200000100000007",
    "1b80606a4450a4d02fb9fdc91b161652",
    "233725d3e3631845967c292c57ceda4c",
);

#[test]
fn aes_gcm_is_that_of_its_specification() {
    // Test case 14 of the GCM specification (McGrew and Viega): key, nonce and one block of zeros.
    use aes_gcm::aead::{AeadInOut, KeyInit};
    let mut body = [0; 16];
    let tag = aes_gcm::Aes256Gcm::new(&[0; 32].into())
        .encrypt_inout_detached(&[0; 12].into(), &[], (&mut body[..]).into())
        .unwrap();
    assert_eq!(u128::from_be_bytes(body), 0xcea7_403d_4d60_6b6e_074e_c5d3_baf3_9d18);
    assert_eq!(u128::from_be_bytes(tag.into()), 0xd0d1_c8a7_9999_6bf0_265b_98b5_d48a_b919);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 14..1700), 1..8)) {
        let pool = pool();
        let (mut a, mut b) = (End::new(0, 1), End::new(1, 2));
        for frame in frames {
            let sealed = a.seal(&pool, &frame);
            let padded = frame.len().max(PLAIN_BYTES_MIN);
            prop_assert_eq!(sealed.len(), padded + OVERHEAD_BYTES);
            prop_assert!(sealed.len() >= 60 && sealed[..12] == frame[..12]);
            let opened = b.open(&pool, &sealed);
            prop_assert_eq!(opened.as_ref().map(|o| &o[..frame.len()]), Ok(&frame[..]));
            prop_assert_eq!(opened.unwrap().len(), padded);
            // And back.
            let sealed = b.seal(&pool, &frame);
            prop_assert!(a.open(&pool, &sealed).is_ok());
        }
    }

    #[test]
    fn bytes_of_a_stranger_never_pass(mut bytes in prop::collection::vec(any::<u8>(), 0..200), ours in any::<bool>()) {
        let pool = pool();
        let mut b = End::new(1, 2);
        if ours && bytes.len() > 36 {
            // Deep enough to be decrypted.
            bytes[12..16].copy_from_slice(&[0x88, 0xb5, 1, 0]);
            bytes[28..30].fill(0);
        }
        prop_assert!(b.open(&pool, &bytes).is_err());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let pool = pool();
    let (mut a, mut b) = (End::new(0, 1), End::new(1, 2));
    let sealed = a.seal(&pool, &plain(100));
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let refusal = b.open(&pool, &bad).unwrap_err();
        let expect = match bit / 8 {
            12 | 13 => &[Refusal::Clear][..],
            14 => &[Refusal::Malformed],
            // Another id: ours, unknown, or one too large.
            15 => &[Refusal::Reflected, Refusal::Auth, Refusal::Malformed],
            28 | 29 => &[Refusal::Auth, Refusal::Malformed],
            _ => &[Refusal::Auth],
        };
        assert!(expect.contains(&refusal), "bit {bit}: {refusal:?}");
    }
    for len in 0..sealed.len() {
        let refusal = b.open(&pool, &sealed[..len]).unwrap_err();
        let expect = match len {
            0..14 => Refusal::Clear,
            14..SEALED_BYTES_MIN => Refusal::Malformed,
            _ => Refusal::Auth,
        };
        assert_eq!(refusal, expect, "{len} bytes");
    }
    assert_eq!(b.open(&pool, &sealed), Ok(plain(100)), "nothing of that spoilt the real one");
    assert_eq!(b.open(&pool, &sealed), Err(Refusal::Replay));
}

#[test]
fn reordered_frames_pass_once() {
    let pool = pool();
    let (mut a, mut b) = (End::new(0, 1), End::new(1, 2));
    let frames: Vec<_> = (0..64).map(|i| a.seal(&pool, &plain(60 + i))).collect();
    for round in 0..2 {
        for i in 0..64 {
            let opened = b.open(&pool, &frames[i * 37 % 64]);
            assert_eq!(opened.is_ok(), round == 0, "{i}: {opened:?}");
        }
    }
    // The first frame of another key of the lane, and one that is too late for its window.
    a.1.skip_to(1 << 32);
    let late = a.seal(&pool, &plain(60));
    a.1.skip_to((1 << 32) + WINDOW_MIN + 16);
    let ahead = a.seal(&pool, &plain(61));
    assert_eq!(b.open(&pool, &ahead), Ok(plain(61)));
    assert_eq!(b.open(&pool, &late), Err(Refusal::Replay));
}

#[test]
fn wrong_key_reflection_and_old_sessions() {
    let pool = pool();
    let (mut a, mut b) = (End::new(0, 10), End::new(1, 20));
    let other = Channel::with_session(PresharedKey::new([0x43; KEY_BYTES]), 0, 10, [0; 6]);
    let mut lane = other.lane(0).unwrap();
    let mut frame = mbuf(&pool, &plain(60));
    lane.seal(&other, &mut frame).unwrap();
    assert_eq!(b.open(&pool, frame.data()), Err(Refusal::Auth));

    let old = a.seal(&pool, &plain(60));
    let older = a.seal(&pool, &plain(60));
    assert_eq!(a.open(&pool, &old), Err(Refusal::Reflected));
    assert!(b.open(&pool, &old).is_ok());
    // The sender starts again. Its first frames use the packet numbers of old ones, under another key.
    let mut again = End::new(0, 11);
    let new = again.seal(&pool, &plain(60));
    assert_ne!(new[36..], old[36..]);
    assert!(b.open(&pool, &new).is_ok());
    assert_eq!(b.open(&pool, &older), Err(Refusal::Stale));
    // What one worker of it sent does not belong to another.
    let mut moved = again.seal(&pool, &plain(60));
    moved[28] = 1;
    assert_eq!(b.open(&pool, &moved), Err(Refusal::Auth));
}

#[test]
fn keys_made_in_a_millisecond_are_bounded() {
    let pool = pool();
    let (mut a, mut b) = (End::new(0, 1), End::new(1, 2));
    let known = a.seal(&pool, &plain(60));
    assert!(b.open_at(5, &pool, &known).is_ok());
    let mut forged = known.clone();
    let outcomes: Vec<_> = (0..100u8)
        .map(|i| {
            forged[27] = i + 1;
            b.open_at(6, &pool, &forged).unwrap_err()
        })
        .collect();
    let made = outcomes.iter().filter(|o| **o == Refusal::Auth).count();
    assert!(made > 0 && made < 100 && outcomes[99] == Refusal::Busy, "{made}");
    // A flood of unknown sessions does not disturb a known one.
    let next = a.seal(&pool, &plain(60));
    assert!(b.open_at(6, &pool, &next).is_ok());
}

#[test]
fn numbers_are_never_used_twice() {
    use std::collections::HashSet;
    let channel = channel(0, 1);
    let pools: Vec<_> = (0..4).map(|_| pool()).collect();
    let heads: Vec<Vec<Vec<u8>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = pools
            .iter()
            .enumerate()
            .map(|(worker, pool)| {
                let channel = &channel;
                scope.spawn(move || {
                    let mut lane = channel.lane(worker).unwrap();
                    let seal = |_| {
                        let mut frame = mbuf(pool, &plain(60));
                        lane.seal(channel, &mut frame).unwrap();
                        frame.data()[15..36].to_vec()
                    };
                    (0..1000).map(seal).collect()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(channel.lane(3).is_none() && channel.lane(LANES_MAX).is_none(), "no lane is handed out twice");
    let all: HashSet<_> = heads.iter().flatten().collect();
    assert_eq!(all.len(), 4000, "id, session and number name one frame");
}

#[test]
fn the_last_number_is_the_last() {
    let pool = pool();
    let (mut a, mut b) = (End::new(0, 1), End::new(1, 2));
    a.1.skip_to(NUMBERS_MAX - 1);
    let last = a.seal(&pool, &plain(60));
    assert!(b.open(&pool, &last).is_ok());
    let mut frame = mbuf(&pool, &plain(60));
    assert_eq!(a.1.seal(&a.0, &mut frame), Err(Refusal::Exhausted));
    assert_eq!(frame.data(), plain(60));
}

#[test]
fn frames_that_do_not_fit_stay_as_they_are() {
    let pool = pool();
    let mut a = End::new(0, 1);
    let mut refused = |mut frame: Mbuf| {
        let before = (frame.data().to_vec(), frame.len());
        let refusal = a.1.seal(&a.0, &mut frame).unwrap_err();
        assert_eq!((frame.data().to_vec(), frame.len()), before);
        refusal
    };
    assert_eq!(refused(mbuf(&pool, &plain(13))), Refusal::Malformed);
    let mut tight = mbuf(&pool, &plain(60));
    tight.prepend(tight.headroom() - FRONT_BYTES + 1).unwrap().fill(9);
    assert_eq!(refused(tight), Refusal::NoRoom);
    let mut long = mbuf(&pool, &plain(60));
    long.append(long.tailroom() - TAG_BYTES + 1).unwrap().fill(9);
    assert_eq!(refused(long), Refusal::NoRoom);
    let mut chain = mbuf(&pool, &plain(60));
    chain.chain(mbuf(&pool, &plain(60))).unwrap();
    assert_eq!(refused(chain), Refusal::NoRoom);
    let mut pending = mbuf(&pool, &plain(60));
    pending.flags_mut().insert(Flags::CSUM_REQ_UDP);
    assert_eq!(refused(pending), Refusal::ChecksumPending);
}

fn key_file(name: &str, text: &str, mode: u32) -> PathBuf {
    let path = std::env::temp_dir().join(format!("nke-cipher-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn instance(path: &std::path::Path, more: &[(&str, &str)]) -> Result<Instance, CreateError> {
    let mut args = Args::default();
    args.0.insert("key".into(), ArgValue::Text(path.to_string_lossy().into()));
    for (name, value) in more {
        args.0.insert((*name).into(), ArgValue::Text((*value).into()));
    }
    let reason = |name: &str| {
        let at = Refusal::ALL.iter().position(|refusal| refusal.name() == name).unwrap();
        Ok(DropReason::from_index(100 + at as u8))
    };
    Instance::new(&args, 2, reason)
}

#[test]
fn mistakes_are_explained() {
    let good = key_file("good", &format!("{}\n", "0f".repeat(32)), 0o600);
    let cause = |path: &std::path::Path, more: &[(&str, &str)]| instance(path, more).err().unwrap().cause;
    assert!(instance(&good, &[("id", "7"), ("clear", "pass")]).is_ok());
    assert!(cause(&good, &[]).contains("no id"));
    assert!(cause(&good, &[("id", "8")]).contains("from 0 to 7"));
    assert!(cause(&good, &[("id", "0"), ("clear", "perhaps")]).contains("neither"));
    for (name, text, mode, says) in [
        ("open", "0f".repeat(32), 0o640, "others than its owner"),
        ("short", "0f".repeat(31), 0o600, "64 hexadecimal digits"),
        ("long", "0f".repeat(33), 0o600, "64 hexadecimal digits"),
        ("odd", "0g".repeat(32), 0o600, "64 hexadecimal digits"),
    ] {
        let path = key_file(name, &text, mode);
        let said = cause(&path, &[("id", "0")]);
        assert!(said.contains(says) && !said.contains("0f0f"), "{said}");
        std::fs::remove_file(path).unwrap();
    }
    assert!(cause(&std::env::temp_dir(), &[("id", "0")]).contains("not a file"));
    std::fs::remove_file(&good).unwrap();
    assert!(cause(&good, &[("id", "0")]).contains("cannot be read"));
}

#[test]
fn instances_seal_open_count_and_drop_by_name() {
    let path = key_file("pair", &"5a".repeat(32), 0o400);
    let (a, b) = (instance(&path, &[("id", "0")]).unwrap(), instance(&path, &[("id", "1")]).unwrap());
    let passing = instance(&path, &[("id", "2"), ("clear", "pass")]).unwrap();
    std::fs::remove_file(path).unwrap();
    let pool = pool();
    let mut cache = Cache::new(&pool);
    let (mut burst, mut removed) = (Burst::new(), Removed::default());
    for len in [60, 61, 62] {
        burst.push(mbuf(&pool, &plain(len))).unwrap();
    }
    a.seal(1, &mut Batch::new(&mut burst, 0b011, &mut removed, Owner(20)));
    // The third was not selected, and so goes over in clear.
    let mut batch = Batch::new(&mut burst, 0b111, &mut removed, Owner(20));
    b.open(0, 1, &mut batch);
    assert_eq!(batch.gone(), 0b100);
    let (clear, reason) = removed.pop().unwrap();
    assert_eq!((clear.len(), reason), (62, DropReason::from_index(100)));
    burst.compact();
    assert_eq!(burst.iter().map(|m| m.data().to_vec()).collect::<Vec<_>>(), [plain(60), plain(61)]);
    assert_eq!(burst.iter().map(|m| m.ethertype()).collect::<Vec<_>>(), [0x080d; 2]);
    passing.open(0, 1, &mut Batch::new(&mut burst, 0b11, &mut removed, Owner(20)));
    assert!(removed.pop().is_none());
    assert_eq!(a.figures()[0], ("sealed", 2));
    assert_eq!(b.figures()[1], ("opened", 2));
    assert_eq!(passing.figures()[2], ("passed_clear", 2));
    cache.free_burst(&mut burst);
}
