//! A running dataplane changed by commands and by files, under traffic. Ports in memory: no privilege needed.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod common;

use std::fs;
use std::process::Output;

use common::*;
use nke_dataplane::assemble::assemble;
use nke_dataplane::config::Config;
use nke_dataplane::running::Running as Changes;
use nke_dataplane::views::View;
use serde_json::Value;

/// A source of 20,000 packets a second from 198.18.0.0/15 to 198.19.0.0/16, routed to a sink.
const BASE: &str = r#"mode = "adaptive"
[router]
[[port]]
name = "a"
kind = "memory"
role = "source"
to_mac = "02:4e:4b:45:00:00"
rate_pps = 20000
[[port]]
name = "b"
kind = "memory"
role = "sink"
[[address]]
port = "a"
address = "192.0.2.1/24"
[[address]]
port = "b"
address = "198.51.100.1/24"
[[neighbor]]
port = "b"
address = "198.51.100.9"
mac = "02:00:00:00:00:09"
[[neighbor]]
port = "b"
address = "198.51.100.10"
mac = "02:00:00:00:00:0a"
[[route]]
to = "198.19.0.0/16"
via = "198.51.100.9"
"#;

const COUNT: &str = "[[filter]]\nkind = \"count\"\nport = \"b\"\n";

fn acl(port: u16) -> String {
    format!(
        "[[filter]]\nkind = \"acl\"\nport = \"ip\"\nargs = {{ rule = \"deny udp from any to any port {port}\", default = \"permit\" }}\n"
    )
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

fn good(nke: &Nke, words: &[&str]) -> String {
    let out = nke.cli(words);
    assert!(out.status.success(), "{words:?}: {}", said(&out));
    said(&out)
}

fn refused(nke: &Nke, words: &[&str], id: &str) -> String {
    let out = nke.cli(words);
    assert!(!out.status.success() && said(&out).contains(id), "{words:?}: {}", said(&out));
    said(&out)
}

/// Packets that `b` sent.
fn arrived(nke: &Nke) -> u64 {
    let rows = nke.show("interfaces");
    rows.as_array().unwrap().iter().find(|row| row["name"] == "b").unwrap()["tx_packets"].as_u64().unwrap()
}

fn flows(nke: &Nke) {
    let before = arrived(nke);
    until("packets flow", || (arrived(nke) > before + 200).then_some(()));
}

/// All drops but those by a filter's decision.
fn lost(nke: &Nke) -> Vec<(String, u64)> {
    nke.drops().into_iter().filter(|(reason, n)| *n > 0 && !reason.contains(':')).collect()
}

fn filters(nke: &Nke) -> Vec<(u64, String)> {
    let row = |r: &Value| (r["id"].as_u64().unwrap(), r["kind"].as_str().unwrap().to_owned());
    nke.show("filters").as_array().unwrap().iter().map(row).collect()
}

#[test]
fn commands_change_what_runs_and_it_can_be_printed() {
    let nke = Nke::start(BASE);
    flows(&nke);
    good(&nke, &["route", "replace", "198.19.0.0/16", "--via", "198.51.100.10"]);
    good(&nke, &["route", "add", "203.0.113.0/24", "--kind", "blackhole"]);
    good(&nke, &["address", "add", "b", "2001:db8::1/64"]);
    good(&nke, &["neighbor", "add", "b", "2001:db8::9", "02:00:00:00:00:09"]);
    good(&nke, &["interface", "add", "loopback", "lo0"]);
    good(&nke, &["interface", "set", "lo0", "--mtu", "9000"]);
    good(&nke, &["address", "add", "lo0", "203.0.113.1/32"]);
    good(&nke, &["interface", "add", "vlan", "v", "--arg", "parent=b", "--arg", "tag=5"]);
    good(&nke, &["interface", "add", "vlan", "w", "--arg", "parent=v", "--arg", "tag=6"]);
    good(&nke, &["address", "add", "w", "10.0.0.1/24"]);
    let id = good(&nke, &["attach", "count", "--port", "lo0"]);
    assert!(id.contains("attached as"), "{id}");
    let routes = nke.show("routes").to_string();
    assert!(routes.contains("203.0.113.0/24") && routes.contains("2001:db8::"), "{routes}");
    let way = good(&nke, &["show", "routes", "--to", "198.19.3.4"]);
    assert!(way.contains("198.19.0.0/16") && way.contains("via 198.51.100.10 on b"), "{way}");
    assert!(good(&nke, &["show", "routes", "--to", "10.1.2.3"]).contains("nowhere"));
    refused(&nke, &["show", "drops", "--to", "10.1.2.3"], "NKE-CTL-BAD-REQUEST");
    assert!(good(&nke, &["show", "reassembly"]).contains("frag_timeout"));
    good(&nke, &["attach", "conntrack", "--port", "ip"]);
    flows(&nke);
    let tracked = nke.show("conntrack");
    let tracked = tracked.as_array().unwrap();
    assert!(tracked.len() >= 200, "256 flows: {tracked:?}");
    assert!(tracked[0]["dst"].as_str().unwrap().ends_with(":9") && tracked[0]["state"] == "opening");
    let (id, _) = filters(&nke).into_iter().find(|(_, kind)| kind == "conntrack").unwrap();
    good(&nke, &["detach", &id.to_string()]);
    // What was changed is the configuration, and makes the same again.
    let text = good(&nke, &["config", "show"]);
    let file = nke.directory.join("shown.toml");
    fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(good(&nke, &["config", "apply", "-c", file]), "nothing to change\n");
    assert!(text.contains("mtu = 9000") && text.contains("kind = \"count\""), "{text}");
    // Several next routers: flows are spread over both.
    good(&nke, &["route", "replace", "198.19.0.0/16", "--via", "198.51.100.9, 198.51.100.10"]);
    let way = good(&nke, &["show", "routes", "--to", "198.19.3.4"]);
    assert!(way.contains("via 198.51.100.9, via 198.51.100.10"), "{way}");
    flows(&nke);
    refused(&nke, &["route", "replace", "198.19.0.0/16", "--via", "198.51.100.9,2001:db8::9"], "NKE-CFG-003");
    let text = good(&nke, &["config", "show"]);
    // Nothing that cannot be is done.
    refused(&nke, &["route", "add", "203.0.113.0/24", "--kind", "prohibit"], "NKE-CFG-005");
    refused(&nke, &["route", "del", "203.0.113.0/25"], "NKE-CFG-004");
    refused(&nke, &["route", "add", "203.0.113.0/25"], "NKE-CFG-007");
    refused(&nke, &["route", "add", "203.0.113.0/25", "--via", "10.9.0.1"], "NKE-NET-002");
    refused(&nke, &["address", "add", "c", "10.8.0.1/24"], "NKE-CFG-004");
    refused(&nke, &["interface", "add", "vlan", "x", "--arg", "parent=nowhere", "--arg", "tag=1"], "nowhere");
    refused(&nke, &["interface", "set", "nowhere", "--up"], "nowhere");
    assert_eq!(good(&nke, &["config", "show"]), text, "what failed is not in it");
    // And back, the interface with all that is on it.
    for words in [
        &["interface", "del", "v"][..],
        &["interface", "del", "lo0"],
        &["neighbor", "del", "b", "2001:DB8::9"],
        &["address", "del", "b", "2001:db8::1/64"],
        &["route", "del", "203.0.113.0/24"],
        &["route", "replace", "198.19.0.0/16", "--via", "198.51.100.9"],
    ] {
        good(&nke, words);
    }
    assert_eq!(filters(&nke), []);
    let base = nke.directory.join("nke.toml");
    assert_eq!(good(&nke, &["config", "diff", base.to_str().unwrap()]), "nothing to change\n");
    flows(&nke);
    assert_eq!(lost(&nke), [], "no packet was lost to any of it");
    nke.stop();
}

#[test]
fn a_file_is_applied_under_traffic_and_what_stays_is_not_touched() {
    let nke = Nke::start(&format!("{BASE}{COUNT}{}", acl(7)));
    let [(count, _), (first, _)] = filters(&nke)[..] else { panic!() };
    let apply = |body: &str| {
        let file = nke.directory.join("next.toml");
        fs::write(&file, format!("[runtime]\n{body}")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    flows(&nke);
    for round in 0..20 {
        // Another rule, another next hop, one more interface: and back.
        let odd = round % 2 == 0;
        let mut next = format!("{BASE}{COUNT}{}", acl(if odd { 8 } else { 7 }));
        if odd {
            next = next.replace("via = \"198.51.100.9\"", "via = \"198.51.100.10\"");
            next += "[[interface]]\nname = \"v\"\nkind = \"vlan\"\nargs = { parent = \"b\", tag = 5 }\n";
            next += "[[address]]\nport = \"v\"\naddress = \"10.0.0.1/24\"\n";
            next += "[[route]]\nto = \"10.1.0.0/16\"\nvia = \"10.0.0.9\"\n";
        }
        let file = apply(&next);
        let dry = good(&nke, &["config", "apply", "-c", &file, "--dry-run"]);
        assert_eq!(good(&nke, &["config", "apply", "-c", &file]), dry);
        assert!(dry.contains("interface v"), "{dry}");
        assert_eq!(good(&nke, &["config", "apply", "-c", &file]), "nothing to change\n");
        let now = filters(&nke);
        assert_eq!((now.len(), now[0].0), (2, count), "the first stays, the second is another");
        assert_ne!(now[1].0, first);
        flows(&nke);
    }
    // The rule holds as soon as the command returns.
    let stop = apply(&format!("{BASE}{COUNT}{}", acl(9)));
    good(&nke, &["config", "apply", "-c", &stop]);
    let before = arrived(&nke);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(arrived(&nke), before, "port 9 is where all packets go");
    assert_eq!(lost(&nke), [], "no packet was lost to any of it");
    // What is fixed is refused as a whole.
    let fixed = apply(&format!("{}[pool]\nframes = 4096\n", BASE.replace("20000", "10000")));
    let why = refused(&nke, &["config", "apply", "-c", &fixed], "NKE-CFG-008");
    assert!(why.contains("frames") && why.contains("rate_pps"), "{why}");
    assert_eq!(filters(&nke).len(), 2, "nothing of it was done");
    // What fails on the way says how far it came, and can be mended.
    let half = apply(&format!("{BASE}{COUNT}[[route]]\nto = \"10.2.0.0/16\"\nvia = \"10.9.9.9\"\n"));
    let why = refused(&nke, &["config", "apply", "-c", &half], "NKE-CFG-009");
    assert!(why.contains("1 detached") && why.contains("10.2.0.0/16"), "{why}");
    flows(&nke);
    let mended = apply(&format!("{BASE}{COUNT}"));
    assert_eq!(good(&nke, &["config", "apply", "-c", &mended]), "nothing to change\n");
    nke.stop();
}

#[test]
fn a_filter_that_left_by_itself_stays_away() {
    let text = format!("[runtime]\n{BASE}{COUNT}[[interface]]\nname = \"lo0\"\nkind = \"loopback\"\n");
    let config = Config::parse(&text, "test").unwrap();
    let mut assembly = assemble(&config).unwrap();
    let control = assembly.runtime.control();
    let filters = std::mem::take(&mut assembly.filters);
    let mut running = Changes::new(control.clone(), config, filters.clone());
    assembly.go().unwrap();
    let attached = || control.view(View::Filters).unwrap().wait(PATIENCE).unwrap().as_array().unwrap().len();
    assert_eq!(attached(), 1);
    // As one that panicked, or an extension's own doing.
    control.detach(filters[0]).unwrap().wait(PATIENCE).unwrap();
    for mtu in [9000, 1500] {
        assert_eq!(running.set("lo0", Some(mtu), None).unwrap().len(), 1, "the MTU and nothing else");
        assert_eq!((attached(), running.config().unwrap().filter.len()), (0, 0));
    }
    let account = assembly.stop();
    assert_eq!((account.free, account.outstanding), (account.capacity, 0));
}
