//! Tables and records as text.

use serde_json::Value;

/// An array of flat objects, aligned, with a header. Columns are those of any row, in the order they first come.
pub(super) fn table(value: &Value) -> String {
    let rows = value.as_array().map_or(&[][..], Vec::as_slice);
    let mut columns: Vec<&str> = Vec::new();
    for key in rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    if rows.is_empty() {
        return "nothing\n".into();
    }
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|c| cell(&row[*c])).collect()).collect();
    let width = |i: usize| {
        cells.iter().map(|row| row[i].chars().count()).chain([columns[i].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let right: Vec<_> =
        columns.iter().map(|c| rows.iter().all(|row| row[*c].is_number() || row[*c].is_null())).collect();
    let line = |words: Vec<&str>| {
        let padded = words.iter().zip(&widths).zip(&right).map(|((word, &width), &right)| {
            if right { format!("{word:>width$}") } else { format!("{word:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(columns.clone());
    for row in &cells {
        out += &line(row.iter().map(String::as_str).collect());
    }
    out
}

/// An object, a line for each field.
pub(super) fn record(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| format!("{name:<16} {}\n", cell(value))).collect()
}

/// Ways of packets, each with its stages and the nanoseconds between them.
pub(super) fn paths(value: &Value) -> String {
    let mut out = String::new();
    for path in value.as_array().into_iter().flatten() {
        out += &format!("{} packets, such as {}\n", path["packets"], cell(&path["example"]));
        for stage in path["stages"].as_array().into_iter().flatten() {
            out += &format!("  {:>10} ns  {}\n", stage["ns"].to_string(), cell(&stage["stage"]));
        }
    }
    out
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        // Names come from extensions: none gets to move the cursor, or to make two lines of one.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up() {
        let rows = json!([{ "name": "a", "packets": 5 }, { "name": "long", "packets": 123, "note": "x" }]);
        assert_eq!(table(&rows), "name  packets  note\na           5  -\nlong      123  x\n");
        assert_eq!(table(&json!([])), "nothing\n");
        assert_eq!(table(&json!([{ "a": "x\n\u{1b}[2J" }])), "a\nx\u{fffd}\u{fffd}[2J\n");
        // Rows that are none are no reason to fall over.
        assert_eq!((table(&json!([1, null])), table(&json!("x"))), ("\n\n\n".into(), "nothing\n".into()));
    }
}
