use super::*;

fn complaints(text: &str) -> Vec<(&'static str, String)> {
    match Config::parse(text, "test.toml") {
        Ok(_) => Vec::new(),
        Err(all) => all.list.iter().map(|c| (c.id, c.message.clone())).collect(),
    }
}

const GOOD: &str = r#"
[runtime]
burst = 32
[pool]
frames = 4096
[[port]]
name = "a"
kind = "memory"
role = "source"
[[port]]
name = "b"
kind = "memory"
role = "sink"
[[wire]]
a = "a"
b = "b"
[[filter]]
kind = "drop"
port = "a"
direction = "input"
protocol = "ip"
cookie = 7
args = { match = "udp", limit = 3, quiet = true }
"#;

#[test]
fn a_good_one_is_read() {
    let config = Config::parse(GOOD, "x").unwrap();
    assert_eq!((*config.runtime.burst.as_ref(), config.port.len(), config.filter[0].cookie), (32, 2, 7));
    assert_eq!(config.filter[0].args["match"], Arg::Text("udp".into()));
    assert_eq!(config.filter[0].args["limit"], Arg::Number(3));
    assert!(complaints("").is_empty(), "everything has a default");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let text = GOOD.replace("port = \"a\"", "port = \"c\"");
    let shown = Config::parse(&text, "net.toml").unwrap_err().to_string();
    let expected = "error[NKE-CFG-004]: no port is called `c`; there are `a`, `b`\n  --> net.toml:19:8\n   |\n 19| port = \"c\"\n   |        ^^^\n   = cause: a port or filter is misspelt, or its section is missing\n   = cure:  name one of those in the message";
    assert_eq!(shown, expected);
    let typing = Config::parse("[runtime]\nburts = 3\n", "x").unwrap_err().to_string();
    assert!(
        typing.contains("NKE-CFG-002") && typing.contains("x:2:1") && typing.contains("burst"),
        "{typing}"
    );
}

#[test]
fn every_rule_has_its_complaint() {
    let port = |extra: &str| format!("[[port]]\nname = \"p\"\nkind = \"af_xdp\"\n{extra}\n");
    let cases = [
        ("[runtime]\nburst = 65\n".into(), "NKE-CFG-003"),
        ("[runtime]\ncores = [4095]\n".into(), "NKE-CFG-003"),
        ("[pool]\nframe_size = 1024\n".into(), "NKE-CFG-003"),
        ("[pool]\nhugepages = \"maybe\"\n".into(), "NKE-CFG-002"),
        (port(""), "NKE-CFG-007"),
        (port("device = \"x\"\nqueues = 0"), "NKE-CFG-003"),
        (port("device = \"x\"\nrx_ring = 1000"), "NKE-CFG-003"),
        (port("device = \"x\"\nrole = \"sink\""), "NKE-CFG-006"),
        (port("device = \"x\"") + &port("device = \"y\""), "NKE-CFG-005"),
        (port("device = \"x\"") + "[[wire]]\na = \"p\"\nb = \"p\"\n", "NKE-CFG-005"),
        (port("device = \"x\"") + "[[wire]]\na = \"p\"\nb = \"q\"\n", "NKE-CFG-004"),
        (
            port("device = \"x\"") + "[[filter]]\nkind = \"drop\"\nport = \"p\"\nprotocol = \"ipx\"\n",
            "NKE-CFG-003",
        ),
    ];
    for (text, id) in cases {
        let found = complaints(&text);
        assert_eq!(found.iter().map(|c| c.0).collect::<Vec<_>>(), [id], "{text}: {found:?}");
    }
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = "[runtime]\nburst = 0\n[pool]\nframes = 1\nframe_size = 3\n";
    assert_eq!(complaints(text).len(), 3);
}

