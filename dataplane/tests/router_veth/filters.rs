//! Filters of the configuration, seen from outside.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nke_dataplane::netdev::{self, Offload};
use serde_json::Value;

use crate::common::*;
use crate::net::*;

const FLOWS: u16 = 10_000;
const FIRST_PORT: u16 = 20_000;
/// Flows that wait for their answer at a time: the socket buffer of the echo holds them.
const WINDOW: u16 = 100;

/// Sends one datagram from each of the ports and waits for the answers; how many came.
fn ask_from_all_ports(to: &str) -> usize {
    let mut answered = 0;
    for first in (0..FLOWS).step_by(usize::from(WINDOW)) {
        let ports = (first..first + WINDOW).map(|n| FIRST_PORT + n);
        let sockets: Vec<_> = ports.map(|p| (p, UdpSocket::bind((LEFT[0], p)).unwrap())).collect();
        for (port, socket) in &sockets {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.connect(to).unwrap();
            socket.send(&port.to_be_bytes()).unwrap();
        }
        for (port, socket) in &sockets {
            let mut answer = [0; 8];
            answered += usize::from(
                socket.recv(&mut answer).is_ok_and(|len| len == 2 && answer[..2] == port.to_be_bytes()),
            );
        }
    }
    answered
}

/// Answers until told to stop; from where datagrams came, and how many.
fn echo(socket: &UdpSocket, stop: &AtomicBool) -> (HashSet<SocketAddr>, usize) {
    let (mut seen, mut count) = (HashSet::new(), 0);
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let mut data = [0; 8];
        if let Ok((len, from)) = socket.recv_from(&mut data) {
            socket.send_to(&data[..len], from).unwrap();
            seen.insert(from);
            count += 1;
        }
    }
    (seen, count)
}

#[test]
fn ten_thousand_flows_are_translated_and_answered() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router(
        "[[filter]]\nkind = \"nat\"\nport = \"ip\"\nargs = { inside = \"10.0.1.0/24\", to = \"10.0.2.1\" }\n",
    );
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3);
    let server = netdev::in_netns(Some(&net.right), || UdpSocket::bind((RIGHT[0], 7)).unwrap()).unwrap();
    let stop = AtomicBool::new(false);
    let to = format!("{}:7", RIGHT[0]);
    let begin = Instant::now();
    let (answered, (seen, count)) = std::thread::scope(|scope| {
        let echo = scope.spawn(|| echo(&server, &stop));
        // The second round finds the flows of the first.
        let answered =
            [(); 2].map(|()| netdev::in_netns(Some(&net.left), || ask_from_all_ports(&to)).unwrap());
        stop.store(true, Ordering::Relaxed);
        (answered, echo.join().unwrap())
    });
    println!("two rounds of {FLOWS} flows took {:?}", begin.elapsed());
    assert_eq!(answered, [usize::from(FLOWS); 2]);
    assert_eq!(
        (seen.len(), count),
        (usize::from(FLOWS), 2 * usize::from(FLOWS)),
        "one endpoint for each flow"
    );
    assert!(seen.iter().all(|from| from.ip().to_string() == "10.0.2.1"), "nobody is seen from inside");
    // Nobody inside asked for this one.
    let stranger = netdev::in_netns(Some(&net.right), || UdpSocket::bind((RIGHT[0], 8)).unwrap()).unwrap();
    stranger.send_to(b"hello", "10.0.2.1:1024").unwrap();
    assert_eq!(net.ping(RIGHT[0], 3, &[]), 3);
    println!("{}", nke.show("filters"));
    nke.stop();
}

#[test]
fn conntrack_lets_in_what_was_asked_for_only() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(1500);
    let filter = |port: &str| {
        format!(
            "[[filter]]\nkind = \"conntrack\"\nport = \"{port}\"\nargs = {{ policy = \"stateful\", inside = \"a\" }}\n"
        )
    };
    let nke = net.router(&(filter("ip") + &filter("ip6")));
    for (to, back) in RIGHT.into_iter().zip(LEFT) {
        assert_eq!(ping(&net.lab, &net.right, back, 3, &["-W", "1"]), 0, "nobody inside asked");
        assert_eq!(net.ping(to, 3, &[]), 3);
        assert_eq!(net.ping(to, 3, &["-s", "4000"]), 3, "put together, seen, and cut again");
        assert!(received_bits(&net.iperf(to, &[])) > 1e6, "TCP to {to}");
        assert_eq!(ping(&net.lab, &net.right, back, 3, &["-W", "1"]), 0, "nor now");
    }
    let dropped: u64 =
        nke.drops().iter().filter(|(name, _)| name.starts_with("conntrack:")).map(|(_, n)| n).sum();
    assert!(dropped >= 12, "{:?}", nke.drops());
    nke.stop();
}

#[test]
fn the_policer_holds_pings_to_their_rate() {
    if !able(&["ping"]) {
        return;
    }
    let net = Net::new(1500);
    let nke = net.router(
        "[[filter]]\nkind = \"policer\"\nport = \"a\"\ndirection = \"input\"\nargs = { rate = \"10pps\", burst = \"10\", match = \"icmp\" }\n",
    );
    // So that none waits for the neighbour, where there is room for few.
    until("the neighbour is known", || (net.ping(RIGHT[0], 1, &[]) == 1).then_some(()));
    let exceeded =
        || nke.drops().into_iter().find(|(name, _)| name == "policer:exceeded").map_or(0, |(_, n)| n);
    let (begin, before, sent) = (Instant::now(), exceeded(), 100);
    let answered = net.ping(RIGHT[0], sent, &["-i", "0.01", "-W", "1"]);
    let most = 10 + (begin.elapsed().as_secs_f64() * 10.0).ceil() as u32;
    println!("{answered} of {sent} pings answered, at most {most} may be");
    assert!((5..=most).contains(&answered), "{answered}, at most {most}");
    assert_eq!(exceeded() - before, u64::from(sent - answered), "{:?}", nke.drops());
    nke.stop();
}

#[test]
fn checksums_left_to_a_device_are_completed() {
    if !able(&["ping", "iperf3"]) {
        return;
    }
    let net = Net::new(1500);
    for (ns, device) in [(&net.left, "l0"), (&net.right, "r0")] {
        netdev::in_netns(Some(ns), || netdev::set_offload(device, Offload::TxChecksum, true))
            .unwrap()
            .unwrap();
    }
    let filter = |port: &str| {
        format!("[[filter]]\nkind = \"checksum\"\nport = \"{port}\"\nargs = {{ mode = \"both\" }}\n")
    };
    let nke = net.router(&(filter("a") + &filter("b")));
    for (to, more) in [(RIGHT[0], &[][..]), (RIGHT[1], &[]), (RIGHT[0], &["-u", "-b", "5M", "-l", "1000"])] {
        assert!(received_bits(&net.iperf(to, more)) > 1e6, "{to} {more:?}");
    }
    let filters = nke.show("filters");
    let figure = |name: &str| -> u64 {
        let figures = |row: &Value| row["figures"].as_str().unwrap().to_owned();
        let all: Vec<_> = filters.as_array().unwrap().iter().map(figures).collect();
        let pairs = all.iter().flat_map(|row| row.split(' ')).filter_map(|pair| pair.split_once('='));
        pairs.filter(|(n, _)| *n == name).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    };
    assert!(figure("filled") > 100, "{filters}");
    assert_eq!(figure("bad"), 0, "{filters}");
}
