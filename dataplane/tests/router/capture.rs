//! The extension `capture` at every place, its files read back.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use nke_dataplane::control_handle::AttachSpec;
use nke_dataplane::fault::Fault;
use nke_dataplane::pcapfile::Reader;
use nke_dataplane::report::Figures;
use nke_filters::builtin::Capture;
use nke_filters::{ArgValue, Args, AttachId};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, OptionCode, PcapBlockOwned, PcapNGReader};

use crate::bed::*;

/// A router with the extension, and a directory of its own.
struct Rig {
    bed: Bed,
    dir: PathBuf,
}

impl Rig {
    fn new(name: &str) -> Rig {
        Rig::of(Bed::new(), name)
    }

    fn of(bed: Bed, name: &str) -> Rig {
        bed.neighbor(0, "192.0.2.9");
        bed.neighbor(1, "198.51.100.9");
        let control = bed.control();
        control.register(Arc::new(Capture)).unwrap().wait(WAIT).unwrap();
        control.register_ip(Arc::new(Capture)).unwrap().wait(WAIT).unwrap();
        control.register_probe(Arc::new(Capture)).unwrap().wait(WAIT).unwrap();
        let dir = std::env::temp_dir().join(format!("nke-capture-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Rig { bed, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn try_attach(&self, place: &str, file: &str, args: &[(&str, &str)]) -> Result<AttachId, Fault> {
        let file = self.file(file);
        let mut all = vec![("file", file.to_str().unwrap())];
        all.extend_from_slice(args);
        let value = |v: &str| ArgValue::Text(v.to_owned());
        let args = all.iter().map(|(name, v)| ((*name).to_owned(), value(v))).collect();
        let spec = AttachSpec { args: Args(args), ..AttachSpec::kind("capture", place) };
        self.bed.control().attach(spec).unwrap().wait(WAIT)
    }

    fn attach(&self, place: &str, file: &str, args: &[(&str, &str)]) -> AttachId {
        self.try_attach(place, file, args).unwrap()
    }

    fn detach(&self, id: AttachId) -> Figures {
        self.bed.control().detach(id).unwrap().wait(WAIT).unwrap().figures
    }

    fn send(&self, to: &str, port: u16) {
        let packet = udp(v4("192.0.2.9").into(), v4(to).into(), port, b"payload");
        self.bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    }

    fn finish(self) {
        self.bed.finish();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

const FORWARDED: &str = "198.51.100.9";
const OURS: &str = "192.0.2.1";

/// What a file says of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Noted {
    comment: String,
    /// 1: received, 2: sent.
    direction: Option<u32>,
    data: Vec<u8>,
    orig_len: u32,
}

/// The link type of a file, and its packets.
fn noted(file: &PathBuf) -> (i32, Vec<Noted>) {
    let mut reader = PcapNGReader::new(1 << 20, std::fs::File::open(file).unwrap()).unwrap();
    let (mut link_type, mut all) = (-1, Vec::new());
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match block {
                    PcapBlockOwned::NG(Block::InterfaceDescription(b)) => link_type = b.linktype.0,
                    PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
                        let option = |code| b.options.iter().find(|o| o.code == code);
                        let comment =
                            option(OptionCode::Comment).map(|o| o.value[..usize::from(o.len)].to_vec());
                        let flags = option(OptionCode(2))
                            .map(|o| u32::from_le_bytes(o.value[..4].try_into().unwrap()));
                        all.push(Noted {
                            comment: String::from_utf8(comment.unwrap_or_default()).unwrap(),
                            direction: flags,
                            data: b.data[..b.caplen as usize].to_vec(),
                            orig_len: b.origlen,
                        });
                    }
                    _ => (),
                }
                reader.consume(used);
            }
            Err(pcap_parser::PcapError::Eof) => return (link_type, all),
            Err(pcap_parser::PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Lines of `tcpdump -r`, if it is there.
fn tcpdump(file: &PathBuf) -> Option<usize> {
    let out = Command::new("tcpdump").args(["-n", "-r"]).arg(file).output().ok()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).lines().count())
}

fn comments(all: &[Noted]) -> Vec<(&str, Option<u32>)> {
    all.iter().map(|n| (n.comment.as_str(), n.direction)).collect()
}

#[test]
fn frames_of_an_interface_in_both_directions() {
    let rig = Rig::new("interface");
    let id = rig.attach("a", "f", &[("match", "udp port 9 or icmp")]);
    rig.send(OURS, 9);
    // Its answer.
    assert_eq!(rig.bed.next(0)[23], 1);
    rig.send(OURS, 10);
    rig.bed.next(0);
    let figures = rig.detach(id);
    let (link_type, all) = noted(&rig.file("f"));
    assert_eq!(link_type, 1);
    assert_eq!(comments(&all), [("input", Some(1)), ("output", Some(2)), ("output", Some(2))]);
    assert_eq!((figures["captured"], figures["missed"]), (3, 0));
    // The project's reader.
    let mut reader = Reader::open(&rig.file("f")).unwrap();
    let mut last = 0;
    for noted in &all {
        let record = reader.next_record().unwrap().unwrap();
        assert_eq!(record.data, noted.data);
        assert!(record.ts_ns > 1_600_000_000_000_000_000, "nanoseconds since 1970");
        assert!(record.ts_ns >= last);
        last = record.ts_ns;
    }
    assert_eq!(reader.next_record().unwrap(), None);
    assert!(matches!(tcpdump(&rig.file("f")), None | Some(3)));
    rig.finish();
}

#[test]
fn packets_at_every_hook_of_ip() {
    let rig = Rig::new("hooks");
    let id = rig.attach("ip", "f", &[]);
    rig.send(FORWARDED, 9);
    rig.bed.next(1);
    rig.send(OURS, 9);
    rig.bed.next(0);
    rig.detach(id);
    let (link_type, all) = noted(&rig.file("f"));
    assert_eq!(link_type, 101, "raw IP");
    let expected = [
        ("prerouting", Some(1)),
        ("forward", None),
        ("output", Some(2)),
        ("prerouting", Some(1)),
        ("input", Some(1)),
        ("output", Some(2)),
    ];
    assert_eq!(comments(&all), expected);
    assert!(all.iter().all(|n| n.data[0] == 0x45));
    assert_eq!((all[0].data[8], all[1].data[8]), (64, 63), "before and after a hop was taken off");
    assert!(matches!(tcpdump(&rig.file("f")), None | Some(6)));
    // Only what was asked for.
    let id = rig.attach("ip", "g", &[("hook", "forward"), ("match", "udp dst port 5 and ip")]);
    for port in [4, 5, 6] {
        rig.send(FORWARDED, port);
        rig.bed.next(1);
    }
    rig.detach(id);
    let (_, all) = noted(&rig.file("g"));
    assert_eq!(comments(&all), [("forward", None)]);
    assert_eq!(all[0].data[22..24], [0, 5]);
    // IPv6.
    let id = rig.attach("ip6", "h", &[("hook", "prerouting,input"), ("match", "ip6")]);
    let packet = udp(v6("2001:db8:a::9").into(), v6("2001:db8:a::1").into(), 9, b"");
    rig.bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &packet));
    until("it is seen twice", || {
        (rig.bed.control().figures(id).unwrap().wait(WAIT).unwrap()["captured"] == 2).then_some(())
    });
    rig.detach(id);
    let (_, all) = noted(&rig.file("h"));
    assert_eq!(comments(&all), [("prerouting", Some(1)), ("input", Some(1))]);
    assert_eq!(all[1].data, packet);
    rig.finish();
}

