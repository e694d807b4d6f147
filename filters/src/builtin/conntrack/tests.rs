use nke_mbuf::wire::{Protocol, TcpFlags};
use nke_mbuf::{Mbuf, Pool};

use super::*;
use crate::IpHook;
use crate::flow::testing::{Packet, Reasons, args, error6, mbuf, pool, show, udp6, with_cx};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(0x12);
const LAN: u16 = 3;
const WAN: u16 = 4;

struct Rig {
    filter: Box<dyn IpFilter>,
    reasons: Reasons,
    pool: Pool,
    hook: IpHook,
}

fn rig(family: Family, given: &[(&str, &str)]) -> Rig {
    let reasons = Reasons::default();
    let filter = create(family, given, &reasons).unwrap();
    Rig { filter, reasons, pool: pool(), hook: IpHook::Forward }
}

fn create(
    family: Family,
    given: &[(&str, &str)],
    reasons: &Reasons,
) -> Result<Box<dyn IpFilter>, CreateError> {
    let port = |name: &str| (name == "lan").then_some(IfIndex(LAN));
    Conntrack::instance(family, 2, &args(given), |name| reasons.make(name), port)
}

fn stateful(more: &[(&str, &str)]) -> Rig {
    rig(Family::V4, &[&[("policy", "stateful"), ("inside", "lan")], more].concat())
}

impl Rig {
    /// What becomes of a packet that came in by this port: `ok` or the name of the reason.
    fn pass(&self, rcvif: u16, bytes: &[u8]) -> String {
        let mut packet: Mbuf = mbuf(&self.pool, bytes);
        packet.set_rcvif(rcvif);
        let outcome = with_cx(&self.pool, |cx| {
            show(packet, |batch| match self.hook {
                IpHook::Output => self.filter.output(cx, batch),
                IpHook::Input => self.filter.input(cx, batch),
                _ => self.filter.forward(cx, batch),
            })
        });
        outcome.map_or_else(|reason| self.reasons.name(reason), |_| "ok".into())
    }

    fn figure(&self, name: &str) -> u64 {
        self.filter.figures().into_iter().find(|(n, _)| *n == name).unwrap().1
    }
}

#[test]
fn a_connection_is_opened_from_inside_only() {
    let rig = stateful(&[]);
    let packet = Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", SYN);
    let send = |flags| rig.pass(LAN, &Packet { flags, ..packet.clone() }.bytes());
    let answer = |flags| rig.pass(WAN, &Packet { flags, ..packet.answer() }.bytes());
    assert_eq!(answer(SYN), "untracked");
    assert_eq!(answer(SYN_ACK), "invalid");
    assert_eq!(send(ACK), "invalid", "not loose");
    assert_eq!((send(SYN), answer(SYN_ACK), send(ACK)), ("ok".into(), "ok".into(), "ok".into()));
    assert_eq!((rig.figure("flows"), rig.figure("established"), rig.figure("created")), (1, 1, 1));
    assert_eq!((rig.figure("tracked"), rig.figure("untracked"), rig.figure("invalid")), (3, 1, 2));
    // It ends; the outside may not open it anew, the inside may.
    assert_eq!(answer(TcpFlags::RST), "ok");
    assert_eq!(rig.figure("established"), 0);
    assert_eq!(answer(SYN), "untracked");
    assert_eq!((send(SYN), rig.figure("flows")), ("ok".into(), 1));
}

#[test]
fn either_end_may_be_the_upper_one() {
    for (inside, outside) in
        [("10.0.0.5:1", "192.0.2.1:2"), ("192.0.2.1:2", "10.0.0.5:1"), ("10.0.0.5:1", "10.0.0.5:2")]
    {
        let rig = stateful(&[]);
        let packet = Packet::udp(inside, outside);
        assert_eq!(rig.pass(WAN, &packet.answer().bytes()), "untracked");
        assert_eq!(rig.pass(LAN, &packet.bytes()), "ok");
        assert_eq!((rig.pass(LAN, &packet.bytes()), rig.figure("established")), ("ok".into(), 0));
        assert_eq!(rig.pass(WAN, &packet.answer().bytes()), "ok");
        assert_eq!((rig.figure("flows"), rig.figure("established")), (1, 1));
    }
}

