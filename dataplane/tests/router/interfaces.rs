//! The Interface KPI (KPI: `<net/kpi_interface.h>`): a family of interfaces the core has never heard of, whose plumber brings IP
//! to it; and the order in which it goes.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use nke_dataplane::command::OwnedIoctl;
use nke_dataplane::control_handle::AttachSpec;
use nke_filters::*;
use nke_mbuf::Mbuf;
use nke_mbuf::wire::{Icmp, Ipv4, Ipv6};

use crate::bed::*;

const FAMILY: IfFamily = IfFamily(77);

/// What happened, in order, and what was sent.
#[derive(Default)]
struct Seen {
    said: Mutex<Vec<String>>,
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Seen {
    fn say(&self, what: impl Into<String>) {
        self.said.lock().unwrap().push(what.into());
    }
    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap())
    }
    fn next(&self) -> Vec<u8> {
        until("the driver sends", || self.sent.lock().unwrap().pop())
    }
}

/// Frames of one byte, the version of IP, and the packet.
struct Driver(Arc<Seen>);

impl IfnetDriver for Driver {
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for place in batch.places().collect::<Vec<_>>() {
            let mbuf = batch.take(place).unwrap();
            let mut bytes = vec![0; mbuf.len()];
            assert!(mbuf.copy_out(0, &mut bytes));
            self.0.sent.lock().unwrap().push(bytes);
            cx.free(mbuf);
        }
    }
    fn demux(&self, frame: &Mbuf) -> Demux {
        match frame.data().first() {
            Some(4) => Demux::Protocol(ProtocolFamily::INET, 1),
            Some(6) => Demux::Protocol(ProtocolFamily::INET6, 1),
            _ => Demux::Unknown,
        }
    }
    fn framer(&self, packet: &mut Mbuf, family: ProtocolFamily, _: LinkDest) -> bool {
        let byte = if family == ProtocolFamily::INET { 4 } else { 6 };
        packet.prepend(1).map(|room| room[0] = byte).is_some()
    }
    fn check_multi(&self, group: IpAddr) -> Result<(), String> {
        if group.is_ipv6() { Ok(()) } else { Err("only IPv6 groups".into()) }
    }
    fn ioctl(&self, request: &mut IfIoctl<'_>) -> IoctlAnswer {
        self.0.say("driver ioctl");
        match request {
            IfIoctl::SetMtu(mtu) if *mtu > 9000 => IoctlAnswer::Refuse("9000 at most".into()),
            _ => IoctlAnswer::NotMine,
        }
    }
    fn event(&self, event: &IfEvent) {
        self.0.say(format!("driver event {}", event.kind.name()));
    }
    fn detached(&self) {
        self.0.say("driver detached");
    }
}

struct Plumbing(Arc<Seen>);

impl Plumber for Plumbing {
    fn plumb(&self, _: IfIndex, family: ProtocolFamily) -> Result<ProtocolSpec, String> {
        self.0.say(format!("plumb {}", family.name()));
        let handler = match family {
            ProtocolFamily::INET => ProtocolHandler::Inet,
            _ => ProtocolHandler::Inet6,
        };
        Ok(ProtocolSpec { demux: vec![DemuxDesc::Driver(family.0)], handler })
    }
    fn unplumb(&self, _: IfIndex, family: ProtocolFamily) {
        self.0.say(format!("unplumb {}", family.name()));
    }
}

struct Kind(Arc<Seen>);

impl IfnetKind for Kind {
    fn name(&self) -> &str {
        "odd"
    }
    fn create(&self, env: &IfnetEnv, _: &Args) -> Result<(IfParams, Arc<dyn IfnetDriver>), CreateError> {
        let params = IfParams {
            name: env.name.clone(),
            kind: "odd",
            family: FAMILY,
            flags: IfFlags::UP,
            mtu: 1500,
            hdrlen: 1,
            lladdr: None,
        };
        Ok((params, Arc::new(Driver(self.0.clone()))))
    }
    fn unregistered(&self) {
        self.0.say("unregistered");
    }
}

struct Filter(Arc<Seen>);

impl InterfaceFilter for Filter {
    fn ioctl(&self, _: &mut IfIoctl<'_>) -> IoctlAnswer {
        self.0.say("filter ioctl");
        IoctlAnswer::NotMine
    }
    fn detached(&self, _: IfIndex, _: Cookie) {
        self.0.say("filter detached");
    }
}

fn made(bed: &Bed) -> (Arc<Seen>, IfIndex) {
    let seen = Arc::new(Seen::default());
    let control = bed.control();
    control.register_ifnet(Arc::new(Kind(seen.clone()))).unwrap().wait(WAIT).unwrap();
    let owner = bed.runtime.shared().owner_of("odd");
    let host = nke_dataplane::shared::host(bed.runtime.shared());
    for family in [ProtocolFamily::INET, ProtocolFamily::INET6] {
        host.register_plumber(owner, family, FAMILY, Arc::new(Plumbing(seen.clone()))).unwrap();
    }
    let index = control.create_interface("odd", "odd0", Args::default()).unwrap().wait(WAIT).unwrap();
    for (address, len) in [("203.0.113.1", 24), ("2001:db8:c::1", 64)] {
        control.add_address("odd0", address.parse().unwrap(), len).unwrap().wait(WAIT).unwrap();
    }
    (seen, index)
}

