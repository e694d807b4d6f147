//! Frames that once were somebody's crash, and a hundred thousand made of them by chance: through the whole router, each
//! accounted for.

use std::path::Path;

use nke_dataplane::inet::RouteTo;
use nke_dataplane::pcapfile::{PcapError, Reader};
use nke_mbuf::Flags;

use crate::bed::*;

/// The saved frames of the header views' corpus: hexadecimal digits, `#` to the end of the line is a comment.
fn saved() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mbuf/corpus/wire");
    let mut frames: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "hex"))
        .collect();
    frames.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let digits: String = text.lines().map(|line| line.split('#').next().unwrap()).collect();
        let digits: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    };
    frames.iter().map(read).collect()
}

/// Good frames of each sort the router answers, forwards or learns from, so that chance has more to spoil.
fn good() -> Vec<Vec<u8>> {
    let mut echo =
        vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 192, 0, 2, 9, 192, 0, 2, 1, 8, 0, 0, 0, 0, 1, 0, 1];
    fix_ipv4(&mut echo);
    let mut fragment = udp(v4("192.0.2.9").into(), v4("192.0.2.1").into(), 9, &[7; 64]);
    fragment[6] = 0x20;
    fix_ipv4(&mut fragment);
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(HOST[0].0);
    arp.extend([192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    let v6_to = |to| udp(v6("2001:db8:a::9").into(), v6(to).into(), 9, b"payload");
    vec![
        frame(
            MAC[0],
            HOST[0],
            0x0800,
            &udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, b"payload"),
        ),
        frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4("192.0.2.1").into(), 9, b"payload")),
        frame(MAC[0], HOST[0], 0x0800, &echo),
        frame(MAC[0], HOST[0], 0x0800, &fragment),
        frame(MAC[0], HOST[0], 0x86dd, &v6_to("2001:db8:b::9")),
        frame(MAC[0], HOST[0], 0x86dd, &v6_to("2001:db8:a::1")),
        frame(MAC[0], HOST[0], 0x0806, &arp),
    ]
}

/// xorshift64*: the same frames in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % n
    }
}

/// Spoils some bytes, cuts or lengthens the frame, and mostly addresses it to the router and mends its IPv4 checksum, to get
/// past the first checks.
fn spoil(frame: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..chance.below(4) {
        let at = 12 + chance.below(frame.len().saturating_sub(12).max(1));
        if let Some(byte) = frame.get_mut(at) {
            *byte = match chance.below(4) {
                0 => 0,
                1 => 0xff,
                2 => *byte ^ (1 << chance.below(8)),
                _ => chance.below(256) as u8,
            };
        }
    }
    match chance.below(8) {
        0 => frame.truncate(chance.below(frame.len() + 1).max(1)),
        1 => frame.extend((0..chance.below(200)).map(|i| i as u8)),
        _ => (),
    }
    if chance.below(8) != 0 && frame.len() >= 6 {
        frame[..6].copy_from_slice(&MAC[0].0);
    }
    if chance.below(8) != 0 && frame.len() >= 34 && frame[12..14] == [8, 0] {
        fix_ipv4(&mut frame[14..]);
    }
}

/// Sends `frames` and takes what the router sends meanwhile; then every frame must be home: no fragments or packets for
/// silent neighbours are kept for ever.
fn replay(workers: usize, frames: impl Iterator<Item = Vec<u8>>) {
    let bed = Bed::with(workers);
    bed.neighbor(0, "192.0.2.9");
    bed.neighbor(1, "198.51.100.9");
    bed.neighbor(1, "2001:db8:b::9");
    bed.change("10.0.0.0/8", Some(RouteTo::Blackhole));
    bed.route("0.0.0.0/0", Some("198.51.100.9"), None);
    bed.route("::/0", Some("2001:db8:b::9"), None);
    let (mut sent, mut received) = (0u64, 0u64);
    let mut drain = || {
        for end in &bed.ends {
            while let Some(mbuf) = end.recv() {
                assert!(mbuf.len() >= 14 && mbuf.len() <= 1514, "{} bytes", mbuf.len());
                assert_eq!(mbuf.flags().0 & Flags::LOOP.0, 0, "what is for here stays here");
                received += 1;
            }
        }
    };
    for bytes in frames {
        if bytes.is_empty() || bytes.len() > 1600 {
            continue;
        }
        drain();
        let i = sent as usize % 2;
        let mut mbuf = bed.mbuf(&bytes);
        if bytes.starts_with(&MAC[0].0) {
            mbuf.data_mut()[..6].copy_from_slice(&MAC[i].0);
        }
        let mut waiting = Some(mbuf);
        until("the ring takes it", || {
            drain();
            match bed.ends[i].send(waiting.take().unwrap()) {
                Ok(()) => Some(()),
                Err(back) => {
                    waiting = Some(back);
                    None
                }
            }
        });
        sent += 1;
    }
    let shared = bed.runtime.shared().clone();
    let sum = |what: &dyn Fn(&nke_dataplane::status::WorkerStatus) -> u64| -> u64 {
        shared.workers.iter().map(|w| what(w)).sum()
    };
    let rx = || sum(&|w| w.interfaces.iter().map(|i| i.rx_packets.get()).sum());
    let tx = || sum(&|w| w.interfaces.iter().map(|i| i.tx_packets.get()).sum());
    until("all are received", || {
        drain();
        (rx() == sent).then_some(())
    });
    let drops: u64 = shared.drops().into_iter().map(|(.., n)| n).sum();
    let inet = |what: &dyn Fn(&nke_dataplane::status::InetCounters) -> u64| sum(&|w| what(&w.inet));
    println!(
        "{workers} workers: {sent} received, {} sent, {drops} dropped; {} forwarded, {} originated, {} delivered, {} \
         reassembled, {} ICMP errors ({} held back), {} neighbour packets ({} answered)",
        tx(),
        inet(&|i| i.forwarded.get()),
        inet(&|i| i.originated.get()),
        inet(&|i| i.delivered.get()),
        inet(&|i| i.reassembled.get()),
        inet(&|i| i.icmp_errors.get()),
        inet(&|i| i.icmp_suppressed.get()),
        inet(&|i| i.neighbor_packets.get()),
        inet(&|i| i.neighbor_answers.get()),
    );
    for (name, _, n) in shared.drops().into_iter().filter(|(.., n)| *n > 0) {
        println!("  {name} {n}");
    }
    assert_eq!(sum(&|w| w.extension_panics.get()), 0);
    assert!(drops > 0 && tx() > 0, "hostile frames are dropped, good ones are not");
    drain();
    // All home, nothing on the ledger.
    bed.finish();
}

