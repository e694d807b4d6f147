//! The IP filter contract (KPI: `<netinet/kpi_ipfilter.h>`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use nke_dataplane::control_handle::AttachSpec;
use nke_dataplane::snapshot::OnPanic;
use nke_filters::{AttachId, Batch, Cookie, Cx, DropReason, Family, IpFilter, IpHook, IpHooks};
use nke_mbuf::wire::Ipv4;

use crate::bed::*;

/// What a filter does with what it sees.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Pass,
    /// Drops it.
    Drop(DropReason),
    /// Takes packets at `input` and puts them in again behind itself, or from the start.
    Again {
        behind: bool,
    },
    /// The same for `output`.
    Resend {
        behind: bool,
    },
    /// Asks to be detached, once.
    Leave,
    Panic,
}

type Log = Arc<Mutex<Vec<String>>>;

struct Tell {
    name: &'static str,
    act: Act,
    log: Log,
    left: AtomicBool,
    control: nke_dataplane::control_handle::Control,
}

impl Tell {
    fn at(&self, hook: IpHook, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        let places: Vec<_> = batch.places().collect();
        for place in places {
            let ip = Ipv4::new_checked(batch.get(place).unwrap().data()).unwrap();
            assert!(ip.verify_checksum());
            self.log.lock().unwrap().push(format!("{} {} ttl {}", self.name, hook.name(), ip.ttl()));
            match self.act {
                Act::Drop(reason) => batch.drop(place, reason),
                Act::Again { behind } if hook == IpHook::Input => {
                    let mbuf = batch.take(place).unwrap();
                    if let Err(refused) = cx.ip_input(mbuf, behind.then_some(cx.attachment)) {
                        self.log.lock().unwrap().push("refused".into());
                        cx.free(refused.into_mbuf());
                    }
                }
                Act::Resend { behind } if hook == IpHook::Output => {
                    let mbuf = batch.take(place).unwrap();
                    if let Err(refused) = cx.ip_output(mbuf, behind.then_some(cx.attachment)) {
                        self.log.lock().unwrap().push("refused".into());
                        cx.free(refused.into_mbuf());
                    }
                }
                Act::Leave if !self.left.swap(true, SeqCst) => {
                    drop(self.control.detach(cx.attachment).unwrap());
                }
                Act::Panic => panic!("as told"),
                _ => (),
            }
        }
    }
}

impl IpFilter for Tell {
    fn hooks(&self) -> IpHooks {
        IpHook::ALL.into_iter().fold(IpHooks::NONE, IpHooks::with)
    }
    fn prerouting(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(IpHook::Prerouting, cx, batch);
    }
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(IpHook::Input, cx, batch);
    }
    fn forward(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(IpHook::Forward, cx, batch);
    }
    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(IpHook::Output, cx, batch);
    }
    fn detached(&self, _: Cookie) {
        self.log.lock().unwrap().push(format!("{} detached", self.name));
    }
}

struct Rig {
    bed: Bed,
    log: Log,
}

impl Rig {
    fn new() -> Rig {
        let bed = Bed::new();
        bed.neighbor(0, "192.0.2.9");
        bed.neighbor(1, "198.51.100.9");
        Rig { bed, log: Log::default() }
    }

    fn attach_with(&self, name: &'static str, act: Act, on_panic: OnPanic) -> AttachId {
        let control = self.bed.control();
        let tell = Tell { name, act, log: self.log.clone(), left: AtomicBool::new(false), control };
        let spec = AttachSpec { on_panic, ..AttachSpec::ip_instance(name, Family::V4, Box::new(tell)) };
        self.bed.control().attach(spec).unwrap().wait(WAIT).unwrap()
    }

    fn attach(&self, name: &'static str, act: Act) -> AttachId {
        self.attach_with(name, act, OnPanic::Open)
    }