#[test]
fn queries_open_and_answers_do_not() {
    let rig = stateful(&[]);
    let echo = Packet::echo("10.0.0.5", "192.0.2.1", 9);
    assert_eq!(rig.pass(LAN, &echo.answer().bytes()), "invalid");
    assert_eq!(rig.pass(LAN, &echo.bytes()), "ok");
    assert_eq!(rig.pass(WAN, &echo.answer().bytes()), "ok");
    let other = Packet::echo("10.0.0.5", "192.0.2.1", 10);
    assert_eq!(rig.pass(WAN, &other.answer().bytes()), "invalid");
    let gre = Packet::new(Protocol::GRE, "10.0.0.5", "192.0.2.1");
    assert_eq!(rig.pass(WAN, &gre.answer().bytes()), "untracked");
    assert_eq!(rig.pass(LAN, &gre.bytes()), "ok");
    assert_eq!(rig.pass(WAN, &gre.answer().bytes()), "ok");
}

#[test]
fn errors_belong_to_the_flow_they_quote() {
    let rig = stateful(&[]);
    let packet = Packet::udp("10.0.0.5:4000", "192.0.2.1:53");
    let error = packet.error("198.51.100.1", "10.0.0.5", 28);
    assert_eq!(rig.pass(WAN, &error), "untracked");
    assert_eq!(rig.pass(LAN, &packet.bytes()), "ok");
    assert_eq!(rig.pass(WAN, &error), "ok");
    assert_eq!(rig.figure("related"), 1);
    assert_eq!(rig.pass(WAN, &packet.error("198.51.100.1", "10.0.0.5", 24)), "invalid");
}

#[test]
fn an_expression_may_open() {
    let rig = rig(Family::V4, &[("policy", "stateful"), ("open", "tcp dst port 22 or src net 10.0.0.0/8")]);
    assert_eq!(rig.pass(WAN, &Packet::tcp("192.0.2.1:4000", "198.51.100.1:22", SYN).bytes()), "ok");
    assert_eq!(rig.pass(WAN, &Packet::tcp("192.0.2.1:4000", "198.51.100.1:23", SYN).bytes()), "untracked");
    assert_eq!(rig.pass(WAN, &Packet::udp("10.0.0.5:1", "198.51.100.1:23").bytes()), "ok");
}

#[test]
fn tracking_drops_nothing() {
    let rig = rig(Family::V4, &[]);
    let mut fragment = Packet::udp("10.0.0.5:1", "192.0.2.1:2").bytes();
    let mut ip = nke_mbuf::wire::Ipv4::new_checked(&mut fragment).unwrap();
    ip.set_fragment(false, true, 0);
    ip.fill_checksum();
    assert_eq!(rig.pass(WAN, &fragment), "ok");
    assert_eq!(rig.pass(WAN, &Packet::tcp("10.0.0.5:1", "192.0.2.1:2", ACK).bytes()), "ok");
    assert_eq!((rig.figure("invalid"), rig.figure("flows")), (2, 0));
    assert_eq!(rig.pass(WAN, &Packet::udp("10.0.0.5:1", "192.0.2.1:2").bytes()), "ok");
    assert_eq!(rig.figure("flows"), 1);
}

#[test]
fn loose_takes_up_connections_in_the_middle() {
    let rig = stateful(&[("loose", "true")]);
    let packet = Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", ACK);
    assert_eq!(rig.pass(WAN, &packet.answer().bytes()), "untracked");
    assert_eq!(rig.pass(LAN, &Packet { flags: TcpFlags::RST, ..packet.clone() }.bytes()), "invalid");
    assert_eq!(rig.pass(LAN, &packet.bytes()), "ok");
    assert_eq!(rig.pass(WAN, &packet.answer().bytes()), "ok");
    assert_eq!(rig.pass(LAN, &packet.bytes()), "ok");
    assert_eq!(rig.figure("established"), 1);
}

#[test]
fn this_host_may_open() {
    let mut rig = rig(Family::V4, &[("policy", "stateful"), ("scope", "host")]);
    let hooks = rig.filter.hooks();
    assert!(hooks.has(IpHook::Input) && hooks.has(IpHook::Output) && !hooks.has(IpHook::Forward));
    let packet = Packet::udp("10.0.0.1:4000", "192.0.2.1:53");
    rig.hook = IpHook::Input;
    assert_eq!(rig.pass(WAN, &packet.answer().bytes()), "untracked");
    rig.hook = IpHook::Output;
    assert_eq!(rig.pass(0, &packet.bytes()), "ok");
    rig.hook = IpHook::Input;
    assert_eq!(rig.pass(WAN, &packet.answer().bytes()), "ok");
}

#[test]
fn a_full_table_refuses_and_established_flows_live() {
    let rig = stateful(&[("flows", "2")]);
    for port in [1, 2] {
        let packet = Packet::udp(&format!("10.0.0.5:{port}"), "192.0.2.1:53");
        assert_eq!(rig.pass(LAN, &packet.bytes()), "ok");
        assert_eq!(rig.pass(WAN, &packet.answer().bytes()), "ok");
    }
    assert_eq!(rig.pass(LAN, &Packet::udp("10.0.0.5:3", "192.0.2.1:53").bytes()), "table_full");
    assert_eq!(rig.pass(WAN, &Packet::udp("10.0.0.5:1", "192.0.2.1:53").answer().bytes()), "ok");
    assert_eq!(rig.figure("table_full"), 1);
}

