//! `capture`: writes what matches to a pcapng file, which says of each packet where it was seen and which way it went. The
//! packets go on. Attached to
//!
//! - an interface: frames it receives and sends (Ethernet). Comment: `input`, `output`.
//! - `ip`, `ip6`: packets at the hooks (raw IP). Comment: `prerouting`, `input`, `forward`, `output`.
//! - `path`: packets that are dropped, with their reason (Ethernet). Comment: `drop`, and the reason. When the link header of
//!   a packet is gone, one with addresses of zeros stands for it: so that the file has one link type, and no drop is left out.
//!
//! Arguments: `file`; `match` (expression); `snaplen` (bytes kept of each packet); `packets` and `bytes` (after so many it
//! takes no more; 10,000 and 64 MiB if not given); `hook` (of IP: a list such as `prerouting,output`, all if not given);
//! `seconds` (after so many it takes no more); `overwrite` (a file that is there).
//!
//! Workers never wait: a packet for which there is no frame, or no room in the queue to the writer, is counted as missed. A
//! capture that takes no more detaches itself after a while, so that one whose user has gone does not stay.

mod taker;

use std::num::NonZeroU32;

use nke_mbuf::{Mbuf, Owner};

use super::{hook_arg, match_arg};
use crate::{
    Args, AttachEnv, AttachId, Batch, Cookie, CreateError, Cx, Direction, DropReason, FilterKind, Host,
    IfIndex, InterfaceFilter, IpAttachEnv, IpFilter, IpFilterKind, IpHook, IpHooks, Layer, Probe, ProbeEnv,
    ProbeKind, RecordFile, Remark,
};
use taker::{Limits, Taker};

/// The kind, at every place.
pub struct Capture;

impl FilterKind for Capture {
    fn name(&self) -> &str {
        "capture"
    }

    fn create(&self, env: &AttachEnv, args: &Args) -> Result<Box<dyn InterfaceFilter>, CreateError> {
        let name = env.host.ifnet_info(env.interface).map_or_else(|| "interface".into(), |info| info.name);
        let taker = taker(&env.host, env.owner, env.attachment, env.workers, args, Layer::Frame, &name, &[])?;
        Ok(Box::new(OnInterface(taker)))
    }
}

impl IpFilterKind for Capture {
    fn name(&self) -> &str {
        "capture"
    }

    fn create(&self, env: &IpAttachEnv, args: &Args) -> Result<Box<dyn IpFilter>, CreateError> {
        let hooks = hook_arg(args, "prerouting,input,forward,output")?;
        let name = env.family.name();
        let taker =
            taker(&env.host, env.owner, env.attachment, env.workers, args, Layer::Ip, name, &["hook"])?;
        Ok(Box::new(OnIp(taker, hooks)))
    }
}

impl ProbeKind for Capture {
    fn name(&self) -> &str {
        "capture"
    }

    fn create(&self, env: &ProbeEnv, args: &Args) -> Result<Box<dyn Probe>, CreateError> {
        let taker =
            taker(&env.host, env.owner, env.attachment, env.workers, args, Layer::Frame, "drops", &[])?;
        Ok(Box::new(OnDrops(taker)))
    }
}

#[allow(clippy::too_many_arguments, reason = "what the three environments have in common, taken apart")]
fn taker(
    host: &std::sync::Arc<dyn Host>,
    owner: Owner,
    attachment: AttachId,
    workers: usize,
    args: &Args,
    layer: Layer,
    name: &str,
    more_args: &[&str],
) -> Result<Taker, CreateError> {
    let known = ["file", "match", "snaplen", "packets", "bytes", "seconds", "overwrite"];
    args.only(&[&known, more_args].concat())?;
    let file =
        args.text("file")?.ok_or_else(|| CreateError::new("no file is named", "write file = \"...\""))?;
    let limits = Limits {
        packets: args.number("packets", 1..=1_000_000_000, 10_000)? as u64,
        bytes: args.number("bytes", 1..=1 << 40, 64 << 20)? as u64,
        seconds: args.number("seconds", 0..=86_400, 0)? as u64,
    };
    let file = RecordFile {
        layer,
        // 0 is all, in the file format as well.
        snaplen_bytes: NonZeroU32::new(args.number("snaplen", 0..=262_144, 0)? as u32),
        interface: name.to_owned(),
        overwrite: args.switch("overwrite")?,
        ..RecordFile::new(file)
    };
    let expr = match_arg(args)?;
    let recorder = host.recorder(owner, &file).map_err(|e| {
        CreateError::new(e.to_string(), "name a file that can be made, or say that it may be overwritten")
    })?;
    let snaplen = file.snaplen_bytes.map_or(u64::MAX, |n| n.get().into());
    Ok(Taker::new(host.clone(), attachment, workers, expr, limits, snaplen, recorder))
}

struct OnInterface(Taker);

impl InterfaceFilter for OnInterface {
    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.0.take_batch(cx, batch, Layer::Frame, Some(Direction::Input), "input");
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.0.take_batch(cx, batch, Layer::Frame, Some(Direction::Output), "output");
    }

    fn tick(&self) {
        self.0.tick();
    }

    fn detached(&self, _: IfIndex, _: Cookie) {
        self.0.finish();
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        self.0.figures()
    }
}

struct OnIp(Taker, IpHooks);

impl OnIp {
    fn at(&self, cx: &mut Cx<'_>, batch: &Batch<'_>, hook: IpHook) {
        let direction = match hook {
            IpHook::Prerouting | IpHook::Input => Some(Direction::Input),
            IpHook::Forward => None,
            IpHook::Output => Some(Direction::Output),
        };
        self.0.take_batch(cx, batch, Layer::Ip, direction, hook.name());
    }
}

impl IpFilter for OnIp {
    fn hooks(&self) -> IpHooks {
        self.1
    }

    fn prerouting(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(cx, batch, IpHook::Prerouting);
    }

    fn input(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(cx, batch, IpHook::Input);
    }

    fn forward(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(cx, batch, IpHook::Forward);
    }

    fn output(&self, cx: &mut Cx<'_>, batch: &mut Batch<'_>) {
        self.at(cx, batch, IpHook::Output);
    }

    fn tick(&self) {
        self.0.tick();
    }

    fn detached(&self, _: Cookie) {
        self.0.finish();
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        self.0.figures()
    }
}

struct OnDrops(Taker);

impl Probe for OnDrops {
    fn dropped(&self, cx: &mut Cx<'_>, mbuf: &Mbuf, layer: Layer, reason: DropReason) {
        let framed = |mut copy: Mbuf| match layer {
            Layer::Frame => Ok(copy),
            Layer::Ip => {
                let ethertype: [u8; 2] = if copy.data().first().is_some_and(|b| b >> 4 == 6) {
                    [0x86, 0xdd]
                } else {
                    [0x08, 0x00]
                };
                match copy.prepend(14) {
                    Some(header) => {
                        header[..12].fill(0);
                        header[12..].copy_from_slice(&ethertype);
                        Ok(copy)
                    }
                    None => Err(copy),
                }
            }
        };
        let remark = Remark { place: "drop", reason: Some(reason), ..Remark::default() };
        self.0.take(cx, mbuf, layer, remark, framed);
    }

    fn tick(&self) {
        self.0.tick();
    }

    fn detached(&self, _: Cookie) {
        self.0.finish();
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        self.0.figures()
    }
}
