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
    let expected = "error[NKE-CFG-004]: no port is called `c`; there are `a`, `b`\n  --> net.toml:19:8\n   |\n 19| port = \"c\"\n   |        ^^^";
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
