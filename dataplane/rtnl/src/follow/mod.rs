//! The follower: dumps and notifications, put together without a gap.
//!
//! It subscribes first and dumps then, over one socket: so the socket's own order says which notifications came before a
//! part of a dump and which after it. Each entry is marked with the dump that saw it; at the end of a dump the entries
//! without its mark are gone. Nothing is told twice, as only differences to the mirror are told.
//!
//! A dump is also made when the mirror cannot know what happened:
//! - notifications were lost (ENOBUFS), or a message was longer than the buffer: of everything, once the socket is empty,
//!   since until then the kernel goes on to lose what is new;
//! - a link went up or down, an address or a next hop object went: of routes. The kernel removes and revives routes of
//!   IPv4 and next hops of both families then without telling;
//! - a notification about routes did not fit what was known: of routes.

mod mirror;
mod routes;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::change::Change;
use crate::config::Config;
use crate::socket::{Received, Socket};
use crate::wire::{Answer, Message, Messages, Request};
use state::{State, Step};

/// Notifications wanted: links, neighbours, addresses and routes of both families, next hop objects.
const GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_NEXTHOP,
];
/// Room for the longest datagram of a dump, which is 32 KiB, and for notifications of long routes.
const BUFFER_LEN: usize = 64 * 1024;
/// Kinds of messages below this are netlink's own (linux/netlink.h).
const NLMSG_MIN_TYPE: u16 = 16;
/// Nudges in a row without a part of the dump, until it is given up; one is enough unless notifications come in a flood.
const NUDGES_MAX: u32 = 1000;

/// What a follower counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Times that notifications were lost for want of room.
    pub overruns: u64,
    /// Times that everything was asked for anew, because something was lost, and known again.
    pub resyncs: u64,
    /// Dumps made, the first ones included.
    pub dumps: u64,
    /// Dumps made again because something changed meanwhile (NLM_F_DUMP_INTR).
    pub interrupted: u64,
    /// Times that a dump had come to rest and was got going again.
    pub nudges: u64,
    /// Messages malformed, or longer than the buffer.
    pub malformed: u64,
    /// Datagrams that were not from the kernel.
    pub foreign: u64,
    /// Messages about routes with an encapsulation or a next hop object not described, which are told as unsupported, and by
    /// type of service or source, which are not told.
    pub unsupported: u64,
    /// Messages about what is not followed: other tables and families, entries of caches.
    pub ignored: u64,
    /// Messages about what there was no room for.
    pub refused: u64,
    /// Routes removed that were not known, which is why routes were asked for anew.
    pub surprises: u64,
}

/// How far a follower is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// All that was told is what the kernel had a moment ago: no dump is under way or due.
    pub in_sync: bool,
    /// There may be more to read at once.
    pub more: bool,
}

/// A dump under way.
struct Dump {
    step: Step,
    seq: u32,
    interrupted: bool,
}

/// Follows the kernel's links, addresses, routes and neighbours of one network namespace.
pub struct Follower {
    socket: Socket,
    buffer: Box<[u8]>,
    datagrams_max: usize,
    state: State,
    dump: Option<Dump>,
    seq: u32,
    /// Nudges since the last part of a dump.
    nudges: u32,
    /// Something was lost, and not everything dumped since.
    lost: bool,
}

impl Follower {
    /// Follows the network namespace of this thread, wherever it is used later.
    ///
    /// # Errors
    /// Those of the system calls; no privilege is needed.
    pub fn new(config: Config) -> io::Result<Follower> {
        let socket = Socket::open()?;
        socket.receive_buffer(config.receive_buffer_bytes)?;
        for group in GROUPS {
            // Without IPv6, or next hop objects (before Linux 5.3), there is nothing to hear.
            match socket.subscribe(group) {
                Err(e) if !matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Err(e),
                _ => {}
            }
        }
        Ok(Follower {
            socket,
            buffer: vec![0; BUFFER_LEN].into(),
            datagrams_max: config.datagrams_max.max(1),
            state: State::new(&config),
            dump: None,
            seq: 0,
            nudges: 0,
            lost: false,
        })
    }

    /// Takes what the kernel has to say, and tells each difference to what it told before. Waits up to `timeout` if there is
    /// nothing; reads at most the configured number of datagrams. The first changes told are all there is.
    ///
    /// # Errors
    /// When a system call fails or the kernel refuses a dump, with its words. It may be called again, and goes on.
    pub fn poll(&mut self, timeout: Duration, mut tell: impl FnMut(Change)) -> io::Result<Status> {
        let mut waited = timeout.is_zero();
        for _ in 0..self.datagrams_max {
            match self.socket.receive(&mut self.buffer)? {
                Received::Datagram(len) => {
                    waited = true;
                    self.datagram(len, &mut tell)?;
                }
                Received::Foreign => self.state.stats.foreign += 1,
                Received::Truncated => {
                    self.state.stats.malformed += 1;
                    self.lose();
                }
                Received::Overrun => {
                    self.state.stats.overruns += 1;
                    self.lose();
                }
                Received::Nothing => {
                    if self.dump.is_some() {
                        self.nudge()?;
                        continue;
                    }
                    self.state.quiet();
                    if let Some(step) = self.state.wanted() {
                        self.ask(step)?;
                    } else {
                        if std::mem::take(&mut self.lost) {
                            self.state.stats.resyncs += 1;
                        }
                        if std::mem::replace(&mut waited, true) {
                            return Ok(Status { in_sync: true, more: false });
                        }
                        self.socket.wait(timeout)?;
                    }
                }
            }
        }
        Ok(Status { in_sync: self.dump.is_none() && self.state.wanted().is_none(), more: true })
    }

