//! Asking the kernel to resolve neighbours, for forwarders that met one whose Ethernet address is not known.

use std::io;
use std::net::IpAddr;

use crate::socket::{Received, Socket};
use crate::wire::{Answer, Messages, Request};

/// Asks the kernel to resolve neighbours. Not for the packet path: each question is a system call.
pub struct Asker {
    socket: Socket,
    seq: u32,
    buffer: Box<[u8]>,
}

impl Asker {
    /// Of the network namespace of this thread.
    pub fn new() -> io::Result<Asker> {
        Ok(Asker { socket: Socket::open()?, seq: 0, buffer: vec![0; 4096].into() })
    }

    /// Has the kernel resolve `addr` on device `ifindex`, as if it had a packet for it: by ARP (RFC 826) or neighbour
    /// discovery (RFC 4861), unless it is known and fresh. Returns at once; what comes of it, a [`crate::Follower`] tells.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN; when there is no such device, or it is down.
    pub fn probe_neighbor(&mut self, ifindex: u32, addr: IpAddr) -> io::Result<()> {
        let (family, bytes) = match &addr {
            IpAddr::V4(addr) => (libc::AF_INET, &addr.octets()[..]),
            IpAddr::V6(addr) => (libc::AF_INET6, &addr.octets()[..]),
        };
        // ndmsg: family, padding (3), ifindex (4), state (2), flags, type.
        let mut fixed = [0; 12];
        fixed[0] = family as u8;
        fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        fixed[10] = libc::NTF_USE;
        self.seq = self.seq.wrapping_add(1);
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
        let request =
            Request::new(libc::RTM_NEWNEIGH, flags, self.seq, &fixed).attribute(libc::NDA_DST, bytes);
        self.socket.send(request.bytes())?;
        let answer = self.answer()?;
        if answer.errno == 0 {
            return Ok(());
        }
        Err(answer.error(&format!("asking for neighbour {addr} of device {ifindex}")))
    }

    /// The answer is there when the question is sent. Older ones, left by an error, are passed over.
    fn answer(&mut self) -> io::Result<Answer> {
        let none = || io::Error::other("rtnetlink did not answer");
        loop {
            let len = match self.socket.receive(&mut self.buffer)? {
                Received::Datagram(len) => len,
                Received::Nothing => return Err(none()),
                Received::Foreign | Received::Truncated | Received::Overrun => continue,
            };
            for message in Messages(&self.buffer[..len]) {
                let message = message.map_err(|e| io::Error::other(e.to_string()))?;
                if message.seq == self.seq && message.kind == libc::NLMSG_ERROR as u16 {
                    return Answer::of(&message).map_err(|e| io::Error::other(e.to_string()));
                }
            }
        }
    }
}
