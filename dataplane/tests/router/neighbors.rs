//! ARP and neighbour discovery.

use nke_mbuf::wire::{Arp, ArpOp, EtherAddr};

use crate::bed::*;

fn request(sender: &str, target: &str) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    let mut arp = Arp::init(&mut bytes[..]).unwrap();
    arp.set_op(ArpOp::REQUEST);
    arp.set_sender(HOST[0], v4(sender));
    arp.set_target(EtherAddr([0; 6]), v4(target));
    frame(EtherAddr([0xff; 6]), HOST[0], 0x0806, &bytes)
}

#[test]
fn who_asks_for_our_address_is_answered() {
    let bed = Bed::new();
    bed.send(0, &request("192.0.2.9", "192.0.2.1"));
    let out = bed.next(0);
    assert_eq!(out[..14], frame(HOST[0], MAC[0], 0x0806, &[])[..]);
    let arp = Arp::new_checked(&out[14..]).unwrap();
    assert_eq!((arp.op(), arp.sender_hw(), arp.sender_ip()), (ArpOp::REPLY, MAC[0], v4("192.0.2.1")));
    bed.send(0, &request("192.0.2.9", "192.0.2.2"));
    bed.silence();
    bed.finish();
}

#[test]
fn packets_wait_for_their_neighbor_and_go_when_it_answers() {
    let bed = Bed::new();
    for mark in 0..5u8 {
        let packet = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, &[mark]);
        bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    }
    let asked = bed.next(1);
    assert_eq!(asked[..6], [0xff; 6]);
    until("all wait or are dropped", || (bed.drops("neighbor_queue") == 2).then_some(()));
    let answer = arp_answer(&asked, HOST[1], v4("198.51.100.9")).unwrap();
    bed.send(1, &answer);
    for mark in 2..5 {
        let out = bed.next(1);
        assert_eq!((&out[..6], out[42]), (&HOST[1].0[..], mark), "the last three, in order");
    }
    // From here on it is a route of its own.
    let packet = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, &[9]);
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    assert_eq!(bed.next(1)[42], 9);
    bed.finish();
}

#[test]
fn a_neighbor_that_does_not_answer_costs_the_sender_an_icmp_error() {
    let bed = Bed::new();
    bed.neighbor(0, "192.0.2.9");
    let packet = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, b"lost");
    bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    let out = bed.next(0);
    assert_eq!((out[23], out[34], out[35]), (1, 3, 1), "ICMP host unreachable");
    assert_eq!(bed.drops("neighbor_unresolved"), 1);
    bed.finish();
}

#[test]
fn a_solicitation_is_answered_with_an_advertisement() {
    let bed = Bed::new();
    let mut mbuf = bed.pool.alloc().unwrap();
    let (from, target) = (v6("2001:db8:b::9"), v6("2001:db8:b::1"));
    assert!(nke_inet::neigh::neighbor_solicitation(&mut mbuf, HOST[1], from, target, None));
    bed.ends[1].send(mbuf).unwrap();
    let out = bed.next(1);
    assert_eq!(out[..14], frame(HOST[1], MAC[1], 0x86dd, &[])[..]);
    assert_eq!((out[54], &out[62..78]), (136, &target.octets()[..]), "a neighbour advertisement");
    bed.finish();
}