#[test]
fn ipv6_with_its_errors_and_neighbours() {
    let rig = rig(Family::V6, &[("policy", "stateful"), ("inside", "lan")]);
    let (inside, outside) = (("2001:db8::5", 4000), ("2001:db8:1::1", 53));
    let packet = udp6(inside, outside, b"x");
    let answer = udp6(outside, inside, b"x");
    let error = error6("2001:db8:2::1", "2001:db8::5", &packet);
    assert_eq!(rig.pass(WAN, &answer), "untracked");
    assert_eq!(rig.pass(WAN, &error), "untracked");
    assert_eq!(rig.pass(LAN, &packet), "ok");
    assert_eq!((rig.pass(WAN, &answer), rig.pass(WAN, &error)), ("ok".into(), "ok".into()));
    let mut solicitation = error6("fe80::1", "ff02::1", &[0; 16]);
    solicitation[40] = 135;
    assert_eq!(rig.pass(WAN, &solicitation), "ok");
    solicitation[40] = 150;
    assert_eq!(rig.pass(WAN, &solicitation), "untracked");
    assert_eq!((rig.figure("flows"), rig.figure("established")), (1, 1));
}

#[test]
fn errors_in_the_arguments_have_cause_and_cure() {
    let reasons = Reasons::default();
    let on = ("policy", "stateful");
    for (given, cause) in [
        (vec![on], "nobody may open a flow"),
        (vec![("inside", "lan")], "every packet may"),
        (vec![on, ("inside", "wan")], "no port is called `wan`"),
        (vec![on, ("open", "tcp port")], "`open` does not parse"),
        (vec![("policy", "strict")], "`policy` is `strict`"),
        (vec![("scope", "all")], "`scope` is `all`"),
        (vec![("loose", "maybe")], "`loose` is not a switch"),
        (vec![("flows", "5000000")], "`flows` is not a number"),
        (vec![("tcp_established_s", "0")], "`tcp_established_s` is not a number"),
        (vec![("strict", "1")], "unknown argument"),
    ] {
        let error = create(Family::V4, &given, &reasons).err().unwrap();
        assert!(error.cause.contains(cause) && !error.cure.is_empty(), "{given:?}: {error}");
    }
}

#[test]
fn flows_are_shown_as_they_were_opened() {
    let rig = stateful(&[]);
    let up = Packet::tcp("10.0.0.5:4000", "192.0.2.1:80", SYN);
    assert_eq!(rig.pass(LAN, &up.bytes()), "ok");
    let entry = |rig: &Rig| {
        let [entry] = &rig.filter.flows(10)[..] else { panic!() };
        (entry.protocol, entry.src.to_string(), entry.dst.to_string(), entry.state, entry.idle_s)
    };
    trait Shown {
        fn to_string(&self) -> String;
    }
    impl Shown for (std::net::IpAddr, u16) {
        fn to_string(&self) -> String {
            format!("{}:{}", self.0, self.1)
        }
    }
    assert_eq!(entry(&rig), (6, "10.0.0.5:4000".into(), "192.0.2.1:80".into(), "opening", 0));
    assert_eq!(rig.pass(WAN, &Packet { flags: SYN_ACK, ..up.answer() }.bytes()), "ok");
    assert_eq!(entry(&rig).3, "replied");
    assert_eq!(rig.pass(LAN, &Packet { flags: ACK, ..up }.bytes()), "ok");
    assert_eq!(entry(&rig).3, "established");
    // Also when the opener has the higher address, and of IPv6.
    let rig = stateful(&[]);
    assert_eq!(rig.pass(LAN, &Packet::udp("203.0.113.5:4000", "192.0.2.1:53").bytes()), "ok");
    assert_eq!(entry(&rig), (17, "203.0.113.5:4000".into(), "192.0.2.1:53".into(), "opening", 0));
    let rig6 = self::rig(Family::V6, &[("policy", "stateful"), ("inside", "lan")]);
    assert_eq!(rig6.pass(LAN, &udp6(("2001:db8::9", 7), ("2001:db8::1", 9), b"x")), "ok");
    assert_eq!(entry(&rig6), (17, "2001:db8::9:7".into(), "2001:db8::1:9".into(), "opening", 0));
    assert!(rig6.filter.flows(0).is_empty());
}
