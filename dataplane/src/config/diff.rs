//! What changes from one configuration to another, in words.

use toml::{Table, Value};

use super::model::Config;

/// A line for each difference: `+` is only in `new`, `-` only in `old`, `~` in both, but not the same. Empty when they
/// mean the same, however they are written.
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (sections(old), sections(new));
    let mut lines = Vec::new();
    for section in ["runtime", "pool", "router"] {
        compare(section, old.get(section), new.get(section), &mut lines);
    }
    for section in ["port", "wire", "interface", "filter", "address", "route", "neighbor"] {
        let (old, new) = (named(section, &old), named(section, &new));
        for (name, value) in &old {
            match new.iter().find(|(n, _)| n == name) {
                Some((_, other)) => compare(name, Some(value), Some(other), &mut lines),
                None => lines.push(format!("- {name}")),
            }
        }
        let added = new.iter().filter(|(name, _)| !old.iter().any(|(n, _)| n == name));
        lines.extend(added.map(|(name, value)| format!("+ {name}: {value}")));
        let common = |of: &[(String, Value)], other: &[(String, Value)]| -> Vec<String> {
            let both = of.iter().filter(|(name, _)| other.iter().any(|(n, _)| n == name));
            both.map(|(name, _)| name.clone()).collect()
        };
        if section == "filter" && common(&old, &new) != common(&new, &old) {
            lines.push("~ order of filters".into());
        }
    }
    lines
}

fn sections(config: &Config) -> Table {
    Table::try_from(config).unwrap_or_default()
}

/// Repeated sections under names that tell them apart. Of filters that look alike the n-th is compared with the n-th.
fn named(section: &str, file: &Table) -> Vec<(String, Value)> {
    let mut entries: Vec<(String, Value)> = Vec::new();
    for value in file.get(section).and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = match section {
            "port" => format!("port {}", text("name")),
            "interface" => format!("interface {}", text("name")),
            "wire" => format!("wire {} - {}", text("a"), text("b")),
            "address" => format!("address {} on {}", text("address"), text("port")),
            "route" => format!("route to {}", text("to")),
            "neighbor" => format!("neighbor {} on {}", text("address"), text("port")),
            _ => format!("filter {} on {} ({})", text("kind"), text("port"), text("direction")),
        };
        let alike = entries.iter().filter(|(n, _)| *n == name || n.starts_with(&format!("{name} #"))).count();
        let name = if alike == 0 { name } else { format!("{name} #{}", alike + 1) };
        entries.push((name, value.clone()));
    }
    entries
}

fn compare(name: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    let table = |v: Option<&Value>| v.and_then(Value::as_table).cloned().unwrap_or_default();
    let (old, new) = (table(old), table(new));
    let keys = old.keys().chain(new.keys().filter(|k| !old.contains_key(*k)));
    for key in keys {
        match (old.get(key), new.get(key)) {
            (Some(a), Some(b)) if a != b => lines.push(format!("~ {name}: {key} = {a} -> {b}")),
            (Some(a), None) => lines.push(format!("~ {name}: {key} = {a} -> nothing")),
            (None, Some(b)) => lines.push(format!("~ {name}: {key} = nothing -> {b}")),
            _ => (),
        }
    }
}
