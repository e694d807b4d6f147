//! Sockets and programs on real veth pairs. Needs root; see `common`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::{Duration, Instant};

use af_xdp::program::{
    AttachMode, LinkMode, LiveSource, Match, ProgramConfig, Rate, Redirect, Selection, Sink,
};
use af_xdp::{BindMode, Frame, Kick, Mode, Socket, SocketConfig, Transmit, Umem, UmemConfig, wait};
use common::{Lab, ip, root};

const PATIENCE: Duration = Duration::from_secs(10);

fn frame(len: usize, ethertype: u16) -> Vec<u8> {
    let mut frame = vec![0u8; len];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    for (i, byte) in frame[14..].iter_mut().enumerate() {
        *byte = i as u8;
    }
    frame
}

/// A socket with frames: `bind` filled half of them in, the rest wait in `spare`.
struct Port {
    umem: Umem,
    socket: Socket,
    spare: Vec<Frame>,
}

impl Port {
    fn bind(umem: &Umem, spare: Vec<Frame>, device: &str, queue: u32, config: &SocketConfig) -> Port {
        let mut spare = spare;
        let mut fill = spare.split_off(spare.len() / 2);
        let socket = Socket::bind_filled(umem, device, queue, config, &mut fill).unwrap();
        spare.append(&mut fill);
        Port { umem: umem.clone(), socket, spare }
    }

    fn new(device: &str, queue: u32, config: &SocketConfig) -> Port {
        let umem = Umem::new(UmemConfig { frame_count: 1024, ..Default::default() }).unwrap();
        let frames = umem.take_frames();
        Port::bind(&umem, frames, device, queue, config)
    }

    fn send(&mut self, data: &[u8]) {
        let size = self.umem.frame_size() as usize;
        let mut parts: Vec<_> = data.chunks(size).collect();
        let last = parts.pop().unwrap();
        let mut out = Vec::new();
        for (part, more) in parts.into_iter().map(|p| (p, true)).chain([(last, false)]) {
            let mut frame = self.spare.pop().expect("a frame");
            frame = frame.shifted(0);
            self.umem.bytes_mut(&mut frame, part.len()).unwrap().copy_from_slice(part);
            out.push(Transmit { frame, len: part.len() as u32, more });
        }
        let n = out.len() as u32;
        assert_eq!(self.socket.transmit(out.into_iter(), n), n);
        let end = Instant::now() + PATIENCE;
        while self.socket.pending_tx() > 0 && Instant::now() < end {
            assert!(matches!(self.socket.kick_tx(), Kick::Done | Kick::Again));
            let size = u64::from(self.umem.frame_size());
            let spare = &mut self.spare;
            self.socket.complete(64, |f| {
                let back = f.addr() % size;
                spare.push(f.shifted(-(back as i64)));
            });
        }
        assert_eq!(self.socket.pending_tx(), 0, "every frame is completed");
    }

    /// The next packet, put together, and in how many frames it came; `None` if none comes.
    fn recv(&mut self, patience: Duration) -> Option<(Vec<u8>, usize)> {
        let (mut data, mut frames) = (Vec::new(), 0);
        let end = Instant::now() + patience;
        loop {
            let mut done = false;
            let mut back = Vec::new();
            let umem = &self.umem;
            let got = self.socket.receive(1, |r| {
                data.extend_from_slice(umem.bytes(&r.frame, r.len as usize).unwrap());
                done = !r.more;
                frames += 1;
                back.push(r.frame);
            });
            if got > 0 {
                let n = back.len() as u32;
                self.socket.fill(back.into_iter(), n);
            }
            if done {
                return Some((data, frames));
            }
            if Instant::now() > end {
                return None;
            }
            wait(&[self.socket.fd()], Duration::from_millis(1)).unwrap();
        }
    }
}

