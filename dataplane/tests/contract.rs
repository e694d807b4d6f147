//! The interface filter contract on a running dataplane, over rings in memory. Each test ends with the account: every
//! frame home, nothing on the ledger.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nke_dataplane::control_handle::{AttachSpec, Control, Point};
use nke_dataplane::fault::Fault;
use nke_dataplane::port::ring::{RingPeer, ring};
use nke_dataplane::runtime::{Account, Builder, Runtime, Settings};
use nke_dataplane::snapshot::{Directions, OnPanic};
use nke_dataplane::views::View;
use nke_filters::*;
use nke_mbuf::{Mbuf, Owner, Pool, PoolConfig, Region, TagId};

const WAIT: Duration = Duration::from_secs(10);

/// Two interfaces, `a` and `b`, wired, with the far ends in the test's hands.
struct Bed {
    runtime: Runtime,
    pool: Pool,
    a: RingPeer,
    b: RingPeer,
}

impl Bed {
    fn new() -> Bed {
        Bed::with(Settings::default())
    }

    fn with(settings: Settings) -> Bed {
        let config = PoolConfig::default();
        let pool = Pool::new(Region::heap(1024 * 2048), &config).unwrap();
        let mut builder = Builder::new(pool.clone(), settings);
        let (near_a, a) = ring(256);
        let (near_b, b) = ring(256);
        let ifa = builder.plain_interface("a", "ring", 0);
        let ifb = builder.plain_interface("b", "ring", 0);
        let lane_a = builder.queue(ifa, 0, Box::new(near_a));
        let lane_b = builder.queue(ifb, 0, Box::new(near_b));
        builder.wire(lane_a, lane_b);
        let mut runtime = builder.start().unwrap();
        runtime.go();
        Bed { runtime, pool, a, b }
    }

    fn control(&self) -> Control {
        self.runtime.control()
    }

    fn frame(&self, ethertype: u16, mark: u8) -> Mbuf {
        let mut mbuf = self.pool.alloc().expect("a frame");
        let data = mbuf.append(60).unwrap();
        data.fill(0);
        data[12..14].copy_from_slice(&ethertype.to_be_bytes());
        data[14] = mark;
        mbuf
    }

    fn send(&self, ethertype: u16, mark: u8) {
        self.a.send(self.frame(ethertype, mark)).unwrap();
    }

    /// The mark of the next packet that leaves by `b`.
    fn next(&self) -> u8 {
        until(|| self.b.recv()).data()[14]
    }

    fn attach(&self, spec: AttachSpec) -> AttachId {
        self.control().attach(spec).unwrap().wait(WAIT).unwrap()
    }

    fn finish(self) -> Account {
        while self.b.recv().is_some() {}
        while self.a.recv().is_some() {}
        let account = self.runtime.stop();
        while self.b.recv().is_some() {}
        while self.a.recv().is_some() {}
        assert_eq!(self.pool.census().of(Owner::FREE), self.pool.capacity(), "every frame is home");
        assert_eq!(account.outstanding, 0, "nothing is left on the ledger");
        account
    }
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < WAIT, "it did not happen");
        std::thread::yield_now();
    }
}

fn on_input(name: &str, interface: &str, filter: impl InterfaceFilter + 'static) -> AttachSpec {
    AttachSpec { directions: Directions::INPUT, ..AttachSpec::instance(name, interface, Box::new(filter)) }
}

/// What a filter saw, kept outside of it.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Logs every call under its name.
struct Tell(&'static str, Arc<Log>);

impl InterfaceFilter for Tell {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for mbuf in batch.iter() {
            self.1.push(format!("{} in {} cookie {}", self.0, mbuf.data()[14], cx.cookie.0));
        }
    }
    fn output(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for mbuf in batch.iter() {
            self.1.push(format!("{} out {}", self.0, mbuf.data()[14]));
        }
    }
    fn event(&self, event: &IfEvent) {
        self.1.push(format!("{} event {}", self.0, event.kind.name()));
    }
    fn detached(&self, interface: IfIndex, cookie: Cookie) {
        self.1.push(format!("{} detached {} cookie {}", self.0, interface.0, cookie.0));
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        self.1.push(format!("{} dropped", self.0));
    }
}

