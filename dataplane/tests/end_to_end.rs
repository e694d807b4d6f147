//! The `nke` command on real AF_XDP over veth, in namespaces of the test's own. Needs root, `ip`, `ping` and `iperf3`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod common;

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use af_xdp::program::{AttachMode, LiveSource, Rate, Sink};
use nke_dataplane::control::Client;
use nke_dataplane::lab::{Lab, Veth, ip};
use nke_dataplane::netdev;
use serde_json::{Value, json};

use common::*;

/// left -- n0 [nke] n1 -- right, with addresses 10.0.0.1 and 10.0.0.2 at the outer ends.
struct Net {
    lab: Lab,
    left: String,
    middle: String,
    right: String,
}

impl Net {
    fn new(veth: Veth) -> Net {
        let mut lab = Lab::new().unwrap();
        let [left, middle, right] = ["left", "nke", "right"].map(|role| lab.netns(role).unwrap());
        lab.veth((&left, "l0"), (&middle, "n0"), veth).unwrap();
        lab.veth((&middle, "n1"), (&right, "r0"), veth).unwrap();
        lab.address(&left, "l0", "10.0.0.1/24").unwrap();
        lab.address(&right, "r0", "10.0.0.2/24").unwrap();
        Net { lab, left, middle, right }
    }

    /// `ping` from left to right; how many of `count` were answered.
    fn ping(&self, count: u32, more: &[&str]) -> u32 {
        let count = count.to_string();
        let mut command = self.lab.command(&self.left, "ping");
        let out = command
            .args(["-n", "-i", "0.05", "-W", "2", "-c", &count])
            .args(more)
            .arg("10.0.0.2")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words.iter().position(|w| w.starts_with("received")).unwrap_or_else(|| panic!("{text}"));
        words[at - 1].parse().unwrap()
    }

    /// An `iperf3` server at the right end, for one test.
    fn iperf_server(&self) -> Running {
        let mut command = self.lab.command(&self.right, "iperf3");
        let child = command.args(["-s", "-1"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Running(child);
        until("iperf3 listens", || {
            let listens = netdev::in_netns(Some(&self.right), || {
                fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default()
                    + &fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default()
            });
            // Port 5201, state LISTEN.
            listens.unwrap().lines().any(|l| l.contains(":1451 ") && l.contains(" 0A ")).then_some(())
        });
        server
    }

    fn iperf_client(&self, more: &[&str]) -> Command {
        let mut command = self.lab.command(&self.left, "iperf3");
        command.args(["-c", "10.0.0.2", "-J"]).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn received_bits(out: &Output) -> f64 {
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(report["error"].is_null(), "{}", report["error"]);
    let end = &report["end"];
    let sum = if end["sum_received"].is_null() { &end["sum"] } else { &end["sum_received"] };
    sum["bits_per_second"].as_f64().unwrap()
}

/// A wire between n0 and n1 of `net`.
fn wire(net: &Net, head: &str, port: &str) -> Nke {
    let ns = &net.middle;
    let section = |name: &str, device: &str| {
        format!(
            "[[port]]\nname = \"{name}\"\nkind = \"af_xdp\"\ndevice = \"{device}\"\nnetns = \"{ns}\"\n{port}\n"
        )
    };
    Nke::start(&format!(
        "{head}\n{}{}[[wire]]\na = \"a\"\nb = \"b\"\n",
        section("a", "n0"),
        section("b", "n1")
    ))
}

#[test]
fn ping_and_iperf_through_a_wire_native_and_generic() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    for mode in ["native", "generic"] {
        let net = Net::new(Veth::default());
        let nke = wire(&net, "", &format!("xdp = \"{mode}\""));
        assert_eq!(nke.show("interfaces")[0]["xdp"], mode);
        assert_eq!(net.ping(20, &[]), 20);
        for more in [&["-t", "1"][..], &["-t", "1", "-u", "-b", "20M"]] {
            let _server = net.iperf_server();
            let out = net.iperf_client(more).output().unwrap();
            assert!(received_bits(&out) > 1e6, "{more:?}");
        }
        let rows = nke.show("interfaces");
        for (here, there) in [(0, 1), (1, 0)] {
            let [sent, received] =
                [&rows[there]["tx_packets"], &rows[here]["rx_packets"]].map(|n| n.as_u64().unwrap());
            assert!(sent >= 100 && sent == received, "{rows:#}");
        }
        assert!(nke.drops().iter().all(|(_, n)| *n == 0));
        nke.stop();
        assert!(!has_xdp(&net.middle, "n0") && !has_xdp(&net.middle, "n1"));
    }
}

#[test]
fn vlan_and_qinq_pass_unchanged() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth::default());
    let nke = wire(&net, "", "");
    let sink = Sink::load().unwrap();
    let _link =
        netdev::in_netns(Some(&net.right), || sink.attach("r0", AttachMode::Native).unwrap()).unwrap();
    let mut bytes = 0;
    for (tags, expression) in [
        (&[0x81, 0, 0, 5][..], "vlan 5"),
        (&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5], "vlan 7 and vlan 5"),
        (&[0x88, 0xb5], "ether proto 0x88b5"),
    ] {
        let args =
            json!({ "kind": "count", "port": "b", "direction": "output", "args": { "match": expression } });
        let id = nke.call("attach", args)["id"].clone();
        let mut frame = vec![2; 12];
        frame.extend(tags);
        frame.extend([0x08, 0, 0x45]);
        frame.resize(100 + tags.len(), 0);
        bytes += 500 * frame.len() as u64;
        netdev::in_netns(Some(&net.left), || {
            LiveSource::new("l0", &frame, 1).unwrap().run(500, 16, Rate::PerSecond(50_000)).unwrap();
        })
        .unwrap();
        let figures = until("500 frames were counted", || {
            let rows = nke.show("filters");
            let figures = rows[0]["figures"].as_str().unwrap().to_owned();
            figures.contains("output_packets=500").then_some(figures)
        });
        assert!(figures.contains("input_packets=0"));
        nke.call("detach", json!({ "id": id }));
    }
    until("all frames arrived", || (sink.counters().unwrap().packets == 1500).then_some(()));
    assert_eq!(sink.counters().unwrap().bytes, bytes, "tags included");
}