#[test]
fn frames_arrive_in_native_and_generic_mode() {
    if !root() {
        return;
    }
    for (mode, expect) in [(AttachMode::Native, LinkMode::Native), (AttachMode::Generic, LinkMode::Generic)] {
        let lab = Lab::new(1, 1, 1500);
        let program = Redirect::load(&ProgramConfig::default()).unwrap();
        let (mut rx, link) = Lab::inside(&lab.b, || {
            let port = Port::new("b0", 0, &SocketConfig::default());
            let link = program.attach("b0", mode).unwrap();
            program.insert(0, port.socket.fd()).unwrap();
            (port, link)
        });
        assert_eq!((link.mode(), rx.socket.mode()), (expect, Mode::Copy));
        let mut tx = Lab::inside(&lab.a, || Port::new("a0", 0, &SocketConfig::default()));
        for len in [60, 61, 1514] {
            tx.send(&frame(len, 0x88b5));
            assert_eq!(rx.recv(PATIENCE), Some((frame(len, 0x88b5), 1)), "{mode:?} {len}");
        }
        // VLAN and QinQ tags arrive as part of the frame.
        for tags in [&[0x81, 0, 0, 5][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5]] {
            let mut tagged = frame(64, 0x88b5);
            tagged.splice(12..12, tags.iter().copied());
            tx.send(&tagged);
            assert_eq!(rx.recv(PATIENCE).unwrap().0, tagged);
        }
        assert_eq!(program.counters().unwrap().redirected, 5);
        let stats = rx.socket.statistics().unwrap();
        assert_eq!((stats.rx_dropped, stats.rx_ring_full, stats.rx_invalid), (0, 0, 0));
        let back = rx.socket.close();
        assert_eq!(back.frames.len() + back.in_flight as usize + rx.spare.len(), 1024);
    }
}

#[test]
fn jumbo_frames_arrive_in_several_frames() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 1, 9000);
    let narrow = Redirect::load(&ProgramConfig::default()).unwrap();
    let refused = Lab::inside(&lab.b, || narrow.attach("b0", AttachMode::Native).err()).unwrap();
    assert_eq!(refused.id(), "AFXDP-ATTACH-MTU");
    let program = Redirect::load(&ProgramConfig { frags: true, ..Default::default() }).unwrap();
    let config = SocketConfig { multi_buffer: true, ..Default::default() };
    let (mut rx, _link) = Lab::inside(&lab.b, || {
        let port = Port::new("b0", 0, &config);
        let link = program.attach("b0", AttachMode::Native).unwrap();
        program.insert(0, port.socket.fd()).unwrap();
        (port, link)
    });
    let mut tx = Lab::inside(&lab.a, || Port::new("a0", 0, &config));
    for len in [60, 2000, 4000, 9014] {
        tx.send(&frame(len, 0x88b5));
        let (data, frames) = rx.recv(PATIENCE).expect("it arrives");
        assert_eq!(data, frame(len, 0x88b5));
        assert_eq!(frames > 1, len > 2048 - 256);
    }
}