#[test]
fn drops_carry_their_reason() {
    let rig = Rig::new("drops");
    let id = rig.attach("path", "f", &[]);
    // By the core: no route, no protocol, a header that does not hold, a transport nobody takes.
    rig.send("203.0.113.1", 9);
    rig.bed.next(0);
    let lldp = frame(MAC[0], HOST[0], 0x88cc, &[7; 46]);
    rig.bed.send(0, &lldp);
    let mut bad = frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4(FORWARDED).into(), 9, b""));
    bad[24] ^= 1;
    rig.bed.send(0, &bad);
    rig.send(OURS, 9);
    rig.bed.next(0);
    // By a filter.
    let control = rig.bed.control();
    control.register(Arc::new(nke_filters::builtin::Drop)).unwrap().wait(WAIT).unwrap();
    let args = [("match", "udp port 99"), ("reason", "asked")];
    let args = args.map(|(n, v)| (n.to_owned(), ArgValue::Text(v.to_owned()))).into_iter().collect();
    let spec = AttachSpec { args: Args(args), ..AttachSpec::kind("drop", "a") };
    let dropper = control.attach(spec).unwrap().wait(WAIT).unwrap();
    rig.send(FORWARDED, 99);
    until("all are there", || {
        (rig.bed.control().figures(id).unwrap().wait(WAIT).unwrap()["captured"] == 5).then_some(())
    });
    control.detach(dropper).unwrap().wait(WAIT).unwrap();
    rig.detach(id);
    let (link_type, all) = noted(&rig.file("f"));
    assert_eq!(link_type, 1);
    let said: Vec<_> = all.iter().map(|n| n.comment.as_str()).collect();
    assert_eq!(
        said,
        ["drop no_route", "drop no_protocol", "drop ip_bad_checksum", "drop no_transport", "drop drop:asked"]
    );
    assert_eq!(all[0].data[..14], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0], "its link header is gone");
    assert_eq!((&all[1].data, &all[2].data), (&lldp, &bad), "frames as they came");
    assert_eq!(all[4].data[..12], [MAC[0].0, HOST[0].0].concat()[..]);
    assert!(matches!(tcpdump(&rig.file("f")), None | Some(5..)));
    rig.finish();
}

