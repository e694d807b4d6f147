//! The filter as the dataplane calls it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nke_mbuf::wire::{Ipv4, Ipv6, Protocol};
use nke_mbuf::{Burst, Mbuf, Owner, Pool, PoolConfig, Region};

use super::*;
use crate::IpHook;
use crate::{ArgValue, Removed};

const REASONS: [&str; 3] = ["deny", "default", "fragment"];

fn create<A: Packets>(args: &[(&str, &str)]) -> Result<Filter<A>, CreateError> {
    let args = args.iter().map(|(name, value)| ((*name).into(), ArgValue::Text((*value).into())));
    Filter::with_reasons(&Args(args.collect()), 3, |name| {
        let index = REASONS.iter().position(|reason| *reason == name);
        index.map(|i| DropReason::from_index(i as u8)).ok_or(CreateError::new(name, "there are three"))
    })
}

fn pool() -> Pool {
    Pool::new(Region::heap(2048 * 64), &PoolConfig::default()).unwrap()
}

/// An IPv4 packet with `upper` behind its header.
fn four(pool: &Pool, from: [u8; 4], to: [u8; 4], protocol: Protocol, upper: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    let bytes = mbuf.append(20 + upper.len()).unwrap();
    bytes[20..].copy_from_slice(upper);
    let mut ip = Ipv4::init(bytes).unwrap();
    ip.set_protocol(protocol);
    ip.set_src(from.into());
    ip.set_dst(to.into());
    ip.payload_mut().copy_from_slice(upper);
    mbuf
}

/// An IPv6 packet from ::1 to ::2.
fn six(pool: &Pool, next: Protocol, payload: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    let bytes = mbuf.append(40 + payload.len()).unwrap();
    let mut ip = Ipv6::init(bytes).unwrap();
    ip.set_next_header(next);
    ip.set_src(1u128.into());
    ip.set_dst(2u128.into());
    ip.payload_mut().copy_from_slice(payload);
    mbuf
}

fn ports(sport: u16, dport: u16, len: usize, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..2].copy_from_slice(&sport.to_be_bytes());
    bytes[2..4].copy_from_slice(&dport.to_be_bytes());
    if len > 13 {
        bytes[13] = flags;
    }
    bytes
}

/// The reason each packet was dropped for, or `-`.
fn judge<A: Packets>(filter: &Filter<A>, packets: impl IntoIterator<Item = Mbuf>) -> Vec<&'static str> {
    let mut removed = Removed::default();
    let mut verdicts = Vec::new();
    for packet in packets {
        let mut burst = Burst::new();
        burst.push(packet).unwrap();
        let mut batch = Batch::new(&mut burst, 1, &mut removed, Owner(20));
        filter.run(1, &mut batch);
        verdicts.push(removed.pop().map_or("-", |(_, reason)| REASONS[reason.index()]));
    }
    verdicts
}

fn figure<A: Packets>(filter: &Filter<A>, name: &str) -> u64 {
    filter.figures().into_iter().find(|(n, _)| *n == name).unwrap().1
}

#[test]
fn rules_decide_and_are_counted() {
    let pool = pool();
    let text = "count from 10.0.0.0/8\n\
        deny tcp to any port 22 in 7; count { tcp, 6 } from 10.0.0.0/7; permit tcp flags S/SA\n\
        permit icmp type 8";
    let filter = create::<u32>(&[("rule", text)]).unwrap();
    let (a, b) = ([10, 0, 0, 1], [192, 0, 2, 1]);
    let mut ssh = four(&pool, a, b, Protocol::TCP, &ports(9, 22, 20, 2));
    ssh.set_rcvif(7);
    let verdicts = judge(
        &filter,
        [
            ssh,
            four(&pool, a, b, Protocol::TCP, &ports(9, 22, 20, 2)),
            four(&pool, b, a, Protocol::TCP, &ports(9, 22, 20, 0x12)),
            four(&pool, a, b, Protocol::ICMP, &[8, 0, 0, 0]),
            four(&pool, a, b, Protocol::ICMP, &[0, 0, 0, 0]),
            four(&pool, a, b, Protocol::ICMP, &[]),
        ],
    );
    assert_eq!(verdicts, ["deny", "-", "default", "-", "default", "default"]);
    let expect = [
        ("count from 10.0.0.0/8", 5),
        ("deny tcp to any port 22 in 7", 1),
        ("count { tcp, 6 } from 10.0.0.0/7", 1),
        ("permit tcp flags S/SA", 1),
        ("permit icmp type 8", 1),
    ];
    assert_eq!(filter.hits(), expect.map(|(rule, hits)| (rule.to_owned(), hits)));
    assert_eq!(
        (figure(&filter, "permitted"), figure(&filter, "denied"), figure(&filter, "rules")),
        (2, 4, 5)
    );

    let open = create::<u32>(&[("rule", ""), ("default", "permit"), ("hook", "output, prerouting")]).unwrap();
    assert_eq!(judge(&open, [four(&pool, a, b, Protocol::UDP, &[])]), ["-"]);
    assert_eq!(open.hooks(), IpHooks::NONE.with(IpHook::Output).with(IpHook::Prerouting));
    assert_eq!(filter.hooks(), IpHooks::NONE.with(IpHook::Input).with(IpHook::Forward));
}

