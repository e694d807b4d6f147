//! The arguments of `conntrack`: what is tracked, and which packets may open a flow.

use nke_mbuf::wire::Layers;

use crate::expr::Expr;
use crate::flow::{FLOWS_DEFAULT, FLOWS_MAX, Timeouts};
use crate::kind::ArgValue;
use crate::{Args, CreateError, IfIndex, IpHook, IpHooks};

/// Where a packet is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// From a neighbour.
    Received,
    /// From this host.
    Local,
}

/// Which packets may open a flow, and what happens to the others.
pub(super) struct Policy {
    pub(super) stateful: bool,
    /// A connection may be taken up in the middle.
    pub(super) loose: bool,
    inside: Option<IfIndex>,
    open: Option<Expr>,
}

impl Policy {
    #[inline]
    pub(super) fn may_open(
        &self,
        origin: Origin,
        rcvif: u16,
        layers: impl FnOnce() -> Layers,
        len_bytes: usize,
    ) -> bool {
        !self.stateful
            || origin == Origin::Local
            || self.inside.is_some_and(|inside| inside.0 == rcvif)
            || self.open.as_ref().is_some_and(|open| open.matches_layers(&layers(), len_bytes))
    }
}

/// The arguments, checked.
pub(super) struct Config {
    pub(super) policy: Policy,
    pub(super) hooks: IpHooks,
    pub(super) flows: usize,
    pub(super) timeouts: Timeouts,
}

const NAMES: [&str; 6] = ["policy", "scope", "inside", "open", "loose", "flows"];

impl Config {
    pub(super) fn from_args(
        args: &Args,
        port: impl Fn(&str) -> Option<IfIndex>,
    ) -> Result<Config, CreateError> {
        let known: Vec<&str> = NAMES.into_iter().chain(Timeouts::ARGS).collect();
        args.only(&known)?;
        let stateful = choose(args, "policy", &["track", "stateful"])? == 1;
        let of_host = choose(args, "scope", &["forward", "host"])? == 1;
        let inside = args.text("inside")?.map(|name| {
            port(name).ok_or_else(|| {
                CreateError::new(format!("no port is called `{name}`"), "see `nke show interfaces`")
            })
        });
        let inside = inside.transpose()?;
        let open = args.text("open")?.map(|text| {
            Expr::parse(text).map_err(|e| {
                CreateError::new(
                    format!("`open` does not parse: {e}"),
                    "see docs/expressions.md for what can be written",
                )
            })
        });
        let open = open.transpose()?;
        if !stateful && (inside.is_some() || open.is_some()) {
            return Err(CreateError::new(
                "`inside` and `open` say who may open flows, but every packet may",
                "write policy = \"stateful\", or leave them out",
            ));
        }
        if stateful && !of_host && inside.is_none() && open.is_none() {
            return Err(CreateError::new(
                "nobody may open a flow, so every packet would be dropped",
                "write inside = \"PORT\" or open = \"EXPRESSION\"",
            ));
        }
        let hooks = match of_host {
            false => IpHooks::NONE.with(IpHook::Forward),
            true => IpHooks::INPUT_OUTPUT,
        };
        Ok(Config {
            policy: Policy { stateful, loose: switch(args, "loose")?, inside, open },
            // A later fragment has no ports to tell its flow by.
            hooks: hooks.reassemble(),
            flows: args.number("flows", 1..=FLOWS_MAX, FLOWS_DEFAULT)? as usize,
            timeouts: Timeouts::from_args(args)?,
        })
    }
}

/// Number of the word that is given; the first one is the default.
fn choose(args: &Args, name: &str, words: &[&str]) -> Result<usize, CreateError> {
    let Some(given) = args.text(name)? else { return Ok(0) };
    words.iter().position(|word| *word == given).ok_or_else(|| {
        CreateError::new(
            format!("`{name}` is `{given}`"),
            format!("write {name} = \"{}\"", words.join("\" or \"")),
        )
    })
}

fn switch(args: &Args, name: &str) -> Result<bool, CreateError> {
    match args.0.get(name) {
        None => Ok(false),
        Some(ArgValue::Switch(on)) => Ok(*on),
        // The command line knows only text.
        Some(ArgValue::Text(text)) if text == "true" => Ok(true),
        Some(ArgValue::Text(text)) if text == "false" => Ok(false),
        Some(_) => Err(CreateError::new(
            format!("`{name}` is not a switch"),
            format!("write {name} = true or {name} = false"),
        )),
    }
}
