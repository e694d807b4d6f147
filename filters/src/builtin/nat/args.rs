//! The arguments of `nat` for IPv4.

use std::net::Ipv4Addr;
use std::str::FromStr;

use nke_mbuf::wire::Protocol;

use super::ranges::Ranges;
use crate::flow::{FLOWS_DEFAULT, FLOWS_MAX, Timeouts};
use crate::kind::{Args, CreateError};

/// Outside addresses at most.
const POOL_MAX: u64 = 65_536;
/// Port forwards at most.
const FORWARDS_MAX: usize = 1024;

/// Address and port, or identifier.
pub(super) type Endpoint = (u32, u16);

/// Who may send to an outside endpoint that an inside host is using (RFC 4787 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Filtering {
    /// Everybody.
    Endpoint,
    /// Who was sent something from it, from any port.
    Address,
}

/// A port forward: packets for `outside` go to `inside`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Forward {
    pub(super) protocol: Protocol,
    pub(super) outside: Endpoint,
    pub(super) inside: Endpoint,
}

/// The arguments, checked.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) inside: Ranges,
    /// Outside addresses for connections from inside; empty if there are only forwards.
    pub(super) pool: Ranges,
    pub(super) ports: (u16, u16),
    pub(super) forwards: Vec<Forward>,
    pub(super) filtering: Filtering,
    pub(super) mss_max: Option<u16>,
    pub(super) flows: usize,
    pub(super) timeouts: Timeouts,
}

const NAMES: [&str; 7] = ["inside", "to", "ports", "forward", "filtering", "mss_max", "flows"];

impl Config {
    pub(super) fn from_args(args: &Args) -> Result<Config, CreateError> {
        let known: Vec<&str> = NAMES.into_iter().chain(Timeouts::ARGS).collect();
        args.only(&known)?;
        let inside = args.text("inside")?.ok_or_else(|| {
            CreateError::new("`inside` is missing", "write inside = \"10.0.0.0/8\": who is to be translated")
        })?;
        let inside = Ranges::parse("inside", inside)?;
        let pool = args.text("to")?.map_or(Ok(Ranges::default()), |text| Ranges::parse("to", text))?;
        if pool.len() > POOL_MAX {
            return Err(CreateError::new(
                format!("`to` has {} addresses", pool.len()),
                format!("give at most {POOL_MAX}"),
            ));
        }
        let forwards = forwards(args.text("forward")?.unwrap_or(""))?;
        if pool.len() == 0 && forwards.is_empty() {
            return Err(CreateError::new(
                "there is nothing to translate to",
                "write to = \"203.0.113.1\" for connections from inside, or forward = \"...\", or both",
            ));
        }
        let outside = pool.with(forwards.iter().map(|forward| forward.outside.0));
        if let Some(addr) = outside.shared(&inside) {
            return Err(CreateError::new(
                format!("{addr} is inside and outside"),
                "`inside` must not have the addresses of `to` and `forward`",
            ));
        }
        if let Some(forward) = forwards.iter().find(|forward| !inside.contains(forward.inside.0)) {
            return Err(CreateError::new(
                format!("a forward goes to {}, which is not inside", Ipv4Addr::from_bits(forward.inside.0)),
                "add the address to `inside`",
            ));
        }
        let mss_max = args.number("mss_max", 0..=65_495, 0)?;
        if (1..536).contains(&mss_max) {
            return Err(CreateError::new(
                format!("`mss_max` {mss_max} is too small"),
                "give 536 or more, for Ethernet the MTU of the narrow link less 40; 0 leaves segments alone",
            ));
        }
        Ok(Config {
            inside,
            pool,
            ports: ports(args.text("ports")?.unwrap_or("1024-65535"))?,
            forwards,
            filtering: match args.text("filtering")? {
                None | Some("address") => Filtering::Address,
                Some("endpoint") => Filtering::Endpoint,
                Some(other) => {
                    return Err(CreateError::new(
                        format!("`filtering` is `{other}`"),
                        "write filtering = \"address\" or \"endpoint\"",
                    ));
                }
            },
            mss_max: (mss_max != 0).then_some(mss_max as u16),
            flows: args.number("flows", 1..=FLOWS_MAX, FLOWS_DEFAULT)? as usize,
            timeouts: Timeouts::from_args(args)?,
        })
    }
}

fn ports(text: &str) -> Result<(u16, u16), CreateError> {
    let read = || {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (0 < first && first <= last).then_some((first, last))
    };
    read().ok_or_else(|| {
        CreateError::new(format!("`ports`: `{text}` is not a range"), "write ports = \"1024-65535\"")
    })
}

fn forwards(text: &str) -> Result<Vec<Forward>, CreateError> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let parsed = items.map(|item| item.parse::<Forward>().map_err(|()| item));
    let all = parsed.collect::<Result<Vec<_>, _>>().map_err(|item| {
        CreateError::new(
            format!("`forward`: `{item}` is not a forward"),
            "write forward = \"tcp 203.0.113.1:80 -> 10.0.0.5:8080\", several with commas; tcp or udp",
        )
    })?;
    if all.len() > FORWARDS_MAX {
        return Err(CreateError::new(
            format!("{} forwards", all.len()),
            format!("give at most {FORWARDS_MAX}"),
        ));
    }
    for (i, forward) in all.iter().enumerate() {
        let clash = |other: &&Forward| {
            other.protocol == forward.protocol
                && (other.outside == forward.outside || other.inside == forward.inside)
        };
        if all[..i].iter().any(|other| clash(&other)) {
            let (outside, inside) = (show(forward.outside), show(forward.inside));
            return Err(CreateError::new(
                format!("two forwards share an end of {} {outside} -> {inside}", forward.protocol),
                "give each forward an outside and an inside end of its own: answers are told by the inside end",
            ));
        }
    }
    Ok(all)
}

fn show((addr, port): Endpoint) -> String {
    format!("{}:{port}", Ipv4Addr::from_bits(addr))
}

impl FromStr for Forward {
    type Err = ();

    fn from_str(text: &str) -> Result<Forward, ()> {
        let (protocol, ends) = text.split_once(char::is_whitespace).ok_or(())?;
        let (outside, inside) = ends.split_once("->").ok_or(())?;
        let end = |text: &str| {
            let (addr, port) = text.trim().split_once(':')?;
            let (addr, port) = (addr.parse::<Ipv4Addr>().ok()?, port.parse::<u16>().ok()?);
            (port != 0).then_some((addr.to_bits(), port))
        };
        let protocol = match protocol {
            "tcp" => Protocol::TCP,
            "udp" => Protocol::UDP,
            _ => return Err(()),
        };
        Ok(Forward { protocol, outside: end(outside).ok_or(())?, inside: end(inside).ok_or(())? })
    }
}
