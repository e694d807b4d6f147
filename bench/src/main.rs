//! nke-bench
#![allow(missing_docs)]
mod memory_rig;
mod noop;
use nke_dataplane::control_handle::AttachSpec;
use nke_dataplane::snapshot::Directions;
use std::time::{Duration, Instant};
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    for _ in 0..3 {
        for flows in [1, 256, 65536] {
            for (n, look) in [(0, false), (1, false), (4, false), (16, false), (16, true)] {
                let mut rig = memory_rig::Rig::new(
                    flows,
                    Some(1),
                    std::env::args().nth(1).map_or(64, |s| s.parse().unwrap_or(64)),
                )
                .unwrap_or_else(|e| panic!("{e}"));
                rig.runtime.go();
                let c = rig.runtime.control();
                for _ in 0..n {
                    let f: Box<dyn nke_filters::InterfaceFilter> =
                        if look { Box::new(noop::Look) } else { Box::new(noop::Noop) };
                    let mut s = AttachSpec::instance("noop", "a", f);
                    s.directions = Directions::INPUT;
                    c.attach(s)
                        .and_then(|t| t.wait(Duration::from_secs(1)))
                        .unwrap_or_else(|e| panic!("{e}"));
                }
                std::thread::sleep(Duration::from_millis(50));
                let (t, p) = (Instant::now(), rig.sink.packets());
                std::thread::sleep(Duration::from_millis(300));
                let (dt, dp) = (t.elapsed(), rig.sink.packets() - p);
                println!(
                    "flows {flows} filters {n} look {look}: {:.2} ns/pkt",
                    dt.as_nanos() as f64 / dp as f64
                );
                let a = rig.runtime.stop();
                assert_eq!(a.free, a.capacity);
            }
        }
    }
}