#[test]
fn fragments() {
    let pool = pool();
    let piece = |protocol, offset: u16, more: bool, upper: &[u8]| {
        let mut mbuf = four(&pool, [10, 0, 0, 1], [10, 0, 0, 2], protocol, upper);
        let word = (offset / 8) | (u16::from(more) << 13);
        mbuf.data_mut()[6..8].copy_from_slice(&word.to_be_bytes());
        mbuf
    };
    for (mode, port_rule, later) in [("match", "-", "deny"), ("permit", "-", "-"), ("deny", "-", "fragment")]
    {
        let text = "permit { tcp, udp } to any port 53\ndeny";
        let filter = create::<u32>(&[("rule", text), ("fragments", mode)]).unwrap();
        let verdicts = judge(
            &filter,
            [
                piece(Protocol::UDP, 0, true, &ports(53, 53, 16, 0)),
                piece(Protocol::UDP, 16, false, &ports(53, 53, 16, 0)),
                piece(Protocol::UDP, 8, false, &ports(53, 53, 16, 0)),
                piece(Protocol::TCP, 16, false, &ports(53, 53, 16, 0)),
                // Ports without flags, and flags over those of the first fragment.
                piece(Protocol::TCP, 0, true, &ports(53, 53, 8, 0)),
                piece(Protocol::TCP, 8, false, &ports(53, 53, 16, 0)),
                piece(Protocol::TCP, 0, true, &ports(53, 53, 16, 0)),
            ],
        );
        let evasive = "fragment";
        assert_eq!(verdicts, [port_rule, later, later, later, evasive, evasive, port_rule], "{mode}");
    }
}

#[test]
fn behind_extension_headers_and_over_segments() {
    let pool = pool();
    let text = "permit tcp from ::1 to ::2 port 80\npermit icmp6 type 128\npermit 59 from any to ::2";
    let filter = create::<u128>(&[("rule", text)]).unwrap();
    let options = |next: Protocol, upper: &[u8]| [&[next.0, 0, 1, 4, 0, 0, 0, 0], upper].concat();
    let fragment = |next: Protocol, word: u16, upper: &[u8]| {
        [&[next.0, 0, (word >> 8) as u8, word as u8, 0, 0, 0, 9], upper].concat()
    };
    let tcp = ports(7, 80, 20, 2);
    let split = |at: usize| {
        let whole = six(&pool, Protocol::DEST_OPTIONS, &options(Protocol::TCP, &tcp));
        let mut first = pool.alloc().unwrap();
        first.append(at).unwrap().copy_from_slice(&whole.data()[..at]);
        let mut rest = pool.alloc().unwrap();
        rest.append(whole.len() - at).unwrap().copy_from_slice(&whole.data()[at..]);
        first.chain(rest).unwrap();
        first
    };
    let verdicts = judge(
        &filter,
        [
            six(&pool, Protocol::TCP, &tcp),
            six(&pool, Protocol::DEST_OPTIONS, &options(Protocol::TCP, &tcp)),
            split(40),
            split(44),
            split(50),
            six(&pool, Protocol::ICMPV6, &[128, 0, 0, 0]),
            six(&pool, Protocol::NO_NEXT, &[]),
            six(&pool, Protocol::FRAGMENT, &fragment(Protocol::TCP, 1, &tcp)),
            six(&pool, Protocol::FRAGMENT, &fragment(Protocol::TCP, 1, &tcp[..8])),
            six(&pool, Protocol::FRAGMENT, &fragment(Protocol::TCP, 16, &tcp)),
            six(&pool, Protocol::DEST_OPTIONS, &[6, 9, 1, 4]),
        ],
    );
    let (evasive, default) = ("fragment", "default");
    assert_eq!(verdicts, ["-", "-", "-", "-", "-", "-", "-", "-", evasive, default, evasive]);
}