#[test]
fn oldest_first_in_both_directions_and_detached_last() {
    let bed = Bed::new();
    let log = Arc::new(Log::default());
    let mut ids = Vec::new();
    for (name, interface, cookie) in [("one", "a", 1), ("two", "a", 2), ("three", "b", 3), ("four", "b", 4)] {
        let mut spec = AttachSpec::instance(name, interface, Box::new(Tell(name, log.clone())));
        spec.cookie = Cookie(cookie);
        ids.push(bed.attach(spec));
    }
    bed.send(0x0800, 9);
    assert_eq!(bed.next(), 9);
    assert_eq!(log.take(), ["one in 9 cookie 1", "two in 9 cookie 2", "three out 9", "four out 9"]);
    let report = bed.control().detach(ids[0]).unwrap().wait(WAIT).unwrap();
    assert_eq!((report.packets, report.lost_meanwhile, report.mbufs_held), (1, 0, 0));
    assert_eq!(log.take(), ["one detached 0 cookie 1", "one dropped"], "before the ticket is done");
    assert_eq!(bed.control().detach(ids[0]).unwrap().wait(WAIT), Err(Fault::NoAttachment(ids[0])));
    bed.send(0x0800, 10);
    assert_eq!(bed.next(), 10);
    assert_eq!(log.take(), ["two in 10 cookie 2", "three out 10", "four out 10"]);
    bed.finish();
    let last = log.take();
    assert_eq!(last[..3], ["two event detaching", "three event detaching", "four event detaching"]);
    assert_eq!(
        last[3..],
        [
            "two detached 0 cookie 2",
            "two dropped",
            "three detached 1 cookie 3",
            "three dropped",
            "four detached 1 cookie 4",
            "four dropped"
        ]
    );
}

#[test]
fn a_filter_sees_only_its_protocol() {
    let bed = Bed::new();
    let log = Arc::new(Log::default());
    let mut spec = on_input("arp", "a", Tell("arp", log.clone()));
    spec.protocol = Some(0x0806);
    bed.attach(spec);
    for (ethertype, mark) in [(0x0800, 1), (0x0806, 2), (0x86dd, 3), (0x0806, 4)] {
        bed.send(ethertype, mark);
    }
    // The protocol counts behind VLAN tags, too.
    let mut tagged = bed.frame(0x8100, 0);
    tagged.data_mut()[14..18].copy_from_slice(&[5, 0, 0x08, 0x06]);
    bed.a.send(tagged).unwrap();
    assert_eq!([(); 5].map(|()| bed.next()), [1, 2, 3, 4, 5]);
    assert_eq!(log.take(), ["arp in 2 cookie 0", "arp in 4 cookie 0", "arp in 5 cookie 0"]);
    bed.finish();
}

/// Drops odd marks, keeps marks above 100.
struct Sorter {
    reason: DropReason,
    kept: Mutex<Vec<Mbuf>>,
}

impl InterfaceFilter for Sorter {
    fn input(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for place in batch.places() {
            match batch.get(place).map(|m| m.data()[14]) {
                Some(100..) => self.kept.lock().unwrap().extend(batch.take(place)),
                Some(mark) if mark % 2 == 1 => batch.drop(place, self.reason),
                _ => (),
            }
        }
    }
}

#[test]
fn verdicts_and_their_counters() {
    let bed = Bed::new();
    let shared = bed.runtime.shared().clone();
    let owner = shared.owner_of("sorter");
    let reason = shared.drop_reason(owner, "odd").unwrap();
    let id = bed.attach(on_input("sorter", "a", Sorter { reason, kept: Mutex::default() }));
    for mark in [1, 2, 3, 120, 4, 121, 5, 6] {
        bed.send(0x0800, mark);
    }
    assert_eq!([(); 3].map(|()| bed.next()), [2, 4, 6], "the rest in order");
    let drops = until(|| shared.drops().into_iter().find(|d| d.0 == "sorter:odd" && d.2 == 3));
    assert_eq!(drops.1, DropClass::Policy);
    assert_eq!(shared.unwanted_drops(), 0, "policy drops are no errors");
    assert_eq!(bed.pool.census().of(owner), 2, "what it took is charged to it");
    let ledger = bed.control().view(View::Ledger).unwrap().wait(WAIT).unwrap();
    assert!(
        ledger
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["owner"] == "sorter" && r["kind"] == "mbuf" && r["count"] == 2)
    );
    let report = bed.control().detach(id).unwrap().wait(WAIT).unwrap();
    assert_eq!((report.packets, report.dropped, report.consumed, report.mbufs_held), (8, 3, 2, 0));
    bed.finish();
}

