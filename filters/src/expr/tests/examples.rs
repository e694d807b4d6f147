//! The language by example: what is accepted, how it prints, what it says when it is wrong.

use crate::expr::*;

fn canonical(text: &str) -> String {
    Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn spellings_and_their_canonical_form() {
    for (text, expect) in [
        ("tcp", "tcp"),
        ("proto 6", "tcp"),
        ("proto 0x2f", "proto 47"),
        ("ether proto 0x806", "arp"),
        ("ether proto 34984", "ether proto 0x88a8"),
        ("ether src 2:0:0:0:0:A", "ether src 02:00:00:00:00:0a"),
        ("ether host ff:ff:ff:ff:ff:ff", "ether host ff:ff:ff:ff:ff:ff"),
        ("vlan", "vlan"),
        ("vlan 100 and ip", "vlan 100 and ip"),
        ("!ip&&!arp", "not ip and not arp"),
        ("not not fragment", "not not fragment"),
        ("((ip))", "ip"),
        ("(ip or arp) and len<=64", "(ip or arp) and len <= 64"),
        ("ip and (arp and malformed)", "ip and (arp and malformed)"),
        ("src host ::1", "src host ::1"),
        ("net 192.0.2.7/32", "host 192.0.2.7"),
        ("dst net 0.0.0.0/0", "dst net 0.0.0.0/0"),
        ("net 2001:DB8::/32", "net 2001:db8::/32"),
        ("portrange 80-80", "port 80"),
        ("src portrange 6000-6063", "src portrange 6000-6063"),
        ("tcp dst port 80", "tcp and dst port 80"),
        ("udp port 53 or icmp6", "(udp and port 53) or icmp6"),
        ("not ip6 src host ::1", "not (ip6 and src host ::1)"),
        ("\tip\n", "ip"),
    ] {
        assert_eq!(canonical(text), expect, "{text}");
        assert_eq!(canonical(expect), expect);
    }
}

#[test]
fn errors_point_at_the_word() {
    for (text, word, part) in [
        ("", "", "empty"),
        ("  ", "", "empty"),
        ("ip and", "", "missing at the end"),
        ("and ip", "and", "missing here"),
        ("ip or arp and tcp", "and", "two ways"),
        ("ip arp", "arp", "side by side"),
        ("(ip arp)", "arp", "side by side"),
        ("(ip", "(", "without its `)`"),
        ("ip)", ")", "without its `(`"),
        ("()", ")", "missing here"),
        ("ip & arp", "&", "unexpected"),
        ("ip and über", "ü", "unexpected"),
        ("udpp", "udpp", "not a primitive"),
        ("10.0.0.1", "10.0.0.1", "not a primitive"),
        ("port 80 or 443", "443", "not a primitive"),
        ("port", "", "write a port"),
        ("port http", "http", "write a port"),
        ("port 65536", "65536", "write a port"),
        ("port +80", "+", "unexpected"),
        ("port -1", "-1", "write a port"),
        ("portrange 9-8", "9-8", "ends before"),
        ("portrange 9", "9", "write a range"),
        ("vlan 4096", "4096", "no such VLAN"),
        ("proto 256", "256", "write a protocol"),
        ("proto 0x", "0x", "write a protocol"),
        ("proto 0x+6", "+", "unexpected"),
        ("net 10.0.0.1/8", "10.0.0.1/8", "behind its prefix"),
        ("net 10.0.0.0/33", "10.0.0.0/33", "longer than"),
        ("net 10.0.0.0", "10.0.0.0", "write a network"),
        ("net ::/129", "::/129", "longer than"),
        ("host example.org", "example.org", "not resolved"),
        ("src 10.0.0.1", "10.0.0.1", "direction"),
        ("src", "", "direction"),
        ("ether", "", "not complete"),
        ("ether dst 1:2:3", "1:2:3", "write a MAC"),
        ("len 5", "5", ">="),
        ("len >= many", "many", "write a length"),
        ("len > 5", ">", "unexpected"),
    ] {
        let error = match Expr::parse(text) {
            Ok(expr) => panic!("{text} parsed as {expr}"),
            Err(error) => error,
        };
        assert!(error.to_string().contains(part), "{text}: {error}");
        assert_eq!(&text[error.span.clone()], word, "{text}: {error}");
    }
}

#[test]
fn limits_hold_at_the_edge() {
    let deep = |depth: usize| format!("{}ip{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Expr::parse(&deep(DEPTH_MAX)).is_ok());
    assert!(Expr::parse(&deep(DEPTH_MAX + 1)).unwrap_err().message.contains("deep"));
    assert!(Expr::parse(&deep(2000)).unwrap_err().message.contains("deep"));
    assert!(Expr::parse(&"!".repeat(4000)).unwrap_err().message.contains("deep"));

    let wide = |count: usize| vec!["ip"; count].join(" or ");
    assert!(Expr::parse(&wide(NODES_MAX - 1)).is_ok());
    assert!(Expr::parse(&wide(NODES_MAX)).unwrap_err().message.contains("primitives and operators"));

    assert!(Expr::parse(&format!("{}ip", " ".repeat(TEXT_BYTES_MAX - 2))).is_ok());
    assert!(Expr::parse(&format!("{}ip", " ".repeat(TEXT_BYTES_MAX - 1))).is_err());
    // Short as written, too long when printed.
    let mac = vec!["ether src 0:0:0:0:0:0"; 170].join("&&");
    assert!(mac.len() <= TEXT_BYTES_MAX && Expr::parse(&mac).is_err());
    // `not tcp port 1` prints with parentheses, and must still not be too deep to be read back.
    let edge = format!("{}tcp port 1", "!".repeat(DEPTH_MAX - 1));
    assert_eq!(canonical(&canonical(&edge)), canonical(&edge));
    assert!(Expr::parse(&format!("!{edge}")).is_err());
}

#[test]
fn a_long_run_is_evaluated_to_its_end() {
    let text = (0..200).map(|port| format!("port {port}")).collect::<Vec<_>>().join("||");
    let expr = Expr::parse(&text).unwrap();
    let mut frame = vec![0; 42];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17]);
    frame[34..40].copy_from_slice(&[1, 0, 0, 199, 0, 8]);
    assert!(expr.matches(&frame));
    frame[37] = 200;
    assert!(!expr.matches(&frame));
}

#[test]
fn a_runt_has_no_addresses_to_match() {
    let runt = [0; 10];
    for (text, expect) in [
        ("ether host 00:00:00:00:00:00", false),
        ("ether proto 0", false),
        ("malformed", true),
        ("len <= 10", true),
        ("len >= 11", false),
        ("not ip", true),
    ] {
        assert_eq!(Expr::parse(text).unwrap().matches(&runt), expect, "{text}");
    }
}
