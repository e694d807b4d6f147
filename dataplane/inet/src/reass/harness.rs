//! Any bytes as a script of fragments, sent to a small reassembler; asserts what must hold for every script. Run by the
//! property tests and the fuzz target. Not part of the API; compiled for tests and fuzzing only.

use nke_mbuf::wire::{FragmentHeader, Ipv4, Ipv6, Protocol};
use nke_mbuf::{Cache, Mbuf, Owner, Pool, PoolConfig, Region};

use super::{Config, FragmentKey, Outcome, Reassembler};

/// A fragment to build.
#[derive(Clone, Debug)]
pub struct Shape {
    pub v6: bool,
    pub src: u8,
    pub ident: u16,
    pub start: usize,
    pub more: bool,
    /// Extension headers in front of the fragment header, or words of IPv4 options.
    pub options: usize,
    pub ecn: u8,
    pub payload: Vec<u8>,
}

impl Shape {
    /// The packet, from its IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        if self.v6 { self.bytes_v6() } else { self.bytes_v4() }
    }

    fn bytes_v4(&self) -> Vec<u8> {
        let header_len = Ipv4::HEADER_LEN + self.options * 4;
        let mut ip = Ipv4::init(vec![0; header_len + self.payload.len()]).expect("fits");
        ip.set_header_len(header_len).expect("at most 40 bytes of options");
        ip.options_mut().fill(1);
        ip.set_src([192, 0, 2, self.src].into());
        ip.set_dst([198, 51, 100, 1].into());
        ip.set_ident(self.ident);
        ip.set_ttl(64);
        ip.set_ecn(self.ecn);
        ip.set_protocol(Protocol::UDP);
        ip.set_fragment(false, self.more, self.start as u16);
        ip.payload_mut().copy_from_slice(&self.payload);
        ip.fill_checksum();
        ip.into_inner()
    }

    fn bytes_v6(&self) -> Vec<u8> {
        let ext = self.options * 8;
        let len = Ipv6::HEADER_LEN + ext + FragmentHeader::LEN + self.payload.len();
        let mut ip = Ipv6::init(vec![0; len]).expect("fits");
        ip.set_src([0x20, 1, 0xd, 0xb8, 0, 0, 0, self.src, 0, 0, 0, 0, 0, 0, 0, 1].into());
        ip.set_dst("2001:db8:ffff::1".parse().expect("an address"));
        ip.set_hop_limit(64);
        ip.set_traffic_class(self.ecn);
        ip.set_next_header(if ext > 0 { Protocol::DEST_OPTIONS } else { Protocol::FRAGMENT });
        let (front, rest) = ip.payload_mut().split_at_mut(ext);
        let count = self.options;
        for (at, header) in front.chunks_mut(8).enumerate() {
            let next = if at + 1 == count { Protocol::FRAGMENT } else { Protocol::DEST_OPTIONS };
            header.copy_from_slice(&[next.0, 0, 1, 4, 0, 0, 0, 0]);
        }
        rest[0] = Protocol::UDP.0;
        rest[2..4].copy_from_slice(&(self.start as u16 | u16::from(self.more)).to_be_bytes());
        rest[4..8].copy_from_slice(&u32::from(self.ident).to_be_bytes());
        rest[8..].copy_from_slice(&self.payload);
        ip.into_inner()
    }
}

/// A pool of `frames` frames of `frame_size` bytes.
pub fn pool(frames: usize, frame_size: u32) -> Pool {
    let config = PoolConfig { frame_size, headroom: 64 };
    Pool::new(Region::heap(frames * frame_size as usize), &config).expect("a pool")
}

