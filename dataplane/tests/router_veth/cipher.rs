//! Two routers, and nothing in clear between them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nke_dataplane::lab::{Veth, ip};
use nke_dataplane::pcapfile;

use crate::common::*;
use crate::net::*;

/// left -- n0 [one] m0 -- w0 [bridge] w1 -- m1 [other] n1 -- right. The bridge stands for the segment between the two: what
/// passes there can be captured.
struct Two {
    net: Net,
    other: String,
    segment: String,
}

impl Two {
    fn new() -> Two {
        let mut net = Net::new(1500);
        let lab = &mut net.lab;
        let [other, segment] = ["other", "segment"].map(|role| lab.netns(role).unwrap());
        // 1500 bytes, and the 40 that the cipher adds.
        let wide = Veth { mtu: 1540, ..Veth::default() };
        lab.veth((&net.middle, "m0"), (&segment, "w0"), wide).unwrap();
        lab.veth((&segment, "w1"), (&other, "m1"), wide).unwrap();
        ip(&["-n", &net.middle, "link", "set", "n1", "netns", &other]).unwrap();
        ip(&["-n", &other, "link", "set", "n1", "up"]).unwrap();
        ip(&["-n", &segment, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]).unwrap();
        without_ipv6(&segment, &["br0", "w0", "w1"]);
        without_ipv6(&net.middle, &["m0"]);
        without_ipv6(&other, &["m1", "n1"]);
        for words in ["br0 mtu 1540 up", "w0 master br0", "w1 master br0"] {
            let mut all = vec!["-n", &segment, "link", "set"];
            all.extend(words.split(' '));
            ip(&all).unwrap();
        }
        Two { net, other, segment }
    }

    /// The router at one side: 1 is left.
    fn router(&self, side: u32, key: &Path) -> Nke {
        let (ns, inner, outer) =
            if side == 1 { (&self.net.middle, "n0", "m0") } else { (&self.other, "n1", "m1") };
        let far = 3 - side;
        let route = |to: String, via: String| format!("[[route]]\nto = \"{to}\"\nvia = \"{via}\"\n");
        Nke::start(&format!(
            "mode = \"adaptive\"\n[router]\n{}{}{}{}{}{}{}{}[[filter]]\nkind = \"cipher\"\nport = \"w\"\nargs = {{ key = \"{}\", id = {side} }}\n",
            port("h", inner, ns),
            port("w", outer, ns),
            address("h", &format!("10.0.{side}.1/24")),
            address("h", &format!("2001:db8:{side}::1/64")),
            address("w", &format!("10.0.9.{side}/24")),
            address("w", &format!("2001:db8:9::{side}/64")),
            route(format!("10.0.{far}.0/24"), format!("10.0.9.{far}")),
            route(format!("2001:db8:{far}::/64"), format!("2001:db8:9::{far}")),
            key.display(),
        ))
    }
}

fn key(directory: &Path, name: &str, digit: &str) -> std::path::PathBuf {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(name);
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path).unwrap();
    file.write_all(digit.repeat(64).as_bytes()).unwrap();
    path
}

#[test]
fn between_two_routers_only_cipher_frames_pass() {
    if !able(&["ping", "iperf3", "tcpdump"]) {
        return;
    }
    let two = Two::new();
    let net = &two.net;
    let directory = Nke::directory();
    let (right_key, wrong_key) = (key(&directory, "key", "a"), key(&directory, "wrong", "b"));
    let capture = directory.join("segment.pcap");
    let mut tcpdump = net.lab.command(&two.segment, "tcpdump");
    tcpdump
        .args(["-i", "w0", "-n", "-U", "--immediate-mode", "-Z", "root", "-s", "64", "-c", "100000", "-w"])
        .arg(&capture);
    let mut tcpdump = Running(tcpdump.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("tcpdump listens", || capture.metadata().is_ok_and(|m| m.len() > 0).then_some(()));

    let one = two.router(1, &right_key);
    let other = two.router(2, &right_key);
    for to in RIGHT {
        until("the way is known", || (net.ping(to, 1, &[]) == 1).then_some(()));
        assert_eq!(net.ping(to, 10, &[]), 10, "{to}");
        assert_eq!(net.ping(to, 3, &["-s", "1400"]), 3, "{to}: full packets");
        assert!(received_bits(&net.iperf(to, &["-b", "50M"])) > 1e6, "TCP to {to}");
    }
    other.stop();

    let other = two.router(2, &wrong_key);
    let before = dropped(&other, "cipher:auth");
    assert_eq!(net.ping(RIGHT[0], 5, &["-W", "1"]), 0, "another key");
    assert_eq!(ping(&net.lab, &net.right, LEFT[0], 5, &["-W", "1"]), 0, "nor back");
    assert!(dropped(&other, "cipher:auth") > before, "{:?}", other.drops());
    assert!(dropped(&one, "cipher:auth") > 0, "{:?}", one.drops());
    other.stop();
    one.stop();

    // It may have ended by itself, at its count.
    let _ = Command::new("kill").args(["-INT", &tcpdump.0.id().to_string()]).stderr(Stdio::null()).status();
    tcpdump.0.wait().unwrap();
    let mut reader = pcapfile::Reader::open(&capture).unwrap();
    let mut frames = 0;
    while let Some(record) = reader.next_record().unwrap() {
        assert_eq!(record.data[12..14], [0x88, 0xb5], "frame {frames}: {:02x?}", record.data);
        frames += 1;
    }
    println!("{frames} frames captured between the two");
    assert!(frames > 100, "{frames}");
    fs::remove_dir_all(&directory).unwrap();
}

fn dropped(nke: &Nke, reason: &str) -> u64 {
    nke.drops().into_iter().find(|(name, _)| name == reason).map_or(0, |(_, n)| n)
}
