//! Rules and packets like those of real lists, for tests and figures.
//!
//! After what ClassBench (Taylor and Turner, 2007) found in real lists: addresses cluster in few networks and nest,
//! a few servers are named by many rules, source ports are mostly open, destination ports are mostly one of few
//! services, and three styles differ in how often an address is left open.

use super::classify::{Address, Key, Rule, Span};

/// A small generator of random numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The style of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Access lists of routers: both addresses are mostly given.
    Acl,
    /// Firewalls: one address is often open, ports come in ranges.
    Firewall,
    /// Chains of hosts: between the two.
    Chain,
}

impl Style {
    pub const ALL: [Style; 3] = [Style::Acl, Style::Firewall, Style::Chain];

    /// Per mille of rules whose source or destination is open, or a short prefix.
    fn open(self) -> [usize; 2] {
        match self {
            Style::Acl => [60, 20],
            Style::Firewall => [350, 250],
            Style::Chain => [150, 150],
        }
    }

    /// Per mille of rules with a source port.
    fn sports(self) -> usize {
        match self {
            Style::Acl => 0,
            Style::Firewall => 150,
            Style::Chain => 80,
        }
    }
}

/// Prefixes that cluster: address and length.
fn prefixes(random: &mut Random, count: usize) -> Vec<(u32, u32)> {
    let networks: Vec<u32> = (0..count / 64 + 2).map(|_| random.next() as u32 & 0xffff_0000).collect();
    let subnets: Vec<u32> =
        (0..count / 8 + 2).map(|_| random.pick(&networks) | random.next() as u32 & 0xff00).collect();
    (0..count)
        .map(|_| match random.below(100) {
            0..=1 => (random.pick(&networks), 8 + random.below(8) as u32),
            2..=7 => (random.pick(&networks), 16),
            8..=17 => (random.pick(&subnets), 17 + random.below(7) as u32),
            18..=42 => (random.pick(&subnets), 24),
            43..=57 => (random.pick(&subnets) | random.next() as u32 & 0xff, 25 + random.below(7) as u32),
            _ => (random.pick(&subnets) | random.next() as u32 & 0xff, 32),
        })
        .collect()
}

const SERVICES: [u16; 24] = [
    80, 443, 53, 25, 22, 21, 110, 143, 123, 161, 389, 445, 993, 995, 1433, 1521, 3306, 3389, 5060, 5432,
    6379, 8080, 8443, 9200,
];

fn ports(random: &mut Random) -> Span<u16> {
    match random.below(100) {
        0..=59 => Span::one(random.pick(&SERVICES)),
        60..=69 => Span::one(1024 + random.below(40000) as u16),
        70..=79 => Span::new(1024, 65535),
        80..=83 => Span::new(0, 1023),
        _ => {
            let first = random.below(60000) as u16;
            Span::new(first, first + random.below(3000) as u16)
        }
    }
}

/// `count` different rules for IPv4.
pub fn rules(random: &mut Random, style: Style, count: usize) -> Vec<Rule<u32>> {
    let (sources, targets) = (prefixes(random, count / 2 + 1), prefixes(random, count / 2 + 1));
    let servers: Vec<_> = (0..count / 100 + 1).map(|_| random.pick(&targets)).collect();
    let (mut rules, mut seen) = (Vec::new(), std::collections::HashSet::new());
    while rules.len() < count {
        let mut rule = Rule { protocol: Some(random.pick(&[6, 6, 6, 17])), ..Rule::ANY };
        if random.below(1000) >= style.open()[0] {
            let (address, len) = random.pick(&sources);
            rule.src = Span::prefix(address, len);
        }
        if random.below(1000) >= style.open()[1] {
            let crowd = random.below(100) < 25;
            let (address, len) = random.pick(if crowd { &servers } else { &targets });
            rule.dst = Span::prefix(address, len);
        }
        if random.below(1000) < style.sports() {
            rule.sport = ports(random);
        }
        match random.below(100) {
            0..=79 => rule.dport = ports(random),
            80..=84 => rule.protocol = Some(1),
            85..=89 if rule.sport == Span::ALL => rule.protocol = None,
            _ => {}
        }
        // Nobody opens or shuts everything but on purpose, at the end.
        let open = (rule.src == Span::ANY) as u8 + (rule.dst == Span::ANY) as u8;
        if (open == 2 && rule.dport == Span::ALL && rule.sport == Span::ALL) || !seen.insert(rule) {
            continue;
        }
        rules.push(rule);
    }
    rules
}