/// Detaches itself when it sees a packet.
struct Once {
    host: Arc<dyn Host>,
    calls: Arc<AtomicU32>,
    detached: Arc<AtomicU32>,
    waited: Arc<AtomicBool>,
    control: Control,
}

impl InterfaceFilter for Once {
    fn input(&self, cx: &mut Cx<'_>, _: &mut Batch<'_>) {
        assert_eq!(self.detached.load(SeqCst), 0, "no call after detached");
        self.calls.fetch_add(1, SeqCst);
        self.host.detach(cx.attachment).unwrap();
        // A wait in a callback is refused instead of hanging.
        let ticket = self.control.attach(AttachSpec::kind("no such kind", "a")).unwrap();
        assert_eq!(ticket.wait(WAIT), Err(Fault::WouldDeadlock));
        self.waited.store(true, SeqCst);
    }
    fn detached(&self, _: IfIndex, _: Cookie) {
        self.detached.fetch_add(1, SeqCst);
    }
}

#[test]
fn detaching_oneself_from_inside_a_callback() {
    let bed = Bed::new();
    let (calls, detached, waited) =
        (Arc::default(), Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
    let host: Arc<dyn Host> = bed.runtime.shared().clone();
    let once = Once {
        host,
        calls: Arc::clone(&calls),
        detached: detached.clone(),
        waited: waited.clone(),
        control: bed.control(),
    };
    bed.attach(on_input("once", "a", once));
    bed.send(0x0800, 1);
    assert_eq!(bed.next(), 1);
    until(|| (detached.load(SeqCst) == 1).then_some(()));
    assert!(waited.load(SeqCst));
    bed.send(0x0800, 2);
    assert_eq!(bed.next(), 2);
    assert!(calls.load(SeqCst) >= 1);
    bed.finish();
    assert_eq!(detached.load(SeqCst), 1);
}

/// Takes every packet it has not seen and puts it back in, by the tag rule.
struct Swallower {
    host: Arc<dyn Host>,
    tag: TagId,
    marks: bool,
    refused: Arc<AtomicU64>,
}

impl InterfaceFilter for Swallower {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        for place in batch.places() {
            if batch.get(place).is_some_and(|m| m.tag_find(self.tag, 0).is_some()) {
                continue;
            }
            let Some(mut mbuf) = batch.take(place) else { continue };
            if self.marks {
                mbuf.tag_add(self.tag, 0, 0).unwrap();
            }
            if let Err(refused) = self.host.inject_input(cx.interface, mbuf) {
                assert!(matches!(refused, Refused::Loop(_)));
                self.refused.fetch_add(1, SeqCst);
                cx.free(refused.into_mbuf());
            }
        }
    }
}

