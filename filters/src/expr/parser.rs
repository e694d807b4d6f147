//! Tokens into the tree: recursive descent, bounded in length, nodes and depth.
//!
//! ```text
//! expr      = unary { "and" unary } | unary { "or" unary }
//! unary     = "not" unary | "(" expr ")" | protocol [ address ] | primitive
//! ```

use super::ast::Ast;
use super::lexer::{Kind, Token, token};
use super::primitive::{Dir, Primitive};
use super::{DEPTH_MAX, ExprError, NODES_MAX, TEXT_BYTES_MAX};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;
use nke_mbuf::wire::{EtherType, Protocol};

pub(super) fn parse(text: &str) -> Result<Ast, ExprError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ExprError::too_long(text.len()));
    }
    let mut parser = Parser { text, next: token(text, 0)?, nodes: 0, depth: 0 };
    if parser.next.kind == Kind::End {
        return Err(parser.wrong("the expression is empty", "leave it out altogether to match every frame"));
    }
    let ast = parser.expr()?;
    match parser.next.kind {
        Kind::End => Ok(ast),
        Kind::Close => {
            Err(parser.wrong("`)` without its `(`", "remove it, or open it where the group starts"))
        }
        _ => Err(parser.wrong("two tests side by side", "join them with `and` or with `or`")),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// The token to be read next.
    next: Token<'a>,
    nodes: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn expr(&mut self) -> Result<Ast, ExprError> {
        let first = self.unary()?;
        let operator = self.next.kind;
        if !matches!(operator, Kind::And | Kind::Or) {
            return Ok(first);
        }
        self.count_node()?;
        let mut parts = vec![first];
        while self.next.kind == operator {
            self.advance()?;
            parts.push(self.unary()?);
        }
        if matches!(self.next.kind, Kind::And | Kind::Or) {
            return Err(self.wrong(
                "`and` and `or` side by side can be read in two ways",
                "put parentheses around the part that belongs together",
            ));
        }
        Ok(if operator == Kind::And { Ast::All(parts) } else { Ast::Any(parts) })
    }

    fn unary(&mut self) -> Result<Ast, ExprError> {
        match self.next.kind {
            Kind::Not => {
                self.count_node()?;
                self.nested(|parser| {
                    parser.advance()?;
                    Ok(Ast::Not(Box::new(parser.unary()?)))
                })
            }
            Kind::Open => self.nested(|parser| {
                let open = parser.advance()?;
                let inner = parser.expr()?;
                match parser.next.kind {
                    Kind::Close => parser.advance().map(|_| inner),
                    Kind::End => {
                        Err(ExprError::new(open.span, "`(` without its `)`", "close it where the group ends"))
                    }
                    _ => Err(parser.wrong("two tests side by side", "join them with `and` or with `or`")),
                }
            }),
            Kind::Word => self.test(),
            Kind::End => Err(self.wrong("a test is missing at the end", "add one, or remove the operator")),
            _ => Err(self.wrong("a test is missing here", "add one, or remove the operator")),
        }
    }

    /// A primitive, or a protocol with an address or port: `tcp port 80`.
    fn test(&mut self) -> Result<Ast, ExprError> {
        let protocol = match self.next.text {
            "arp" => Primitive::EtherProto(EtherType::ARP),
            "ip" => Primitive::EtherProto(EtherType::IPV4),
            "ip6" => Primitive::EtherProto(EtherType::IPV6),
            "tcp" => Primitive::Proto(Protocol::TCP),
            "udp" => Primitive::Proto(Protocol::UDP),
            "icmp" => Primitive::Icmp,
            "icmp6" => Primitive::Icmp6,
            _ => return Ok(Ast::Test(self.primitive()?)),
        };
        self.count_node()?;
        self.advance()?;
        if !matches!(self.next.text, "src" | "dst" | "host" | "net" | "port" | "portrange") {
            return Ok(Ast::Test(protocol));
        }
        // Prints as a group in parentheses, so it costs what a group costs.
        self.count_node()?;
        self.nested(|parser| Ok(Ast::All(vec![Ast::Test(protocol), Ast::Test(parser.primitive()?)])))
    }

    fn primitive(&mut self) -> Result<Primitive, ExprError> {
        self.count_node()?;
        let word = self.advance()?;
        match word.text {
            "ether" => self.ether(),
            "vlan" => self.vlan(),
            "proto" => Ok(Primitive::Proto(Protocol(self.number("write a protocol number from 0 to 255")?))),
            "len" => self.len(),
            "fragment" => Ok(Primitive::Fragment),
            "malformed" => Ok(Primitive::Malformed),
            "src" => self.address(Dir::Src),
            "dst" => self.address(Dir::Dst),
            "host" => self.host(Dir::Either),
            "net" => self.net(Dir::Either),
            "port" => self.port(Dir::Either),
            "portrange" => self.portrange(Dir::Either),
            _ => Err(unknown(&word)),
        }
    }

    fn ether(&mut self) -> Result<Primitive, ExprError> {
        let word = self.advance()?;
        let dir = match word.text {
            "src" => Dir::Src,
            "dst" => Dir::Dst,
            "host" => Dir::Either,
            "proto" => {
                return Ok(Primitive::EtherProto(EtherType(self.number("write a type from 0 to 0xffff")?)));
            }
            _ => {
                let cure = "write `ether src MAC`, `ether dst MAC`, `ether host MAC` or `ether proto N`";
                return Err(ExprError::new(word.span, "`ether` is not complete", cure));
            }
        };
        Ok(Primitive::Ether(dir, self.value("write a MAC address like 02:00:00:00:00:01")?))
    }

    fn vlan(&mut self) -> Result<Primitive, ExprError> {
        if !self.next.text.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(Primitive::Vlan(None));
        }
        let span = self.next.span.clone();
        let vid = self.number("write a VLAN ID from 0 to 4095")?;
        if vid > 4095 {
            return Err(ExprError::new(span, "no such VLAN ID", "write a VLAN ID from 0 to 4095"));
        }
        Ok(Primitive::Vlan(Some(vid)))
    }

    fn len(&mut self) -> Result<Primitive, ExprError> {
        let sign = self.next.kind;
        if !matches!(sign, Kind::AtLeast | Kind::AtMost) {
            return Err(self.wrong("`len` compares with `>=` or `<=`", "write `len >= N` or `len <= N`"));
        }
        self.advance()?;
        let bound = self.number("write a length in bytes")?;
        Ok(if sign == Kind::AtLeast { Primitive::LenAtLeast(bound) } else { Primitive::LenAtMost(bound) })
    }

    /// Behind `src` or `dst`.
    fn address(&mut self, dir: Dir) -> Result<Primitive, ExprError> {
        match self.next.text {
            "host" => self.advance().and_then(|_| self.host(dir)),
            "net" => self.advance().and_then(|_| self.net(dir)),
            "port" => self.advance().and_then(|_| self.port(dir)),
            "portrange" => self.advance().and_then(|_| self.portrange(dir)),
            _ => Err(self.wrong(
                "a direction is followed by what it is the direction of",
                "write `host ADDR`, `net ADDR/LEN`, `port N` or `portrange A-B` behind it",
            )),
        }
    }

    fn host(&mut self, dir: Dir) -> Result<Primitive, ExprError> {
        Ok(match self.value("write an IPv4 or IPv6 address (names are not resolved)")? {
            IpAddr::V4(addr) => Primitive::Net4 { dir, addr: addr.to_bits(), mask: u32::MAX },
            IpAddr::V6(addr) => Primitive::Net6 { dir, addr: addr.to_bits(), mask: u128::MAX },
        })
    }

    fn net(&mut self, dir: Dir) -> Result<Primitive, ExprError> {
        const CURE: &str = "write a network like 192.0.2.0/24 or 2001:db8::/32";
        let word = self.advance()?;
        let malformed = || expected(&word, CURE);
        let (addr, len) = word.text.split_once('/').ok_or_else(malformed)?;
        let addr: IpAddr = addr.parse().map_err(|_| malformed())?;
        let len: u32 = decimal(len).ok_or_else(malformed)?;
        let net = match addr {
            IpAddr::V4(addr) if len <= Ipv4Addr::BITS => {
                let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - len).unwrap_or(0);
                Primitive::Net4 { dir, addr: addr.to_bits(), mask }
            }
            IpAddr::V6(addr) if len <= Ipv6Addr::BITS => {
                let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - len).unwrap_or(0);
                Primitive::Net6 { dir, addr: addr.to_bits(), mask }
            }
            _ => {
                let cure = "IPv4 prefixes go up to /32, IPv6 prefixes up to /128";
                return Err(ExprError::new(word.span, "the prefix is longer than the address", cure));
            }
        };
        let stray = match net {
            Primitive::Net4 { addr, mask, .. } => addr & !mask != 0,
            Primitive::Net6 { addr, mask, .. } => addr & !mask != 0,
            _ => false,
        };
        if stray {
            let message = format!("{} has address bits behind its prefix", word.text);
            return Err(ExprError::new(
                word.span,
                message,
                "clear them, or write `host ADDR` for one address",
            ));
        }
        Ok(net)
    }

    fn port(&mut self, dir: Dir) -> Result<Primitive, ExprError> {
        let port = self.number("write a port number from 0 to 65535")?;
        Ok(Primitive::Port { dir, low: port, high: port })
    }

    fn portrange(&mut self, dir: Dir) -> Result<Primitive, ExprError> {
        let word = self.advance()?;
        let ends = word.text.split_once('-').and_then(|(low, high)| Some((decimal(low)?, decimal(high)?)));
        match ends {
            Some((low, high)) if low <= high => Ok(Primitive::Port { dir, low, high }),
            Some(_) => Err(ExprError::new(
                word.span,
                "the range ends before it starts",
                "write the lower port first",
            )),
            None => Err(expected(&word, "write a range like 6000-6063")),
        }
    }

    /// The next word as a number, decimal or hexadecimal.
    fn number<N: TryFrom<u32>>(&mut self, cure: &'static str) -> Result<N, ExprError> {
        let word = self.advance()?;
        let number = match word.text.strip_prefix("0x") {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u32::from_str_radix(digits, 16).ok()
            }
            Some(_) => None,
            None => decimal(word.text),
        };
        number.and_then(|number| N::try_from(number).ok()).ok_or_else(|| expected(&word, cure))
    }

    fn value<V: FromStr>(&mut self, cure: &'static str) -> Result<V, ExprError> {
        let word = self.advance()?;
        word.text.parse().map_err(|_| expected(&word, cure))
    }

    /// Takes the next token.
    fn advance(&mut self) -> Result<Token<'a>, ExprError> {
        let after = token(self.text, self.next.span.end)?;
        Ok(core::mem::replace(&mut self.next, after))
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Result<Ast, ExprError>) -> Result<Ast, ExprError> {
        if self.depth == DEPTH_MAX {
            let message = format!("parentheses and `not` nest at most {DEPTH_MAX} deep");
            return Err(self.wrong(message, "flatten the expression"));
        }
        self.depth += 1;
        let ast = inner(self)?;
        self.depth -= 1;
        Ok(ast)
    }

    fn count_node(&mut self) -> Result<(), ExprError> {
        if self.nodes == NODES_MAX {
            let message = format!("an expression has at most {NODES_MAX} primitives and operators");
            return Err(self.wrong(message, "use `net` and `portrange`, or attach several filters"));
        }
        self.nodes += 1;
        Ok(())
    }

    /// An error about the next token.
    fn wrong(&self, message: impl Into<String>, cure: &'static str) -> ExprError {
        ExprError::new(self.next.span.clone(), message, cure)
    }
}

/// Digits only: `from_str` alone would accept a sign.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn expected(word: &Token<'_>, cure: &'static str) -> ExprError {
    let message = match word.kind {
        Kind::End => "a value is missing at the end".into(),
        _ => format!("`{}` does not fit here", word.text),
    };
    ExprError::new(word.span.clone(), message, cure)
}

fn unknown(word: &Token<'_>) -> ExprError {
    let cure = if word.text.parse::<IpAddr>().is_ok() {
        "write `host` in front of an address"
    } else if word.text.contains('/') {
        "write `net` in front of a network"
    } else if word.text.starts_with(|first: char| first.is_ascii_digit()) {
        "a number needs its primitive each time: `port 80 or port 443`"
    } else {
        "the primitives are ether, vlan, arp, ip, ip6, tcp, udp, icmp, icmp6, proto, host, net, port, portrange, len, \
         fragment, malformed"
    };
    ExprError::new(word.span.clone(), format!("`{}` is not a primitive", word.text), cure)
}