/// A packet that matches `rule`, if not an earlier one.
pub fn key_of(random: &mut Random, rule: &Rule<u32>) -> Key<u32> {
    let address = |random: &mut Random, span: Span<u32>| {
        span.first.wrapping_add((random.next() % (u64::from(span.last - span.first) + 1)) as u32)
    };
    let port = |random: &mut Random, span: Span<u16>| {
        span.first + random.below(usize::from(span.last - span.first) + 1) as u16
    };
    Key {
        src: address(random, rule.src),
        dst: address(random, rule.dst),
        sport: port(random, rule.sport),
        dport: port(random, rule.dport),
        protocol: rule.protocol.unwrap_or(17),
        upper: true,
        flags: 0x10,
        rcvif: 1,
    }
}

/// `count` packets: as in ClassBench most belong to rules, each field of one in eight is swapped with another's.
pub fn keys(random: &mut Random, rules: &[Rule<u32>], count: usize) -> Vec<Key<u32>> {
    let mut keys: Vec<_> = (0..count)
        .map(|_| {
            let rule = random.pick(rules);
            key_of(random, &rule)
        })
        .collect();
    for i in 0..keys.len() {
        let other = keys[random.below(count)];
        match random.below(32) {
            0 => keys[i].src = other.src,
            1 => keys[i].dst = other.dst,
            2 => keys[i].dport = other.dport,
            3 => keys[i].protocol = other.protocol,
            _ => {}
        }
    }
    keys
}

/// A list of `count` rules that none of `flows` packets matches, and one behind it that all do: what is left of a packet's
/// way through a list when all of it was in vain. Destinations are in the network the rules are about.
pub fn unmatched(random: &mut Random, count: usize, flows: usize) -> (Vec<Rule<u32>>, Vec<Key<u32>>) {
    let near = |random: &mut Random| 0xc612_0000 | random.next() as u32 & 0xffff;
    let mut rules: Vec<_> = (0..count)
        .map(|_| {
            let src = (11 + random.below(179) as u32) << 24 | (random.next() as u32 & 0x00ff_ff00);
            let dports =
                [Span::one(80), Span::one(443), Span::one(53), Span::new(1, 1023), Span::new(8000, 8100)];
            Rule {
                src: Span::prefix(src, random.pick(&[16, 20, 24, 28])),
                dst: Span::prefix(near(random), random.pick(&[20, 24, 32])),
                dport: random.pick(&dports),
                protocol: Some(random.pick(&[6, 17])),
                ..Rule::ANY
            }
        })
        .collect();
    rules.push(Rule::ANY);
    let key = |_| Key {
        src: 0x0a00_0000 | random.next() as u32 & 0xffff,
        dst: near(random),
        sport: 1024 + random.below(64512) as u16,
        dport: 1024 + random.below(64512) as u16,
        protocol: 17,
        upper: true,
        flags: 0,
        rcvif: 1,
    };
    (rules, (0..flows).map(key).collect())
}

/// Where the IPv4 addresses of a list are in its IPv6 counterpart: 2001:db8:A.B.C.D::/64.
fn six(address: u32) -> u128 {
    0x2001_0db8 << 96 | u128::from(address) << 64
}

/// A list for IPv6 of the same shape.
pub fn rule6(rule: &Rule<u32>) -> Rule<u128> {
    let span = |s: Span<u32>| {
        if s == Span::ANY { Span::ANY } else { Span::new(six(s.first), six(s.last) | u128::from(u64::MAX)) }
    };
    let Rule { src, dst, protocol, sport, dport, flags, rcvif } = *rule;
    Rule { src: span(src), dst: span(dst), protocol, sport, dport, flags, rcvif }
}

/// Its packets.
pub fn key6(random: &mut Random, key: &Key<u32>) -> Key<u128> {
    let Key { src, dst, sport, dport, protocol, upper, flags, rcvif } = *key;
    let host = u128::from(random.next());
    Key { src: six(src) | host, dst: six(dst) | host, sport, dport, protocol, upper, flags, rcvif }
}

/// The index of the first rule that matches, by looking at each.
pub fn oracle<A: Address>(rules: &[Rule<A>], key: &Key<A>) -> Option<usize> {
    rules.iter().position(|rule| rule.matches(key))
}