#[test]
fn two_swallowers_that_reinject_see_each_others_packets_once() {
    let bed = Bed::new();
    let host: Arc<dyn Host> = bed.runtime.shared().clone();
    let refused = Arc::<AtomicU64>::default();
    for name in ["first", "second"] {
        let tag = host.tag_id(name).unwrap();
        let filter = Swallower { host: host.clone(), tag, marks: true, refused: refused.clone() };
        bed.attach(on_input(name, "a", filter));
    }
    for mark in 0..100 {
        bed.send(0x0800, mark);
    }
    assert_eq!((0..100).map(|_| bed.next()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>(), "in order");
    assert_eq!(refused.load(SeqCst), 0);
    drop(host);
    bed.finish();
}

#[test]
fn a_filter_that_forgets_its_tag_is_stopped_after_eight_rounds() {
    let bed = Bed::new();
    let host: Arc<dyn Host> = bed.runtime.shared().clone();
    let refused = Arc::<AtomicU64>::default();
    let tag = host.tag_id("never set").unwrap();
    bed.attach(on_input(
        "loop",
        "a",
        Swallower { host: host.clone(), tag, marks: false, refused: refused.clone() },
    ));
    bed.send(0x0800, 1);
    until(|| (refused.load(SeqCst) == 1).then_some(()));
    let rows = bed.control().view(View::Filters).unwrap().wait(WAIT).unwrap();
    assert_eq!(rows[0]["consumed"], 9, "the packet itself and eight injections");
    drop(host);
    bed.finish();
}

struct Panics;
impl InterfaceFilter for Panics {
    fn input(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        if batch.iter().any(|m| m.data()[14] == 66) {
            panic!("on purpose");
        }
    }
}

#[test]
fn a_panic_is_caught_counted_and_the_filter_detached() {
    for (policy, arrives) in [(OnPanic::Open, true), (OnPanic::Closed, false)] {
        let bed = Bed::new();
        let mut spec = on_input("panics", "a", Panics);
        spec.on_panic = policy;
        bed.attach(spec);
        bed.send(0x0800, 1);
        assert_eq!(bed.next(), 1);
        bed.send(0x0800, 66);
        until(|| {
            let rows = bed.control().view(View::Filters).unwrap().wait(WAIT).unwrap();
            rows.as_array().unwrap().is_empty().then_some(())
        });
        bed.send(0x0800, 67);
        let next = bed.next();
        assert_eq!(next, if arrives { 66 } else { 67 });
        let dropped = bed.runtime.shared().drops().into_iter().find(|d| d.0 == "filter_panic").unwrap();
        assert_eq!(dropped.2, u64::from(!arrives));
        bed.finish();
    }
}

/// A kind whose instances start a thread that outlives them, until told.
struct Leaky {
    holds: Arc<Mutex<Vec<Hold>>>,
    log: Arc<Log>,
}
struct Quiet;
impl InterfaceFilter for Quiet {}
impl FilterKind for Leaky {
    fn name(&self) -> &str {
        "leaky"
    }
    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        args.only(&[])?;
        self.holds.lock().unwrap().push(env.host.hold(env.owner, HoldKind::Thread, "worker bee"));
        Ok(Box::new(Quiet))
    }
    fn unregistered(&self) {
        self.log.push("unregistered");
    }
}

#[test]
fn unload_answers_busy_with_the_holders_and_succeeds_when_they_are_gone() {
    let bed = Bed::new();
    let control = bed.control();
    let (holds, log) = (Arc::<Mutex<Vec<Hold>>>::default(), Arc::<Log>::default());
    let kind = Arc::new(Leaky { holds: holds.clone(), log: log.clone() });
    control.register(kind.clone()).unwrap().wait(WAIT).unwrap();
    assert_eq!(control.register(kind).unwrap().wait(WAIT), Err(Fault::KindExists("leaky".into())));
    bed.attach(AttachSpec::kind("leaky", "a"));
    bed.attach(AttachSpec::kind("leaky", "b"));
    let Err(Fault::Busy(holders)) =
        control.unregister("leaky", Duration::from_millis(20)).unwrap().wait(WAIT)
    else {
        panic!("it must be busy");
    };
    assert_eq!(holders.len(), 2);
    assert!(
        holders
            .iter()
            .all(|h| h.kind == "thread" && h.name == "worker bee" && h.made_at.contains("shared.rs"))
    );
    assert!(log.take().is_empty());
    holds.lock().unwrap().clear();
    let report = control.unregister("leaky", WAIT).unwrap().wait(WAIT).unwrap();
    assert_eq!((report.filters_detached, report.leaked, report.packets_lost), (0, 0, 0));
    assert_eq!(log.take(), ["unregistered"]);
    let gone = control.attach(AttachSpec::kind("leaky", "a")).unwrap().wait(WAIT);
    assert_eq!(gone, Err(Fault::NoKind("leaky".into())));
    bed.finish();
}

#[test]
fn bad_requests_are_named() {
    let bed = Bed::new();
    let control = bed.control();
    let attach = |spec| control.attach(spec).unwrap().wait(WAIT).unwrap_err();
    assert_eq!(attach(AttachSpec::kind("nothing", "a")), Fault::NoKind("nothing".into()));
    assert_eq!(attach(on_input("x", "nowhere", Quiet)), Fault::NoInterface("nowhere".into()));
    assert!(matches!(control.detach(AttachId(99)).unwrap().wait(WAIT), Err(Fault::NoAttachment(_))));
    for kind in builtin::all() {
        control.register(kind).unwrap().wait(WAIT).unwrap();
    }
    for (kind, name, text) in
        [("mirror", "port", "nowhere"), ("count", "color", "blue"), ("drop", "matsch", "udp")]
    {
        let mut spec = AttachSpec::kind(kind, "a");
        spec.args.0.insert(name.into(), ArgValue::Text(text.into()));
        assert!(matches!(attach(spec), Fault::Create(_)), "{kind} {name}={text}");
    }
    bed.finish();
}

