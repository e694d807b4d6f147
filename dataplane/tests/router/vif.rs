//! Virtual interfaces in a running router.

use nke_dataplane::command::OwnedIoctl;
use nke_dataplane::inet::Request;
use nke_filters::{ArgValue, Args, IfIndex, vif};
use nke_mbuf::wire::{EtherAddr, Icmp, Ipv4};

use crate::bed::*;

fn bed() -> Bed {
    let bed = Bed::new();
    for kind in vif::all() {
        bed.control().register_ifnet(kind).unwrap().wait(WAIT).unwrap();
    }
    bed.neighbor(1, "198.51.100.9");
    bed
}

fn text(value: &str) -> ArgValue {
    ArgValue::Text(value.into())
}

fn try_make(bed: &Bed, kind: &str, name: &str, args: &[(&str, ArgValue)]) -> Result<IfIndex, String> {
    let args = Args(args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
    bed.control().create_interface(kind, name, args).unwrap().wait(WAIT).map_err(|fault| fault.to_string())
}

fn make(bed: &Bed, kind: &str, name: &str, args: &[(&str, ArgValue)], address: &str) -> IfIndex {
    let index = try_make(bed, kind, name, args).unwrap();
    let (address, len) = address.split_once('/').unwrap();
    let ticket = bed.control().add_address(name, address.parse().unwrap(), len.parse().unwrap()).unwrap();
    ticket.wait(WAIT).unwrap();
    index
}

fn vlan(tag: i64, parent: &str) -> Vec<(&'static str, ArgValue)> {
    vec![("parent", text(parent)), ("tag", ArgValue::Number(tag))]
}

fn neighbor(bed: &Bed, interface: IfIndex, address: &str, mac: EtherAddr) {
    let request = Request::Neighbor(interface, address.parse().unwrap(), Some(mac));
    bed.control().inet(request).unwrap().wait(WAIT).unwrap();
}

fn tagged(tags: &[u8], frame: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

/// A packet from behind interface `a` to `to`.
fn packet(to: &str) -> Vec<u8> {
    frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4(to).into(), 9, b"payload"))
}

const TAG_5: [u8; 4] = [0x81, 0, 0, 5];
const TAGS_7_5: [u8; 8] = [0x88, 0xa8, 0, 7, 0x81, 0, 0, 5];

#[test]
fn vlans_receive_and_send_the_frames_of_their_tags() {
    let bed = bed();
    let one = make(&bed, "vlan", "a.5", &vlan(5, "a"), "203.0.113.1/25");
    let mut args = vlan(5, "a");
    args.push(("outer", ArgValue::Number(7)));
    let two = make(&bed, "vlan", "a.7.5", &args, "203.0.113.129/25");
    neighbor(&bed, one, "203.0.113.9", HOST[0]);
    neighbor(&bed, two, "203.0.113.139", HOST[0]);
    for (tags, to) in [(&TAG_5[..], "203.0.113.9"), (&TAGS_7_5[..], "203.0.113.139")] {
        bed.send(0, &tagged(tags, &packet("198.51.100.9")));
        let out = bed.next(1);
        assert_eq!(out[..14], frame(HOST[1], MAC[1], 0x0800, &[])[..]);
        assert_eq!(Ipv4::new_checked(&out[14..]).unwrap().ttl(), 63);
        let back = udp(v4("198.51.100.9").into(), v4(to).into(), 9, b"payload");
        bed.send(1, &frame(MAC[1], HOST[1], 0x0800, &back));
        let out = bed.next(0);
        let header = tagged(tags, &frame(HOST[0], MAC[0], 0x0800, &[]));
        assert_eq!(out[..header.len()], header[..]);
        let ip = Ipv4::new_checked(&out[header.len()..]).unwrap();
        assert_eq!((ip.ttl(), ip.dst()), (63, v4(to)));
    }
    // The VLAN answers for its address where it was asked, and the parent does not.
    let mut ask = vec![0, 1, 8, 0, 6, 4, 0, 1];
    ask.extend([&HOST[0].0[..], &[203, 0, 113, 9], &[0; 6], &[203, 0, 113, 1]].concat());
    let ask = frame(EtherAddr::BROADCAST, HOST[0], 0x0806, &ask);
    bed.send(0, &ask);
    bed.silence();
    bed.send(0, &tagged(&TAG_5, &ask));
    let out = bed.next(0);
    assert_eq!(out[..18], tagged(&TAG_5, &frame(HOST[0], MAC[0], 0x0806, &[]))[..]);
    assert_eq!(out[25], 2, "a reply");
    // Tags of nobody, a priority tag, and a frame that ends within its tag.
    bed.send(0, &tagged(&[0x81, 0, 0, 6], &packet("198.51.100.9")));
    bed.send(0, &tagged(&[0x81, 0, 0xe0, 0], &packet("198.51.100.9")));
    bed.send(0, &tagged(&TAGS_7_5[..6], &packet("198.51.100.9"))[..18]);
    until("they are dropped", || (bed.drops("vlan:unknown_tag") == 3).then_some(()));
    bed.silence();
    // Without VLANs the parent knows no tags.
    for name in ["a.5", "a.7.5"] {
        bed.control().detach_interface(name).unwrap().wait(WAIT).unwrap();
    }
    bed.control().unregister("vlan", WAIT).unwrap().wait(WAIT).unwrap();
    bed.send(0, &tagged(&TAG_5, &packet("198.51.100.9")));
    until("it is dropped", || (bed.drops("no_protocol") == 1).then_some(()));
    bed.finish();
}

