//! The language by example: what is accepted, what it means, what it says when it is wrong.

use super::*;

fn entries<A: FamilyAddress>(text: &str) -> Vec<(usize, Rule<A>)> {
    List::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).entries().unwrap()
}

fn four(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

#[test]
fn what_rules_mean() {
    let text = "# a comment\n\
        set servers { 192.0.2.0/24, 198.51.100.7\n  2001:db8::/32 } # over two lines\n\n\
        deny tcp from 10.0.0.0/8 port 1024-65535 to @servers port 22\r\n\
        permit\n\
        count icmp type 8 code 0; deny 47 in 3\n\
        permit tcp flags S/SA";
    let list = List::parse(text).unwrap();
    assert_eq!(list.text_of(0), "deny tcp from 10.0.0.0/8 port 1024-65535 to @servers port 22");
    assert_eq!((list.text_of(2), list.text_of(3)), ("count icmp type 8 code 0", "deny 47 in 3"));
    let actions: Vec<_> = list.rules.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [Action::Deny, Action::Permit, Action::Count, Action::Deny, Action::Permit]);

    let deny = Rule {
        src: Span::new(four(10, 0, 0, 0), four(10, 255, 255, 255)),
        dst: Span::new(four(192, 0, 2, 0), four(192, 0, 2, 255)),
        protocol: Some(6),
        sport: Span::new(1024, 65535),
        dport: Span::one(22),
        flags: None,
        rcvif: None,
    };
    let any = Rule::<u32>::ANY;
    let echo = Rule { protocol: Some(1), sport: Span::one(8), dport: Span::one(0), ..any };
    let expect = [
        (0, deny),
        (0, Rule { dst: Span::one(four(198, 51, 100, 7)), ..deny }),
        (1, any),
        (2, echo),
        (3, Rule { protocol: Some(47), rcvif: Some(3), ..any }),
        (4, Rule { protocol: Some(6), flags: Some(FlagTest { set: 0x02, mask: 0x12 }), ..any }),
    ];
    assert_eq!(list.entries::<u32>().unwrap(), expect);
    // The first names an IPv4 source: no IPv6 packet matches it.
    let six: Vec<_> = list.entries::<u128>().unwrap().iter().map(|(index, _)| *index).collect();
    assert_eq!(six, [1, 2, 3, 4]);
}

#[test]
fn lists_in_place_are_combined() {
    let all = entries::<u128>("permit { tcp, udp } to { 2001:db8::1, ::-::f } port { 53, 80-81 }");
    assert_eq!(all.len(), 8);
    assert!(all.iter().all(|(index, rule)| *index == 0 && rule.src == Span::ANY && rule.sport == Span::ALL));
    assert_eq!(all[4].1.dst, Span::new(0, 15));
    assert_eq!(entries::<u32>("permit any from any to any\npermit udp from port 1").len(), 2);
}

#[test]
fn errors_say_where_and_what_instead() {
    for (text, line, column, part) in [
        ("drop tcp", 1, 1, "what to do"),
        ("permit\n  deny tpc", 2, 8, "`tpc` is not a protocol"),
        ("permit from 10.0.0.1/8", 1, 13, "clear the address bits"),
        ("permit from 10.0.0.0/33", 1, 13, "up to /32"),
        ("permit from 10.0.0.9-10.0.0.1", 1, 13, "lower end"),
        ("permit from 10.0.0.1-::1", 1, 13, "one family"),
        ("permit from 10.0.0", 1, 13, "not an address"),
        ("permit to @servers", 1, 11, "no set `servers`"),
        ("permit to any port 80", 1, 15, "means nothing"),
        ("permit { tcp, icmp } to any port 80", 1, 29, "means nothing"),
        ("permit tcp to any port 99999", 1, 24, "not a port"),
        ("permit tcp to any port 9-1", 1, 24, "not a port"),
        ("permit tcp to any port +1", 1, 24, "not a port"),
        ("permit tcp flags S", 1, 18, "not a test"),
        ("permit tcp flags SF/S", 1, 18, "not a test"),
        ("permit udp flags S/SA", 1, 12, "means nothing"),
        ("permit icmp type 256", 1, 18, "does not fit"),
        ("permit tcp type 8", 1, 12, "means nothing"),
        ("permit in lan", 1, 11, "does not fit"),
        ("permit from 10.0.0.1 from 10.0.0.2", 1, 22, "twice"),
        ("permit from", 1, 12, "address is missing"),
        ("permit tcp quick", 1, 12, "`quick` does not fit"),
        ("permit tcp }", 1, 12, "`}` does not fit"),
        ("permit from { }", 1, 13, "empty"),
        ("set a { }\npermit from @a", 2, 13, "no address"),
        ("permit from { 10.0.0.1", 1, 13, "without its"),
        ("permit from { { } }", 1, 15, "within"),
        ("set { }", 1, 5, "a name"),
        ("set a 1", 1, 7, "`{` is missing"),
        ("set a { }\nset a { }", 2, 5, "already"),
        ("# ü\npermit ü", 2, 8, "`ü` is not a protocol"),
    ] {
        let error = List::parse(text).expect_err(text);
        assert!(error.to_string().contains(part), "{text}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
    }
}

#[test]
fn combinations_are_bounded() {
    let set: String = (0..300).map(|i| format!("10.0.{}.{} ", i / 256, i % 256)).collect();
    let list = List::parse(&format!("set s {{ {set} }}\npermit\ndeny from @s to @s")).unwrap();
    let error = list.entries::<u32>().unwrap_err();
    assert_eq!((error.line, error.column), (3, 1));
    assert_eq!(list.entries::<u128>().unwrap().len(), 1);
}

#[test]
fn any_text_is_parsed_or_refused() {
    use proptest::prelude::*;
    let words = "permit|deny|count|set|tcp|icmp|from|to|port|in|flags|type|\\{|\\}|,|;|\n|@a|a|10.0.0.0/8|::/0|S/SA|7|é";
    let text = proptest::collection::vec(words, 0..20).prop_map(|words| words.join(" "));
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(text in text)| {
        match List::parse(&text) {
            Ok(list) => {
                for index in 0..list.rules.len() {
                    let written = list.text_of(index);
                    prop_assert!(!written.is_empty() && written.trim() == written);
                }
                prop_assert!(list.entries::<u32>().is_ok() && list.entries::<u128>().is_ok());
            }
            Err(error) => prop_assert!(error.line >= 1 && error.column >= 1 && !error.cure.is_empty()),
        }
    });
}
