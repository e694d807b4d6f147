//! Forwards everything between two devices, both ways, without a copy: `forward eth1 eth2`. Ends with ^C; the kernel has
//! the devices back then.

use af_xdp::program::{AttachMode, Link, ProgramConfig, Redirect};
use af_xdp::{Error, Frame, Socket, SocketConfig, Transmit, Umem, UmemConfig};

struct Port {
    socket: Socket,
    /// Frames that came back from sending, to be filled in where they are received.
    sent: Vec<Frame>,
    _program: Redirect,
    _link: Link,
}

fn open(umem: &Umem, device: &str, frames: &mut Vec<Frame>) -> Result<Port, Error> {
    let socket = Socket::bind_filled(umem, device, 0, &SocketConfig::default(), frames)?;
    let program = Redirect::load(&ProgramConfig::default())?;
    program.insert(0, socket.fd())?;
    let link = program.attach(device, AttachMode::Auto)?;
    println!("{device}: {:?}, XDP {:?}, {:?}", socket.mode(), link.mode(), umem.backing());
    Ok(Port { socket, sent: Vec::new(), _program: program, _link: link })
}

/// Moves what `from` received to `to`, and sent frames the other way.
fn forward(from: &mut Port, to: &mut Port, burst: &mut Vec<Transmit>) {
    // No more than can be sent: the rest waits in the receive ring.
    let room = to.socket.tx_room(64).min(64);
    from.socket.receive(room, |r| burst.push(Transmit { frame: r.frame, len: r.len, more: r.more }));
    if to.socket.transmit(burst.drain(..), room) > 0 && to.socket.tx_needs_wakeup() {
        to.socket.kick_tx();
    }
    to.socket.complete(64, |frame| to.sent.push(frame));
    let room = from.socket.fill_room(64).min(to.sent.len() as u32);
    let first = to.sent.len() - room as usize;
    from.socket.fill(to.sent.drain(first..), room);
}

fn main() -> Result<(), Error> {
    let mut devices = std::env::args().skip(1);
    let (Some(left), Some(right)) = (devices.next(), devices.next()) else {
        eprintln!("usage: forward DEVICE DEVICE");
        std::process::exit(2);
    };
    let umem = Umem::new(UmemConfig { frame_count: 8192, ..UmemConfig::default() })?;
    let mut frames = umem.take_frames();
    let mut half = frames.split_off(4096);
    let mut left = open(&umem, &left, &mut frames)?;
    let mut right = open(&umem, &right, &mut half)?;
    let mut burst = Vec::with_capacity(64);
    loop {
        forward(&mut left, &mut right, &mut burst);
        forward(&mut right, &mut left, &mut burst);
    }
}
