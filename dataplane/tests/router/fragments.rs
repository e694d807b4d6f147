//! Fragments: put together for us, made on the way out, and floods of them (faults 1 to 4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nke_dataplane::control_handle::AttachSpec;
use nke_filters::{Batch, Cx, Family, IpFilter, IpHook, IpHooks};
use nke_mbuf::wire::{Icmp, Ipv4, Ipv6, Protocol};

use crate::bed::*;

/// An echo request with `len` bytes of payload, with its IPv4 header.
fn echo(ident: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; 28 + len];
    let mut ip = Ipv4::init(&mut bytes[..]).unwrap();
    ip.set_ttl(64);
    ip.set_ident(ident);
    ip.set_protocol(Protocol::ICMP);
    ip.set_src(v4("192.0.2.9"));
    ip.set_dst(v4("192.0.2.1"));
    ip.fill_checksum();
    for (i, byte) in bytes[28..].iter_mut().enumerate() {
        *byte = (i / 7) as u8;
    }
    let mut icmp = Icmp::init(&mut bytes[20..]).unwrap();
    icmp.set_icmp_type(8);
    icmp.fill_checksum(None);
    bytes
}

/// Bytes `from..to` of the payload of `packet` as a fragment.
fn piece(packet: &[u8], from: usize, to: usize) -> Vec<u8> {
    let body = &packet[20..];
    let mut bytes = [&packet[..20], &body[from..to.min(body.len())]].concat();
    let len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let more = if to < body.len() { 0x2000 } else { 0 };
    bytes[6..8].copy_from_slice(&(more | (from / 8) as u16).to_be_bytes());
    fix_ipv4(&mut bytes);
    bytes
}

fn pieces(packet: &[u8], step: usize) -> Vec<Vec<u8>> {
    (0..packet.len() - 20).step_by(step).map(|from| piece(packet, from, from + step)).collect()
}

fn send(bed: &Bed, i: usize, packet: &[u8]) {
    bed.send(i, &frame(MAC[i], HOST[i], 0x0800, packet));
}

/// The datagram whose fragments leave by interface `i`: its payload.
fn whole(bed: &Bed, i: usize) -> Vec<u8> {
    let (mut body, mut end) = (vec![0; 65536], None);
    let mut got = 0;
    while end != Some(got) {
        let out = bed.next(i);
        assert!(out.len() <= 1514, "{} bytes", out.len());
        let ip = Ipv4::new_checked(&out[14..]).unwrap();
        assert!(ip.verify_checksum());
        let (at, part) = (ip.fragment_offset(), ip.payload());
        body[at..at + part.len()].copy_from_slice(part);
        got += part.len();
        if !ip.more_fragments() {
            end = Some(at + part.len());
        }
    }
    body.truncate(got);
    body
}

fn assert_answer(body: &[u8], request: &[u8]) {
    let icmp = Icmp::new_checked(body).unwrap();
    assert!(icmp.verify_checksum(None));
    assert_eq!((icmp.icmp_type(), &body[4..]), (0, &request[24..]));
}

#[test]
fn an_echo_of_4000_bytes_is_answered_in_fragments_whatever_the_order() {
    let bed = Bed::new();
    bed.neighbor(0, "192.0.2.9");
    for (ident, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0]].into_iter().enumerate() {
        let request = echo(ident as u16, 4000);
        let parts = pieces(&request, 1480);
        assert_eq!(parts.len(), 3);
        order.iter().for_each(|i| send(&bed, 0, &parts[*i]));
        assert_answer(&whole(&bed, 0), &request);
    }
    let inet = &bed.runtime.shared().workers[0].inet;
    assert_eq!([inet.reassembled.get(), inet.fragments_made.get()], [3, 9]);
    bed.finish();
}

#[test]
fn duplicates_do_no_harm_and_overlaps_end_the_datagram() {
    let bed = Bed::new();
    bed.neighbor(0, "192.0.2.9");
    let request = echo(1, 400);
    send(&bed, 0, &piece(&request, 0, 200));
    send(&bed, 0, &piece(&request, 0, 200));
    send(&bed, 0, &piece(&request, 200, 408));
    assert_answer(&bed.next(0)[34..], &request);
    assert_eq!(bed.drops("frag_duplicate"), 1);
    // Over the end, over the begin, inside, around (RFC 5722, and RFC 1858 for IPv4).
    let overlaps = [(96, 160), (0, 104), (104, 120), (0, 160), (96, 152), (104, 144)];
    for (i, (from, to)) in overlaps.into_iter().enumerate() {
        let request = echo(10 + i as u16, 400);
        send(&bed, 0, &piece(&request, 96, 144));
        send(&bed, 0, &piece(&request, from, to));
        send(&bed, 0, &piece(&request, 0, 96));
        send(&bed, 0, &piece(&request, 144, 408));
        until("the overlap is counted", || {
            (bed.drops("frag_overlap") == 1 + i as u64 && bed.drops("frag_dead") == 2 * (1 + i as u64))
                .then_some(())
        });
    }
    bed.silence();
    assert_eq!(bed.runtime.shared().workers[0].inet.fragment_frames.get(), 0, "nothing is kept");
    bed.finish();
}

/// Counts what it sees at its hook.
struct See(IpHooks, Arc<[AtomicU64; 4]>);

impl See {
    fn count(&self, hook: IpHook, batch: &Batch<'_>) {
        self.1[hook.index()].fetch_add(batch.len() as u64, SeqCst);
    }
}

impl IpFilter for See {
    fn hooks(&self) -> IpHooks {
        self.0
    }
    fn prerouting(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.count(IpHook::Prerouting, batch);
    }
    fn input(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.count(IpHook::Input, batch);
    }
    fn forward(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.count(IpHook::Forward, batch);
    }
    fn output(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.count(IpHook::Output, batch);
    }
}

