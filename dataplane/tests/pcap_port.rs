//! A capture file through a wire into another capture file.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fs;
use std::time::{Duration, Instant};

use nke_dataplane::pcapfile::{Packet, Reader, Writer};
use nke_dataplane::port::pcap::PcapQueue;
use nke_dataplane::runtime::{Builder, Settings};
use nke_mbuf::{Owner, Pool, PoolConfig, Region};

#[test]
fn replayed_and_recorded_packets_are_the_same() {
    let directory = std::env::temp_dir().join(format!("nke-pcap-port-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let (from, to) = (directory.join("in.pcapng"), directory.join("out.pcapng"));
    let packets: Vec<Vec<u8>> = (0..1000usize).map(|n| vec![n as u8; 14 + n * 97 % 8990]).collect();
    let mut writer = Writer::create(&from).unwrap();
    let interface = writer.add_interface("x").unwrap();
    for data in &packets {
        let pieces = &[&data[..]][..];
        writer.write(&Packet { interface, ts_ns: 0, pieces, direction: None, comment: None }).unwrap();
    }
    writer.flush().unwrap();

    let pool = Pool::new(Region::heap(2048 * 2048), &PoolConfig::default()).unwrap();
    let mut builder = Builder::new(pool.clone(), Settings::default());
    let (a, b) = (builder.plain_interface("a", "pcap", 0), builder.plain_interface("b", "pcap", 0));
    let replay = PcapQueue::open(Some(&from), None, false, 64 << 20).unwrap();
    let record = PcapQueue::open(None, Some(&to), false, 0).unwrap();
    let ends = (builder.queue(a, 0, Box::new(replay)), builder.queue(b, 0, Box::new(record)));
    builder.wire(ends.0, ends.1);
    let mut runtime = builder.start().unwrap();
    runtime.go();
    let shared = runtime.shared().clone();
    let end = Instant::now() + Duration::from_secs(20);
    while shared.workers[0].interfaces[1].tx_packets.get() < 1000 {
        assert!(Instant::now() < end, "1000 packets are on their way");
        std::thread::yield_now();
    }
    let account = runtime.stop();
    assert_eq!((account.unwanted_drops, account.outstanding), (0, 0));
    assert_eq!(pool.census().of(Owner::FREE), pool.capacity());
    let mut reader = Reader::open(&to).unwrap();
    for data in &packets {
        assert_eq!(&reader.next_record().unwrap().unwrap().data, data);
    }
    assert!(reader.next_record().unwrap().is_none());
    let too_large = PcapQueue::open(Some(&from), None, false, 1000).err().unwrap();
    assert!(too_large.to_string().contains("1000"));
    fs::remove_dir_all(&directory).unwrap();
}
