//! Holds the text against `schema`: keys that nobody knows, keys that are missing, values of the wrong
//! sort. Unlike deserializing, which ends at the first mistake, this finds them all.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::complaint::Complaint;
use super::near::nearest;
use super::schema::{Key, Kind, SECTIONS, Section};

/// A key, and where it is.
type Name<'i> = Spanned<Cow<'i, str>>;

/// What was found.
#[derive(Default)]
pub(super) struct Shape {
    pub(super) complaints: Vec<Complaint>,
    /// A port or interface was left out, so that names may seem unknown that are not.
    pub(super) port_left_out: bool,
}

/// Complains about everything that does not fit, and takes it out of `file`, so that the rest can be read.
pub(super) fn check(file: &mut DeTable<'_>) -> Shape {
    let mut shape = Shape::default();
    retain(file, |name, value| {
        let Some(section) = SECTIONS.iter().find(|s| s.name == name.as_ref().as_ref()) else {
            shape.unknown_section(name.as_ref(), name.span());
            return false;
        };
        shape.section(section, value, name.span())
    });
    shape
}

/// Leaves in `table` what `keep` says.
fn retain<'i>(table: &mut DeTable<'i>, mut keep: impl FnMut(&Name<'i>, &mut Spanned<DeValue<'i>>) -> bool) {
    for (name, mut value) in std::mem::take(table) {
        if keep(&name, &mut value) {
            table.insert(name, value);
        }
    }
}

impl Shape {
    fn say(&mut self, id: &'static str, span: Range<usize>, message: String) {
        self.complaints.push(Complaint::new(id, Some(span), message));
    }