#[test]
fn a_full_transmit_ring_is_told_of() {
    let rig = Rig::new("full");
    let id = rig.attach("path", "f", &[("match", "udp port 9")]);
    // 256 fit into the ring that nobody empties.
    for _ in 0..300 {
        rig.send(FORWARDED, 9);
    }
    until("what does not fit is dropped", || (rig.bed.drops("tx_full") == 300 - 256).then_some(()));
    let figures = rig.detach(id);
    let (_, all) = noted(&rig.file("f"));
    assert_eq!(all.len(), 300 - 256);
    assert!(all.iter().all(|n| n.comment == "drop tx_full" && n.data[6..12] == MAC[1].0), "framed already");
    assert_eq!(figures["captured"], 300 - 256);
    rig.finish();
}

#[test]
fn limits_hold() {
    let rig = Rig::new("limits");
    let packets = rig.attach("ip", "packets", &[("hook", "output"), ("packets", "7")]);
    let bytes = rig.attach("ip", "bytes", &[("hook", "output"), ("bytes", "100")]);
    let snaplen = rig.attach("b", "snaplen", &[("snaplen", "20")]);
    for _ in 0..20 {
        rig.send(FORWARDED, 9);
        rig.bed.next(1);
    }
    let figures = |id| rig.bed.control().figures(id).unwrap().wait(WAIT).unwrap();
    until("seven are written", || (figures(packets)["complete"] == 1).then_some(()));
    assert_eq!(figures(bytes)["complete"], 1);
    let figures = rig.detach(packets);
    assert_eq!((figures["captured"], figures["missed"]), (7, 0));
    assert_eq!(noted(&rig.file("packets")).1.len(), 7);
    rig.detach(bytes);
    // 35 bytes each.
    assert_eq!(noted(&rig.file("bytes")).1.len(), 2);
    rig.detach(snaplen);
    let (_, all) = noted(&rig.file("snaplen"));
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|n| n.data.len() == 20 && n.orig_len == 49));
    assert!(matches!(tcpdump(&rig.file("snaplen")), None | Some(20)));
    rig.finish();
}

#[test]
fn files_that_are_there_stay_unless_asked_and_links_in_any_case() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new("files");
    std::fs::write(rig.file("there"), "mine").unwrap();
    std::os::unix::fs::symlink(rig.file("there"), rig.file("link")).unwrap();
    std::os::unix::fs::symlink(rig.file("nowhere"), rig.file("dangling")).unwrap();
    for (file, overwrite) in [
        ("there", "false"),
        ("link", "false"),
        ("link", "true"),
        ("dangling", "false"),
        ("dangling", "true"),
        (".", "true"),
    ] {
        let refused = rig.try_attach("a", file, &[("overwrite", overwrite)]);
        assert!(matches!(refused, Err(Fault::Create(_))), "{file} {overwrite}");
    }
    assert_eq!(std::fs::read(rig.file("there")).unwrap(), b"mine");
    assert!(!rig.file("nowhere").exists());
    let id = rig.attach("a", "there", &[("overwrite", "true")]);
    rig.detach(id);
    assert_eq!(noted(&rig.file("there")), (1, vec![]));
    let id = rig.attach("a", "new", &[]);
    assert_eq!(std::fs::metadata(rig.file("new")).unwrap().permissions().mode() & 0o777, 0o600);
    rig.detach(id);
    // What does not parse makes no file.
    assert!(rig.try_attach("a", "never", &[("match", "nonsense")]).is_err());
    assert!(rig.try_attach("ip", "never", &[("hook", "sideways")]).is_err());
    assert!(rig.try_attach("path", "never", &[("hook", "output")]).is_err());
    assert!(!rig.file("never").exists());
    rig.finish();
}

#[test]
fn captures_come_and_go_while_traffic_flows() {
    let rig = Rig::of(Bed::with(2), "flow");
    let stop = Arc::new(AtomicBool::new(false));
    let (mut sent, mut received, mut captured) = (0u64, 0u64, 0u64);
    std::thread::scope(|scope| {
        let traffic = {
            let (rig, stop) = (&rig, stop.clone());
            scope.spawn(move || {
                let (mut sent, mut received) = (0u64, 0u64);
                while !stop.load(SeqCst) || received < sent {
                    if !stop.load(SeqCst) && sent - received < 100 {
                        // Every other one has nowhere to go.
                        rig.send("203.0.113.1", 9);
                        rig.send(FORWARDED, 9);
                        sent += 1;
                    }
                    while rig.bed.ends[1].recv().is_some() {
                        received += 1;
                    }
                    while rig.bed.ends[0].recv().is_some() {}
                }
                (sent, received)
            })
        };
        for round in 0..20 {
            let ids = ["a", "ip", "path"].map(|place| {
                (
                    place,
                    rig.attach(
                        place,
                        &format!("{place}{round}"),
                        &[("packets", "100000"), ("snaplen", "64")],
                    ),
                )
            });
            std::thread::sleep(std::time::Duration::from_millis(2));
            for (place, id) in ids {
                let figures = rig.detach(id);
                let all = noted(&rig.file(&format!("{place}{round}"))).1;
                assert_eq!(all.len() as u64, figures["captured"], "the account is the file's");
                captured += figures["captured"];
            }
        }
        stop.store(true, SeqCst);
        (sent, received) = traffic.join().unwrap();
    });
    assert_eq!(sent, received, "captures cost no packet");
    assert!(captured > 0);
    rig.finish();
}