/// Blocks its worker until told.
struct Stuck(Arc<AtomicBool>);
impl InterfaceFilter for Stuck {
    fn input(&self, _: &mut Cx<'_>, _: &mut Batch<'_>) {
        while !self.0.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Panics as it goes.
struct Sore;

impl InterfaceFilter for Sore {}
impl IpFilter for Sore {
    fn hooks(&self) -> IpHooks {
        IpHooks::INPUT_OUTPUT
    }
}
impl Drop for Sore {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn a_refused_instance_that_panics_as_it_goes_is_refused_and_no_more() {
    let bed = Bed::new();
    let nowhere = || on_input("sore", "nowhere", Sore);
    let of_ip = AttachSpec {
        point: Point::Interface("a".into()),
        ..AttachSpec::ip_instance("sore", Family::V4, Box::new(Sore))
    };
    assert!(matches!(bed.control().attach(nowhere()).unwrap().wait(WAIT), Err(Fault::NoInterface(_))));
    assert!(matches!(bed.control().attach(of_ip).unwrap().wait(WAIT), Err(Fault::WrongLayer(..))));
    let all = vec![nowhere(), nowhere()];
    assert!(matches!(bed.control().refit(all, Vec::new()).unwrap().wait(WAIT), Err(Fault::NoInterface(_))));
    let gone = bed.control().refit(vec![nowhere()], vec![AttachId(999)]).unwrap().wait(WAIT);
    assert!(matches!(gone, Err(Fault::NoAttachment(_))));
    // The control thread is there still, and packets pass.
    bed.send(0x0800, 7);
    assert_eq!(bed.next(), 7);
    bed.finish();
}

#[test]
fn a_stalled_worker_is_reported_with_its_filter_and_holds_up_nobody_else() {
    let bed = Bed::with(Settings { stall: Duration::from_millis(50), ..Settings::default() });
    let control = bed.control();
    let go_on = Arc::<AtomicBool>::default();
    let id = bed.attach(on_input("stuck", "a", Stuck(go_on.clone())));
    bed.send(0x0800, 1);
    let row = until(|| {
        let rows = control.view(View::Workers).unwrap().wait(WAIT).unwrap();
        (rows[0]["state"] == "stalled").then(|| rows[0].clone())
    });
    assert_eq!(row["in_filter"], format!("{id} (stuck)"));
    // The detach waits, the control thread does not.
    let ticket = control.detach(id).unwrap();
    assert_eq!(ticket.wait(Duration::from_millis(50)), Err(Fault::Timeout));
    assert!(control.view(View::Filters).unwrap().wait(WAIT).is_ok());
    go_on.store(true, SeqCst);
    assert_eq!(ticket.wait(WAIT).unwrap().packets, 1);
    assert_eq!(bed.next(), 1);
    bed.finish();
}

#[test]
fn a_worker_that_never_comes_back_does_not_keep_the_rest_from_ending() {
    let bed = Bed::with(Settings { patience: Duration::from_millis(100), ..Settings::default() });
    let go_on = Arc::<AtomicBool>::default();
    bed.attach(on_input("stuck", "a", Stuck(go_on.clone())));
    bed.send(0x0800, 1);
    until(|| (bed.runtime.shared().workers[0].in_filter.get() != 0).then_some(()));
    let account = bed.runtime.stop();
    assert!(
        account.free < account.capacity && account.outstanding == 1,
        "and says what is missing: {account:?}"
    );
    // Nobody is stuck for good: the worker ends, and its frames come home.
    go_on.store(true, SeqCst);
    drop(bed.b);
    until(|| (bed.pool.census().of(Owner::FREE) == bed.pool.capacity()).then_some(()));
}

#[test]
fn attach_and_detach_under_load_lose_nothing() {
    for adaptive in [false, true] {
        let bed = Bed::with(Settings { adaptive, ..Settings::default() });
        let stop = AtomicBool::new(false);
        let (mut sent, mut received) = (0u64, 0u64);
        std::thread::scope(|scope| {
            let pump = scope.spawn(|| {
                let (mut sent, mut received) = (0u64, 0u64);
                while !stop.load(SeqCst) {
                    if let Some(mut mbuf) = bed.pool.alloc() {
                        mbuf.append(60).unwrap().fill(0);
                        sent += u64::from(bed.a.send(mbuf).is_ok());
                    }
                    while bed.b.recv().is_some() {
                        received += 1;
                    }
                    if adaptive && sent % 1000 == 0 {
                        // Long enough for the worker to fall asleep.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                (sent, received)
            });
            let log = Arc::new(Log::default());
            for i in 0..500 {
                let id = bed.attach(AttachSpec::instance(
                    "tell",
                    if i % 2 == 0 { "a" } else { "b" },
                    Box::new(Quiet),
                ));
                let report = bed.control().detach(id).unwrap().wait(WAIT).unwrap();
                assert_eq!(report.lost_meanwhile, 0);
                drop(log.take());
            }
            stop.store(true, SeqCst);
            (sent, received) = pump.join().unwrap();
        });
        until(|| {
            received += u64::from(bed.b.recv().is_some());
            (received == sent).then_some(())
        });
        assert!(sent > 0);
        let account = bed.finish();
        assert_eq!(account.unwanted_drops, 0);
    }
}

#[test]
fn a_full_transmit_ring_pushes_back_instead_of_dropping() {
    let bed = Bed::new();
    let mut sent = 0;
    // 256 fit into each ring; the worker must leave the rest in the receive ring.
    until(|| {
        if bed.a.send(bed.frame(0x0800, sent as u8)).is_ok() {
            sent += 1;
        }
        (sent == 512).then_some(())
    });
    let marks: Vec<_> = (0..512).map(|_| bed.next()).collect();
    assert_eq!(marks, (0..512).map(|n| n as u8).collect::<Vec<_>>());
    assert_eq!(bed.finish().unwanted_drops, 0);
}

#[test]
fn injection_on_output_and_its_bounds() {
    let bed = Bed::new();
    let host: Arc<dyn Host> = bed.runtime.shared().clone();
    let b = host.interface_by_name("b").unwrap();
    host.inject_output(b, bed.frame(0x0800, 42)).unwrap();
    assert_eq!(bed.next(), 42);
    let refused = host.inject_output(IfIndex(9), bed.frame(0x0800, 1)).unwrap_err();
    assert!(matches!(refused, Refused::NoInterface(_)));
    drop(refused);
    drop(host);
    bed.finish();
}

#[test]
fn runts_and_junk_pass_the_filters_without_harm() {
    let bed = Bed::new();
    let control = bed.control();
    for kind in builtin::all() {
        control.register(kind).unwrap().wait(WAIT).unwrap();
    }
    for (kind, text) in [("count", "vlan 5 or port 53 or fragment"), ("drop", "malformed and len >= 9000")] {
        let mut spec = AttachSpec::kind(kind, "a");
        spec.args.0.insert("match".into(), ArgValue::Text(text.into()));
        bed.attach(spec);
    }
    let mut arp = AttachSpec::kind("count", "a");
    arp.protocol = Some(0x0806);
    bed.attach(arp);
    for len in 0..=64usize {
        for fill in [0, 0x45, 0x81, 0xff] {
            let mut mbuf = bed.pool.alloc().unwrap();
            mbuf.append(len).unwrap().fill(fill);
            bed.a.send(mbuf).unwrap();
            let out = until(|| bed.b.recv());
            assert_eq!(out.data(), vec![fill; len]);
        }
    }
    let account = bed.finish();
    assert_eq!(account.unwanted_drops, 0);
}

/// A filter that attaches another one when it hears that its interface goes.
struct Successor(Arc<dyn Host>, Arc<AtomicU32>);

struct Counted(Arc<AtomicU32>);

impl InterfaceFilter for Counted {
    fn detached(&self, _: IfIndex, _: Cookie) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl InterfaceFilter for Successor {
    fn event(&self, event: &IfEvent) {
        if event.kind == IfEventKind::Detaching {
            let next = Box::new(Counted(self.1.clone()));
            self.0.attach_filter(Owner(20), "successor", event.interface, next).unwrap();
        }
    }
}

#[test]
fn who_attaches_while_all_ends_has_its_last_call_all_the_same() {
    let bed = Bed::new();
    let last_calls = Arc::new(AtomicU32::new(0));
    let host: Arc<dyn Host> = bed.runtime.shared().clone();
    bed.attach(AttachSpec::instance("first", "a", Box::new(Successor(host, last_calls.clone()))));
    bed.finish();
    assert_eq!(last_calls.load(SeqCst), 1);
}
