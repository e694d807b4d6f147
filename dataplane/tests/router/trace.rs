//! The extension `trace`: packets are grouped by the way they took.

use std::sync::Arc;

use nke_dataplane::control_handle::AttachSpec;
use nke_filters::builtin::{Acl, Capture, Count, Trace};
use nke_filters::{ArgValue, Args, AttachId, CreateError, Cx, DropReason, Layer, Probe, ProbeEnv, ProbeKind};
use nke_mbuf::Mbuf;
use serde_json::Value;

use crate::bed::*;

const FORWARDED: &str = "198.51.100.9";
const OURS: &str = "192.0.2.1";
const NOWHERE: &str = "203.0.113.1";

fn bed(workers: usize) -> Bed {
    let bed = Bed::with(workers);
    bed.neighbor(0, "192.0.2.9");
    bed.neighbor(1, FORWARDED);
    let control = bed.control();
    control.register_probe(Arc::new(Trace)).unwrap().wait(WAIT).unwrap();
    control.register_probe(Arc::new(Capture)).unwrap().wait(WAIT).unwrap();
    control.register(Arc::new(Count)).unwrap().wait(WAIT).unwrap();
    control.register_ip(Arc::new(Acl)).unwrap().wait(WAIT).unwrap();
    bed
}

fn attach(bed: &Bed, kind: &str, place: &str, args: &[(&str, &str)]) -> AttachId {
    let pair = |(n, v): &(&str, &str)| ((*n).to_owned(), ArgValue::Text((*v).to_owned()));
    let spec = AttachSpec { args: Args(args.iter().map(pair).collect()), ..AttachSpec::kind(kind, place) };
    bed.control().attach(spec).unwrap().wait(WAIT).unwrap()
}

fn send(bed: &Bed, to: &str) {
    let packet = udp(v4("192.0.2.9").into(), v4(to).into(), 9, b"payload");
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
}

/// The ways: packets, example, stages.
fn paths(bed: &Bed, id: AttachId) -> Vec<(u64, String, Vec<String>)> {
    let value = bed.control().paths(id).unwrap().wait(WAIT).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let path = |p: &Value| {
        let stages = p["stages"].as_array().unwrap();
        assert_eq!(stages[0]["ns"], 0);
        assert!(stages.iter().all(|s| s["ns"].as_u64().unwrap() < 10_000_000_000));
        let stages = stages.iter().map(|s| text(&s["stage"])).collect();
        (p["packets"].as_u64().unwrap(), text(&p["example"]), stages)
    };
    value.as_array().unwrap().iter().map(path).collect()
}

fn figure(bed: &Bed, id: AttachId, name: &str) -> u64 {
    bed.control().figures(id).unwrap().wait(WAIT).unwrap()[name]
}

fn detach(bed: &Bed, id: AttachId) {
    bed.control().detach(id).unwrap().wait(WAIT).unwrap();
}

#[test]
fn forwarded_local_and_dropped_packets_are_three_ways() {
    let bed = bed(1);
    let id = attach(&bed, "trace", "path", &[("match", "udp dst port 9")]);
    for _ in 0..3 {
        send(&bed, FORWARDED);
        bed.next(1);
    }
    for _ in 0..2 {
        send(&bed, OURS);
        bed.next(0);
    }
    send(&bed, NOWHERE);
    bed.next(0);
    let seen = paths(&bed, id);
    let forwarded = [
        "input a",
        "demux",
        "ip prerouting",
        "route: via 198.51.100.9 on b",
        "ip forward",
        "ip output",
        "output b",
        "transmit b",
    ];
    let local = ["input a", "demux", "ip prerouting", "route: local", "ip input", "drop no_transport"];
    let nowhere = ["input a", "demux", "ip prerouting", "drop no_route"];
    assert_eq!(seen.len(), 3, "{seen:#?}");
    assert_eq!((seen[0].0, &seen[0].2[..]), (3, &forwarded.map(String::from)[..]));
    assert_eq!((seen[1].0, &seen[1].2[..]), (2, &local.map(String::from)[..]));
    assert_eq!((seen[2].0, &seen[2].2[..]), (1, &nowhere.map(String::from)[..]));
    assert_eq!(seen[0].1, "udp 192.0.2.9 port 4000 > 198.51.100.9 port 9, 49 bytes");
    assert_eq!((figure(&bed, id, "packets"), figure(&bed, id, "missed")), (6, 0));
    detach(&bed, id);
    bed.finish();
}

