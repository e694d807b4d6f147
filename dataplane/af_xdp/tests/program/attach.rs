//! Programs come and go with their links, and mistakes are named.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use af_xdp::program::{AttachMode, Link, LinkMode, LiveSource, ProgramConfig, Redirect, Sink, attached};

use crate::common::{Lab, ip, root};
use crate::frames::udp_frame;
use crate::{PATIENCE, eventually, refusal, shown, shows_program};

#[test]
fn programs_come_and_go_with_their_links() {
    if !root() {
        return;
    }
    let lab = Lab::new(1, 1, 1500);
    Lab::inside(&lab.a, || {
        let program = Redirect::load(&ProgramConfig::default()).unwrap();
        let id = program.id().unwrap();
        assert_eq!(attached("a0"), Ok(None));
        let modes = [
            (AttachMode::Auto, LinkMode::Native, "xdp "),
            (AttachMode::Native, LinkMode::Native, "xdp "),
            (AttachMode::Generic, LinkMode::Generic, "xdpgeneric "),
        ];
        for (mode, expected, word) in modes {
            let link = program.attach("a0", mode).unwrap();
            assert_eq!(link.mode(), expected);
            let text = shown(&lab.a, "a0");
            assert!(text.contains(word) && text.contains(&format!("prog/xdp id {id}")), "{mode:?}: {text}");
            assert!(text.contains("nke_redirect"), "{text}");

            let other = attached("a0").unwrap().unwrap();
            assert_eq!((other.id, other.name.as_deref()), (id, Some("nke_redirect")));
            assert_eq!(other.holder.map(|h| h.pid), Some(std::process::id()));
            // Either mode finds the device taken, and says by whom.
            for mode in [AttachMode::Native, AttachMode::Generic, AttachMode::Auto] {
                let busy = refusal(Sink::load().unwrap().attach("a0", mode));
                assert_eq!(busy.id(), "AFXDP-ATTACH-BUSY", "{busy}");
                assert!(
                    busy.cause().contains(&format!("program {id} (nke_redirect) of this process")),
                    "{busy}"
                );
            }
            drop(link);
            assert!(!shows_program(&lab.a, "a0"), "gone with its link");
            assert_eq!(attached("a0"), Ok(None));
        }
        // A driver that cannot: `auto` falls back, `native` says so.
        ip(&format!("-n {} link set lo up", lab.a));
        let link = program.attach("lo", AttachMode::Auto).unwrap();
        assert_eq!(link.mode(), LinkMode::Generic);
        drop(link);
        assert_eq!(refusal(program.attach("lo", AttachMode::Native)).id(), "AFXDP-ATTACH-UNSUPPORTED");
        assert_eq!(refusal(program.attach("nowhere", AttachMode::Auto)).id(), "AFXDP-NO-DEVICE");
        assert_eq!(refusal(attached("nowhere")).id(), "AFXDP-NO-DEVICE");
    });
}

