use super::*;
use crate::change::{NextHop, RouteKind};
use crate::harness::{self, RouteShape};
use crate::wire::{Messages, Request};

fn message(request: &Request) -> Message<'_> {
    Messages(request.bytes()).next().expect("a message").expect("well formed")
}

/// `body`, with attributes, cut at each byte: an error or an answer, and no panic; whole: no error.
fn all_cuts<T>(request: &Request, parse: impl Fn(&Message<'_>) -> Result<T, Malformed>) {
    let whole = message(request);
    assert!(parse(&whole).is_ok());
    let errors =
        (0..whole.body.len()).filter(|cut| parse(&Message { body: &whole.body[..*cut], ..whole }).is_err());
    assert!(errors.count() > whole.body.len() / 2, "most cuts are inside of something");
}

#[test]
fn links_are_read_and_ports_of_bridges_are_not_links() {
    let request = harness::link(16, 7, 0x43);
    let (link, mtu) = link(&message(&request)).unwrap().unwrap();
    assert_eq!((link.ifindex, link.name.as_str(), mtu, link.hardware), (7, "a0", Some(1500), 1));
    assert!(link.is_running());
    all_cuts(&request, super::link);
    let port = Request::new(17, 0, 0, &[libc::AF_BRIDGE as u8, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(super::link(&message(&port)), Ok(None));
}

#[test]
fn addresses_and_neighbors_are_read() {
    all_cuts(&harness::address(20, 1, 0), address);
    all_cuts(&harness::neighbor(28, 1, 1), neighbor);
    let fixed = [libc::AF_INET6 as u8, 129, 0, 0, 1, 0, 0, 0];
    let long = Request::new(20, 0, 0, &fixed).attribute(libc::IFA_ADDRESS, &[1; 16]);
    assert!(address(&message(&long)).is_err());
    let short = Request::new(20, 0, 0, &fixed).attribute(libc::IFA_ADDRESS, &[1; 4]);
    assert!(address(&message(&short)).is_err());
}

fn read(request: &Request) -> Option<(RouteKey, Record)> {
    match route(&message(request)).expect("well formed") {
        RouteMessage::Route(key, record) => Some((key, record)),
        RouteMessage::Selective | RouteMessage::Other => None,
    }
}

#[test]
fn routes_are_read() {
    let shape = RouteShape { v6: false, prefix: 9, priority: 7, kind: 1, hops: vec![2, 3], dead: false };
    let several = shape.request(24, 0);
    let (key, record) = read(&several).unwrap();
    assert_eq!((key.table, key.dst, key.prefix_len), (254, "10.9.0.0".parse().unwrap(), 16));
    assert_eq!((record.priority, record.hops.len(), record.kind), (7, 2, RouteKind::Unicast));
    all_cuts(&several, route);
    // A router of the other family, a table beyond a byte.
    let fixed = [libc::AF_INET as u8, 0, 0, 0, 252, 3, 0, 1, 0, 0, 0, 0];
    let via = [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &[0xfe, 0x80], &[0; 13], &[1]].concat();
    let default = Request::new(24, 0, 0, &fixed)
        .attribute(18, &via)
        .attribute(libc::RTA_OIF, &3u32.to_ne_bytes())
        .attribute(libc::RTA_TABLE, &1000u32.to_ne_bytes());
    let (key, record) = read(&default).unwrap();
    assert_eq!((key.table, key.prefix_len, key.dst), (1000, 0, "0.0.0.0".parse().unwrap()));
    let to = NextHop { ifindex: 3, via: Some("fe80::1".parse().unwrap()), weight: 1 };
    assert_eq!(record.hops, [Hop { to, dead: false }]);
    let object = Request::new(24, 0, 0, &fixed).attribute(30, &5u32.to_ne_bytes());
    assert_eq!(read(&object).map(|(_, record)| record.kind), Some(RouteKind::Unsupported));
}

#[test]
fn what_is_not_followed_is_told_from_what_is_wrong() {
    let with = |change: fn(&mut [u8; 12])| {
        let mut fixed = [libc::AF_INET as u8, 8, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        change(&mut fixed);
        Request::new(24, 0, 0, &fixed).attribute(libc::RTA_DST, &[10, 0, 0, 0])
    };
    assert!(read(&with(|fixed| fixed[3] = 0x10)).is_none(), "by type of service");
    assert!(read(&with(|fixed| fixed[9] = 2)).is_none(), "of a cache");
    assert!(read(&with(|fixed| fixed[0] = libc::AF_BRIDGE as u8)).is_none(), "of another family");
    assert!(route(&message(&with(|fixed| fixed[1] = 33))).is_err());
    assert!(route(&message(&with(|fixed| fixed[1] = 4))).is_err(), "bits behind the prefix");
    let hop = [7u16.to_ne_bytes().as_slice(), &[0; 6]].concat();
    assert!(route(&message(&with(|_| ()).attribute(libc::RTA_MULTIPATH, &hop))).is_err());
}