    /// Tells all that is known once more, each thing as changed, in the order of the first dumps: for who learns something
    /// that changes what it all means. Asks the kernel nothing.
    pub fn tell_all(&self, mut tell: impl FnMut(Change)) {
        self.state.tell_all(&mut tell);
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.state.stats
    }

    /// Times that notifications were lost for want of room.
    pub fn overruns(&self) -> u64 {
        self.stats().overruns
    }

    /// Times that everything was asked for anew because something was lost, and known again.
    pub fn resyncs(&self) -> u64 {
        self.stats().resyncs
    }

    /// Messages malformed, or longer than the buffer.
    pub fn malformed(&self) -> u64 {
        self.stats().malformed
    }

    /// Routes known, those that are not the best of their prefix included.
    pub fn routes_known(&self) -> usize {
        self.state.routes_known()
    }

    /// The descriptor to wait on, together with others, until it is readable; the same as long as this lives.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn lose(&mut self) {
        self.lost = true;
        self.state.want(&Step::ALL);
    }

    fn ask(&mut self, step: Step) -> io::Result<()> {
        // 0 is that of nudges.
        self.seq = self.seq.checked_add(1).unwrap_or(1);
        self.socket.send(request(step, self.seq).bytes())?;
        self.state.begin(step);
        self.state.stats.dumps += 1;
        self.dump = Some(Dump { step, seq: self.seq, interrupted: false });
        Ok(())
    }

    /// Gets a dump going that has come to rest. The kernel makes the next part when a datagram is taken and there is room;
    /// one that it tries to deliver and cannot makes it look for a moment as if there was none, and then nothing is left to
    /// be taken. So have it answer something.
    fn nudge(&mut self) -> io::Result<()> {
        self.state.stats.nudges += 1;
        self.nudges += 1;
        if self.nudges > NUDGES_MAX {
            self.nudges = 0;
            if let Some(dump) = self.dump.take() {
                self.state.want(&[dump.step]);
            }
            return Err(io::Error::other("the kernel does not go on with a dump"));
        }
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.socket.send(Request::new(libc::NLMSG_NOOP as u16, flags, 0, &[]).bytes())
    }

    fn datagram(&mut self, len: usize, tell: &mut dyn FnMut(Change)) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for message in Messages(&buffer[..len]) {
            match message {
                Ok(message) if self.is_answer(&message) => {
                    result = result.and(self.answer(&message, tell));
                }
                Ok(message) => self.state.input(&message, false, tell),
                Err(_) => self.state.stats.malformed += 1,
            }
        }
        self.buffer = buffer;
        result
    }

    /// Whether a message is for this socket alone. That of another namespace that changes something in this one may have
    /// the same port: what it caused is a notification all the same.
    fn is_answer(&self, message: &Message<'_>) -> bool {
        message.kind < NLMSG_MIN_TYPE
            || message.port == self.socket.port()
                && message.has(libc::NLM_F_MULTI)
                && self.dump.as_ref().is_some_and(|dump| dump.seq == message.seq)
    }

    /// Takes a message that answers this socket: a part of a dump, or its end.
    fn answer(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Change)) -> io::Result<()> {
        let Some(dump) = self.dump.as_mut().filter(|dump| dump.seq == message.seq) else {
            // Of a nudge, or of a dump that was given up.
            self.state.stats.ignored += 1;
            return Ok(());
        };
        self.nudges = 0;
        dump.interrupted |= message.has(libc::NLM_F_DUMP_INTR);
        let (done, error) = (libc::NLMSG_DONE as u16, libc::NLMSG_ERROR as u16);
        if message.kind != done && message.kind != error {
            self.state.input(message, true, tell);
            return Ok(());
        }
        let (step, interrupted) = (dump.step, dump.interrupted);
        let answer = match Answer::of(message) {
            Ok(answer) => answer,
            Err(malformed) => {
                self.state.stats.malformed += 1;
                self.dump = None;
                self.state.want(&[step]);
                return Err(io::Error::other(malformed.to_string()));
            }
        };
        match answer.errno {
            // There was no room for the first part: it comes now that there is.
            libc::ENOBUFS if message.kind == error => return Ok(()),
            0 if interrupted => {
                self.state.stats.interrupted += 1;
                self.state.want(&[step]);
            }
            // There is no such protocol in this kernel.
            0 | libc::EOPNOTSUPP | libc::EAFNOSUPPORT => self.state.finish(step, tell),
            _ => {
                self.dump = None;
                self.state.want(&[step]);
                return Err(answer.error(&format!("asking the kernel for its {step:?}")));
            }
        }
        self.dump = None;
        Ok(())
    }
}

/// The request for a dump: the structure of its kind, zero but for the family.
fn request(step: Step, seq: u32) -> Request {
    /// Not in libc (linux/rtnetlink.h): without statistics, which are most of a link's message.
    const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let mut fixed = [0; 16];
    let (kind, len, family) = match step {
        Step::Links => (libc::RTM_GETLINK, 16, libc::AF_UNSPEC),
        Step::Addresses => (libc::RTM_GETADDR, 8, libc::AF_UNSPEC),
        Step::RoutesV4 => (libc::RTM_GETROUTE, 12, libc::AF_INET),
        Step::RoutesV6 => (libc::RTM_GETROUTE, 12, libc::AF_INET6),
        Step::Neighbors => (libc::RTM_GETNEIGH, 12, libc::AF_UNSPEC),
    };
    fixed[0] = family as u8;
    let request = Request::new(kind, flags, seq, &fixed[..len]);
    match step {
        Step::Links => request.attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()),
        _ => request,
    }
}