/// A packet of these bytes, at most `segment` of them in a frame.
pub fn mbuf(bytes: &[u8], segment: usize, cache: &mut Cache) -> Option<Mbuf> {
    let mut head: Option<Mbuf> = None;
    let mut rest = bytes;
    loop {
        let mut part = cache.alloc()?;
        let (now, later) = rest.split_at(rest.len().min(segment).min(part.tailroom()));
        part.append(now.len())?.copy_from_slice(now);
        match &mut head {
            None => head = Some(part),
            Some(head) => head.chain(part).ok()?,
        }
        rest = later;
        if rest.is_empty() {
            return head;
        }
    }
}

/// All bytes of a packet.
pub fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

struct Sent {
    shape: Shape,
    /// Held, and not yet part of a datagram.
    held: bool,
}

struct Run {
    pool: Pool,
    cache: Cache,
    reass: Reassembler,
    now_ms: u64,
    sent: Vec<Sent>,
}

/// The script: a byte says what to do, the next ones how.
pub fn harness(data: &[u8]) {
    let pool = pool(96, 512);
    let config = Config {
        datagrams_max: 6,
        frames_max: 24,
        per_source_frames: 12,
        fragments_max: 8,
        timeout_v4_ms: 30,
        timeout_v6_ms: 60,
    };
    let (cache, reass) = (Cache::new(&pool), Reassembler::new(config, [1, 2]));
    let mut run = Run { pool, cache, reass, now_ms: 0, sent: Vec::new() };
    let mut rest = data;
    while let Some((command, more)) = rest.split_first_chunk::<6>() {
        rest = run.step(*command, more);
        run.account();
    }
    run.finish();
}