#[test]
fn jumbo_frames_cross_in_several_buffers() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth { mtu: 9000, queues: 1 });
    let nke = wire(&net, "[pool]\nframes = 16384\n", "jumbo = true");
    // 8972 + 8 + 20 = 9000, not to be fragmented.
    assert_eq!(net.ping(20, &["-s", "8972", "-M", "do"]), 20);
    let _server = net.iperf_server();
    assert!(received_bits(&net.iperf_client(&["-t", "1"]).output().unwrap()) > 1e6);
    assert!(nke.drops().iter().all(|(_, n)| *n == 0), "{:?}", nke.drops());
    nke.stop();
}

#[test]
fn four_queues_on_two_workers() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth { mtu: 1500, queues: 4 });
    let cores = if std::thread::available_parallelism().unwrap().get() > 1 { "[0, 1]" } else { "[0]" };
    let head = format!("cores = {cores}\nmode = \"adaptive\"\n[pool]\nframes = 32768\n");
    let nke = wire(&net, &head, "queues = 4\nrx_ring = 1024\ntx_ring = 1024");
    assert_eq!(net.ping(20, &[]), 20);
    let _server = net.iperf_server();
    assert!(received_bits(&net.iperf_client(&["-t", "2", "-P", "8"]).output().unwrap()) > 1e6);
    let workers = nke.show("workers");
    for row in workers.as_array().unwrap() {
        assert!(row["rx_packets"].as_u64().unwrap() > 0, "every worker had traffic: {workers:#}");
    }
    nke.stop();
}

#[test]
fn a_thousand_attaches_and_detaches_under_iperf() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth::default());
    let nke = wire(&net, "", "");
    let _server = net.iperf_server();
    let mut client = Running(net.iperf_client(&["-t", "8", "-P", "2"]).spawn().unwrap());
    let mut control = Client::connect(&nke.directory.join("s")).unwrap();
    let (begin, mut cycles) = (Instant::now(), 0);
    while cycles < 1000 {
        let port = ["a", "b"][cycles % 2];
        let args = json!({ "kind": "drop", "port": port, "args": { "match": "udp port 9" } });
        let id = control.call("attach", args).unwrap()["id"].clone();
        let report = control.call("detach", json!({ "id": id })).unwrap();
        assert_eq!((&report["dropped"], &report["lost_meanwhile"]), (&json!(0), &json!(0)), "{report}");
        cycles += 1;
    }
    println!("1000 cycles took {:?}", begin.elapsed());
    let mut stdout = String::new();
    client.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let status = client.0.wait().unwrap();
    let out = Output { status, stdout: stdout.into_bytes(), stderr: Vec::new() };
    assert!(received_bits(&out) > 1e6, "the connections lived");
    assert!(nke.show("filters").as_array().unwrap().is_empty());
    let ledger = nke.show("ledger");
    let attached = ledger.as_array().unwrap().iter().filter(|r| r["kind"] == "attachment").count();
    assert_eq!(attached, 0);
    nke.stop();
}

