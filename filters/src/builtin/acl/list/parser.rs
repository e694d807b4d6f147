//! Tokens into rules.
//!
//! ```text
//! line    = [ rule | "set" NAME "{" { network [ "," ] } "}" ] stop
//! rule    = ( "permit" | "deny" | "count" ) [ protocol | "{" protocols "}" ] { clause }
//! clause  = ( "from" | "to" ) [ addresses ] [ "port" ports ] | "in" NUMBER | "flags" SET/MASK | "type" N | "code" N
//! ```

use std::collections::HashMap;

use super::lexer::{Kind, Token, token};
use super::{Action, ListError, Network, TEXT_BYTES_MAX, Written, decimal, network};
use crate::builtin::acl::classify::{FlagTest, RULES_MAX, Span};

const PROTOCOLS: [(&str, u8); 8] = [
    ("icmp", 1),
    ("tcp", TCP),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("sctp", 132),
];
const TCP: u8 = 6;
/// Protocols whose header starts with two ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [TCP, 17, 33, 132, 136];
/// Protocols whose header starts with a type and a code.
const WITH_TYPES: [u8; 2] = [1, 58];
/// Letters of the TCP flags, lowest bit first.
const FLAGS: &str = "FSRPAUEW";
const CLAUSES: [&str; 6] = ["from", "to", "in", "flags", "type", "code"];