#[test]
fn what_cannot_be_made_says_why() {
    let bed = bed();
    make(&bed, "vlan", "a.5", &vlan(5, "a"), "203.0.113.1/24");
    let refused = |kind, args: &[_], why: &str| {
        let said = try_make(&bed, kind, "new", args).unwrap_err();
        assert!(said.contains(why), "{said}");
    };
    refused("vlan", &vlan(5, "a"), "these tags already");
    refused("vlan", &vlan(4095, "a"), "1 to 4094");
    refused("vlan", &vlan(5, "nowhere"), "nowhere");
    refused("vlan", &vlan(5, "a")[..1], "needs its tag");
    refused("vlan", &vlan(5, "a")[1..], "needs a parent");
    refused("pair", &[("peer", text("new"))], "another end");
    refused("pair", &[("peer", text("p")), ("mac", text("ff:ff:ff:ff:ff:ff"))], "one station");
    refused("loopback", &[("mtu", ArgValue::Number(67))], "68 to 65535");
    let mtu = |mtu| bed.control().ioctl("a.5", OwnedIoctl::SetMtu(mtu)).unwrap().wait(WAIT);
    assert!(mtu(1501).is_err());
    mtu(1496).unwrap();
    bed.finish();
}

#[test]
fn vlans_go_under_traffic_and_come_again() {
    let bed = bed();
    let control = bed.control();
    for round in 0..20 {
        make(&bed, "vlan", "a.5", &vlan(5, "a"), "203.0.113.1/24");
        let mut ticket = None;
        for i in 0..60 {
            bed.send(0, &tagged(&TAG_5, &packet("198.51.100.9")));
            bed.send(0, &packet("198.51.100.9"));
            bed.next(1);
            if i == 30 {
                ticket = Some(control.detach_interface("a.5").unwrap());
            }
        }
        ticket.unwrap().wait(WAIT).unwrap();
        while bed.ends[1].recv().is_some() {}
        assert!(bed.runtime.shared().interface("a.5").is_none(), "round {round}");
    }
    make(&bed, "vlan", "a.5", &vlan(5, "a"), "203.0.113.1/24");
    let ticket = control.unregister("vlan", WAIT).unwrap();
    for _ in 0..100 {
        bed.send(0, &tagged(&TAG_5, &packet("198.51.100.9")));
    }
    ticket.wait(WAIT).unwrap();
    bed.finish();
}

/// Both ends of a pair, `p0` and `p1`, with the stations' addresses as theirs.
fn pair(bed: &Bed) -> [IfIndex; 2] {
    let end = |name, peer, i: usize, address| {
        make(bed, "pair", name, &[("peer", text(peer)), ("mac", text(&HOST[i].to_string()))], address)
    };
    [end("p0", "p1", 0, "203.0.113.1/24"), end("p1", "p0", 1, "203.0.114.1/24")]
}

#[test]
fn a_vlan_without_its_parent_drops_and_the_name_can_come_again() {
    let bed = bed();
    pair(&bed);
    let index = make(&bed, "vlan", "v", &vlan(5, "p0"), "203.0.115.1/24");
    neighbor(&bed, index, "203.0.115.9", HOST[1]);
    bed.control().detach_interface("p0").unwrap().wait(WAIT).unwrap();
    bed.send(0, &packet("203.0.115.9"));
    until("it is dropped", || (bed.drops("vlan:parent_gone") == 1).then_some(()));
    // The other end has nobody to send to.
    neighbor(&bed, bed.runtime.shared().interface("p1").unwrap().index, "203.0.114.9", HOST[0]);
    bed.send(0, &packet("203.0.114.9"));
    until("it is dropped", || (bed.drops("pair:no_peer") == 1).then_some(()));
    try_make(&bed, "pair", "p0", &[("peer", text("p1"))]).unwrap();
    try_make(&bed, "vlan", "v2", &vlan(5, "p0")).unwrap();
    for kind in ["pair", "vlan"] {
        bed.control().unregister(kind, WAIT).unwrap().wait(WAIT).unwrap();
    }
    bed.finish();
}