#[test]
fn a_plumber_brings_ip_to_a_new_family() {
    let bed = Bed::new();
    bed.neighbor(1, "198.51.100.9");
    bed.neighbor(1, "2001:db8:b::9");
    let (seen, index) = made(&bed);
    assert_eq!(seen.said().iter().filter(|s| s.starts_with("plumb")).count(), 2);
    let host = nke_dataplane::shared::host(bed.runtime.shared());
    let put = |version: u8, packet: &[u8]| {
        host.inject_input(index, bed.mbuf(&[&[version], packet].concat())).unwrap();
    };
    // In by it and out by Ethernet, both versions.
    put(4, &udp(v4("203.0.113.9").into(), v4("198.51.100.9").into(), 9, b"over"));
    assert_eq!(Ipv4::new_checked(&bed.next(1)[14..]).unwrap().ttl(), 63);
    put(6, &udp(v6("2001:db8:c::9").into(), v6("2001:db8:b::9").into(), 9, b"over"));
    assert_eq!(Ipv6::new_checked(&bed.next(1)[14..]).unwrap().hop_limit(), 63);
    // Out by it: framed by its driver; no neighbour is asked for.
    bed.send(
        0,
        &frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4("203.0.113.9").into(), 9, b"")),
    );
    let out = seen.next();
    assert_eq!((out[0], Ipv4::new_checked(&out[1..]).unwrap().ttl()), (4, 63));
    let packet = udp(v6("2001:db8:a::9").into(), v6("2001:db8:c::9").into(), 9, b"");
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &packet));
    let out = seen.next();
    assert_eq!((out[0], Ipv6::new_checked(&out[1..]).unwrap().hop_limit()), (6, 63));
    // For us: the answer leaves by it.
    put(4, &udp(v4("203.0.113.9").into(), v4("203.0.113.1").into(), 9, b""));
    let out = seen.next();
    assert_eq!(Icmp::new_checked(&out[21..]).unwrap().icmp_type(), 3);
    put(9, b"what is this");
    until("it is dropped", || (bed.drops("no_protocol") == 1).then_some(()));
    bed.control().unregister("odd", WAIT).unwrap().wait(WAIT).unwrap();
    bed.finish();
}

#[test]
fn requests_go_by_filters_to_the_driver_and_each_may_refuse() {
    let bed = Bed::new();
    let (seen, _) = made(&bed);
    let control = bed.control();
    let spec = AttachSpec::instance("filter", "odd0", Box::new(Filter(seen.clone())));
    control.attach(spec).unwrap().wait(WAIT).unwrap();
    seen.said();
    let ask = |request| control.ioctl("odd0", request).unwrap().wait(WAIT);
    ask(OwnedIoctl::SetMtu(9000)).unwrap();
    assert_eq!(seen.said()[..2], ["filter ioctl", "driver ioctl"]);
    assert!(ask(OwnedIoctl::SetMtu(9001)).is_err());
    assert!(ask(OwnedIoctl::AddMulti("224.0.0.9".parse().unwrap())).is_err());
    ask(OwnedIoctl::AddMulti("ff02::9".parse().unwrap())).unwrap();
    assert!(ask(OwnedIoctl::AddMulti("2001:db8::9".parse().unwrap())).is_err(), "no group");
    control.unregister("odd", WAIT).unwrap().wait(WAIT).unwrap();
    bed.finish();
}

#[test]
fn filters_go_before_protocols_before_the_driver_while_traffic_runs() {
    let bed = Bed::new();
    bed.neighbor(1, "198.51.100.9");
    let (seen, index) = made(&bed);
    let control = bed.control();
    let spec = AttachSpec::instance("filter", "odd0", Box::new(Filter(seen.clone())));
    control.attach(spec).unwrap().wait(WAIT).unwrap();
    seen.said();
    let host = nke_dataplane::shared::host(bed.runtime.shared());
    let elsewhere =
        frame(MAC[0], HOST[0], 0x0800, &udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, b""));
    let by_it = [&[4], &udp(v4("192.0.2.9").into(), v4("203.0.113.1").into(), 9, b"")[..]].concat();
    let ticket = control.detach_interface("odd0").unwrap();
    for _ in 0..1000 {
        bed.send(0, &elsewhere);
        drop(host.inject_input(index, bed.mbuf(&by_it)));
        bed.next(1);
    }
    ticket.wait(WAIT).unwrap();
    let said = seen.said();
    let at = |what: &str| said.iter().position(|s| s == what).unwrap_or_else(|| panic!("{what}: {said:?}"));
    assert!(
        at("filter detached") < at("unplumb inet") && at("unplumb inet") < at("driver detached"),
        "{said:?}"
    );
    assert_eq!(said.last().unwrap(), "driver detached", "the last call");
    assert!(control.detach_interface("odd0").is_err(), "the name is gone");
    control.unregister("odd", WAIT).unwrap().wait(WAIT).unwrap();
    assert_eq!(seen.said(), ["unregistered"]);
    bed.finish();
}
