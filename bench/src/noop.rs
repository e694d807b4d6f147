//! Filters that cost what the stage itself costs.

use nke_filters::{Batch, Cx, InterfaceFilter, IpFilter, IpHook, IpHooks};

/// Lets everything pass without a look: the price of being on the chain.
pub struct Noop;

impl InterfaceFilter for Noop {
    fn input(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        std::hint::black_box(batch);
    }
}

/// Looks at the length of every packet and lets it pass: the price of a filter that decides by header facts.
pub struct Look;

impl InterfaceFilter for Look {
    fn input(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        batch.each(|mbuf| {
            std::hint::black_box(mbuf.len());
            Ok(())
        });
    }
}

/// The same among the IP filters, at the forward hook.
pub struct NoopIp;

impl IpFilter for NoopIp {
    fn hooks(&self) -> IpHooks {
        IpHooks::NONE.with(IpHook::Forward)
    }
    fn forward(&self, _: &mut Cx<'_>, batch: &mut Batch<'_>) {
        std::hint::black_box(batch);
    }
}