#[test]
fn a_pair_carries_frames_and_a_circle_of_routes_ends() {
    let bed = bed();
    let [p0, _] = pair(&bed);
    let host = nke_dataplane::shared::host(bed.runtime.shared());
    let inner = udp(v4("203.0.113.9").into(), v4("198.51.100.9").into(), 9, b"payload");
    host.inject_output(p0, bed.mbuf(&frame(HOST[1], HOST[0], 0x0800, &inner))).unwrap();
    let out = bed.next(1);
    assert_eq!(out[..14], frame(HOST[1], MAC[1], 0x0800, &[])[..]);
    assert_eq!(Ipv4::new_checked(&out[14..]).unwrap().ttl(), 63);
    // What p1 receives is routed back to p0, and so on.
    neighbor(&bed, p0, "203.0.113.9", HOST[1]);
    bed.send(0, &packet("203.0.113.9"));
    until("it is dropped", || (bed.drops("looped") + bed.drops("pair:loop") == 1).then_some(()));
    bed.control().unregister("pair", WAIT).unwrap().wait(WAIT).unwrap();
    drop(host);
    bed.finish();
}

#[test]
fn loopback_has_addresses_and_ends_what_goes_round() {
    let bed = bed();
    bed.neighbor(0, "192.0.2.9");
    let index = make(&bed, "loopback", "lo0", &[], "203.0.113.1/32");
    bed.send(0, &packet("203.0.113.1"));
    let out = bed.next(0);
    let ip = Ipv4::new_checked(&out[14..]).unwrap();
    assert_eq!(ip.dst(), v4("192.0.2.9"));
    assert_eq!(Icmp::new_checked(ip.payload()).unwrap().icmp_type(), 3, "no such port");
    // Sent by it, received by it.
    let host = nke_dataplane::shared::host(bed.runtime.shared());
    let inner = udp(v4("203.0.113.1").into(), v4("198.51.100.9").into(), 9, b"payload");
    host.inject_output(index, bed.mbuf(&inner)).unwrap();
    assert_eq!(Ipv4::new_checked(&bed.next(1)[14..]).unwrap().ttl(), 63);
    bed.route("203.0.114.0/24", None, Some(index.0));
    bed.send(0, &packet("203.0.114.9"));
    until("it is dropped", || (bed.drops("looped") + bed.drops("loopback:loop") == 1).then_some(()));
    bed.control().unregister("loopback", WAIT).unwrap().wait(WAIT).unwrap();
    drop(host);
    bed.finish();
}

#[test]
fn a_configuration_makes_interfaces_before_it_uses_them() {
    let text = r#"
[pool]
frames = 4096
hugepages = "never"
[router]
[[port]]
name = "a"
kind = "memory"
role = "sink"
[[interface]]
name = "a.5"
kind = "vlan"
mtu = 1400
args = { parent = "a", tag = 5 }
[[interface]]
name = "lo0"
kind = "loopback"
up = false
[[address]]
port = "a.5"
address = "192.0.2.1/24"
[[route]]
to = "198.51.100.0/24"
port = "a.5"
"#;
    let config = nke_dataplane::config::Config::parse(text, "test").unwrap();
    let assembly = nke_dataplane::assemble::assemble(&config).unwrap();
    let shared = assembly.runtime.shared();
    let info = |name: &str| shared.interface(name).unwrap().identity().params.clone();
    assert_eq!((info("a.5").kind, info("a.5").mtu), ("vlan", 1400));
    assert!(!info("lo0").flags.contains(nke_filters::IfFlags::UP));
    assert_eq!(assembly.stop().outstanding, 0, "nothing is left on the ledger");
    let wrong = text.replace("parent = \"a\"", "parent = \"b\"");
    let config = nke_dataplane::config::Config::parse(&wrong, "test").unwrap();
    let Err(error) = nke_dataplane::assemble::assemble(&config) else { panic!("there is no such parent") };
    assert!(error.to_string().contains("no interface is called `b`"), "{error}");
}