#[test]
fn one_umem_on_two_devices_forwards_without_a_copy() {
    if !root() {
        return;
    }
    let lab = Lab::new(2, 1, 1500);
    let umem = Umem::new(UmemConfig { frame_count: 1024, ..Default::default() }).unwrap();
    let mut frames = umem.take_frames();
    let half = frames.split_off(512);
    let program = Redirect::load(&ProgramConfig::default()).unwrap();
    let (mut left, mut right, _link) = Lab::inside(&lab.b, || {
        let left = Port::bind(&umem, frames, "b0", 0, &SocketConfig::default());
        let right = Port::bind(&umem, half, "b1", 0, &SocketConfig::default());
        let link = program.attach("b0", AttachMode::Native).unwrap();
        program.insert(0, left.socket.fd()).unwrap();
        (left, right, link)
    });
    let sink = Sink::load().unwrap();
    let end = Lab::inside(&lab.a, || sink.attach("a1", AttachMode::Native).unwrap());
    let mut tx = Lab::inside(&lab.a, || Port::new("a0", 0, &SocketConfig::default()));
    for n in 0..200u32 {
        tx.send(&frame(60 + n as usize, 0x88b5));
        let mut moved = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while moved.is_empty() && Instant::now() < deadline {
            left.socket.receive(8, |r| moved.push(Transmit { frame: r.frame, len: r.len, more: r.more }));
        }
        assert_eq!(moved.len(), 1);
        right.socket.transmit(moved.into_iter(), 8);
        right.socket.kick_tx();
        let mut back = Vec::new();
        while back.is_empty() && Instant::now() < deadline {
            right.socket.complete(8, |f| back.push(f));
        }
        left.socket.fill(back.into_iter(), 8);
    }
    let deadline = Instant::now() + PATIENCE;
    while sink.counters().unwrap().packets < 200 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let counted = sink.counters().unwrap();
    assert_eq!((counted.packets, counted.bytes), (200, (60..260).sum::<u64>()));
    // The first socket may go; the second keeps the UMEM, and a third can share it.
    drop(left.socket);
    let third =
        Lab::inside(&lab.b, || Socket::bind(&umem, "b0", 0, &SocketConfig::default()).map(|s| s.mode()));
    assert_eq!(third, Ok(Mode::Copy));
    drop(end);
}

#[test]
fn four_queues_with_a_socket_each() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 4, 1500);
    let umem = Umem::new(UmemConfig { frame_count: 4096, ..Default::default() }).unwrap();
    let mut frames = umem.take_frames();
    let program = Redirect::load(&ProgramConfig::default()).unwrap();
    let (mut ports, _link) = Lab::inside(&lab.b, || {
        let ports: Vec<_> = (0..4)
            .map(|queue| {
                let share = frames.split_off(frames.len() - 1024);
                let port = Port::bind(&umem, share, "b0", queue, &SocketConfig::default());
                program.insert(queue, port.socket.fd()).unwrap();
                port
            })
            .collect();
        (ports, program.attach("b0", AttachMode::Native).unwrap())
    });
    // Each transmit queue of one end is a receive queue of the other.
    for queue in 0..4 {
        let mut tx = Lab::inside(&lab.a, || Port::new("a0", queue, &SocketConfig::default()));
        tx.send(&frame(60 + queue as usize, 0x88b5));
        let (data, _) = ports[queue as usize].recv(PATIENCE).expect("on its own queue");
        assert_eq!(data.len(), 60 + queue as usize);
    }
    let beyond =
        Lab::inside(&lab.b, || Socket::bind(&umem, "b0", 4, &SocketConfig::default()).err()).unwrap();
    assert_eq!(beyond.id(), "AFXDP-BIND-INVALID");
}

#[test]
fn a_generator_and_a_sink_agree() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 1, 1500);
    let sink = Sink::load_with_latency().unwrap();
    let _link = Lab::inside(&lab.b, || sink.attach("b0", AttachMode::Native).unwrap());
    let mut ip_frame = frame(60, 0x0800);
    ip_frame[14] = 0x45;
    let report = Lab::inside(&lab.a, || {
        let source = LiveSource::new("a0", &ip_frame, 16).unwrap();
        let flood = source.run(20_000, 64, Rate::Flood).unwrap();
        let paced = source.run(20_000, 8, Rate::PerSecond(100_000)).unwrap();
        assert!(
            paced.duration >= Duration::from_millis(190),
            "20,000 at 100,000 per second: {:?}",
            paced.duration
        );
        flood.sent + paced.sent
    });
    assert_eq!(report, 40_000);
    let end = Instant::now() + PATIENCE;
    while sink.counters().unwrap().packets < 40_000 && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(sink.counters().unwrap().packets, 40_000);
    assert_eq!(
        sink.latencies().unwrap().iter().map(|(_, n)| n).sum::<u64>(),
        40_000,
        "every frame was stamped"
    );
}