fn see(bed: &Bed, whole: bool) -> Arc<[AtomicU64; 4]> {
    let counts = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let hooks = IpHook::ALL.into_iter().fold(IpHooks::NONE, IpHooks::with);
    let hooks = if whole { hooks.reassemble() } else { hooks };
    let spec = AttachSpec::ip_instance("see", Family::V4, Box::new(See(hooks, counts.clone())));
    bed.control().attach(spec).unwrap().wait(WAIT).unwrap();
    counts
}

fn seen(counts: &[AtomicU64; 4]) -> [u64; 4] {
    std::array::from_fn(|i| counts[i].load(SeqCst))
}

#[test]
fn fragments_that_came_to_different_workers_meet() {
    let bed = Bed::with(2);
    bed.neighbor(0, "192.0.2.9");
    let counts = see(&bed, false);
    for ident in 0..32 {
        let request = echo(ident, 400);
        // A worker each: interface b is the other one's.
        send(&bed, 0, &piece(&request, 0, 200));
        send(&bed, 1, &piece(&request, 200, 408));
        assert_answer(&bed.next(0)[34..], &request);
    }
    let by_worker = |i: usize| bed.runtime.shared().workers[i].inet.reassembled.get();
    println!("put together: {} and {}", by_worker(0), by_worker(1));
    assert!(by_worker(0) > 0 && by_worker(1) > 0 && by_worker(0) + by_worker(1) == 32);
    assert_eq!(seen(&counts), [64, 32, 0, 32], "fragments before routing, each once; datagrams at input");
    bed.finish();
}

#[test]
fn forwarded_fragments_are_shown_whole_if_a_filter_asks_and_cut_again() {
    let bed = Bed::new();
    bed.neighbor(1, "198.51.100.9");
    let packet = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, &[5; 3000]);
    let parts = pieces(&packet, 1000);
    parts.iter().for_each(|part| send(&bed, 0, part));
    for part in &parts {
        assert_eq!(bed.next(1)[34..], part[20..], "passes as it came");
    }
    let counts = see(&bed, true);
    parts.iter().rev().for_each(|part| send(&bed, 0, part));
    assert_eq!(whole(&bed, 1), packet[20..]);
    assert_eq!(seen(&counts), [1, 0, 1, 1]);
    bed.finish();
}

#[test]
fn too_big_for_the_link_is_told_with_its_mtu() {
    let bed = Bed::with_mtu(1, [1500, 1280]);
    bed.neighbor(0, "192.0.2.9");
    bed.neighbor(0, "2001:db8:a::9");
    bed.neighbor(1, "198.51.100.9");
    bed.neighbor(1, "2001:db8:b::9");
    let mut packet = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, &[5; 1400]);
    send(&bed, 0, &packet);
    assert_eq!(whole(&bed, 1), packet[20..], "may be cut");
    packet[6] |= 0x40;
    fix_ipv4(&mut packet);
    send(&bed, 0, &packet);
    let out = bed.next(0);
    let ip = Ipv4::new_checked(&out[14..]).unwrap();
    let icmp = Icmp::new_checked(ip.payload()).unwrap();
    assert_eq!((ip.src(), icmp.icmp_type(), icmp.code()), (v4("192.0.2.1"), 3, 4));
    assert_eq!(icmp.mtu() & 0xffff, 1280);
    let packet = udp(v6("2001:db8:a::9").into(), v6("2001:db8:b::9").into(), 9, &[5; 1400]);
    bed.send(0, &frame(MAC[0], HOST[0], 0x86dd, &packet));
    let out = bed.next(0);
    let ip = Ipv6::new_checked(&out[14..]).unwrap();
    let icmp = Icmp::new_checked(ip.payload()).unwrap();
    assert_eq!((ip.src(), icmp.icmp_type(), icmp.mtu()), (v6("2001:db8:a::1"), 2, 1280));
    assert_eq!(bed.drops("too_big"), 2);
    bed.finish();
}

#[test]
fn a_flood_of_fragments_keeps_memory_flat_while_others_are_served() {
    let bed = Bed::new();
    bed.neighbor(0, "192.0.2.9");
    bed.neighbor(1, "198.51.100.9");
    let inet = &bed.runtime.shared().workers[0].inet;
    let packet = udp(v4("192.0.2.9").into(), v4("198.51.100.9").into(), 9, b"served");
    let (mut most, mut served, mut sources) = (0, 0, 0u32);
    for round in 0..500u32 {
        for i in 0..40 {
            let mut first = piece(&echo((round * 40 + i) as u16, 400), 0, 200);
            // From everywhere.
            sources = sources.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            first[12..16].copy_from_slice(&[10, (sources >> 24) as u8, (sources >> 16) as u8, 1]);
            fix_ipv4(&mut first);
            send(&bed, 0, &first);
        }
        send(&bed, 0, &packet);
        bed.next(1);
        served += 1;
        most = most.max(inet.fragment_frames.get());
    }
    println!(
        "20000 first fragments: {most} frames of {} held at most; {served} of 500 other packets served; discarded {}, no \
         memory {}, timed out {}",
        bed.pool.capacity(),
        bed.drops("frag_discarded"),
        bed.drops("frag_memory"),
        bed.drops("frag_timeout"),
    );
    assert!(most > 0 && most <= bed.pool.capacity() as u64 / 4, "{most}");
    // One that is whole still passes.
    let request = echo(1, 400);
    pieces(&request, 200).iter().for_each(|part| send(&bed, 0, part));
    assert_answer(&bed.next(0)[34..], &request);
    bed.finish();
}