pub(super) fn parse(text: &str) -> Result<Vec<Written>, ListError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("a list has at most {TEXT_BYTES_MAX} bytes");
        return Err(ListError::new(text, 0, message, "use sets and prefixes to make it shorter"));
    }
    let mut parser = Parser { text, next: token(text, 0), sets: HashMap::new() };
    let mut rules = Vec::new();
    loop {
        let word = parser.next.clone();
        match (word.kind, word.text) {
            (Kind::End, _) => return Ok(rules),
            (Kind::Stop, _) => parser.skip(),
            (Kind::Word, "set") => parser.set()?,
            (Kind::Word, "permit") => rules.push(parser.rule(Action::Permit)?),
            (Kind::Word, "deny") => rules.push(parser.rule(Action::Deny)?),
            (Kind::Word, "count") => rules.push(parser.rule(Action::Count)?),
            _ => {
                return Err(
                    parser.wrong("a line starts with what to do", "write permit, deny, count or set first")
                );
            }
        }
        if rules.len() > RULES_MAX {
            let message = format!("a list has at most {RULES_MAX} rules");
            return Err(ListError::new(
                text,
                word.span.start,
                message,
                "use sets and prefixes to make it shorter",
            ));
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// The token to be read next.
    next: Token<'a>,
    sets: HashMap<&'a str, Vec<Network>>,
}

impl<'a> Parser<'a> {
    fn set(&mut self) -> Result<(), ListError> {
        self.skip();
        let name = self.next.clone();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
        if name.kind != Kind::Word || !name.text.chars().all(fits) {
            return Err(self.wrong(
                "a set needs a name",
                "write `set NAME { ... }`, in letters, digits, `_`, `-` and `.`",
            ));
        }
        if self.sets.contains_key(name.text) {
            return Err(
                self.wrong(format!("there is a set `{}` already", name.text), "give this one another name")
            );
        }
        self.skip();
        if self.next.kind != Kind::Open {
            return Err(self.wrong("`{` is missing", "write `set NAME { 192.0.2.0/24, 198.51.100.7 }`"));
        }
        let mut members = Vec::new();
        self.braces(|parser| parser.addresses_into(&mut members))?;
        self.sets.insert(name.text, members);
        self.stop()
    }

    fn rule(&mut self, action: Action) -> Result<Written, ListError> {
        let start = self.next.span.start;
        let mut rule = Written {
            span: start..start,
            action,
            protocols: Vec::new(),
            src: Vec::new(),
            dst: Vec::new(),
            sports: Vec::new(),
            dports: Vec::new(),
            flags: None,
            rcvif: None,
        };
        self.skip();
        if self.next.kind == Kind::Open
            || (self.next.kind == Kind::Word && !CLAUSES.contains(&self.next.text))
        {
            self.several(|parser| parser.protocol(&mut rule.protocols))?;
        }
        let mut seen = Vec::new();
        while self.next.kind == Kind::Word {
            let clause = self.next.clone();
            if seen.contains(&clause.text) {
                return Err(self.wrong(format!("`{}` is here twice", clause.text), "write each clause once"));
            }
            seen.push(clause.text);
            self.clause(&mut rule)?;
        }
        rule.span.end = self.next.span.start;
        self.stop()?;
        Ok(rule)
    }

    fn clause(&mut self, rule: &mut Written) -> Result<(), ListError> {
        let clause = self.next.clone();
        if !CLAUSES.contains(&clause.text) {
            return Err(self.wrong(
                format!("`{}` does not fit here", clause.text),
                "the clauses are `from`, `to`, `port` behind these two, `in`, `flags`, `type` and `code`",
            ));
        }
        self.skip();
        match clause.text {
            "from" => self.side(&rule.protocols, &mut rule.src, &mut rule.sports),
            "to" => self.side(&rule.protocols, &mut rule.dst, &mut rule.dports),
            "in" => {
                rule.rcvif = Some(
                    self.number(u16::MAX, "write the number of an interface, see `nke show interfaces`")?,
                );
                Ok(())
            }
            "flags" => {
                self.needs(&rule.protocols, &[TCP], &clause, "write `tcp` behind the action")?;
                rule.flags = Some(self.flags()?);
                Ok(())
            }
            field => {
                self.needs(
                    &rule.protocols,
                    &WITH_TYPES,
                    &clause,
                    "write `icmp` or `icmp6` behind the action",
                )?;
                let number = self.number(255, "write a number from 0 to 255")?;
                let spans = if field == "type" { &mut rule.sports } else { &mut rule.dports };
                spans.push(Span::one(number));
                Ok(())
            }
        }
    }

    /// Behind `from` or `to`.
    fn side(
        &mut self,
        protocols: &[u8],
        networks: &mut Vec<Network>,
        ports: &mut Vec<Span<u16>>,
    ) -> Result<(), ListError> {
        match self.next.text {
            "any" => self.skip(),
            "port" => {}
            _ => {
                let start = self.next.clone();
                self.several(|parser| parser.addresses_into(networks))?;
                if networks.is_empty() {
                    return Err(self.at(&start, "no address is left here", "name an address, or `any`"));
                }
            }
        }
        if self.next.text == "port" {
            let word = self.next.clone();
            self.needs(
                protocols,
                &WITH_PORTS,
                &word,
                "write `tcp`, `udp`, `sctp` or `{ tcp, udp }` behind the action",
            )?;
            self.skip();
            self.several(|parser| parser.port(ports))?;
        }
        Ok(())
    }

    /// One of what `member` reads, or several in braces.
    fn several(
        &mut self,
        mut member: impl FnMut(&mut Self) -> Result<(), ListError>,
    ) -> Result<(), ListError> {
        if self.next.kind != Kind::Open {
            return member(self);
        }
        let open = self.next.clone();
        let mut count = 0;
        self.braces(|parser| {
            count += 1;
            member(parser)
        })?;
        if count == 0 {
            return Err(self.at(
                &open,
                "these braces are empty",
                "write what belongs between them, or leave them out",
            ));
        }
        Ok(())
    }

    /// Members between braces, with or without commas, over as many lines as it takes.
    fn braces(
        &mut self,
        mut member: impl FnMut(&mut Self) -> Result<(), ListError>,
    ) -> Result<(), ListError> {
        let open = self.next.clone();
        self.skip();
        loop {
            match self.next.kind {
                Kind::Word => member(self)?,
                Kind::Comma | Kind::Stop => self.skip(),
                Kind::Close => {
                    self.skip();
                    return Ok(());
                }
                Kind::Open => {
                    return Err(self.wrong("braces within braces", "name a set with `@NAME` instead"));
                }
                Kind::End => {
                    return Err(self.at(&open, "`{` without its `}`", "close it where the list ends"));
                }
            }
        }
    }

    fn addresses_into(&mut self, networks: &mut Vec<Network>) -> Result<(), ListError> {
        let word =
            self.word("an address is missing", "write an address, a prefix, `@NAME` of a set, or `any`")?;
        if let Some(name) = word.text.strip_prefix('@') {
            let Some(members) = self.sets.get(name) else {
                return Err(self.at(
                    &word,
                    format!("there is no set `{name}`"),
                    "define it above: `set NAME { ... }`",
                ));
            };
            networks.extend_from_slice(members);
        } else {
            let read = network(word.text);
            networks.push(
                read.map_err(|cure| self.at(&word, format!("`{}` is not an address", word.text), cure))?,
            );
        }
        if networks.len() > RULES_MAX {
            let message = format!("more than {RULES_MAX} addresses in one place");
            return Err(self.at(&word, message, "use shorter prefixes"));
        }
        Ok(())
    }

    fn protocol(&mut self, protocols: &mut Vec<u8>) -> Result<(), ListError> {
        const CURE: &str = "write tcp, udp, sctp, icmp, icmp6, gre, esp, ah, or a number from 0 to 255";
        let word = self.word("a protocol is missing", CURE)?;
        if word.text == "any" && protocols.is_empty() {
            return Ok(());
        }
        let known = PROTOCOLS.iter().find(|(name, _)| *name == word.text).map(|(_, number)| *number);
        match known.or_else(|| decimal(word.text)) {
            Some(number) => protocols.push(number),
            None => return Err(self.at(&word, format!("`{}` is not a protocol", word.text), CURE)),
        }
        Ok(())
    }

    fn port(&mut self, ports: &mut Vec<Span<u16>>) -> Result<(), ListError> {
        const CURE: &str = "write a port like 22 or a range like 1024-65535";
        let word = self.word("a port is missing", CURE)?;
        let (first, last) = word.text.split_once('-').unwrap_or((word.text, word.text));
        match (decimal(first), decimal(last)) {
            (Some(first), Some(last)) if first <= last => ports.push(Span::new(first, last)),
            _ => return Err(self.at(&word, format!("`{}` is not a port", word.text), CURE)),
        }
        Ok(())
    }

    fn flags(&mut self) -> Result<FlagTest, ListError> {
        const CURE: &str = "write those that are on, `/`, those looked at, like `S/SA`; letters are FSRPAUEW";
        let word = self.word("the flags are missing", CURE)?;
        let bits = |letters: &str| {
            letters.chars().try_fold(0u8, |bits, letter| FLAGS.find(letter).map(|bit| bits | 1 << bit))
        };
        let test = word.text.split_once('/').and_then(|(set, mask)| Some((bits(set)?, bits(mask)?)));
        match test {
            Some((set, mask)) if mask != 0 && set & !mask == 0 => Ok(FlagTest { set, mask }),
            _ => Err(self.at(&word, format!("`{}` is not a test of TCP flags", word.text), CURE)),
        }
    }

    fn number(&mut self, most: u16, cure: &'static str) -> Result<u16, ListError> {
        let word = self.word("a number is missing", cure)?;
        match decimal(word.text) {
            Some(number) if number <= most => Ok(number),
            _ => Err(self.at(&word, format!("`{}` does not fit here", word.text), cure)),
        }
    }

    /// Complains unless all of `protocols`, and at least one, are among `able`.
    fn needs(
        &self,
        protocols: &[u8],
        able: &[u8],
        word: &Token<'_>,
        cure: &'static str,
    ) -> Result<(), ListError> {
        if !protocols.is_empty() && protocols.iter().all(|p| able.contains(p)) {
            return Ok(());
        }
        Err(self.at(word, format!("`{}` means nothing for this protocol", word.text), cure))
    }

    fn stop(&mut self) -> Result<(), ListError> {
        match self.next.kind {
            Kind::Stop => self.skip(),
            Kind::End => {}
            _ => {
                return Err(self.wrong(
                    format!("`{}` does not fit here", self.next.text),
                    "start a new line for each rule",
                ));
            }
        }
        Ok(())
    }

    fn word(&mut self, missing: &'static str, cure: &'static str) -> Result<Token<'a>, ListError> {
        let word = self.next.clone();
        if word.kind != Kind::Word {
            return Err(self.wrong(missing, cure));
        }
        self.skip();
        Ok(word)
    }

    fn skip(&mut self) {
        self.next = token(self.text, self.next.span.end);
    }

    /// An error about the next token.
    fn wrong(&self, message: impl Into<String>, cure: &'static str) -> ListError {
        self.at(&self.next, message, cure)
    }

    fn at(&self, token: &Token<'_>, message: impl Into<String>, cure: &'static str) -> ListError {
        ListError::new(self.text, token.span.start, message, cure)
    }
}
