//! Packets that extensions handed on during a round: each goes on where its [`Target`] says, in bursts of those that follow
//! each other to the same one.

use nke_filters::{AttachId, Direction, Family, IfIndex, LinkDest, PreOutput, ProtocolFamily, Target};
use nke_mbuf::{BURST_MAX, Mbuf};

use super::check::ETHER_LEN;
use super::link::Handler;
use super::stage::Path;
use crate::caught::caught;
use crate::drop::{IF_DOWN, IP_BAD_HEADER, NEIGHBOR_UNRESOLVED, NO_PROTOCOL, NO_ROOM};
use crate::port::Moved;

/// Bursts taken up in one round: what extensions hand to each other cannot keep a worker from its queues.
const BURSTS_PER_ROUND: usize = 64;

impl Path<'_> {
    /// Takes up what was handed on; what is handed on meanwhile as well.
    #[cold]
    pub(crate) fn requeued(&mut self) {
        for _ in 0..BURSTS_PER_ROUND {
            let Some(target) = self.hook.requeue.target() else { break };
            while self.burst.room() > 0 {
                let Some(mbuf) = self.hook.requeue.pop(target) else { break };
                let full = self.burst.push(mbuf);
                debug_assert!(full.is_ok(), "there was room");
            }
            self.go_on(target);
        }
        self.transmit_all();
    }

    /// IP packets that threads of extensions injected.
    pub(crate) fn ip_injected(&mut self) -> bool {
        // As in `handed_over`.
        if self.inet.tables.injected[self.hook.worker].is_empty() {
            return false;
        }
        let mut any = false;
        for _ in 0..BURST_MAX {
            let Some((target, mbuf)) = self.inet.tables.injected[self.hook.worker].pop() else { break };
            let full = self.burst.push(mbuf);
            debug_assert!(full.is_ok(), "the burst is empty between steps");
            self.go_on(target);
            any = true;
        }
        if any {
            self.transmit_all();
        }
        any
    }

    /// The packets of the burst go on at `target`.
    fn go_on(&mut self, target: Target) {
        match target {
            Target::Input(interface) => {
                for mbuf in self.burst.iter_mut() {
                    mbuf.set_rcvif(interface.0);
                }
                self.enter(interface, Direction::Input);
            }
            Target::Output(interface) => self.enter(interface, Direction::Output),
            Target::Protocol(interface, family, dest) => {
                self.frame(interface, family, dest);
                self.enter(interface, Direction::Output);
            }
            Target::IpInput(after) => self.ip_again(Direction::Input, after),
            Target::IpOutput(after) => self.ip_again(Direction::Output, after),
        }
    }

    /// The burst enters an interface, which may have gone meanwhile.
    pub(crate) fn enter(&mut self, interface: IfIndex, direction: Direction) {
        let i = usize::from(interface.0);
        if i >= self.snapshot.links.len() {
            return self.drop_burst(IF_DOWN);
        }
        let counters = &self.hook.status.interfaces[i];
        let Moved { packets, bytes } = Moved::of(self.burst);
        if packets == 0 {
            return;
        }
        counters.injected.add(packets);
        let port = self.inet.lane_of(i);
        match direction {
            Direction::Input => {
                if port.is_none() {
                    counters.rx_packets.add(packets);
                    counters.rx_bytes.add(bytes);
                }
                self.input(i, port.and_then(|lane| self.lanes[lane].peer));
            }
            Direction::Output => self.output(i),
        }
    }

    /// Pre-output and framer for packets of a protocol (KPI: `ifnet_output`).
    fn frame(&mut self, interface: IfIndex, family: ProtocolFamily, dest: LinkDest) {
        let snapshot = self.snapshot;
        let Some(link) = snapshot.links.get(usize::from(interface.0)).filter(|l| l.up) else {
            return self.drop_burst(IF_DOWN);
        };
        let handler = link.protocol(family).map(|p| &p.handler);
        for place in 0..self.burst.len() {
            let Some(mbuf) = &mut self.burst.slots_mut()[place] else { continue };
            let pre_output = match handler {
                None => Err(NO_PROTOCOL),
                Some(Handler::Inet) => Ok(PreOutput::Frame(0x0800, dest)),
                Some(Handler::Inet6) => Ok(PreOutput::Frame(0x86dd, dest)),
                Some(Handler::Own(handler)) => {
                    Ok(caught(|| handler.pre_output(mbuf, dest)).unwrap_or(PreOutput::Unresolved))
                }
            };
            let framed = match (pre_output, &link.more.driver) {
                (Err(reason), _) => Err(reason),
                (Ok(PreOutput::Unresolved), _) => Err(NEIGHBOR_UNRESOLVED),
                (Ok(PreOutput::Frame(ethertype, dest)), _) if link.ethernet => {
                    ether_frame(mbuf, link.mac, ethertype, dest)
                }
                (Ok(PreOutput::Frame(_, dest)), Some(driver)) => {
                    let framed = caught(|| driver.framer(mbuf, family, dest)).unwrap_or(false);
                    framed.then_some(()).ok_or(NO_ROOM)
                }
                (Ok(_), None) => Err(NO_PROTOCOL),
            };
            if let Err(reason) = framed {
                self.drop_at(place, reason);
            }
        }
        self.burst.compact();
    }

    /// The packets of the burst enter IP.
    fn ip_again(&mut self, direction: Direction, after: Option<AttachId>) {
        let mut masks = [0u64; 2];
        for place in 0..self.burst.len() {
            let Some(mbuf) = &mut self.burst.slots_mut()[place] else { continue };
            match whole_header(mbuf) {
                Some(family) => masks[family as usize] |= 1 << place,
                None => self.drop_at(place, IP_BAD_HEADER),
            }
        }
        for family in [Family::V4, Family::V6] {
            let mask = masks[family as usize];
            match direction {
                _ if mask == 0 => (),
                Direction::Input => self.ip(family, mask, after),
                Direction::Output => {
                    for place in super::stage::places(mask) {
                        if let Some(mbuf) = self.burst.take(place) {
                            self.originate(family, mbuf, after);
                        }
                    }
                }
            }
        }
        self.burst.compact();
    }
}

fn ether_frame(
    mbuf: &mut Mbuf,
    from: super::Mac,
    ethertype: u16,
    dest: LinkDest,
) -> Result<(), nke_filters::DropReason> {
    let LinkDest::Station(to) = dest else { return Err(NEIGHBOR_UNRESOLVED) };
    let header = mbuf.prepend(ETHER_LEN).ok_or(NO_ROOM)?;
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.bytes());
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    Ok(())
}

/// What the layer relies on about a packet an extension made: its version, a contiguous header, and lengths that hold.
fn whole_header(mbuf: &mut Mbuf) -> Option<Family> {
    use nke_mbuf::wire::{Ipv4, Ipv6};
    let first = *mbuf.data().first()?;
    let (family, least) = match first >> 4 {
        4 => (Family::V4, usize::from(first & 15) * 4),
        6 => (Family::V6, Ipv6::HEADER_LEN),
        _ => return None,
    };
    if least < Ipv4::HEADER_LEN || mbuf.len() < least || !mbuf.pullup(least) {
        return None;
    }
    let total = match family {
        Family::V4 => Ipv4::new_quoted(mbuf.data()).ok()?.total_len(),
        Family::V6 => Ipv6::new_quoted(mbuf.data()).ok()?.total_len(),
    };
    (least <= total && total == mbuf.len()).then_some(family)
}