#[test]
fn drop_mirror_and_the_tables_by_command() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth::default());
    let nke = wire(&net, "", "");
    let file = nke.directory.join("copy.pcapng");
    let arg = format!("file={}", file.display());
    let out = nke.cli(&[
        "attach",
        "mirror",
        "--port",
        "a",
        "--direction",
        "input",
        "--arg",
        &arg,
        "--arg",
        "match=icmp",
    ]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(net.ping(10, &[]), 10);
    let out = nke.cli(&[
        "attach",
        "drop",
        "--port",
        "b",
        "--direction",
        "output",
        "--arg",
        "match=icmp",
        "--arg",
        "reason=no-ping",
        "--json",
    ]);
    let id = serde_json::from_slice::<Value>(&out.stdout).unwrap()["id"].to_string();
    assert_eq!(net.ping(3, &[]), 0);
    assert!(nke.drops().contains(&("drop:no-ping".into(), 3)), "{:?}", nke.drops());
    let out = nke.cli(&["detach", &id, "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&out.stdout).unwrap()["dropped"], 3);
    assert_eq!(net.ping(3, &[]), 3);
    for what in ["interfaces", "filters", "workers", "drops", "ledger"] {
        let out = nke.cli(&["show", what]);
        assert!(out.status.success() && !out.stdout.is_empty(), "{what}");
        let out = nke.cli(&["show", what, "--json"]);
        assert!(serde_json::from_slice::<Value>(&out.stdout).unwrap().is_array(), "{what}");
    }
    let out = nke.cli(&["attach", "drop", "--port", "c"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("NKE-EXT-007"));
    // The mirror's file is whole once the filter is gone.
    assert!(nke.cli(&["detach", "1"]).status.success());
    let mut reader = nke_dataplane::pcapfile::Reader::open(&file).unwrap();
    let mut copies = 0;
    while reader.next_record().unwrap().is_some() {
        copies += 1;
    }
    assert_eq!(copies, 16, "requests of three pings, dropped later or not");
    nke.stop();
}

#[test]
fn a_device_that_vanishes_and_comes_back() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth::default());
    let nke = wire(&net, "", "");
    assert_eq!(net.ping(5, &[]), 5);
    ip(&["-n", &net.middle, "link", "del", "n1"]).unwrap();
    until("the loss is seen", || (nke.show("interfaces")[1]["state"] == "gone").then_some(()));
    // The other port goes on: its packets are counted as dropped, by name.
    net.ping(3, &["-W", "1"]);
    assert_eq!(nke.show("interfaces")[0]["state"], "up");
    net.lab.veth((&net.middle, "n1"), (&net.right, "r0"), Veth::default()).unwrap();
    net.lab.address(&net.right, "r0", "10.0.0.2/24").unwrap();
    until("it is back", || (nke.show("interfaces")[1]["state"] == "up").then_some(()));
    // The neighbour has another link-level address now.
    ip(&["-n", &net.left, "neigh", "flush", "all"]).unwrap();
    assert_eq!(net.ping(5, &[]), 5);
    nke.stop();
}

#[test]
fn a_device_that_goes_down_and_up() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth::default());
    let nke = wire(&net, "", "");
    for _ in 0..20 {
        ip(&["-n", &net.middle, "link", "set", "n1", "down"]).unwrap();
        net.ping(1, &["-W", "0.02"]);
        ip(&["-n", &net.middle, "link", "set", "n1", "up"]).unwrap();
    }
    ip(&["-n", &net.middle, "link", "set", "n1", "down"]).unwrap();
    until("down is seen", || (nke.show("interfaces")[1]["state"] == "down").then_some(()));
    ip(&["-n", &net.middle, "link", "set", "n1", "up"]).unwrap();
    until("up is seen", || (nke.show("interfaces")[1]["state"] == "up").then_some(()));
    until("traffic goes on", || (net.ping(2, &[]) == 2).then_some(()));
    nke.stop();
}

