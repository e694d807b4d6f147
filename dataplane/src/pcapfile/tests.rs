use super::*;
use proptest::prelude::*;
use std::io::{self, Cursor, Read};
use std::num::NonZeroU32;
use std::process::Command;

const TIME: u64 = 1_700_000_000_123_456_789;

fn written(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out).unwrap();
    let interface = writer.add_interface("a").unwrap();
    for (i, data) in packets.iter().enumerate() {
        let (left, right) = data.split_at(data.len() / 2);
        let direction = (i % 2 == 0).then_some(Direction::Inbound);
        let comment = (i % 3 == 0).then_some("why not");
        let packet = Packet { interface, ts_ns: TIME, pieces: &[left, right], direction, comment };
        writer.write(&packet).unwrap();
    }
    writer.flush().unwrap();
    out
}

fn records(bytes: Vec<u8>) -> Result<Vec<Record>, PcapError> {
    let mut reader = Reader::new(Cursor::new(bytes))?;
    let mut all = Vec::new();
    while let Some(record) = reader.next_record()? {
        all.push(record);
    }
    Ok(all)
}

fn read(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, PcapError> {
    Ok(records(bytes)?.into_iter().map(|r| r.data).collect())
}

fn flaw(bytes: Vec<u8>) -> (u64, u64, Flaw) {
    match records(bytes) {
        Err(PcapError::Record { number, offset, flaw }) => (number, offset, flaw),
        other => panic!("{other:?}"),
    }
}

/// Files by hand, in either byte order.
#[derive(Clone, Copy)]
struct By {
    big: bool,
}

impl By {
    fn word(self, n: u32) -> [u8; 4] {
        if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
    }
    fn half(self, n: u16) -> [u8; 2] {
        if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
    }
    fn words<const N: usize>(self, words: [u32; N]) -> Vec<u8> {
        words.map(|n| self.word(n)).concat()
    }
    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let len = self.word(body.len() as u32 + 12);
        [&self.word(kind)[..], &len, body, &len].concat()
    }
    fn section(self) -> Vec<u8> {
        let version = [self.half(1), self.half(0)].concat();
        self.block(0x0a0d_0d0a, &[&self.word(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
    }
    fn interface(self, link_type: u16, snaplen: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [&self.half(link_type)[..], &[0; 2], &self.word(snaplen)].concat();
        for (code, value) in options {
            body.extend([self.half(*code), self.half(value.len() as u16)].concat());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body.extend([0; 4]);
        self.block(1, &body)
    }
    fn packet(self, interface: u32, time: u64, data: &[u8], orig_len: u32) -> Vec<u8> {
        let (high, low) = ((time >> 32) as u32, time as u32);
        let mut body = self.words([interface, high, low, data.len() as u32, orig_len]);
        body.extend_from_slice(data);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(6, &body)
    }
    fn classic(self, magic: u32, link_type: u32) -> Vec<u8> {
        let version = [self.half(2), self.half(4)].concat();
        [&self.word(magic)[..], &version, &self.words([0, 0, 65535, link_type])].concat()
    }
}

const BOTH: [By; 2] = [By { big: false }, By { big: true }];
const US: u32 = 0xa1b2_c3d4;
const NS: u32 = 0xa1b2_3c4d;

fn record(ts_ns: u64, interface: u32, orig_len: u32, data: &[u8]) -> Record {
    Record { ts_ns, interface, orig_len, data: data.to_vec() }
}

#[test]
fn what_was_written_is_read() {
    let packets: Vec<Vec<u8>> = (0..300).map(|n| vec![n as u8; 1 + n * 31 % 9000]).collect();
    let read = records(written(&packets)).unwrap();
    assert!(read.iter().all(|r| r.ts_ns == TIME && r.orig_len as usize == r.data.len()));
    assert_eq!(read.into_iter().map(|r| r.data).collect::<Vec<_>>(), packets);
    let mut classic = Vec::new();
    let mut writer = ClassicWriter::new(&mut classic).unwrap();
    packets.iter().for_each(|p| writer.write(TIME, p).unwrap());
    writer.flush().unwrap();
    let read = records(classic).unwrap();
    assert!(read.iter().all(|r| r.ts_ns == TIME));
    assert_eq!(read.into_iter().map(|r| r.data).collect::<Vec<_>>(), packets);
}

#[test]
fn packets_are_cut_to_the_snaplen_of_their_interface() {
    let data: Vec<u8> = (0..100).collect();
    for snaplen in [1, 49, 50, 51, 99, 100, 101] {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out).unwrap();
        writer.add_interface("whole").unwrap();
        writer.add_interface_of("cut", LinkType::Ethernet, NonZeroU32::new(snaplen)).unwrap();
        let (left, right) = data.split_at(50);
        for interface in [0, 1, 0] {
            let direction = Some(Direction::Outbound);
            let pieces = &[left, right][..];
            writer
                .write(&Packet { interface, ts_ns: TIME, pieces, direction, comment: Some("cut") })
                .unwrap();
        }
        let cut = &data[..data.len().min(snaplen as usize)];
        let expected = [record(TIME, 0, 100, &data), record(TIME, 1, 100, cut), record(TIME, 0, 100, &data)];
        assert_eq!(records(out).unwrap(), expected);
    }
}

#[test]
fn raw_ip_interfaces_are_said_to_be_raw() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out).unwrap();
    let interface = writer.add_interface_of("ip", LinkType::Raw, None).unwrap();
    let packet = Packet { interface, ts_ns: TIME, pieces: &[&[0x45; 20]], direction: None, comment: None };
    writer.write(&packet).unwrap();
    // Link type and snaplen follow the block's kind and length; the section header has 28 bytes.
    assert_eq!(out[28 + 8..28 + 16], [101, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(records(out), Err(PcapError::LinkType(101))), "our ports replay Ethernet alone");
}

#[test]
fn classic_files_of_both_byte_orders_and_resolutions() {
    for by in BOTH {
        for (magic, ns) in [(US, 1_000_002_000), (NS, 1_000_000_002)] {
            let mut bytes = by.classic(magic, 1);
            bytes.extend(by.words([1, 2, 3, 60]));
            bytes.extend(b"abc");
            assert_eq!(records(bytes).unwrap(), [record(ns, 0, 60, b"abc")]);
        }
    }
}

#[test]
fn pcapng_of_both_byte_orders_with_interfaces_of_their_own_clocks() {
    for by in BOTH {
        let offset = if by.big { 7i64.to_be_bytes() } else { 7i64.to_le_bytes() };
        let bytes = [
            by.section(),
            by.interface(1, 0, &[]),
            by.interface(1, 0, &[(2, b"name"), (9, &[9]), (14, &offset)]),
            by.interface(1, 0, &[(9, &[0x80 | 10])]),
            by.packet(0, 1_000_001, b"micro", 5),
            by.packet(1, 5, b"nano", 60),
            by.packet(2, 512, b"1024ths", 7),
            // Of a kind nobody knows: passed over.
            by.block(0x7777, &[1; 20]),
        ];
        let expected = [
            record(1_000_001_000, 0, 5, b"micro"),
            record(7_000_000_005, 1, 60, b"nano"),
            record(500_000_000, 2, 7, b"1024ths"),
        ];
        assert_eq!(records(bytes.concat()).unwrap(), expected);
    }
}

#[test]
fn sections_forget_the_interfaces_and_byte_order_before_them() {
    let [little, big] = BOTH;
    let mut bytes = [little.section(), little.interface(1, 0, &[]), little.packet(0, 1, b"a", 1)].concat();
    bytes.extend([big.section(), big.interface(1, 0, &[(9, &[9])]), big.packet(0, 1, b"b", 1)].concat());
    assert_eq!(records(bytes.clone()).unwrap(), [record(1000, 0, 1, b"a"), record(1, 0, 1, b"b")]);
    bytes.extend([little.section(), little.packet(0, 1, b"c", 1)].concat());
    assert_eq!(flaw(bytes).2, Flaw::NoInterface);
}

#[test]
fn simple_and_obsolete_packet_blocks() {
    for by in BOTH {
        let old = [by.half(1), by.half(3)].concat();
        let bytes = [
            by.section(),
            by.interface(1, 5, &[]),
            by.interface(1, 0, &[]),
            // Captured in part, by the interface's limit: three bytes are padding.
            by.block(3, &[&by.word(60)[..], b"short\0\0\0"].concat()),
            by.block(3, &[&by.word(2)[..], b"ab\0\0"].concat()),
            by.block(2, &[&old, &by.words([0, 9, 3, 60])[..], b"old\0"].concat()),
        ];
        let expected = [record(0, 0, 60, b"short"), record(0, 0, 2, b"ab"), record(9000, 1, 60, b"old")];
        assert_eq!(records(bytes.concat()).unwrap(), expected);
        let damaged = by.block(2, &[&old, &by.words([0, 9, 5, 60])[..], b"old\0"].concat());
        let bytes = [by.section(), by.interface(1, 0, &[]), damaged].concat();
        assert_eq!(flaw(bytes).2, Flaw::Damaged);
    }
}

#[test]
fn only_ethernet_is_read() {
    let by = BOTH[0];
    // 113: what `tcpdump -i any` writes.
    let classic = [by.classic(US, 113), by.words([1, 2, 3, 60]), b"abc".to_vec()].concat();
    let ng = [by.section(), by.interface(113, 0, &[]), by.packet(0, 1, b"abc", 3)].concat();
    for bytes in [classic, ng] {
        assert!(matches!(records(bytes), Err(PcapError::LinkType(113))));
    }
    // The bits above tell of a frame check sequence.
    let bytes = [by.classic(US, 1 | 5 << 28), by.words([1, 2, 3, 60]), b"abc".to_vec()].concat();
    assert_eq!(read(bytes).unwrap(), [b"abc"]);
}

#[test]
fn errors_say_where() {
    let whole = written(&[vec![1; 60], vec![2; 61]]);
    let second = whole.len() - (61usize.next_multiple_of(4) + 32);
    assert_eq!(flaw(whole[..whole.len() - 1].to_vec()), (2, second as u64, Flaw::CutOff));
    let mut damaged = whole.clone();
    damaged[second + 4..second + 8].copy_from_slice(&20u32.to_le_bytes());
    assert_eq!(flaw(damaged), (2, second as u64, Flaw::Damaged));
    // A captured length beyond its block, with plenty behind that could be taken for data.
    let mut greedy = whole.clone();
    greedy[second + 20..second + 24].copy_from_slice(&200u32.to_le_bytes());
    assert_eq!(flaw(greedy.clone()), (2, second as u64, Flaw::Damaged));
    greedy.resize(greedy.len() + 3 * RECORD_MAX, 0);
    assert_eq!(flaw(greedy), (2, second as u64, Flaw::Damaged));
    let by = BOTH[0];
    for len in [RECORD_MAX as u32 + 1, u32::MAX] {
        let mut bytes = [by.classic(US, 1), by.words([1, 2, len, len])].concat();
        bytes.resize(3 * RECORD_MAX, 0);
        assert_eq!(flaw(bytes), (1, 24, Flaw::TooLong));
    }
    let mut many = by.section();
    (0..5000).for_each(|_| many.extend(by.interface(1, 0, &[])));
    assert_eq!(flaw(many).2, Flaw::TooManyInterfaces);
    for nothing in [&b""[..], b"GIF89a", b"\x0a\x0d\x0d\x0a"] {
        assert!(matches!(records(nothing.to_vec()), Err(PcapError::Format)));
    }
    let error = records(whole[..whole.len() - 1].to_vec()).unwrap_err();
    assert_eq!(error.id(), "NKE-PCAP-004");
    assert!(error.to_string().contains("record 2 at byte"), "{error}");
}

#[test]
fn the_longest_record_is_read() {
    assert_eq!(read(written(&[vec![7; RECORD_MAX], vec![8; 1]])).unwrap()[0].len(), RECORD_MAX);
}

/// Gives a byte at a time, as a pipe may, with interruptions; fails at the end.
struct Slow(Vec<u8>, usize, Option<i32>);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(2) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match (self.0.get(self.1 / 2), self.2) {
            (Some(byte), _) => {
                buffer[0] = *byte;
                Ok(1)
            }
            (None, None) => Ok(0),
            (None, Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

#[test]
fn short_reads_interruptions_and_failures_of_the_source() {
    let packets = vec![vec![1; 60], vec![2; 61]];
    let mut reader = Reader::new(Slow(written(&packets), 0, None)).unwrap();
    for packet in &packets {
        assert_eq!(&reader.next_record().unwrap().unwrap().data, packet);
    }
    assert!(reader.next_record().unwrap().is_none());
    match Reader::new(Slow(Vec::new(), 0, Some(libc::EIO))).err().unwrap() {
        PcapError::Io(e) => assert_eq!(e.raw_os_error(), Some(libc::EIO)),
        other => panic!("{other}"),
    }
    match Reader::open(std::path::Path::new("/")).err().unwrap() {
        PcapError::Io(e) => assert_eq!(e.raw_os_error(), Some(libc::EISDIR)),
        other => panic!("{other}"),
    }
}

#[test]
fn the_writer_refuses_what_nobody_could_read() {
    let (too_long, text) = (vec![0; RECORD_MAX + 1], "ß".repeat(40_000));
    let mut writer = Writer::new(Vec::new()).unwrap();
    let (too_long_pieces, pieces) = ([&too_long[..]], [&b"abc"[..]]);
    let packet = Packet { interface: 0, ts_ns: 0, pieces: &pieces, direction: None, comment: None };
    assert!(writer.write(&packet).is_err(), "no such interface");
    writer.add_interface("a").unwrap();
    writer.write(&packet).unwrap();
    assert!(writer.write(&Packet { pieces: &too_long_pieces, ..packet }).is_err());
    writer.write(&Packet { comment: Some(&text), ..packet }).unwrap();
    let mut classic = ClassicWriter::new(Vec::new()).unwrap();
    assert!(classic.write(0, &too_long).is_err());
}

#[test]
fn files_cut_off_anywhere_end_without_a_panic() {
    let whole = written(&[vec![1; 60], vec![2; 61]]);
    for len in 0..whole.len() {
        let read = read(whole[..len].to_vec());
        assert!(read.is_err() || read.is_ok_and(|packets| packets.len() < 2), "{len}");
    }
}

/// What tcpdump prints for a file, a line for each packet; `None` if it is not installed.
fn tcpdump(name: &str, bytes: &[u8]) -> Option<String> {
    let path = std::env::temp_dir().join(format!("nke-{name}-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let said = Command::new("tcpdump").args(["-n", "-tt", "--nano", "-r"]).arg(&path).output();
    std::fs::remove_file(&path).unwrap();
    match said {
        Ok(said) => Some(String::from_utf8(said.stdout).unwrap()),
        Err(_) => {
            println!("skipped: needs tcpdump");
            None
        }
    }
}

#[test]
fn tcpdump_reads_what_was_written() {
    let packets = vec![vec![0; 60]; 5];
    let mut classic = Vec::new();
    let mut writer = ClassicWriter::new(&mut classic).unwrap();
    packets.iter().for_each(|p| writer.write(TIME, p).unwrap());
    for (name, bytes) in [("pcapng", written(&packets)), ("pcap", classic)] {
        let Some(said) = tcpdump(name, &bytes) else { return };
        assert_eq!(said.lines().count(), 5, "{said}");
        assert!(said.lines().all(|l| l.starts_with("1700000000.123456789 ")), "{said}");
    }
}

#[test]
fn tcpdump_reads_raw_ip_cut_to_its_snaplen() {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out).unwrap();
    let interface = writer.add_interface_of("ip", LinkType::Raw, NonZeroU32::new(28)).unwrap();
    let header = [0x45, 0, 0, 60, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
    let udp = [0x30, 0x39, 0, 9, 0, 40, 0, 0];
    let packet = Packet {
        interface,
        ts_ns: TIME,
        pieces: &[&header, &udp, &[7; 32]],
        direction: Some(Direction::Inbound),
        comment: Some("no_route"),
    };
    writer.write(&packet).unwrap();
    let Some(said) = tcpdump("raw", &out) else { return };
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("192.0.2.1.12345 > 198.51.100.2.9: "), "{said}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read(bytes);
    }

    /// Behind a good header: arbitrary bytes alone hardly ever get past the first.
    #[test]
    fn arbitrary_blocks_never_panic(
        big: bool,
        classic: bool,
        blocks in prop::collection::vec((0u32..12, prop::collection::vec(any::<u8>(), 0..80)), 0..8),
        cut in 0usize..8,
    ) {
        let by = By { big };
        let mut bytes = if classic { by.classic(US, 1) } else { [by.section(), by.interface(1, 9, &[])].concat() };
        for (kind, body) in blocks {
            bytes.extend(by.block(kind, &body));
        }
        bytes.truncate(bytes.len() - cut);
        let _ = read(bytes);
    }

    #[test]
    fn damaged_files_never_panic(at in 0usize..500, byte in any::<u8>()) {
        let mut bytes = written(&[vec![1; 60], vec![2; 200]]);
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = read(bytes);
    }
}