#[test]
fn rebinding_a_queue_a_thousand_times() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 1, 1500);
    Lab::inside(&lab.a, || {
        let umem = Umem::new(UmemConfig { frame_count: 256, ..Default::default() }).unwrap();
        let mut frames = umem.take_frames();
        let config = SocketConfig {
            rx_size: 64,
            tx_size: 64,
            fill_size: 128,
            completion_size: 64,
            ..Default::default()
        };
        for round in 0..1000 {
            let socket = Socket::bind_filled(&umem, "a0", 0, &config, &mut frames)
                .unwrap_or_else(|e| panic!("round {round}: {e}"));
            let back = socket.close();
            assert_eq!(back.in_flight, 0);
            frames.extend(back.frames);
            assert_eq!(frames.len(), 256, "round {round}");
        }
    });
}

#[test]
fn mistakes_have_a_cause_and_a_cure() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 1, 1500);
    Lab::inside(&lab.a, || {
        let umem = Umem::new(UmemConfig { frame_count: 64, ..Default::default() }).unwrap();
        let quick = SocketConfig { bind_deadline: Duration::from_millis(1), ..Default::default() };
        let id = |device: &str, queue, config: &SocketConfig| {
            let e = Socket::bind(&umem, device, queue, config).err().expect("an error");
            assert!(!e.cause().is_empty() && !e.cure().is_empty());
            e.id()
        };
        assert_eq!(id("nowhere", 0, &quick), "AFXDP-NO-DEVICE");
        assert_eq!(id("a0", 7, &quick), "AFXDP-BIND-INVALID");
        assert_eq!(id("a0", 0, &SocketConfig { rx_size: 100, ..quick.clone() }), "AFXDP-RING-SIZE");
        let zc = SocketConfig { mode: BindMode::ZeroCopy, ..quick.clone() };
        assert_eq!(id("a0", 0, &zc), "AFXDP-BIND-NO-ZEROCOPY");
        let mut frames = umem.take_frames();
        let first = Socket::bind_filled(&umem, "a0", 0, &quick, &mut frames).unwrap();
        assert!(frames.is_empty());
        let other = Umem::new(UmemConfig { frame_count: 64, ..Default::default() }).unwrap();
        let mut frames = other.take_frames();
        let second = Socket::bind_filled(&other, "a0", 0, &quick, &mut frames).err().unwrap();
        assert_eq!((second.id(), frames.len()), ("AFXDP-BIND-BUSY", 64), "the frames are back");
        drop(first);
        let program = Redirect::load(&ProgramConfig::default()).unwrap();
        let link = program.attach("a0", AttachMode::Native).unwrap();
        let again = program.attach("a0", AttachMode::Native).err().unwrap();
        assert_eq!(again.id(), "AFXDP-ATTACH-BUSY");
        // Another program takes over in place; without a link the device is free again.
        let next = Redirect::load(&ProgramConfig { queues: 8, ..Default::default() }).unwrap();
        link.update(&next).unwrap();
        drop(link);
        program.attach("a0", AttachMode::Generic).unwrap().detach();
        assert_eq!(program.insert(64, 0).err().unwrap().id(), "AFXDP-PROGRAM-QUEUE");
        let empty = ProgramConfig { selection: Selection::Any(vec![]), ..Default::default() };
        assert_eq!(Redirect::load(&empty).err().unwrap().id(), "AFXDP-PROGRAM-MATCHES");
        ip(&format!("-n {} link set a0 down", lab.a));
    });
}

