//! Sockets on real veth pairs; programs are tested in `program/`. Needs root; see `common`.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod common;

use std::time::{Duration, Instant};

use af_xdp::program::{AttachMode, LinkMode, ProgramConfig, Redirect, Selection, Sink};
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
            self.umem.bytes_mut(&mut frame, part.len()).unwrap().copy_from_slice(part);
            out.push(Transmit { frame, len: part.len() as u32, more });
        }
        let n = out.len() as u32;
        assert_eq!(self.socket.transmit(out.into_iter(), n), n);
        let end = Instant::now() + PATIENCE;
        while self.socket.pending_tx() > 0 && Instant::now() < end {
            assert!(matches!(self.socket.kick_tx(), Kick::Done | Kick::Again));
            let size = u64::from(self.umem.frame_size());
            let (spare, umem) = (&mut self.spare, &self.umem);
            self.socket.complete(64, |f| {
                let back = f.addr() % size;
                spare.push(umem.shift(f, -(back as i64)).unwrap());
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
