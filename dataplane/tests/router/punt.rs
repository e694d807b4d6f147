//! Packets that only the kernel can send on.

use std::sync::Arc;

use nke_dataplane::inet::{NextHop, RouteTo};
use nke_dataplane::punt::{KIND, Punt};
use nke_filters::Args;

use crate::bed::*;

#[test]
fn without_a_device_they_are_dropped_under_a_name() {
    let bed = Bed::new();
    let control = bed.control();
    let nowhere = Punt { netns: Some("nke-test-no-such-namespace".into()) };
    control.register_ifnet(Arc::new(nowhere)).unwrap().wait(WAIT).unwrap();
    let kernel = control.create_interface(KIND, "kernel", Args::default()).unwrap().wait(WAIT).unwrap();
    let hop = NextHop { via: None, interface: Some(kernel), weight: 1 };
    bed.change("203.0.113.0/24", Some(RouteTo::Via(vec![hop])));
    for _ in 0..3 {
        let packet = udp(v4("192.0.2.9").into(), v4("203.0.113.7").into(), 9, b"");
        bed.send(0, &frame(MAC[0], HOST[0], 0x0800, &packet));
    }
    until("all are counted", || (bed.drops("punt:not_by_us") == 3).then_some(()));
    bed.finish();
}