    fn send(&self, to: &str) {
        let packet = udp(v4("192.0.2.9").into(), v4(to).into(), 9, b"payload");
        self.bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

const FORWARDED: &str = "198.51.100.9";
const OURS: &str = "192.0.2.1";

#[test]
fn newest_first_at_every_hook_forwarded_and_made_here() {
    let rig = Rig::new();
    rig.attach("old", Act::Pass);
    rig.attach("new", Act::Pass);
    rig.send(FORWARDED);
    rig.bed.next(1);
    assert_eq!(
        rig.said(),
        [
            "new prerouting ttl 64",
            "old prerouting ttl 64",
            "new forward ttl 63",
            "old forward ttl 63",
            "new output ttl 63",
            "old output ttl 63"
        ]
    );
    rig.send(OURS);
    rig.bed.next(0);
    let said = rig.said();
    assert_eq!(
        said[..4],
        ["new prerouting ttl 64", "old prerouting ttl 64", "new input ttl 64", "old input ttl 64"]
    );
    // The ICMP error that answers it.
    assert!(
        said[4].starts_with("new output") && said[5].starts_with("old output") && said.len() == 6,
        "{said:?}"
    );
    rig.bed.finish();
}

#[test]
fn a_drop_ends_the_chain_and_counts_under_its_reason() {
    let rig = Rig::new();
    rig.attach("old", Act::Pass);
    rig.attach("new", Act::Drop(nke_dataplane::drop::BLACKHOLE));
    rig.send(FORWARDED);
    until("it is dropped", || (rig.bed.drops("blackhole") == 1).then_some(()));
    rig.bed.silence();
    assert_eq!(rig.said(), ["new prerouting ttl 64"]);
    rig.bed.finish();
}

#[test]
fn put_in_again_behind_itself_a_packet_is_seen_by_the_rest_once() {
    let rig = Rig::new();
    let old = rig.attach("old", Act::Pass);
    rig.attach("again", Act::Again { behind: true });
    rig.send(OURS);
    assert_eq!(rig.bed.next(0)[23], 1, "the answer");
    let input: Vec<_> = rig.said().into_iter().filter(|line| line.contains("input")).collect();
    assert_eq!(input, ["again input ttl 64", "old input ttl 64"]);
    rig.bed.control().detach(old).unwrap().wait(WAIT).unwrap();
    rig.bed.finish();
}

#[test]
fn sent_again_behind_itself_a_packet_is_seen_by_the_rest_once() {
    let rig = Rig::new();
    rig.attach("old", Act::Pass);
    rig.attach("resend", Act::Resend { behind: true });
    rig.attach("new", Act::Pass);
    rig.send(FORWARDED);
    rig.bed.next(1);
    let output: Vec<_> = rig.said().into_iter().filter(|line| line.contains("output")).collect();
    assert_eq!(output, ["new output ttl 63", "resend output ttl 63", "old output ttl 63"]);
    rig.bed.finish();
}

#[test]
fn who_does_not_know_its_own_packets_again_is_stopped() {
    for act in [Act::Again { behind: false }, Act::Resend { behind: false }] {
        let rig = Rig::new();
        rig.attach("loop", act);
        rig.send(if act == (Act::Again { behind: false }) { OURS } else { FORWARDED });
        until("it is refused", || rig.log.lock().unwrap().contains(&"refused".to_owned()).then_some(()));
        rig.bed.silence();
        let hook = if act == (Act::Again { behind: false }) { "input" } else { "output" };
        let times = rig.said().iter().filter(|line| line.contains(hook)).count();
        assert_eq!(times, 9, "once, and eight times more");
        rig.bed.finish();
    }
}

#[test]
fn behind_one_that_is_gone_a_packet_is_seen_by_those_older_than_it() {
    let rig = Rig::new();
    rig.attach("old", Act::Pass);
    let gone = rig.attach("gone", Act::Pass);
    rig.attach("new", Act::Pass);
    rig.bed.control().detach(gone).unwrap().wait(WAIT).unwrap();
    rig.said();
    let host = nke_dataplane::shared::host(rig.bed.runtime.shared());
    let packet = udp(v4("192.0.2.9").into(), v4(FORWARDED).into(), 9, b"payload");
    host.ip_inject_output(rig.bed.mbuf(&packet), Some(gone)).unwrap();
    rig.bed.next(1);
    assert_eq!(rig.said(), ["old output ttl 64"]);
    host.ip_inject_output(rig.bed.mbuf(&packet), None).unwrap();
    rig.bed.next(1);
    assert_eq!(rig.said(), ["new output ttl 64", "old output ttl 64"]);
    // Not IP at all: dropped by its reason, at the latest where it is taken up.
    if host.ip_inject_output(rig.bed.mbuf(&[0; 40]), None).is_ok() {
        until("it is dropped", || (rig.bed.drops("ip_bad_header") == 1).then_some(()));
    }
    rig.bed.finish();
}

#[test]
fn a_filter_may_leave_from_inside_and_its_last_call_is_the_last() {
    let rig = Rig::new();
    rig.attach("leaver", Act::Leave);
    rig.send(FORWARDED);
    rig.bed.next(1);
    until("it is gone", || rig.log.lock().unwrap().contains(&"leaver detached".to_owned()).then_some(()));
    assert_eq!(rig.said().last().unwrap(), "leaver detached");
    rig.send(FORWARDED);
    rig.bed.next(1);
    assert_eq!(rig.said(), [""; 0]);
    rig.bed.finish();
}

#[test]
fn a_panic_costs_the_filter_and_the_packets_only_if_so_asked() {
    for (on_panic, passes) in [(OnPanic::Open, true), (OnPanic::Closed, false)] {
        let rig = Rig::new();
        rig.attach_with("panics", Act::Panic, on_panic);
        rig.send(FORWARDED);
        if passes {
            rig.bed.next(1);
        } else {
            until("it is dropped", || (rig.bed.drops("filter_panic") > 0).then_some(()));
        }
        until("it is detached", || {
            rig.log.lock().unwrap().contains(&"panics detached".to_owned()).then_some(())
        });
        rig.send(FORWARDED);
        rig.bed.next(1);
        rig.bed.finish();
    }
}

/// Counts.
struct Count(Arc<AtomicU64>, Arc<AtomicU64>);

impl IpFilter for Count {
    fn output(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.0.fetch_add(batch.len() as u64, SeqCst);
    }
    fn detached(&self, _: Cookie) {
        self.1.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_thousand_changes_under_load_lose_nothing() {
    let rig = Rig::new();
    let (seen, detached) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let changer = {
        let (control, seen, detached, stop) =
            (rig.bed.control(), seen.clone(), detached.clone(), stop.clone());
        std::thread::spawn(move || {
            for _ in 0..1000 {
                let count = Box::new(Count(seen.clone(), detached.clone()));
                let spec = AttachSpec::ip_instance("count", Family::V4, count);
                let id = control.attach(spec).unwrap().wait(WAIT).unwrap();
                control.detach(id).unwrap().wait(WAIT).unwrap();
            }
            stop.store(true, SeqCst);
        })
    };
    let packet = udp(v4("192.0.2.9").into(), v4(FORWARDED).into(), 9, b"payload");
    let packet = frame(MAC[0], HOST[0], 0x0800, &packet);
    let (mut sent, mut received) = (0u64, 0u64);
    while !stop.load(SeqCst) {
        // Never more under way than the rings hold: what is missing was lost by the change.
        if sent - received < 200 {
            rig.bed.send(0, &packet);
            sent += 1;
        }
        while rig.bed.ends[1].recv().is_some() {
            received += 1;
        }
    }
    changer.join().unwrap();
    until("all arrive", || {
        while rig.bed.ends[1].recv().is_some() {
            received += 1;
        }
        (received == sent).then_some(())
    });
    println!("1000 attached and detached: {sent} packets, {} seen, 0 lost", seen.load(SeqCst));
    assert_eq!(detached.load(SeqCst), 1000);
    assert!(seen.load(SeqCst) > 0);
    rig.bed.finish();
}
