//! The control socket with well-behaved and hostile clients. No privilege needed.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nke_dataplane::control::{Client, Failure, Handler, Limits, Peer, Server};
use serde_json::{Value, json};

/// Answers what it was asked; `big` with a megabyte.
struct Echo;

impl Handler for Echo {
    fn is_read(&self, verb: &str) -> bool {
        verb != "change"
    }
    fn call(&self, verb: &str, args: &Value, _: &Peer) -> Result<Value, Failure> {
        match verb {
            "big" => Ok(json!("x".repeat(1 << 20))),
            "fail" => Err(Failure::new("NKE-EXT-001", "as asked")),
            _ => Ok(args.clone()),
        }
    }
}

/// A directory that is gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nke-ctl-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Place(path)
    }
    fn socket(&self) -> PathBuf {
        self.0.join("deeper/control.sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn short() -> Limits {
    Limits { deadline: Duration::from_millis(200), ..Limits::default() }
}

fn good(place: &Place) -> Result<Value, Failure> {
    Client::connect(&place.socket())?.call("show", json!({ "n": 7 }))
}

#[test]
fn requests_are_answered_and_errors_cross_over() {
    let place = Place::new();
    assert_eq!(good(&place).unwrap_err().id, "NKE-CTL-NOT-RUNNING");
    let server = Server::start(&place.socket(), Box::new(Echo), Limits::default()).unwrap();
    let mut client = Client::connect(&place.socket()).unwrap();
    for n in 0..100 {
        assert_eq!(client.call("show", json!(n)), Ok(json!(n)));
    }
    assert_eq!(client.call("big", Value::Null).unwrap().as_str().unwrap().len(), 1 << 20);
    assert_eq!(client.call("fail", Value::Null).unwrap_err().id, "NKE-EXT-001");
    assert_eq!(client.call("change", json!(1)), Ok(json!(1)));
    let busy = Server::start(&place.socket(), Box::new(Echo), Limits::default()).err().unwrap();
    assert_eq!(busy.id, "NKE-CTL-BUSY");
    server.stop();
    assert!(!place.socket().exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let place = Place::new();
    fs::create_dir(place.0.join("deeper")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
    let server = Server::start(&place.socket(), Box::new(Echo), Limits::default()).unwrap();
    assert!(good(&place).is_ok());
    // Somebody else's socket in its place stays.
    fs::remove_file(place.socket()).unwrap();
    let other = std::os::unix::net::UnixListener::bind(place.socket()).unwrap();
    server.stop();
    assert!(place.socket().exists());
    drop(other);
}

#[test]
fn strangers_may_read_or_nothing() {
    let place = Place::new();
    let limits = Limits { authorise: Box::new(|_, change| !change), ..Limits::default() };
    let server = Server::start(&place.socket(), Box::new(Echo), limits).unwrap();
    let mut client = Client::connect(&place.socket()).unwrap();
    assert!(client.call("show", Value::Null).is_ok());
    assert_eq!(client.call("change", Value::Null).unwrap_err().id, "NKE-CTL-DENIED");
    assert_eq!(server.counters().denied.load(Ordering::Relaxed), 1);
}

#[test]
fn the_default_rule_knows_users_and_groups() {
    let limits = Limits::default();
    let (me, group) = {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let id = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
        };
        (id("Uid:"), id("Gid:"))
    };
    let may = |uid, gid, change| (limits.authorise)(&Peer { uid, gid, pid: 1 }, change);
    assert!(may(0, 99, true) && may(me, 99, true));
    assert!(may(12345, group, false) && !may(12345, group, true));
    assert!(!may(12345, group + 1, false));
}

/// Everybody misbehaves at once, and a good client is served all the while.
#[test]
fn hostile_clients_hurt_nobody_else() {
    let place = Place::new();
    let server = Server::start(&place.socket(), Box::new(Echo), short()).unwrap();
    let path = place.socket();
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        // Garbage of all kinds.
        scope.spawn(|| {
            let mut x = 1u64;
            while Instant::now() < end {
                let Ok(mut stream) = UnixStream::connect(&path) else { continue };
                for _ in 0..20 {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    if stream.write_all(&x.to_be_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        // Well-formed length, no JSON; wrong version; too long.
        scope.spawn(|| {
            while Instant::now() < end {
                for message in [&b"\x03\0\0\0abc"[..], b"\x02\0\0\0{}", b"\xff\xff\xff\x7f"] {
                    let Ok(mut stream) = UnixStream::connect(&path) else { continue };
                    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    let _ = stream.write_all(message);
                    let mut head = [0; 4];
                    if stream.read_exact(&mut head).is_ok() {
                        let mut body = vec![0; u32::from_le_bytes(head) as usize];
                        stream.read_exact(&mut body).unwrap();
                        let reply: Value = serde_json::from_slice(&body).unwrap();
                        assert_eq!(reply["ok"], json!(false));
                    }
                }
            }
        });
        // One byte at a time, of a request that may be this long: cut off at the deadline.
        scope.spawn(|| {
            while Instant::now() < end {
                let Ok(mut stream) = UnixStream::connect(&path) else { continue };
                let bytes = 60_000u32.to_le_bytes().into_iter().chain(std::iter::repeat(b' '));
                for byte in bytes {
                    if Instant::now() >= end || stream.write_all(&[byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        // Asks for a lot and never reads.
        scope.spawn(|| {
            while Instant::now() < end {
                let Ok(mut stream) = UnixStream::connect(&path) else { continue };
                let request = br#"{"v":1,"verb":"big","args":null}"#;
                let _ = stream.write_all(&(request.len() as u32).to_le_bytes());
                let _ = stream.write_all(request);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        scope.spawn(|| {
            // A crowd may fill every slot for a moment; whoever has one keeps it.
            let mut client = loop {
                let mut client = Client::connect(&path).unwrap();
                match client.call("show", Value::Null) {
                    Ok(_) => break client,
                    Err(e) => {
                        assert!(["NKE-CTL-FULL", "NKE-CTL-NOT-RUNNING"].contains(&e.id.as_str()), "{e:?}")
                    }
                }
            };
            let mut n = 0;
            while Instant::now() < end {
                assert_eq!(client.call("show", json!(n)), Ok(json!(n)));
                n += 1;
            }
            assert!(n > 20, "served throughout: {n}");
        });
    });
    let patience = Instant::now() + Duration::from_secs(10);
    while good(&place).is_err() {
        assert!(Instant::now() < patience, "nobody is served any more");
        std::thread::sleep(Duration::from_millis(10));
    }
    let seen = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    let counters = server.counters();
    assert!(seen(&counters.garbage) > 0 && seen(&counters.timed_out) > 0);
}

#[test]
fn two_hundred_clients_at_once() {
    let place = Place::new();
    let server = Server::start(&place.socket(), Box::new(Echo), short()).unwrap();
    let crowd: Vec<_> = (0..200).filter_map(|_| Client::connect(&place.socket()).ok()).collect();
    let mut outcomes: Vec<_> = crowd.into_iter().map(|mut c| (c.call("show", json!(1)), c)).collect();
    let served = outcomes.iter().filter(|(r, _)| r.is_ok()).count();
    assert_eq!(served, 64);
    for (result, _) in outcomes.iter().filter(|(r, _)| r.is_err()) {
        let id = &result.as_ref().unwrap_err().id;
        assert!(["NKE-CTL-FULL", "NKE-CTL-NOT-RUNNING"].contains(&id.as_str()), "{id}");
    }
    assert_eq!(server.counters().refused_full.load(Ordering::Relaxed), 136);
    // Slots come back when clients go.
    outcomes.clear();
    let end = Instant::now() + Duration::from_secs(10);
    while good(&place).is_err() {
        assert!(Instant::now() < end, "nobody is served any more");
        std::thread::sleep(Duration::from_millis(10));
    }
}
