use super::*;
use proptest::prelude::*;
use std::io::Cursor;

fn written(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out).unwrap();
    let interface = writer.add_interface("a").unwrap();
    for (i, data) in packets.iter().enumerate() {
        let (left, right) = data.split_at(data.len() / 2);
        let direction = (i % 2 == 0).then_some(Direction::Inbound);
        let comment = (i % 3 == 0).then_some("why not");
        let packet = Packet {
            interface,
            ts_ns: 1_700_000_000_123_456_789,
            pieces: &[left, right],
            direction,
            comment,
        };
        writer.write(&packet).unwrap();
    }
    writer.flush().unwrap();
    out
}

fn read(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, PcapError> {
    let mut reader = Reader::new(Cursor::new(bytes))?;
    let mut all = Vec::new();
    while let Some(record) = reader.next_record()? {
        all.push(record.data);
    }
    Ok(all)
}

#[test]
fn what_was_written_is_read() {
    let packets: Vec<Vec<u8>> = (0..300).map(|n| vec![n as u8; 1 + n * 31 % 9000]).collect();
    assert_eq!(read(written(&packets)).unwrap(), packets);
}

#[test]
fn classic_files_of_both_byte_orders() {
    for big in [false, true] {
        let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut bytes = Vec::new();
        bytes.extend(word(0xa1b2_c3d4));
        bytes.extend(half(2));
        bytes.extend(half(4));
        bytes.extend([word(0), word(0), word(65535), word(1)].concat());
        bytes.extend([word(1), word(2), word(3), word(60)].concat());
        bytes.extend(b"abc");
        let mut reader = Reader::new(Cursor::new(bytes)).unwrap();
        let record = reader.next_record().unwrap().unwrap();
        assert_eq!((record.data.as_slice(), record.orig_len), (&b"abc"[..], 60));
        assert!(reader.next_record().unwrap().is_none());
    }
}

#[test]
fn files_cut_off_anywhere_end_without_a_panic() {
    let whole = written(&[vec![1; 60], vec![2; 61]]);
    for len in 0..whole.len() {
        let read = read(whole[..len].to_vec());
        assert!(read.is_err() || read.is_ok_and(|packets| packets.len() < 2), "{len}");
    }
}

#[test]
fn tcpdump_reads_what_was_written() {
    let path = std::env::temp_dir().join(format!("nke-writer-{}.pcapng", std::process::id()));
    std::fs::write(&path, written(&vec![vec![0; 60]; 5])).unwrap();
    let said = std::process::Command::new("tcpdump").args(["-n", "-r"]).arg(&path).output();
    std::fs::remove_file(&path).unwrap();
    match said {
        Ok(said) => assert_eq!(String::from_utf8_lossy(&said.stdout).lines().count(), 5),
        Err(_) => println!("skipped: needs tcpdump"),
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
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
