//! The server with hostile clients, each sort by itself and all at once. `tests/control_socket.rs` has the contract.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::protocol::{CHANGE_MAX, take_message};
use super::*;

/// Gives back what it was asked with. Verbs that begin with `change` are no reads.
struct Echo;

impl Handler for Echo {
    fn is_read(&self, verb: &str) -> bool {
        !verb.starts_with("change")
    }

    fn call(&self, verb: &str, args: &Value, _: &Peer) -> Result<Value, Failure> {
        match verb {
            "big" => return Ok(json!("x".repeat(1 << 20))),
            "huge" => return Ok(json!("x".repeat(REPLY_MAX))),
            "change slowly" => std::thread::sleep(Duration::from_secs(2)),
            "panic" => panic!("as asked"),
            _ => (),
        }
        Ok(args.clone())
    }
}

/// A directory that is gone afterwards, and a socket in it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nke-control-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }

    fn serve(&self, limits: Limits) -> Server {
        Server::start(&self.socket(), Box::new(Echo), limits).unwrap()
    }

    fn ask(&self, verb: &str) -> Result<Value, Failure> {
        Client::connect(&self.socket())?.call(verb, json!(7))
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn limits(deadline_ms: u64) -> Limits {
    Limits { deadline: Duration::from_millis(deadline_ms), ..Limits::default() }
}

fn request(verb: &str) -> Vec<u8> {
    protocol::frame(&json!({ "v": VERSION, "verb": verb, "args": 7 }), REQUEST_MAX).unwrap()
}

/// Everything until the other end closes, as messages.
fn replies(stream: &mut UnixStream) -> Vec<Value> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    std::iter::from_fn(|| take_message(&mut bytes, REPLY_MAX).unwrap()).collect()
}

/// Pseudo-random numbers, the same in every run.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut x = seed;
    move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn seen(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn only_sockets_are_replaced() {
    let place = Place::new();
    let start = || Server::start(&place.socket(), Box::new(Echo), Limits::default()).map(drop);
    fs::write(place.socket(), "precious").unwrap();
    assert_eq!(start().unwrap_err().id, "NKE-CTL-NO-SOCKET");
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
    fs::remove_file(place.socket()).unwrap();
    // A link is not followed, wherever it leads.
    std::os::unix::fs::symlink("/nowhere", place.socket()).unwrap();
    assert_eq!(start().unwrap_err().id, "NKE-CTL-NO-SOCKET");
    fs::remove_file(place.socket()).unwrap();
    fs::create_dir(place.socket()).unwrap();
    assert_eq!(start().unwrap_err().id, "NKE-CTL-NO-SOCKET");
    fs::remove_dir(place.socket()).unwrap();
    assert_eq!(start(), Ok(()));
    let long = place.0.join("x".repeat(120));
    let refused = Server::start(&long, Box::new(Echo), Limits::default()).err().unwrap();
    assert!(refused.id == "NKE-CTL-SYSTEM" && refused.message.contains("107"), "{refused:?}");
}

#[test]
fn modes_are_as_promised() {
    let place = Place::new();
    let socket = place.0.join("deep/er/s");
    let server = Server::start(&socket, Box::new(Echo), Limits::default()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o660);
    assert_eq!(mode(socket.parent().unwrap()) & !0o750, 0);
    server.stop();
    assert!(!socket.exists());
}

/// A process that is stopped (SIGSTOP) accepts nobody: the kernel's queue fills, and connecting would wait for ever.
#[test]
fn a_stopped_dataplane_is_alive() {
    let place = Place::new();
    let _stopped = UnixListener::bind(place.socket()).unwrap();
    let mut waiting = Vec::new();
    loop {
        match sys::connect(&place.socket(), Duration::ZERO) {
            Ok(stream) => waiting.push(stream),
            Err(e) => break assert_eq!(e.kind(), std::io::ErrorKind::TimedOut),
        }
    }
    assert!(!waiting.is_empty());
    let started = Instant::now();
    let refused = Server::start(&place.socket(), Box::new(Echo), Limits::default()).err().unwrap();
    assert_eq!(refused.id, "NKE-CTL-BUSY");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(place.ask("show").unwrap_err().id, "NKE-CTL-TIMEOUT");
}

/// Connected, and no answer comes.
#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let place = Place::new();
    let _stopped = UnixListener::bind(place.socket()).unwrap();
    let mut client = Client::connect(&place.socket()).unwrap().with_deadline(Duration::from_millis(100));
    assert_eq!(client.call("show", json!(1)).unwrap_err().id, "NKE-CTL-TIMEOUT");
}