#[test]
fn mistakes_with_devices_and_sockets_are_named() {
    if !root() {
        return;
    }
    let lab = Lab::new(0, 1, 1500);
    let (a, b) = (&lab.a, &lab.b);
    ip(&format!(
        "link add a0 netns {a} numtxqueues 1 numrxqueues 1 type veth peer name b0 netns {b} numtxqueues 2 numrxqueues 2"
    ));
    for (ns, device) in [(a, "a0"), (b, "b0")] {
        ip(&format!("-n {ns} link set {device} up"));
    }
    let program = Redirect::load(&ProgramConfig { queues: 2, ..Default::default() }).unwrap();
    Lab::inside(a, || {
        let queues = refusal(program.attach("a0", AttachMode::Native));
        assert_eq!(queues.id(), "AFXDP-ATTACH-QUEUES", "{queues}");
        assert_eq!(program.attach("a0", AttachMode::Generic).unwrap().mode(), LinkMode::Generic);
    });
    ip(&format!("-n {a} link set a0 mtu 9000"));
    let link = Lab::inside(b, || {
        let mtu = refusal(program.attach("b0", AttachMode::Native));
        assert_eq!(mtu.id(), "AFXDP-ATTACH-MTU", "{mtu}");
        let frags = Redirect::load(&ProgramConfig { frags: true, ..Default::default() }).unwrap();
        let link = frags.attach("b0", AttachMode::Native).unwrap();
        // The one that does not fit does not get in by the back door either.
        let refused = refusal(link.update(&program));
        assert!(["AFXDP-ATTACH-MTU", "AFXDP-ATTACH-INVALID"].contains(&refused.id()), "{refused}");
        assert_eq!(attached("b0").unwrap().unwrap().id, frags.id().unwrap());
        link
    });
    let file = std::fs::File::open("/dev/null").unwrap();
    let not_a_socket = std::os::fd::AsRawFd::as_raw_fd(&file);
    assert_eq!(refusal(program.insert(0, not_a_socket)).id(), "AFXDP-PROGRAM-SOCKET");
    assert_eq!(refusal(program.insert(0, 1 << 20)).id(), "AFXDP-PROGRAM-SOCKET");
    assert_eq!(refusal(program.insert(2, 0)).id(), "AFXDP-PROGRAM-QUEUE");
    assert_eq!(refusal(program.remove(2)).id(), "AFXDP-PROGRAM-QUEUE");
    assert_eq!(program.remove(1), Ok(()), "there was none");
    // The device goes first.
    ip(&format!("-n {a} link del a0"));
    let gone = refusal(link.update(&program));
    assert_eq!(gone.id(), "AFXDP-ATTACH-GONE", "{gone}");
    link.detach();
}

// Other processes: this test again, told by the environment to play a part.

const PART: &str = "AF_XDP_TEST_PART";

/// A test of this module.
fn this_test(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("attach::{name}"), "--nocapture", "--test-threads", "1"]);
    command
}

#[test]
fn a_killed_process_leaves_nothing_on_the_device() {
    if !root() {
        return;
    }
    if let Ok(ns) = std::env::var(PART) {
        Lab::inside(&ns, || {
            let program = Redirect::load(&ProgramConfig::default()).unwrap();
            let _link: Link = program.attach("a0", AttachMode::Native).unwrap();
            println!("attached");
            // Until killed; not for ever if the parent is.
            std::thread::sleep(PATIENCE * 2);
        });
        return;
    }
    let lab = Lab::new(1, 1, 1500);
    let name = "a_killed_process_leaves_nothing_on_the_device";
    let mut child = this_test(name).env(PART, &lab.a).stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().any(|l| l.unwrap().contains("attached"));
    assert!(said && shows_program(&lab.a, "a0"));
    let busy = Lab::inside(&lab.a, || refusal(Sink::load().unwrap().attach("a0", AttachMode::Native)));
    let pid = child.id();
    assert!(busy.cause().contains(&format!("of process {pid} (")), "{busy}");
    assert!(busy.cure().contains(&format!("end process {pid}")), "{busy}");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("nothing is on the device", || !shows_program(&lab.a, "a0"));
    Lab::inside(&lab.a, || Sink::load().unwrap().attach("a0", AttachMode::Native).unwrap().detach());
}

#[test]
fn without_privilege_the_missing_capabilities_are_named() {
    if std::env::var_os(PART).is_some() {
        let errors = [
            refusal(Redirect::load(&ProgramConfig::default())),
            refusal(Sink::load()),
            refusal(LiveSource::new("lo", &udp_frame(), 1)),
        ];
        for error in errors {
            assert_eq!(error.id(), "AFXDP-PRIVILEGE", "{error}");
            assert!(error.cause().contains("CAP_BPF and CAP_NET_ADMIN"), "{error}");
            println!("named");
        }
        return;
    }
    if !root() {
        return;
    }
    let name = "without_privilege_the_missing_capabilities_are_named";
    let nobody = 65534;
    match this_test(name).env(PART, "nobody").uid(nobody).gid(nobody).output() {
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success() && text.matches("named").count() >= 3, "{text}");
        }
        Err(e) => println!("skipped: nobody may not run this test: {e}"),
    }
}