#[test]
fn after_sigkill_the_kernel_carries_on() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(Veth::default());
    for words in
        ["link add br0 type bridge", "link set br0 up", "link set n0 master br0", "link set n1 master br0"]
    {
        let mut all = vec!["-n", &net.middle];
        all.extend(words.split(' '));
        ip(&all).unwrap();
    }
    let mut nke = wire(&net, "", "");
    assert_eq!(net.ping(5, &[]), 5);
    let seen = nke.show("interfaces")[0]["rx_packets"].as_u64().unwrap();
    assert!(seen >= 5, "NKE had them, not the bridge");
    // A second instance finds the queue taken, and says so.
    let second = Nke::command(
        &format!("[[port]]\nname = \"a\"\nkind = \"af_xdp\"\ndevice = \"n0\"\nnetns = \"{}\"\n", net.middle),
        &Nke::directory(),
    )
    .output()
    .unwrap();
    assert_eq!(second.status.code(), Some(6), "{}", String::from_utf8_lossy(&second.stderr));
    nke.process.0.kill().unwrap();
    nke.process.0.wait().unwrap();
    until("no program is left", || {
        (!has_xdp(&net.middle, "n0") && !has_xdp(&net.middle, "n1")).then_some(())
    });
    until("the bridge carries on", || (net.ping(1, &[]) == 1).then_some(()));
    // And NKE starts again over the stale socket.
    drop(nke);
    let nke = wire(&net, "", "");
    assert_eq!(net.ping(5, &[]), 5);
    nke.stop();
}

#[test]
fn a_killed_demo_is_swept_by_the_next_and_an_interrupted_one_cleans_up() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let namespaces_of = |pid: u32| {
        let names =
            fs::read_dir("/run/netns").unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        names.filter(|n| n.starts_with(&format!("nke-lab-{pid}-"))).count()
    };
    let demo = |seconds: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nke"));
        command
            .args(["demo", "--veth", "--json", "--seconds", seconds])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut killed = Running(demo("60"));
    let pid = killed.0.id();
    until("the demo's namespaces", || (namespaces_of(pid) == 3).then_some(()));
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert_eq!(namespaces_of(pid), 3, "nobody could remove them");
    let next = demo("1").wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&next.stdout).unwrap();
    assert_eq!((&report["lost"], &report["ledger"]["outstanding"]), (&json!(0), &json!(0)), "{report:#}");
    assert_eq!(report["pool"]["free_after"], report["pool"]["capacity"]);
    assert_eq!(namespaces_of(pid), 0, "swept");
    let interrupted = demo("60");
    let pid = interrupted.id();
    until("the demo's namespaces", || (namespaces_of(pid) == 3).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
    interrupted.wait_with_output().unwrap();
    assert_eq!(namespaces_of(pid), 0, "cleaned up");
}

#[test]
fn exit_codes_and_ids() {
    let run = |config: &str| {
        let directory = Nke::directory();
        let out = Nke::command(config, &directory).output().unwrap();
        fs::remove_dir_all(&directory).unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, said) = run("burst = 99\n");
    assert!(code == 3 && said.contains("NKE-CFG-003") && said.contains("nke.toml:3:9"), "{code}: {said}");
    let nke =
        |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_nke")).args(words).output().unwrap().status.code();
    assert_eq!(nke(&["--socket", "/nonexistent/s", "show", "workers"]), Some(7));
    assert_eq!(nke(&["run", "-c", "/nonexistent/nke.toml"]), Some(3));
    assert_eq!(nke(&["frobnicate"]), Some(2));
    assert_eq!(nke(&["explain", "NKE-CFG-001"]), Some(0));
    assert_eq!(nke(&["explain", "NKE-NOT-ONE"]), Some(2));
    assert_eq!(nke(&["doctor", "nowhere0"]), Some(5));
    if able(&["ping", "iperf3"]) {
        let (code, said) = run("[[port]]\nname = \"a\"\nkind = \"af_xdp\"\ndevice = \"nowhere0\"\n");
        assert!(code == 5 && said.contains("NKE-DEV-001"), "{code}: {said}");
    }
}
