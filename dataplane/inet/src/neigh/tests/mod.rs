mod flood;
mod life;
mod packets;
mod pressure;

use super::*;
use nke_mbuf::wire::EtherAddr;
use proptest::prelude::*;
use std::net::IpAddr;

const OURS_V4: &str = "192.0.2.254";
const OURS_V6: &str = "fe80::fe";
const OUR_MAC: EtherAddr = harness::OURS;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn any_script_keeps_the_promises(data in prop::collection::vec(any::<u8>(), 0..1600)) {
        harness::script(&data);
    }

    #[test]
    fn any_bytes_are_read_and_answered_in_bounds(data in prop::collection::vec(any::<u8>(), 0..200)) {
        harness::packets(&data);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> EtherAddr {
    EtherAddr([2, 0, 0, 0, 0, last])
}

fn ours(_: u16, address: IpAddr) -> Option<EtherAddr> {
    (address == ip(OURS_V4) || address == ip(OURS_V6)).then_some(OUR_MAC)
}

/// A table with its clock, on interface 1.
struct Rig {
    neighbors: Neighbors,
    now_ms: u64,
}

impl Rig {
    fn new(config: Config) -> Rig {
        Rig { neighbors: Neighbors::new(config, [5, 6]), now_ms: 1_000_000 }
    }

    fn resolve(&mut self, address: &str) -> (Lookup, Vec<Action>) {
        let mut out = Vec::new();
        (self.neighbors.resolve(1, ip(address), self.now_ms, &mut out), out)
    }

    fn gateway(&mut self, address: &str) -> (u32, Vec<Action>) {
        let mut out = Vec::new();
        (self.neighbors.gateway(1, ip(address), self.now_ms, &mut out).expect("room"), out)
    }

    fn used(&mut self, id: u32) -> Vec<Action> {
        let mut out = Vec::new();
        self.neighbors.used(id, self.now_ms, &mut out);
        out
    }

    fn hear(&mut self, kind: Kind) -> Vec<Action> {
        let mut out = Vec::new();
        self.neighbors.event(&Event { interface: 1, kind }, self.now_ms, ours, &mut out);
        out
    }

    /// The answer to our question.
    fn answer(&mut self, address: &str, mac: EtherAddr) -> Vec<Action> {
        self.hear(claim(address, Some(mac), true, true))
    }

    /// What somebody says unasked.
    fn announce(&mut self, address: &str, mac: EtherAddr) -> Vec<Action> {
        self.hear(claim(address, Some(mac), false, true))
    }

    /// Lets time pass, a tick every 20 ms; what is done, and when from now.
    fn pass(&mut self, ms: u64) -> Vec<(u64, Action)> {
        let (start, mut done, mut out) = (self.now_ms, Vec::new(), Vec::new());
        while self.now_ms < start + ms {
            self.now_ms += 20;
            self.neighbors.tick(self.now_ms, &mut out);
            done.extend(out.drain(..).map(|action| (self.now_ms - start, action)));
        }
        done
    }

    fn entry(&self, address: &str) -> Option<EntryInfo> {
        self.neighbors.entries(self.now_ms).find(|entry| entry.address == ip(address))
    }

    fn state(&self, address: &str) -> Option<State> {
        self.entry(address).map(|entry| entry.state)
    }

    /// A neighbour that answered once.
    fn prove(&mut self, address: &str, mac: EtherAddr) -> u32 {
        self.resolve(address);
        self.answer(address, mac);
        assert_eq!(self.state(address), Some(State::Reachable));
        self.entry(address).map(|entry| entry.id).expect("an entry")
    }
}

fn claim(address: &str, mac: Option<EtherAddr>, solicited: bool, override_flag: bool) -> Kind {
    Kind::Answer { address: ip(address), mac, solicited, override_flag, router: false }
}

fn request(sender: &str, mac: EtherAddr, target: &str) -> Kind {
    Kind::Request { sender: ip(sender), mac: Some(mac), target: ip(target) }
}

fn solicit(address: &str, to: Option<EtherAddr>) -> Action {
    Action::Solicit { interface: 1, address: ip(address), to }
}

fn reachable(id: u32, address: &str, mac: EtherAddr) -> Action {
    Action::Reachable { id, interface: 1, address: ip(address), mac }
}

fn gone(id: u32, address: &str) -> Action {
    Action::Gone { id, interface: 1, address: ip(address) }
}