#[test]
fn saved_frames_are_all_accounted_for() {
    let as_they_are = saved();
    assert!(as_they_are.len() >= 12, "is the corpus there?");
    let to_us = as_they_are.iter().cloned().map(|mut frame| {
        frame[..6].copy_from_slice(&MAC[0].0);
        frame
    });
    let cut = as_they_are.iter().flat_map(|frame| (1..frame.len()).map(|n| frame[..n].to_vec()));
    let frames: Vec<_> = as_they_are.iter().cloned().chain(to_us).chain(cut).chain(good()).collect();
    replay(1, frames.into_iter());
}

#[test]
fn a_hundred_thousand_spoilt_frames_are_all_accounted_for() {
    let seeds: Vec<_> = saved().into_iter().chain(good()).collect();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let frames = (0..100_000).map(move |_| {
        let mut frame = seeds[chance.below(seeds.len())].clone();
        spoil(&mut frame, &mut chance);
        frame
    });
    replay(2, frames);
}

/// The Ethernet frames of all captures in a folder, and how many files there are, of which some are of other links.
fn captured(folder: &Path) -> (Vec<Vec<u8>>, usize, usize) {
    let (mut frames, mut files, mut others) = (Vec::new(), 0, 0);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "pcap" || e == "pcapng")) {
        files += 1;
        let Ok(mut reader) = Reader::open(path) else { continue };
        loop {
            match reader.next_record() {
                Ok(Some(record)) => frames.push(record.data),
                Ok(None) => break,
                // Files are damaged on purpose, too: what came before counts.
                Err(e) => {
                    others += usize::from(matches!(e, PcapError::LinkType(_)));
                    break;
                }
            }
        }
    }
    (frames, files, others)
}

/// Captures that made other programs fall over: `NKE_CAPTURES` names a folder of them. Each frame goes through the router as it
/// is, then addressed to it, then with its IPv4 header made to fit as well.
#[test]
fn captures_are_all_accounted_for() {
    let Some(folder) = std::env::var_os("NKE_CAPTURES") else {
        println!("skipped: NKE_CAPTURES names no folder of capture files");
        return;
    };
    let (frames, files, others) = captured(Path::new(&folder));
    println!("{} frames of {files} files; {others} files are not Ethernet's", frames.len());
    assert!(!frames.is_empty(), "no Ethernet capture in {folder:?}");
    let addressed = |mut frame: Vec<u8>| {
        if frame.len() >= 6 {
            frame[..6].copy_from_slice(&MAC[0].0);
        }
        frame
    };
    let mended = move |frame| {
        let mut frame = addressed(frame);
        if frame.len() >= 34 && frame[12..14] == [8, 0] {
            let there = (frame.len() - 14) as u16;
            frame[14] = 0x40 | (frame[14] & 15).max(5);
            frame[16..18].copy_from_slice(&there.to_be_bytes());
            frame[22] = frame[22].max(2);
            fix_ipv4(&mut frame[14..]);
        }
        frame
    };
    let all: Vec<_> = frames
        .iter()
        .cloned()
        .chain(frames.iter().cloned().map(addressed))
        .chain(frames.iter().cloned().map(mended))
        .collect();
    for workers in [1, 2] {
        replay(workers, all.iter().cloned());
    }
}
