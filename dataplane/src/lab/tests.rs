use super::*;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Tells the test that runs as the helper what to do; without it, that test does nothing.
const HOLD: &str = "NKE_TEST_HOLD_A_LAB";

fn able() -> bool {
    // Every process has its own files' owner in /proc.
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    if !root {
        println!("skipped: needs root");
    }
    root
}

fn exists(name: &str) -> bool {
    netdev::netns_path(name).exists()
}

/// Others may be sweeping, and half way through.
fn until_gone(names: &[String]) {
    let end = Instant::now() + Duration::from_secs(20);
    while names.iter().any(|n| exists(n)) {
        assert!(Instant::now() < end, "{names:?} are gone");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two namespaces joined by a veth pair with addresses.
fn pair(veth: Veth) -> (Lab, [String; 2]) {
    let mut lab = Lab::new().unwrap();
    let names = ["left", "right"].map(|role| lab.netns(role).unwrap());
    lab.veth((&names[0], "l0"), (&names[1], "r0"), veth).unwrap();
    lab.address(&names[0], "l0", "10.0.0.1/24").unwrap();
    lab.address(&names[1], "r0", "10.0.0.2/24").unwrap();
    (lab, names)
}

fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_err() {
        println!("skipped: needs {program}");
    }
    there.is_ok()
}

#[test]
fn orphans_are_told_by_process_and_start_time() {
    let (pid, start) = (std::process::id(), start_time(std::process::id()).unwrap());
    assert!(!is_orphan(&format!("nke-lab-{pid}-{start}-0-role")));
    assert!(is_orphan(&format!("nke-lab-{pid}-{}-0-role", start + 1)), "another process with this number");
    assert!(!is_orphan("somebody-elses"));
    assert!(!is_orphan("nke-lab-x-y-0-role"));
}

#[test]
fn a_process_nobody_asks_for_is_gone() {
    let mut child = Command::new("true").spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    // Not waited for: it stays in /proc as a zombie.
    while start_time(child.id()).is_some() {
        assert!(Instant::now() < end, "a zombie does not count");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Path::new(&format!("/proc/{}/stat", child.id())).exists());
    child.wait().unwrap();
}

#[test]
fn a_pair_pings_is_silent_otherwise_and_leaves_nothing() {
    if !able() {
        return;
    }
    let (lab, names) = pair(Veth { queues: 2, mtu: 9000 });
    let received = |ns: &str, device: &str| {
        let file = format!("/sys/class/net/{device}/statistics/rx_packets");
        // `ip netns exec` mounts the namespace's own /sys.
        let mut command = lab.command(ns, "cat");
        command.arg(file);
        said(command).trim().parse::<u64>().unwrap()
    };
    // Neighbour discovery and the like would come at once.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((received(&names[0], "l0"), received(&names[1], "r0")), (0, 0), "nothing unasked for");
    if installed("ping") {
        let mut ping = lab.command(&names[0], "ping");
        ping.args(["-n", "-c", "3", "-i", "0.01", "-W", "5", "-s", "8900", "-M", "do", "10.0.0.2"]);
        assert!(said(ping).contains("3 received"));
        assert!(received(&names[1], "r0") >= 3);
    }
    if installed("ethtool") {
        for (ns, device) in [(&names[0], "l0"), (&names[1], "r0")] {
            let mut command = lab.command(ns, "ethtool");
            command.args(["-k", device]);
            let features = said(command);
            for feature in [
                "tx-checksumming: off",
                "tx-tcp-segmentation: off",
                "generic-segmentation-offload: off",
                "generic-receive-offload: on",
            ] {
                assert!(features.contains(feature), "{feature} of {features}");
            }
        }
    }
    drop(lab);
    assert!(names.iter().all(|n| !exists(n)));
}

#[test]
fn a_panic_leaves_nothing() {
    if !able() {
        return;
    }
    let (lab, names) = pair(Veth::default());
    std::thread::spawn(move || {
        let _lab = lab;
        panic!("as this test wants");
    })
    .join()
    .unwrap_err();
    assert!(names.iter().all(|n| !exists(n)));
}

#[test]
fn labs_at_the_same_time_do_not_meet() {
    if !able() {
        return;
    }
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| pair(Veth::default()))).collect();
    let labs: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let names: std::collections::HashSet<_> = labs.iter().flat_map(|(_, names)| names).collect();
    assert_eq!(names.len(), 8);
    // Nor does a sweep touch those that are in use.
    sweep().unwrap();
    assert!(names.iter().all(|n| exists(n)));
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    if !able() {
        return;
    }
    let (lab, names) = pair(Veth::default());
    let taken = lab.veth((&names[0], "l0"), (&names[1], "r1"), Veth::default()).unwrap_err();
    assert!(taken.to_string().contains("File exists"), "{taken}");
    let r1 = netdev::in_netns(Some(&names[1]), || netdev::mtu("r1")).unwrap();
    assert!(r1.is_err(), "no half of a pair");
}

/// Not a test, but the helper of the next one: makes a lab, says its names, and waits to be killed.
#[test]
fn helper_that_holds_a_lab() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let (_lab, names) = pair(Veth::default());
    println!("\nholds {} {}", names[0], names[1]);
    std::io::stdout().flush().unwrap();
    // If nobody kills us, our input ends with the test.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Ends the helper also when the test fails.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_killed_process_leaves_is_swept() {
    if !able() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "lab::tests::helper_that_holds_a_lab", "--nocapture"]).env(HOLD, "1");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut helper = Helper(child);
    let lines = BufReader::new(helper.0.stdout.take().unwrap()).lines();
    let line = lines.map(|l| l.unwrap()).find(|l| l.starts_with("holds ")).unwrap();
    let names: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
    sweep().unwrap();
    assert!(names.len() == 2 && names.iter().all(|n| exists(n)), "in use: {names:?}");
    helper.0.kill().unwrap();
    // Not waited for: what is left of the helper must not count.
    let end = Instant::now() + Duration::from_secs(20);
    while names.iter().any(|n| !is_orphan(n)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    sweep().unwrap();
    until_gone(&names);
}