/// One file with a mistake of every sort: each is named, with its place, and nothing that is only their consequence.
#[test]
fn different_sorts_of_mistakes_are_named_at_once() {
    let text = r#"
[runtime]
burts = 3
mode = "pol"
stall_ms = 5
frames = 7
[[port]]
nmae = "p"
kind = "af_xdp"
device = "eth0"
[[port]]
name = "q"
kind = "af_xpd"
[[port]]
name = "r"
kind = "memory"
role = "sink"
queues = -1
[pool]
frame_size = "2048"
frames = 99999999999
[[wire]]
a = "p"
b = "r"
[wires]
[[filter]]
kind = "drop"
port = "q"
args = { match = "udp", list = [1] }
"#;
    let all = Config::parse(text, "x").unwrap_err();
    let found: Vec<_> =
        all.list.iter().map(|c| (all.place(c.span.as_ref().unwrap().start).0, &*c.message)).collect();
    let expected = [
        (3, "[runtime] has no key `burts`; did you mean `burst`?"),
        (4, "mode = \"pol\"; did you mean \"poll\"?"),
        (5, "stall_ms = 5: it is 10 to 3600000"),
        (6, "[runtime] has no key `frames`; it belongs in [pool]"),
        (7, "[[port]] needs the key `name`"),
        (8, "[[port]] has no key `nmae`; did you mean `name`?"),
        (13, "kind = \"af_xpd\"; did you mean \"af_xdp\"?"),
        (18, "`queues` is 0 to 4294967295"),
        (20, "`frame_size` is a whole number, not of type string"),
        (21, "`frames` is 0 to 4294967295"),
        (25, "no section is called `wires`; did you mean `wire`?"),
        (29, "argument `list` is text, a whole number, true or false"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn several_mistakes_in_the_text_itself() {
    let found = complaints("[runtime\nburst = \n[pool]\nframes = 5 5\n");
    assert!(found.len() > 1 && found.iter().all(|(id, _)| *id == "NKE-CFG-002"), "{found:?}");
    // The same key twice, and a section written the wrong way.
    assert_eq!(complaints("[pool]\nframes = 64\nframes = 64\n").len(), 1);
    assert_eq!(complaints("[port]\nname = \"a\"\n")[0].1, "it is written [[port]]: there may be several");
    assert_eq!(complaints("[[pool]]\n")[0].1, "it is written [pool]: there is only one");
    assert_eq!(complaints("port = [1]\n")[0].0, "NKE-CFG-002");
}

#[test]
fn names_cannot_lead_elsewhere() {
    let xdp = |more: &str| format!("[[port]]\nname = \"p\"\nkind = \"af_xdp\"\n{more}\n");
    let bad = [
        xdp("device = \"../../x\""),
        xdp("device = \"\""),
        xdp("device = \"sixteen-letters-\""),
        xdp("device = \"x\"\nnetns = \"../../proc/1/ns/net\""),
        xdp("device = \"x\"\nnetns = \"..\""),
        xdp("device = \"x\"\nbusy_poll_us = 1000001"),
        xdp("device = \"x\"\nmatch = []"),
        xdp("device = \"x\"\nmatch = [{}]"),
        xdp("device = \"x\"\nmatch = [{ vlan = 4096 }]"),
        xdp("device = \"x\"\nmatch = [{ ethertype = 5 }]"),
        format!("[runtime]\nsocket = \"{}\"\n", "x".repeat(108)),
        "[runtime]\nsocket = \"\"\n".into(),
    ];
    for text in bad {
        let found = complaints(&text);
        assert_eq!(found.iter().map(|c| c.0).collect::<Vec<_>>(), ["NKE-CFG-003"], "{text}: {found:?}");
    }
}

#[test]
fn devices_and_files_belong_to_one_port() {
    let xdp = |name: &str, more: &str| {
        format!("[[port]]\nname = \"{name}\"\nkind = \"af_xdp\"\ndevice = \"x\"\n{more}\n")
    };
    assert_eq!(complaints(&(xdp("a", "") + &xdp("b", "")))[0].0, "NKE-CFG-005");
    assert!(complaints(&(xdp("a", "") + &xdp("b", "netns = \"blue\""))).is_empty());
    let pcap = |name: &str, keys: &str| format!("[[port]]\nname = \"{name}\"\nkind = \"pcap\"\n{keys}\n");
    let same = pcap("a", "write = \"f\"") + &pcap("b", "write = \"f\"");
    assert_eq!(complaints(&same)[0].0, "NKE-CFG-005");
    assert_eq!(complaints(&pcap("a", "write = \"f\"\nread = \"f\""))[0].0, "NKE-CFG-006");
}

/// With every key written: the model takes them all, the schema has no more and no fewer, and what is written out is
/// read in again as the same.
#[test]
fn schema_and_model_have_the_same_keys() {
    let text = r#"
[runtime]
cores = [0]
mode = "adaptive"
burst = 1
socket = "s"
stall_ms = 10
[pool]
frames = 64
frame_size = 4096
hugepages = "never"
[[port]]
name = "p"
kind = "af_xdp"
device = "x"
netns = "n"
queues = 1
xdp = "generic"
bind = "zerocopy"
rx_ring = 64
tx_ring = 64
jumbo = true
need_wakeup = false
busy_poll_us = 1
force = true
match = [{ ethertype = 0x0800, vlan = 0, protocol = 17, src_port = 1, dst_port = 2 }]
role = "sink"
flows = 1
size = 60
rate_pps = 1
to_mac = "02:00:00:00:00:01"
read = "r"
write = "w"
loop = true
[[wire]]
a = "p"
b = "p"
[[filter]]
kind = "k"
port = "p"
direction = "input"
protocol = "ip"
cookie = 1
args = { a = "b", n = 1, s = true }
[router]
host = "kernel"
v4_blocks = 1
neighbors = 16
reassembly_bytes = 131072
icmp_errors_per_second = 0
[[interface]]
name = "i"
kind = "k"
mtu = 1400
up = false
args = { a = "b" }
[[address]]
port = "p"
address = "192.0.2.1/24"
[[route]]
to = "0.0.0.0/0"
via = "192.0.2.2"
port = "p"
kind = "unreachable"
[[neighbor]]
port = "p"
address = "2001:db8::1"
mac = "02:00:00:00:00:01"
"#;
    let config: Config = toml::from_str(text).unwrap();
    let written: toml::Table = toml::from_str(&config.to_toml()).unwrap();
    assert_eq!(written.len(), schema::SECTIONS.len());
    for section in schema::SECTIONS {
        let table = match &written[section.name] {
            toml::Value::Array(entries) => entries[0].as_table().unwrap(),
            value => value.as_table().unwrap(),
        };
        let mut known: Vec<_> = section.keys.iter().map(|k| k.name).collect();
        known.sort_unstable();
        let mut have: Vec<_> = table.keys().map(String::as_str).collect();
        have.sort_unstable();
        assert_eq!(have, known, "[{}]", section.name);
    }
    assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
    // And nothing in the schema is against what the model takes.
    let mut table = DeTable::parse(text).unwrap();
    assert_eq!(shape::check(table.get_mut()).complaints, []);
    let good = Config::parse(GOOD, "x").unwrap();
    assert_eq!(Config::parse(&good.to_toml(), "x").unwrap(), good);
}

/// Each line behind a good router is one mistake.
#[test]
fn mistakes_of_routers_are_named() {
    let good = r#"
[[port]]
name = "a"
kind = "memory"
role = "source"
[[port]]
name = "b"
kind = "memory"
role = "sink"
[router]
[[address]]
port = "a"
address = "192.0.2.1/24"
[[route]]
to = "198.51.100.0/24"
via = "192.0.2.2"
"#;
    assert_eq!(complaints(good), []);
    let cases = [
        ("[[address]]\nport = \"a\"\naddress = \"192.0.2.1/16\"", "NKE-CFG-005"),
        ("[[address]]\nport = \"a\"\naddress = \"192.0.2.1\"", "NKE-CFG-003"),
        ("[[address]]\nport = \"a\"\naddress = \"192.0.2.3/33\"", "NKE-CFG-003"),
        ("[[address]]\nport = \"a\"\naddress = \"192.0.2.3/024\"", "NKE-CFG-003"),
        ("[[address]]\nport = \"c\"\naddress = \"192.0.2.3/24\"", "NKE-CFG-004"),
        ("[[route]]\nto = \"198.51.100.1/24\"\nport = \"b\"", "NKE-CFG-003"),
        ("[[route]]\nto = \"198.51.100.0/24\"\nport = \"b\"", "NKE-CFG-005"),
        ("[[route]]\nto = \"10.0.0.0/8\"", "NKE-CFG-007"),
        ("[[route]]\nto = \"10.0.0.0/8\"\nvia = \"2001:db8::1\"", "NKE-CFG-006"),
        ("[[route]]\nto = \"2001:db8::/32\"\nvia = \"fe80::1\"", "NKE-CFG-007"),
        ("[[route]]\nto = \"10.0.0.0/8\"\nkind = \"blackhole\"\nport = \"b\"", "NKE-CFG-006"),
        ("[[neighbor]]\nport = \"a\"\naddress = \"192.0.2.9\"\nmac = \"01:00:00:00:00:01\"", "NKE-CFG-003"),
        ("[[wire]]\na = \"a\"\nb = \"b\"", "NKE-CFG-006"),
        ("[[interface]]\nname = \"a\"\nkind = \"k\"", "NKE-CFG-005"),
        ("[[interface]]\nname = \"ip\"\nkind = \"k\"", "NKE-CFG-003"),
        ("[[interface]]\nname = \"v\"", "NKE-CFG-007"),
        ("[[interface]]\nname = \"v\"\nkind = \"k\"\nmtu = 67", "NKE-CFG-003"),
    ];
    let named = "[[interface]]\nname = \"v\"\nkind = \"k\"\n[[address]]\nport = \"v\"\naddress = \"203.0.113.1/24\"\n";
    assert_eq!(complaints(&format!("{good}{named}")), []);
    let alone = "[[interface]]\nname = \"v\"\nkind = \"k\"\n";
    assert_eq!(complaints(alone)[0].0, "NKE-CFG-006");
    for (line, id) in cases {
        let found = complaints(&format!("{good}{line}\n"));
        assert_eq!(found.iter().map(|c| c.0).collect::<Vec<_>>(), [id], "{line}: {found:?}");
    }
    let kernel = good.replace("[router]", "[router]\nhost = \"kernel\"");
    assert_eq!(complaints(&kernel)[0].0, "NKE-CFG-006");
    let device = |name: &str, more: &str| {
        format!("[[port]]\nname = \"{name}\"\nkind = \"af_xdp\"\ndevice = \"{name}\"\n{more}\n")
    };
    let kernel = format!("[router]\nhost = \"kernel\"\n{}", device("eth1", "netns = \"x\""));
    assert_eq!(complaints(&format!("{kernel}{}", device("eth2", "netns = \"x\""))), []);
    for (other, id) in [
        (device("eth2", ""), "NKE-CFG-006"),
        (device("eth2", "netns = \"x\"\nmatch = [{ protocol = 6 }]"), "NKE-CFG-006"),
        (device("kernel", "netns = \"x\""), "NKE-CFG-005"),
        ("[[address]]\nport = \"eth1\"\naddress = \"192.0.2.1/24\"\n".to_owned(), "NKE-CFG-006"),
    ] {
        let found = complaints(&format!("{kernel}{other}"));
        assert_eq!(found.iter().map(|c| c.0).collect::<Vec<_>>(), [id], "{other}: {found:?}");
    }
    assert_eq!(complaints(&good.replace("[router]", ""))[0].0, "NKE-CFG-006");
    let filter = "[[port]]\nname = \"a\"\nkind = \"memory\"\nrole = \"sink\"\n[[filter]]\nkind = \"k\"\nport = \"ip\"\n";
    assert_eq!(complaints(filter)[0].0, "NKE-CFG-006");
    let of_ip = format!("{good}\n[[filter]]\nkind = \"acl\"\nport = \"ip\"\nprotocol = \"ip6\"\n");
    assert_eq!(complaints(&of_ip)[0].0, "NKE-CFG-006");
    assert_eq!(complaints(&format!("{filter}[router]\n")), []);
}

#[test]
fn differences_are_told() {
    let old = Config::parse(GOOD, "x").unwrap();
    assert_eq!(diff(&old, &Config::parse(&old.to_toml(), "y").unwrap()), Vec::<String>::new());
    let text = GOOD.replace("burst = 32", "burst = 16").replace("limit = 3", "limit = 4");
    let text = text + "[[filter]]\nkind = \"count\"\nport = \"b\"\n";
    let new = Config::parse(&text, "z").unwrap();
    let lines = diff(&old, &new);
    assert_eq!(lines[0], "~ runtime: burst = 32 -> 16");
    assert!(
        lines[1].starts_with("~ filter drop on a (input): args = ") && lines[1].contains("limit = 4"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("+ filter count on b (both)"), "{lines:?}");
    assert_eq!(diff(&new, &old)[2], "- filter count on b (both)");
}

#[test]
fn whatever_is_in_a_file_there_is_an_answer() {
    // Files of random pieces: no panic, and every place that is shown is inside the text.
    let pieces = [
        "[",
        "]",
        "[[port]]\n",
        "name",
        "=",
        "\"a\"",
        "\n",
        "kind = \"memory\"\n",
        "[runtime]\n",
        "burst = ",
        "64",
        "-1",
        "{",
        "}",
        ",",
        "\u{e4}\u{1F600}",
        "\t",
        "\"\"\"",
        "#",
        "[pool]\n",
        "frames = 0x40\n",
        "match = [{}]\n",
        "'",
        "1e9",
        "\r\n",
        "[[wire]]\n",
        "a = \"a\"\n",
        "[[filter]]\nargs = {}\n",
        "\u{1b}[2J",
    ];
    let mut x = 1u64;
    for _ in 0..5000 {
        let mut text = String::new();
        for _ in 0..(x % 14) + 1 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text += pieces[(x >> 33) as usize % pieces.len()];
        }
        if let Err(all) = Config::parse(&text, "x") {
            let shown = all.to_string();
            assert!(!shown.contains('\u{1b}'), "{shown:?}");
            assert!(all.to_json()["mistakes"].as_array().is_some_and(|m| !m.is_empty()));
        }
    }
}

#[test]
fn files_that_are_none() {
    let load = |path: &str| Config::load(Path::new(path)).unwrap_err();
    assert!(load("/dev/zero").list[0].message.contains("longer than"));
    for path in ["/nowhere/x", "/", "/proc/self/mem"] {
        assert_eq!(load(path).list[0].id, "NKE-CFG-001", "{path}");
    }
    assert!(Config::load(Path::new("/dev/null")).is_ok(), "everything has a default");
}