/// Random frames, half of them nearly right, against a reading of the same rules in plain Rust.
#[test]
fn selections_equal_their_oracle() {
    if !root() {
        return;
    }
    let mut x = 1u64;
    let mut random = move |n: u64| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) % n
    };
    let mut selected = 0;
    for _ in 0..60 {
        let mut matches = Vec::new();
        for _ in 0..=random(3) {
            let mut maybe =
                |values: &[u16]| (random(2) == 0).then(|| values[random(values.len() as u64) as usize]);
            matches.push(Match {
                ethertype: maybe(&[0x0800, 0x86dd, 0x0806]),
                vlan: maybe(&[5, 7]),
                protocol: maybe(&[6, 17]).map(|p| p as u8),
                src_port: maybe(&[53, 80]),
                dst_port: maybe(&[53, 80]),
            });
        }
        let selection = Selection::Any(matches.clone());
        let program = Redirect::load(&ProgramConfig { selection, ..Default::default() })
            .unwrap_or_else(|e| panic!("{matches:?}: {e}"));
        for _ in 0..200 {
            let mut bytes = vec![2u8; 12];
            for _ in 0..random(3) {
                bytes.extend([[0x81, 0], [0x88, 0xa8]][random(2) as usize]);
                bytes.extend([random(256) as u8, [5, 7, 9][random(3) as usize]]);
                let at = bytes.len() - 2;
                bytes[at] &= 0xf0;
            }
            let protocol = [6, 17, 1][random(3) as usize];
            match random(3) {
                0 => {
                    let words = 5 + random(3) as u8;
                    bytes.extend([0x08, 0, 0x40 | words, 0, 0, 60, 0, 0]);
                    bytes.extend([[0x40, 0], [0x20, 0], [0, 1]][random(3) as usize]);
                    bytes.extend([64, protocol]);
                    bytes.resize(bytes.len() + usize::from(words) * 4 - 10, 0);
                }
                1 => {
                    bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, [protocol, 44][random(2) as usize], 64]);
                    bytes.resize(bytes.len() + 32, 0);
                }
                _ => bytes.extend([0x08, 0x06]),
            }
            for _ in 0..2 {
                bytes.extend([0, [53, 80, 99][random(3) as usize]]);
            }
            bytes.resize(bytes.len() + 4, 0);
            let cut = bytes.len().saturating_sub(if random(4) == 0 { random(30) as usize } else { 0 });
            bytes.truncate(cut.max(14));
            let expected = matches.iter().any(|m| fits(m, &bytes));
            assert_eq!(program.selects(&bytes).unwrap(), expected, "{matches:?} on {bytes:02x?}");
            selected += u32::from(expected);
        }
    }
    assert!((1000..11_000).contains(&selected), "the frames exercise both outcomes: {selected} of 12000");
}

fn fits(m: &Match, frame: &[u8]) -> bool {
    if *m == Match::default() {
        return true;
    }
    let half = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let (mut at, mut vlans) = (14, Vec::new());
    let Some(mut ethertype) = half(12) else { return false };
    while vlans.len() < 2 && matches!(ethertype, 0x8100 | 0x88a8) {
        let (Some(tag), Some(inner)) = (half(at), half(at + 2)) else { return false };
        vlans.push(tag & 0xfff);
        (ethertype, at) = (inner, at + 4);
    }
    let (mut protocol, mut ports) = (None, None);
    let transport = match ethertype {
        0x0800 if frame.len() >= at + 20 => {
            protocol = Some(frame[at + 9]);
            let first = half(at + 6).unwrap() & 0x1fff == 0;
            first.then(|| at + usize::from(frame[at] & 0xf) * 4)
        }
        0x86dd if frame.len() >= at + 40 => {
            protocol = Some(frame[at + 6]);
            Some(at + 40)
        }
        _ => None,
    };
    if let (Some(at), Some(6 | 17 | 132)) = (transport, protocol)
        && frame.len() >= at + 4
    {
        ports = half(at).zip(half(at + 2));
    }
    m.ethertype.is_none_or(|e| e == ethertype)
        && m.vlan.is_none_or(|v| vlans.contains(&v))
        && m.protocol.is_none_or(|p| Some(p) == protocol)
        && m.src_port.is_none_or(|p| ports.is_some_and(|(src, _)| src == p))
        && m.dst_port.is_none_or(|p| ports.is_some_and(|(_, dst)| dst == p))
}