#[test]
fn mistakes_are_explained() {
    let refused = |args: &[(&str, &str)]| create::<u32>(args).err().unwrap().to_string();
    for (args, part) in [
        (&[][..], "give either `rules`"),
        (&[("rule", ""), ("rules", "x")], "from one place"),
        (
            &[("rule", "permit\ndeny udp to any prot 5")],
            "rule:2:17: `prot` does not fit here; the clauses are",
        ),
        (&[("rules", "/nonexistent/acl")], "/nonexistent/acl cannot be read"),
        (&[("rules", "/")], "not a regular file"),
        (
            &[("rule", ""), ("hook", "postrouting")],
            "`hook` cannot be `postrouting`; write one of: prerouting",
        ),
        (&[("rule", ""), ("default", "drop")], "write one of: permit, deny"),
        (&[("rule", ""), ("fragments", "")], "write one of: match"),
        (&[("rule", ""), ("action", "")], "unknown argument `action`"),
    ] {
        let error = refused(args);
        assert!(error.contains(part), "{error}");
    }
    let many: String = (0..65).map(|i| format!("count in {i}\n")).collect();
    assert!(refused(&[("rule", &many)]).contains("rule:65:1: the sets"));
}

/// A file of its own, removed at the end.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Temp(std::env::temp_dir().join(format!("nke-acl-test-{}-{number}", std::process::id())))
    }

    /// In one step, as editors do.
    fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let pool = pool();
    let file = Temp::new();
    let packet = || [four(&pool, [10, 0, 0, 1], [10, 0, 0, 2], Protocol::UDP, &ports(1, 2, 8, 0))];
    file.write("permit");
    let filter = create::<u32>(&[("rules", file.0.to_str().unwrap())]).unwrap();
    let state = |filter: &Filter<u32>| {
        filter.tick();
        ["reloads", "reload_errors", "reload_error_line"].map(|name| figure(filter, name))
    };
    assert_eq!((state(&filter), judge(&filter, packet())), ([0, 0, 0], vec!["-"]));
    file.write("deny");
    assert_eq!((state(&filter), judge(&filter, packet())), ([1, 0, 0], vec!["deny"]));
    file.write("permit\ndany");
    assert_eq!((state(&filter), judge(&filter, packet())), ([1, 1, 2], vec!["deny"]));
    assert!(filter.last_error().unwrap().cause.contains(":2:1: a line starts"));
    assert_eq!(state(&filter), [1, 1, 2], "not looked at again");
    std::fs::remove_file(&file.0).unwrap();
    assert_eq!((state(&filter), state(&filter)), ([1, 2, 0], [1, 2, 0]));
    file.write("permit");
    assert_eq!((state(&filter), judge(&filter, packet())), ([2, 2, 0], vec!["-"]));
    assert!(filter.last_error().is_none());
    assert_eq!(filter.hits(), [("permit".to_owned(), 1)]);
}

#[test]
fn every_burst_sees_one_whole_table() {
    let file = Temp::new();
    let lists = ["permit from 10.0.0.1\ndeny from 10.0.0.2", "deny from 10.0.0.1\npermit from 10.0.0.2"];
    file.write(lists[0]);
    let filter = create::<u32>(&[("rules", file.0.to_str().unwrap())]).unwrap();
    let done = AtomicBool::new(false);
    let (seen, mixed) = ([AtomicUsize::new(0), AtomicUsize::new(0)], AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (filter, done, seen, mixed) = (&filter, &done, &seen, &mixed);
            scope.spawn(move || {
                let pool = pool();
                let mut removed = Removed::default();
                while !done.load(Ordering::Relaxed) {
                    let mut burst = Burst::new();
                    for i in 0..16u8 {
                        let from = [10, 0, 0, 1 + (i & 1)];
                        burst.push(four(&pool, from, [9; 4], Protocol::UDP, &[0; 8])).unwrap();
                    }
                    let mut batch = Batch::new(&mut burst, 0xffff, &mut removed, Owner(20));
                    filter.run(worker, &mut batch);
                    let gone = batch.gone();
                    mixed.fetch_add(usize::from(gone != 0xaaaa && gone != 0x5555), Ordering::Relaxed);
                    seen[usize::from(gone == 0x5555)].fetch_add(1, Ordering::Relaxed);
                    while removed.pop().is_some() {}
                    std::thread::yield_now();
                }
            });
        }
        for i in 1..=60 {
            let before = seen[i & 1].load(Ordering::Relaxed);
            file.write(lists[i & 1]);
            filter.tick();
            while seen[i & 1].load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!((mixed.into_inner(), figure(&filter, "reloads")), (0, 60));
}
