//! Prints what changes in the network namespace it runs in, like `ip monitor`, but only differences and best routes.
//!
//!     cargo run --release --example follow [-- --once]     --once: what there is now, counted and timed, not printed

use std::io;
use std::time::{Duration, Instant};

fn main() -> io::Result<()> {
    let once = std::env::args().any(|word| word == "--once");
    let mut follower = nke_rtnl::Follower::new(nke_rtnl::Config::default())?;
    let (begin, mut changes) = (Instant::now(), 0u64);
    loop {
        let status = follower.poll(Duration::from_secs(1), |change| {
            changes += 1;
            if !once {
                println!("{change:?}");
            }
        })?;
        if once && status.in_sync {
            let (routes, stats) = (follower.routes_known(), follower.stats());
            println!("{changes} changes, {routes} routes, {:?}; {stats:?}", begin.elapsed());
            return Ok(());
        }
    }
}