#[test]
fn filters_are_stages_and_an_answer_in_place_is_the_same_packet() {
    let bed = bed(1);
    let count = attach(&bed, "count", "a", &[]);
    let acl = attach(&bed, "acl", "ip", &[("rule", "permit icmp from any to any"), ("hook", "input,output")]);
    let id = attach(&bed, "trace", "path", &[]);
    let mut echo = udp(v4("192.0.2.9").into(), v4(OURS).into(), 0, b"");
    echo[9] = 1;
    echo[20..].copy_from_slice(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    fix_ipv4(&mut echo);
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &echo));
    assert_eq!(bed.next(0)[34], 0, "an echo reply");
    send(&bed, FORWARDED);
    until("it is dropped", || (paths(&bed, id).len() == 2).then_some(()));
    let seen = paths(&bed, id);
    let (count, acl) = (format!("filter {count} (count)"), format!("filter {acl} (acl)"));
    let find = |part: &str| &seen.iter().find(|(_, example, _)| example.contains(part)).unwrap().2;
    assert_eq!(
        find("icmp")[..],
        [
            "input a",
            &count,
            "demux",
            "ip prerouting",
            "route: local",
            "ip input",
            &acl,
            "route: via 192.0.2.9 on a",
            "ip output",
            &acl,
            "output a",
            &count,
            "transmit a"
        ]
    );
    assert_eq!(find("udp")[7..], [&acl, "drop acl:default"]);
    detach(&bed, id);
    bed.finish();
}

#[test]
fn it_follows_as_many_as_asked_and_none_when_it_is_gone() {
    let bed = bed(2);
    let id = attach(&bed, "trace", "path", &[("packets", "10"), ("match", "udp")]);
    // A second one at the same time has packets of its own.
    let other = attach(&bed, "trace", "path", &[("packets", "5")]);
    for _ in 0..50 {
        send(&bed, FORWARDED);
        bed.next(1);
    }
    assert_eq!((figure(&bed, id, "packets"), figure(&bed, id, "complete")), (10, 1));
    let total = |seen: &[(u64, String, Vec<String>)]| seen.iter().map(|p| p.0).sum::<u64>();
    let seen = paths(&bed, id);
    assert_eq!(total(&seen), 10, "{seen:#?}");
    // By the ring of `b`, which is another worker's.
    assert!(seen.iter().all(|(.., stages)| stages.last().unwrap() == "transmit b"));
    assert_eq!(total(&paths(&bed, other)), 5);
    detach(&bed, id);
    detach(&bed, other);
    assert!(bed.control().paths(id).unwrap().wait(WAIT).is_err());
    send(&bed, FORWARDED);
    bed.next(1);
    bed.finish();
}

#[test]
fn traces_come_and_go_while_traffic_flows() {
    let bed = bed(1);
    let (mut sent, mut received) = (0u64, 0u64);
    for round in 0..30 {
        let id = attach(&bed, "trace", "path", &[("packets", "10000")]);
        for _ in 0..100 {
            send(&bed, FORWARDED);
            sent += 1;
        }
        if round % 2 == 0 {
            assert!(paths(&bed, id).len() < 100);
        }
        // With marked packets under way.
        detach(&bed, id);
        until("all arrive", || {
            while bed.ends[1].recv().is_some() {
                received += 1;
            }
            (received == sent).then_some(())
        });
    }
    bed.finish();
}

/// A kind of probe that panics at whatever it is told.
struct Panics;

impl ProbeKind for Panics {
    fn name(&self) -> &str {
        "panics"
    }
    fn create(&self, _: &ProbeEnv, _: &Args) -> Result<Box<dyn Probe>, CreateError> {
        Ok(Box::new(Panics))
    }
}

impl Probe for Panics {
    fn traces(&self) -> bool {
        true
    }
    fn received(&self, _: &mut Cx<'_>, _: &mut Mbuf, _: Layer) {
        panic!("as told");
    }
    fn dropped(&self, _: &mut Cx<'_>, _: &Mbuf, _: Layer, _: DropReason) {
        panic!("as told");
    }
}

#[test]
fn a_probe_that_panics_is_detached_and_costs_no_packet() {
    let bed = bed(1);
    let control = bed.control();
    control.register_probe(Arc::new(Panics)).unwrap().wait(WAIT).unwrap();
    let id = attach(&bed, "panics", "path", &[]);
    send(&bed, NOWHERE);
    assert_eq!(bed.next(0)[23], 1, "the answer");
    send(&bed, FORWARDED);
    bed.next(1);
    until("it is detached", || control.figures(id).unwrap().wait(WAIT).is_err().then_some(()));
    assert_eq!(bed.drops("no_route"), 1);
    bed.finish();
}