    fn unknown_section(&mut self, name: &str, span: Range<usize>) {
        let home = SECTIONS.iter().find(|s| s.keys.iter().any(|k| k.name == name));
        let hint = match (nearest(name, SECTIONS.iter().map(|s| s.name)), home) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(section)) => format!("it belongs in {}", heading(section)),
            (None, None) => format!("there are {}", list(SECTIONS.iter().map(|s| s.name))),
        };
        self.say("NKE-CFG-002", span, format!("no section is called `{name}`; {hint}"));
    }

    /// Whether the section stays.
    fn section(&mut self, section: &Section, value: &mut Spanned<DeValue<'_>>, span: Range<usize>) -> bool {
        match (section.repeated, value.get_mut()) {
            (false, DeValue::Table(table)) => {
                // Everything here has a default: what does not fit is left out, the rest stays.
                retain(table, |name, value| self.entry(section.keys, heading(section), name, value));
                true
            }
            (true, DeValue::Array(entries)) if entries.iter().all(|e| e.get_ref().is_table()) => {
                let all = std::mem::replace(entries, DeArray::new());
                for mut entry in all {
                    let before = self.complaints.len();
                    let span = entry.span();
                    if let DeValue::Table(table) = entry.get_mut() {
                        self.table(section.keys, &heading(section), table, span);
                    }
                    // Left out whole: with only a part of it gone the rest would earn complaints that it does not deserve.
                    if self.complaints.len() == before {
                        entries.push(entry);
                    } else {
                        self.port_left_out |= named(section);
                    }
                }
                true
            }
            (repeated, _) => {
                let times = if repeated { "there may be several" } else { "there is only one" };
                self.say("NKE-CFG-002", span, format!("it is written {}: {times}", heading(section)));
                self.port_left_out |= named(section);
                false
            }
        }
    }

    fn table(&mut self, keys: &[Key], place: &str, table: &DeTable<'_>, span: Range<usize>) {
        for (name, value) in table.iter() {
            self.entry(keys, place.to_owned(), name, value);
        }
        for key in keys.iter().filter(|k| k.needed && !table.contains_key(k.name)) {
            self.say("NKE-CFG-007", span.clone(), format!("{place} needs the key `{}`", key.name));
        }
    }

    /// Whether a key and its value fit.
    fn entry(&mut self, keys: &[Key], place: String, name: &Name<'_>, value: &Spanned<DeValue<'_>>) -> bool {
        let word: &str = name.as_ref();
        let Some(key) = keys.iter().find(|k| k.name == word) else {
            let home = SECTIONS.iter().find(|s| s.keys.iter().any(|k| k.name == word));
            let hint = match (nearest(word, keys.iter().map(|k| k.name)), home) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(section)) => format!("it belongs in {}", heading(section)),
                (None, None) => format!("there are {}", list(keys.iter().map(|k| k.name))),
            };
            self.say("NKE-CFG-002", name.span(), format!("{place} has no key `{word}`; {hint}"));
            return false;
        };
        let before = self.complaints.len();
        self.value(key, value);
        self.complaints.len() == before
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) {
        let (name, span) = (key.name, value.span());
        let wrong = |what: &str| {
            let found = value.get_ref().type_str();
            ("NKE-CFG-002", format!("`{name}` is {what}, not of type {found}"))
        };
        let (id, message) = match (&key.kind, value.get_ref()) {
            (Kind::Text, DeValue::String(_)) | (Kind::Switch, DeValue::Boolean(_)) => return,
            (Kind::TextThat(check), DeValue::String(text)) => match check(text) {
                None => return,
                Some(rule) => ("NKE-CFG-003", format!("{name} = {text:?}: {rule}")),
            },
            (Kind::Word(words), DeValue::String(text)) => {
                if words.contains(&text.as_ref()) {
                    return;
                }
                let hint = match nearest(text, words.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("it is {}", list(words.iter().copied())),
                };
                ("NKE-CFG-002", format!("{name} = {text:?}; {hint}"))
            }
            (Kind::Number(least, most), number @ DeValue::Integer(_)) => match whole(number) {
                Some(n) if (*least..=*most).contains(&n) => return,
                _ => ("NKE-CFG-003", format!("`{name}` is {least} to {most}")),
            },
            (Kind::Numbers, DeValue::Array(numbers)) => {
                if numbers.iter().all(|n| whole(n.get_ref()).is_some_and(|n| u32::try_from(n).is_ok())) {
                    return;
                }
                ("NKE-CFG-002", format!("`{name}` is whole numbers, as in {name} = [1, 2]"))
            }
            (Kind::Tables(keys, most), DeValue::Array(tables)) => {
                return self.tables(name, keys, *most, tables, span);
            }
            (Kind::Args, DeValue::Table(args)) => {
                for (arg, value) in args.iter() {
                    let fits =
                        value.get_ref().is_str() || value.get_ref().is_bool() || value.get_ref().is_integer();
                    if !fits {
                        let message =
                            format!("argument `{}` is text, a whole number, true or false", arg.as_ref());
                        self.say("NKE-CFG-002", value.span(), message);
                    }
                }
                return;
            }
            (Kind::Text | Kind::TextThat(_) | Kind::Word(_), _) => wrong("text in quotes"),
            (Kind::Number(..), _) => wrong("a whole number"),
            (Kind::Switch, _) => wrong("true or false"),
            (Kind::Numbers, _) => wrong("an array of whole numbers"),
            (Kind::Tables(..), _) => wrong("an array of tables"),
            (Kind::Args, _) => wrong("a table"),
        };
        self.say(id, span, message);
    }

    fn tables(
        &mut self,
        name: &str,
        keys: &[Key],
        most: usize,
        tables: &[Spanned<DeValue<'_>>],
        span: Range<usize>,
    ) {
        if tables.is_empty() || tables.len() > most {
            let message = format!("`{name}` has 1 to {most} entries; leave it out to take everything");
            self.say("NKE-CFG-003", span, message);
        }
        for table in tables {
            match table.get_ref() {
                DeValue::Table(entries) if entries.is_empty() => {
                    let message =
                        format!("an empty entry of `{name}` fits everything; leave `{name}` out for that");
                    self.say("NKE-CFG-003", table.span(), message);
                }
                DeValue::Table(entries) => self.table(keys, &format!("`{name}`"), entries, table.span()),
                _ => self.say(
                    "NKE-CFG-002",
                    table.span(),
                    format!("`{name}` has tables as entries: {{ key = value }}"),
                ),
            }
        }
    }
}

/// A number that is whole and not negative.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Whether others refer to its entries by name.
fn named(section: &Section) -> bool {
    matches!(section.name, "port" | "interface")
}

fn heading(section: &Section) -> String {
    let name = section.name;
    if section.repeated { format!("[[{name}]]") } else { format!("[{name}]") }
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}
