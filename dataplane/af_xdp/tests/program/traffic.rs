//! Frames on the move: counted where they should be, and none lost.

use std::process::Command;

use af_xdp::program::{AttachMode, Count, LiveSource, Match, Rate, Sink, SinkAction};
use af_xdp::{Socket, SocketConfig, Umem, UmemConfig};

use crate::common::{Lab, ip, root};
use crate::frames::{ether, udp_frame};
use crate::{eventually, load, send_all, shown};

#[test]
fn an_update_swaps_programs_without_a_gap() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 1, 1500);
    let arp = Match { ethertype: Some(0x0806), ..Default::default() };
    let (first, second) = (load(std::slice::from_ref(&arp), false), load(&[arp], false));
    let link = Lab::inside(&lab.b, || first.attach("b0", AttachMode::Native).unwrap());
    let passed = || first.counters().unwrap().passed + second.counters().unwrap().passed;
    Lab::inside(&lab.a, || {
        let source = LiveSource::new("a0", &udp_frame(), 4).unwrap();
        for round in 0..20 {
            let ids = (second.id().unwrap(), first.id().unwrap());
            let (next, id) = if round % 2 == 0 { (&second, ids.0) } else { (&first, ids.1) };
            send_all(&source, 100, passed);
            link.update(next).unwrap();
            assert!(shown(&lab.b, "b0").contains(&format!("prog/xdp id {id} ")));
        }
    });
    let counters = [&first, &second].map(|p| p.counters().unwrap());
    assert_eq!(counters.map(|c| c.passed), [1000, 1000]);
    assert_eq!(counters[0].passed_bytes, 1000 * udp_frame().len() as u64);
}

#[test]
fn only_queues_with_a_socket_are_redirected() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 1, 1500);
    let program = load(&[Match { protocol: Some(17), ..Default::default() }], false);
    let umem = Umem::new(UmemConfig { frame_count: 1024, ..Default::default() }).unwrap();
    let mut frames = umem.take_frames();
    let (mut socket, _link) = Lab::inside(&lab.b, || {
        let socket = Socket::bind_filled(&umem, "b0", 0, &SocketConfig::default(), &mut frames).unwrap();
        (socket, program.attach("b0", AttachMode::Native).unwrap())
    });
    let (arp, fd) = (ether(&[], &[&[0x08, 0x06], &[0; 46]]), socket.fd());
    Lab::inside(&lab.a, || {
        let udp = LiveSource::new("a0", &udp_frame(), 4).unwrap();
        let other = LiveSource::new("a0", &arp, 1).unwrap();
        let counters = || program.counters().unwrap();
        send_all(&udp, 50, || counters().no_socket);
        program.insert(0, fd).unwrap();
        send_all(&udp, 60, || counters().redirected);
        send_all(&other, 70, || counters().passed);
        program.remove(0).unwrap();
        send_all(&udp, 80, || counters().no_socket);
        program.insert(0, fd).unwrap();
    });
    let mut lengths = Vec::new();
    eventually("60 frames are in the socket", || {
        socket.receive(64, |r| lengths.push(r.len as usize));
        lengths.len() >= 60
    });
    assert_eq!(lengths, vec![udp_frame().len(); 60]);
    let counted = program.counters().unwrap();
    assert_eq!((counted.no_socket, counted.redirected, counted.passed), (130, 60, 70));
    assert_eq!(counted.redirected_bytes, 60 * udp_frame().len() as u64);
    // A socket that is closed is no socket: packets pass.
    drop(socket);
    Lab::inside(&lab.a, || {
        let udp = LiveSource::new("a0", &udp_frame(), 1).unwrap();
        send_all(&udp, 10, || program.counters().unwrap().no_socket);
    });
}

#[test]
fn a_source_and_sinks_count_the_same() {
    if !root() {
        return;
    }
    for (mode, action, queues) in [
        (AttachMode::Native, SinkAction::Drop, 1),
        (AttachMode::Native, SinkAction::Pass, 2),
        (AttachMode::Generic, SinkAction::Drop, 1),
    ] {
        let lab = Lab::new(1, queues, 1500);
        let sink = Sink::load_with(action).unwrap();
        let _link = Lab::inside(&lab.b, || sink.attach("b0", mode).unwrap());
        if mode == AttachMode::Generic {
            // Without a native program the veth has no NAPI of its own.
            ethtool(&lab.b, "b0", "gro on");
        }
        Lab::inside(&lab.a, || {
            for len in [60, 61, 1514] {
                let mut frame = udp_frame();
                frame.resize(len, 0);
                let source = LiveSource::new("a0", &frame, 16).unwrap();
                let before = sink.counters().unwrap();
                send_all(&source, 2000, || sink.counters().unwrap().packets);
                let after = sink.counters().unwrap();
                let bytes = 2000 * len as u64;
                assert_eq!(after.bytes - before.bytes, bytes, "{mode:?} {action:?} {len}");
                assert_eq!(source.counters().unwrap(), Count { packets: 2000, bytes });
                assert_eq!(source.run(0, 64, Rate::Flood).unwrap().sent, 0);
                assert_eq!(source.counters().unwrap().packets, 2000);
            }
        });
    }
}

fn ethtool(ns: &str, device: &str, what: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", ns, "ethtool", "-K", device]).args(what.split(' '));
    let out = command.output().unwrap();
    assert!(out.status.success(), "ethtool -K {device} {what}: {out:?}");
}

/// The pages of sent frames come back with the time to live the forwarder left in them.
#[test]
fn a_forwarding_kernel_does_not_wear_frames_out() {
    if !root() {
        return;
    }
    let lab = Lab::new(2, 1, 1500);
    let (a, b) = (&lab.a, &lab.b);
    let sysctl = format!("netns exec {b} sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0");
    ip(&sysctl);
    ip(&format!("-n {b} addr add 10.1.0.1/24 dev b0"));
    ip(&format!("-n {b} addr add 10.2.0.1/24 dev b1"));
    ip(&format!("-n {b} neigh add 10.2.0.9 lladdr 02:00:00:00:00:09 dev b1"));
    let text = shown(b, "b0");
    let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    let mac: Vec<_> = mac.split(':').map(|h| u8::from_str_radix(h, 16).unwrap()).collect();
    let mut frame = udp_frame();
    frame[..6].copy_from_slice(&mac);
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    // Two hops to live: forwarded once as it is, not once more.
    frame[22] = 2;
    frame[26..34].copy_from_slice(&[10, 1, 0, 9, 10, 2, 0, 9]);
    frame[24..26].fill(0);
    let mut sum: u32 = frame[14..34].chunks(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    frame[40..42].fill(0);
    let (entry, exit) = (Sink::load_with(SinkAction::Pass).unwrap(), Sink::load().unwrap());
    let _entry = Lab::inside(b, || entry.attach("b0", AttachMode::Native).unwrap());
    let _exit = Lab::inside(a, || exit.attach("a1", AttachMode::Native).unwrap());
    Lab::inside(a, || {
        let source = LiveSource::new("a0", &frame, 8).unwrap();
        // The kernel's own neighbour may ask who 10.1.0.9 is: only what is sent is waited for.
        send_all(&source, 4000, || exit.counters().unwrap().packets);
    });
    assert_eq!(entry.counters().unwrap().packets, 4000);
}