impl Run {
    fn step<'a>(&mut self, command: [u8; 6], rest: &'a [u8]) -> &'a [u8] {
        let [what, who, at, len, flags, byte] = command;
        match what % 8 {
            0 => {
                self.now_ms += u64::from(byte);
                let mut firsts = 0;
                let done =
                    self.reass.expire(self.now_ms, &mut self.cache, usize::from(at % 8), |first, cache| {
                        assert!(FragmentKey::of(&first).is_some());
                        firsts += 1;
                        cache.free(first);
                    });
                assert!(firsts <= done && done <= usize::from(at % 8));
            }
            1 => {
                // Bytes as they are, which may be anything but one of the datagrams that are checked.
                let (packet, rest) = rest.split_at(rest.len().min(usize::from(len)));
                if let Some(mbuf) = mbuf(packet, 1 + usize::from(byte), &mut self.cache) {
                    let ours = FragmentKey::of(&mbuf).is_some_and(|key| self.is_ours(&key));
                    if ours { self.cache.free(mbuf) } else { self.input(mbuf, None) }
                }
                return rest;
            }
            2 if !self.sent.is_empty() => {
                let again = usize::from(at) % self.sent.len();
                self.send(again, usize::from(byte));
            }
            _ => {
                let serial = self.sent.len() as u16;
                let more = flags & 1 != 0;
                let mut len = 2 + usize::from(len) * if flags & 2 != 0 { 5 } else { 1 };
                if more && flags & 0xc0 != 0 {
                    len = len.next_multiple_of(8); // else it is a bad one
                }
                let mut payload: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
                payload[..2].copy_from_slice(&serial.to_be_bytes());
                let scale = if flags & 0x20 != 0 { 257 } else { 1 };
                let start = ((usize::from(at) * scale) & 0x1fff) * 8;
                let shape = Shape {
                    v6: flags & 4 != 0,
                    src: who & 3,
                    ident: u16::from(who >> 2 & 3),
                    start,
                    more,
                    options: usize::from(flags >> 3 & 1),
                    ecn: who >> 6,
                    payload,
                };
                self.sent.push(Sent { shape, held: false });
                self.send(usize::from(serial), usize::from(byte));
            }
        }
        rest
    }

    fn is_ours(&self, key: &FragmentKey) -> bool {
        self.sent.iter().any(|sent| Self::key(&sent.shape) == *key)
    }

    fn key(shape: &Shape) -> FragmentKey {
        let bytes = shape.bytes();
        if shape.v6 {
            let ip = Ipv6::new_checked(&bytes[..]).expect("built");
            FragmentKey::v6(ip.src(), ip.dst(), shape.ident.into(), 0)
        } else {
            let ip = Ipv4::new_checked(&bytes[..]).expect("built");
            FragmentKey::v4(ip.src(), ip.dst(), shape.ident, ip.protocol())
        }
    }

    fn send(&mut self, serial: usize, segment: usize) {
        // The headers are in the first frame, as the input promises.
        let bytes = self.sent[serial].shape.bytes();
        if let Some(mbuf) = mbuf(&bytes, 100 + segment, &mut self.cache) {
            self.input(mbuf, Some(serial));
        }
    }

    fn input(&mut self, mbuf: Mbuf, serial: Option<usize>) {
        match self.reass.input(mbuf, self.now_ms, &mut self.cache) {
            Outcome::Held => {
                if let Some(serial) = serial {
                    self.sent[serial].held = true;
                }
            }
            Outcome::Whole(mbuf) => {
                if let Some(serial) = serial {
                    self.sent[serial].held = true;
                    self.check(&mbuf, &self.sent[serial].shape);
                }
                self.cache.free(mbuf);
            }
            Outcome::NotAFragment(mbuf) | Outcome::Answer(mbuf, ..) => self.cache.free(mbuf),
            Outcome::Dropped(_) => {}
        }
    }

    /// The datagram is a row of fragments that were sent and held, each whole and at its place.
    fn check(&self, mbuf: &Mbuf, last: &Shape) {
        let bytes = bytes(mbuf);
        assert_eq!(bytes.len(), mbuf.len());
        let payload = if last.v6 {
            let ip = Ipv6::new_checked(&bytes[..]).expect("a datagram");
            assert_eq!(ip.total_len(), bytes.len());
            let walk = ip.extensions().expect("a chain of headers");
            assert!(walk.fragment.is_none() && walk.protocol == Protocol::UDP);
            &bytes[Ipv6::HEADER_LEN + walk.offset..]
        } else {
            let ip = Ipv4::new_checked(&bytes[..]).expect("a datagram");
            assert!(ip.verify_checksum() && !ip.is_fragment());
            assert_eq!(ip.total_len(), bytes.len());
            &bytes[ip.header_len()..]
        };
        let mut at = 0;
        while at < payload.len() {
            let serial = usize::from(u16::from_be_bytes([payload[at], payload[at + 1]]));
            let Sent { shape, held } = &self.sent[serial];
            assert!(*held, "{shape:?} was never accepted");
            assert_eq!((shape.v6, shape.src, shape.ident), (last.v6, last.src, last.ident));
            assert!(shape.start == at || shape.start == 0 && !shape.more, "{shape:?} at {at}");
            let end = at + shape.payload.len();
            assert_eq!(payload.get(at..end), Some(&shape.payload[..]));
            assert_eq!(shape.more, end < payload.len());
            at = end;
        }
    }

    fn account(&self) {
        let (stats, reass) = (self.reass.stats(), &self.reass);
        assert!(reass.frames_held() <= reass.config().frames_max as usize);
        assert!(reass.datagrams() <= reass.config().datagrams_max as usize);
        let dropped: u64 = stats.dropped.iter().sum();
        let held = reass.fragments_held() as u64;
        let gone = stats.reassembled + dropped + stats.killed + stats.timed_out + stats.evicted;
        assert_eq!(stats.fragments, gone + held, "{stats:?}");
        assert_eq!(self.pool.census().of(Owner::DATAPLANE), reass.frames_held());
    }

    fn finish(mut self) {
        let later = self.now_ms + 100;
        while self.reass.expire(later, &mut self.cache, 3, |first, cache| cache.free(first)) > 0 {}
        assert_eq!((self.reass.frames_held(), self.reass.datagrams()), (0, 0));
        drop((self.reass, self.cache));
        assert_eq!(self.pool.census().of(Owner::FREE), self.pool.capacity());
    }
}