/// Of many that start at once in the place of a dead one, exactly one does.
#[test]
fn one_of_many_starts() {
    for _ in 0..20 {
        let place = Place::new();
        drop(UnixListener::bind(place.socket()).unwrap());
        let start = || Server::start(&place.socket(), Box::new(Echo), Limits::default());
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
        let others = outcomes.iter().filter_map(|o| o.as_ref().err());
        assert!(others.into_iter().all(|f| f.id == "NKE-CTL-BUSY"));
        assert_eq!(place.ask("show"), Ok(json!(7)), "the one that started is reached");
    }
}

#[test]
fn looking_does_not_wait_for_a_change() {
    let place = Place::new();
    let _server = place.serve(Limits::default());
    let through = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(place.ask("change slowly"), Ok(json!(7)));
            through.store(true, Ordering::Release);
        });
        std::thread::sleep(Duration::from_millis(100));
        for _ in 0..5 {
            assert_eq!(place.ask("show"), Ok(json!(7)));
        }
        assert!(!through.load(Ordering::Acquire), "five answers in the middle of the change");
    });
}

/// The other end of a connection that waits for a change is gone, which poll(2) says over and over.
#[test]
fn a_client_that_leaves_in_the_middle_of_a_change_costs_nothing() {
    let place = Place::new();
    let server = place.serve(limits(200));
    place.raw().write_all(&request("change slowly")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(place.ask("show"), Ok(json!(7)));
    assert_eq!(seen(&server.counters().timed_out), 0);
}

#[test]
fn a_panic_takes_one_answer_and_no_more() {
    let place = Place::new();
    let _server = place.serve(Limits::default());
    let mut client = Client::connect(&place.socket()).unwrap();
    assert_eq!(client.call("panic", Value::Null).unwrap_err().id, "NKE-CTL-PANIC");
    assert_eq!(client.call("show", json!(1)), Ok(json!(1)), "not even the connection");
}

#[test]
fn many_requests_at_once_are_answered_in_order() {
    let place = Place::new();
    let _server = place.serve(Limits::default());
    let mut stream = place.raw();
    let mut writer = stream.try_clone().unwrap();
    // Good ones and such as are refused at once.
    let requests = 3000;
    let sender = std::thread::spawn(move || {
        for n in 0..requests {
            let (v, verb) = if n % 3 == 0 { (VERSION, "show") } else { (99, "none") };
            let message = json!({ "v": v, "verb": verb, "args": n });
            writer.write_all(&protocol::frame(&message, REQUEST_MAX).unwrap()).unwrap();
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let replies = replies(&mut stream);
    sender.join().unwrap();
    assert_eq!(replies.len(), requests);
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(reply["ok"], json!(n % 3 == 0));
        assert!(n % 3 != 0 || reply["data"] == json!(n));
    }
}

#[test]
fn sizes_have_an_end() {
    let place = Place::new();
    let server = place.serve(Limits::default());
    let mut client = Client::connect(&place.socket()).unwrap();
    assert_eq!(client.call("show", json!("x".repeat(CHANGE_MAX))).unwrap_err().id, "NKE-CTL-TOO-LONG");
    assert_eq!(client.call("huge", Value::Null).unwrap_err().id, "NKE-CTL-TOO-LONG");
    let just = "x".repeat(REPLY_MAX - 100);
    assert_eq!(client.call("show", json!(just)), Ok(json!(just)));
    // A length above the limit is refused before any of it is taken.
    for len in [CHANGE_MAX as u32 + 1, u32::MAX] {
        let mut stream = place.raw();
        stream.write_all(&len.to_le_bytes()).unwrap();
        let replies = replies(&mut stream);
        assert_eq!(replies[0]["error"]["id"], json!("NKE-CTL-BAD-REQUEST"), "and then closed");
    }
    // Who may only read says little.
    let reader = Place::new();
    let limits = Limits { authorise: Box::new(|_: &Peer, change| !change), ..Limits::default() };
    let readers = reader.serve(limits);
    let mut stream = UnixStream::connect(reader.socket()).unwrap();
    stream.write_all(&(REQUEST_MAX as u32 + 1).to_le_bytes()).unwrap();
    assert_eq!(replies(&mut stream)[0]["error"]["id"], json!("NKE-CTL-BAD-REQUEST"));
    readers.stop();
    // Deep nesting is refused, not followed down the stack.
    let deep = "[".repeat(60_000);
    let mut stream = place.raw();
    stream.write_all(&(deep.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(deep.as_bytes()).unwrap();
    assert_eq!(replies(&mut stream)[0]["ok"], json!(false));
    assert_eq!(seen(&server.counters().garbage), 3);
}

/// Garbage is answered once, and then the connection is closed: not again for every look at the same bytes.
#[test]
fn garbage_is_answered_once() {
    let place = Place::new();
    let server = place.serve(Limits::default());
    let mut stream = place.raw();
    stream.write_all(&[0xff; 100]).unwrap();
    let replies = replies(&mut stream);
    assert_eq!((replies.len(), seen(&server.counters().garbage)), (1, 1));
}

#[test]
fn silent_clients_make_room() {
    let place = Place::new();
    let server = place.serve(limits(100));
    let began = Instant::now();
    let silent: Vec<_> = (0..64).map(|_| place.raw()).collect();
    let early = place.ask("show");
    // Everybody was heard of within the last second, unless this machine was busy with something else.
    if began.elapsed() < Duration::from_secs(1) {
        assert_eq!(early.unwrap_err().id, "NKE-CTL-FULL");
    }
    until("somebody made room", || place.ask("show").is_ok());
    assert!(seen(&server.counters().evicted) > 0);
    drop(silent);
}

#[test]
fn readers_cannot_keep_the_others_out() {
    // What a client may depends on the group that this test gives it, by the order of arrival.
    let arrivals = AtomicU32::new(0);
    let authorise =
        move |_: &Peer, change: bool| !change || arrivals.fetch_add(1, Ordering::Relaxed) > 1_000_000;
    let place = Place::new();
    let server = place.serve(Limits { authorise: Box::new(authorise), ..Limits::default() });
    let readers: Vec<_> = (0..64).map(|_| place.raw()).collect();
    until("all are looked at", || {
        seen(&server.counters().accepted) + seen(&server.counters().refused_full) == 64
    });
    assert_eq!(seen(&server.counters().accepted), 56, "eight places are kept");
    drop(readers);
}

#[test]
fn supplementary_groups_count_and_strangers_are_sent_away() {
    // A rule for group 4321; this process has it only as asked of `may`, so the rule is tried on a connection.
    let place = Place::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let peer = Peer { uid: 12345, gid: 1, pid: 1 };
    let authorise: server::Authorise = Box::new(|peer, change| !change && peer.gid == 4321);
    let client = connection::Connection::new(1, ours, (peer, vec![1, 4321]));
    assert!(client.may(false, &authorise) && !client.may(true, &authorise));
    // And on the kernel's word about ourselves.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let (peer, groups) = sys::peer(&ours).unwrap();
    assert!(groups.contains(&peer.gid) && peer.pid == std::process::id() as i32);

    let server = place.serve(Limits { authorise: Box::new(|_, _| false), ..Limits::default() });
    assert_eq!(place.ask("show").unwrap_err().id, "NKE-CTL-DENIED");
    assert_eq!((seen(&server.counters().denied), seen(&server.counters().accepted)), (1, 0));
}

#[test]
fn slow_and_deaf_clients_are_cut_off() {
    let place = Place::new();
    let server = place.serve(limits(300));
    // A byte at a time never gets the deadline moved.
    let began = Instant::now();
    let mut slow = place.raw();
    for byte in request("show").iter().cycle() {
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    // Nor does an answer that is read slowly.
    let mut deaf = place.raw();
    deaf.write_all(&request("big")).unwrap();
    until("the deaf one is cut off", || seen(&server.counters().timed_out) == 2);
    let mut got = Vec::new();
    let _ = deaf.read_to_end(&mut got);
    assert!(got.len() < 1 << 20);
    assert_eq!(place.ask("show"), Ok(json!(7)));
}

#[test]
fn stopping_waits_for_nobody_but_the_request_at_hand() {
    let place = Place::new();
    let server = place.serve(Limits::default());
    let mut streams: Vec<_> = (0..10).map(|_| place.raw()).collect();
    streams.iter_mut().for_each(|s| s.write_all(&request("change slowly")).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    server.stop();
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "one change of two seconds, not ten: {:?}",
        began.elapsed()
    );
}

/// Everybody misbehaves at once, two hundred strong, and a good client gets all its answers.
#[test]
fn hostile_clients_hurt_nobody_else() {
    let place = Place::new();
    let server = place.serve(limits(300));
    let mut good = Client::connect(&place.socket()).unwrap();
    assert_eq!(good.call("show", json!(0)), Ok(json!(0)));
    let over = AtomicBool::new(false);
    let connect = || UnixStream::connect(place.socket());
    std::thread::scope(|scope| {
        // Garbage of every length.
        scope.spawn(|| {
            let mut random = random(1);
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = connect() else { continue };
                let bytes: Vec<_> = (0..random() % 5000).map(|_| random() as u8).collect();
                let _ = stream.write_all(&bytes);
            }
        });
        // Good requests with a few bytes changed.
        scope.spawn(|| {
            let mut random = random(2);
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = connect() else { continue };
                let mut bytes = request("show");
                for _ in 0..random() % 4 {
                    let at = random() as usize % bytes.len();
                    bytes[at] = random() as u8;
                }
                let _ = stream.write_all(&bytes[..random() as usize % (bytes.len() + 1)]);
            }
        });
        // Asks for much and never reads; asks, and leaves at once.
        scope.spawn(|| {
            let mut deaf = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = connect() else { continue };
                let _ = stream.write_all(&request("big"));
                deaf.push(stream);
                if deaf.len() > 20 {
                    deaf.clear();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        // A crowd that connects and says nothing, or begins a request and goes on a byte at a time.
        scope.spawn(|| {
            let mut crowd = Vec::new();
            let mut random = random(3);
            while !over.load(Ordering::Relaxed) {
                while crowd.len() < 200 {
                    let Ok(mut stream) = connect() else { break };
                    if crowd.len() % 2 == 0 {
                        let _ = stream.write_all(&60_000u32.to_le_bytes());
                    }
                    crowd.push(stream);
                }
                // Even places stay with those that have begun.
                let at = random() as usize % (crowd.len() / 2) * 2;
                if crowd[at].write_all(b" ").is_err() {
                    crowd.drain(at..at + 2);
                }
            }
        });
        let (began, mut n) = (Instant::now(), 0u64);
        let mut longest = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(3) {
            n += 1;
            let asked = Instant::now();
            assert_eq!(good.call("show", json!(n)), Ok(json!(n)));
            longest = longest.max(asked.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        assert!(n > 30, "served throughout: {n}");
        eprintln!("{n} answers, the slowest after {longest:?}");
    });
    until("there is room again", || place.ask("show").is_ok());
    let counters = server.counters();
    let (garbage, late, full) =
        (seen(&counters.garbage), seen(&counters.timed_out), seen(&counters.refused_full));
    eprintln!("{garbage} garbage, {late} too late, {full} refused, {} served", seen(&counters.served));
    assert!(garbage > 0 && late > 0 && full > 0);
}

/// Ten thousand that come one after the other, each gone before the next.
#[test]
fn ten_thousand_connections() {
    let place = Place::new();
    let server = place.serve(Limits::default());
    for n in 0..10_000 {
        let stream = place.raw();
        if n % 100 == 0 {
            assert_eq!(place.ask("show").map_err(|f| f.id).unwrap_or(json!(7)), json!(7));
        }
        drop(stream);
    }
    until("all are gone", || place.ask("show").is_ok());
    let counters = server.counters();
    assert!(seen(&counters.accepted) + seen(&counters.refused_full) > 10_000);
    assert_eq!(seen(&counters.garbage), 0);
}
