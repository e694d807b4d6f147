//! A change of one entry of a configuration.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{all_of, take_out, with_those_made_of};
use crate::config::{Config, address_and_length, network};
use crate::error::Error;

/// What is to become of the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Add,
    Replace,
    Delete,
}

/// A change of one entry.
#[derive(Clone, Debug)]
pub struct Edit {
    action: Action,
    section: &'static str,
    /// What tells its entries apart.
    keys: &'static [&'static str],
    entry: Table,
}

/// Sections that can be changed, and the keys that tell one entry from another.
const SECTIONS: [(&str, &[&str]); 4] = [
    ("interface", &["name"]),
    ("address", &["port", "address"]),
    ("route", &["to"]),
    ("neighbor", &["port", "address"]),
];

fn bad(detail: impl Into<String>) -> Error {
    Error::new("NKE-CTL-BAD-REQUEST", detail)
}

impl Edit {
    /// Of a request: `section`, and `entry` with the keys of a configuration.
    pub fn of(verb: &str, args: &Json) -> Result<Edit, Error> {
        let action = match verb {
            "add" => Action::Add,
            "replace" => Action::Replace,
            "del" => Action::Delete,
            _ => return Err(bad(format!("verb {verb:?} is not known"))),
        };
        let name = args["section"].as_str().unwrap_or_default();
        let section = SECTIONS.iter().find(|(known, _)| *known == name);
        let (section, keys) = section.ok_or_else(|| {
            bad(format!("section {name:?}: interface, address, route and neighbor can be changed"))
        })?;
        let mut given = args["entry"].as_object().cloned().ok_or_else(|| bad("`entry` is not an object"))?;
        // What is not said is not there.
        given.retain(|_, value| !value.is_null());
        let entry = Table::try_from(given).map_err(|e| bad(format!("`entry`: {e}")))?;
        match keys.iter().find(|key| !entry.contains_key(**key)) {
            Some(missing) => Err(bad(format!("`entry` has no `{missing}`"))),
            None => Ok(Edit { action, section, keys, entry }),
        }
    }

    /// The configuration with the change, checked.
    pub(super) fn on(&self, config: &Config) -> Result<Config, Error> {
        let mut config = config.clone();
        if let (Action::Delete, "interface", Some(name)) =
            (self.action, self.section, text(&self.entry, "name"))
        {
            // With it goes what is on it, and those that are made of it with what is on them.
            let gone = with_those_made_of(&config, |interface| *interface.name.as_ref() == name);
            if !gone.is_empty() {
                gone.iter().for_each(|name| take_out(&mut config, name));
                return Ok(config);
            }
        }
        let mut table = Table::try_from(&config).map_err(|e| bad(e.to_string()))?;
        let list = table.entry(self.section).or_insert_with(|| Value::Array(Vec::new()));
        let list = list.as_array_mut().ok_or_else(|| bad(format!("`{}` is no list", self.section)))?;
        let at = list.iter().position(|entry| entry.as_table().is_some_and(|entry| self.is_same(entry)));
        match (self.action, at) {
            (Action::Add, None) | (Action::Replace, None) => list.push(Value::Table(self.entry.clone())),
            (Action::Replace, Some(at)) => list[at] = Value::Table(self.entry.clone()),
            (Action::Delete, Some(at)) => _ = list.remove(at),
            (Action::Add, Some(_)) => {
                return Err(Error::new("NKE-CFG-005", format!("there is {} already", self.name())));
            }
            (Action::Delete, None) => {
                let detail = format!("there is no {} in the running configuration", self.name());
                return Err(Error::new("NKE-CFG-004", detail));
            }
        }
        let text = toml::to_string(&table).map_err(|e| bad(e.to_string()))?;
        Config::parse(&text, "the running configuration").map_err(|complaints| all_of(&complaints))
    }

    /// Whether an entry is the one that is meant.
    fn is_same(&self, entry: &Table) -> bool {
        self.keys.iter().all(|key| match (text(entry, key), text(&self.entry, key)) {
            (Some(a), Some(b)) => canonical(key, a) == canonical(key, b),
            _ => false,
        })
    }

    fn name(&self) -> String {
        let keys = self.keys.iter().filter_map(|key| text(&self.entry, key));
        format!("{} {}", self.section, keys.collect::<Vec<_>>().join(" "))
    }
}

fn text<'a>(entry: &'a Table, key: &str) -> Option<&'a str> {
    entry.get(key).and_then(Value::as_str)
}

/// Addresses and networks can be written in several ways.
fn canonical(key: &str, text: &str) -> String {
    match (key, address_and_length(text), text.parse::<std::net::IpAddr>()) {
        ("to", Some((address, len)), _) => format!("{}/{len}", network(address, len)),
        ("address", Some((address, len)), _) => format!("{address}/{len}"),
        ("address", _, Ok(address)) => address.to_string(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "[router]\n[[port]]\nname = \"a\"\nkind = \"memory\"\nrole = \"source\"\n";

    fn config() -> Config {
        Config::parse(FILE, "test").unwrap()
    }

    fn edit(verb: &str, section: &str, entry: Json) -> Result<Edit, Error> {
        Edit::of(verb, &json!({ "section": section, "entry": entry }))
    }

    #[test]
    fn entries_come_and_go_however_they_are_written() {
        let with = edit("add", "address", json!({ "port": "a", "address": "2001:DB8:0::1/64" })).unwrap();
        let one = with.on(&config()).unwrap();
        assert_eq!(one.address.len(), 1);
        assert_eq!(with.on(&one).unwrap_err().id(), "NKE-CFG-005");
        let without = edit("del", "address", json!({ "port": "a", "address": "2001:db8::1/64" })).unwrap();
        assert_eq!(without.on(&one).unwrap(), config());
        assert_eq!(without.on(&config()).unwrap_err().id(), "NKE-CFG-004");
        let via =
            |via: Json| edit("replace", "route", json!({ "to": "10.0.0.0/8", "port": "a", "via": via }));
        let routed = via(Json::Null).unwrap().on(&one).unwrap();
        let again = via(json!("192.0.2.9")).unwrap().on(&routed).unwrap();
        assert_eq!((routed.route.len(), again.route.len()), (1, 1));
        assert_ne!(routed, again);
    }

    #[test]
    fn what_a_file_may_not_say_a_verb_may_not_either() {
        let refused = |edit: Result<Edit, Error>| edit.and_then(|e| e.on(&config())).unwrap_err();
        assert_eq!(
            refused(edit("add", "address", json!({ "port": "b", "address": "192.0.2.1/24" }))).id(),
            "NKE-CFG-004"
        );
        assert_eq!(refused(edit("add", "route", json!({ "to": "192.0.2.0/24" }))).id(), "NKE-CFG-007");
        assert_eq!(
            refused(edit("add", "address", json!({ "port": "a", "address": "192.0.2.1" }))).id(),
            "NKE-CFG-003"
        );
        for (section, entry) in [
            ("port", json!({ "name": "b" })),
            ("route", json!({ "via": "192.0.2.1" })),
            ("route", json!("192.0.2.1")),
        ] {
            assert_eq!(refused(edit("add", section, entry)).id(), "NKE-CTL-BAD-REQUEST");
        }
    }
}
