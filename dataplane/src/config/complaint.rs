//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;

use serde_json::{Value, json};

use crate::error::{Error, entry};

/// Complaints shown at most: the rest of a file that is none at all helps nobody.
const SHOWN_MAX: usize = 50;
/// Letters of a line shown at most, and of these in front of the place.
const LINE_MAX: usize = 100;
const LEAD_MAX: usize = 60;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Id in the catalogue of errors.
    pub id: &'static str,
    /// Bytes of the text it is about.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
}

impl Complaint {
    /// A complaint about `span`.
    pub fn new(id: &'static str, span: Option<Range<usize>>, message: impl Into<String>) -> Complaint {
        Complaint { id, span, message: message.into() }
    }
}

/// Everything that is wrong with one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaints {
    file: String,
    text: String,
    /// In the order of the file.
    pub list: Vec<Complaint>,
}

impl Complaints {
    /// About `text`, which is called `file`.
    pub fn new(file: &str, text: &str, mut list: Vec<Complaint>) -> Complaints {
        list.sort_by_key(|c| c.span.as_ref().map_or(0, |s| s.start));
        Complaints { file: file.to_owned(), text: text.to_owned(), list }
    }

    /// About a file that could not be read.
    pub fn of_file(file: &str, complaint: Complaint) -> Complaints {
        Complaints::new(file, "", vec![complaint])
    }

    /// Line and column of a byte, both from 1.
    pub(super) fn place(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    fn show(&self, complaint: &Complaint, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", complaint.id, plain(&complaint.message))?;
        match &complaint.span {
            None => write!(f, "\n  --> {}", plain(&self.file))?,
            Some(span) => self.show_place(span, f)?,
        }
        if let Some(entry) = entry(complaint.id) {
            write!(f, "\n   = cause: {}\n   = cure:  {}", entry.cause, entry.cure)?;
        }
        Ok(())
    }

    fn show_place(&self, span: &Range<usize>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.place(span.start);
        let source = self.text.lines().nth(line - 1).unwrap_or_default();
        let marked = self.text.get(span.clone()).unwrap_or_default().lines().next().unwrap_or_default();
        // Of a long line what is around the place. A tab is as wide as one letter here.
        let skipped = if column > LEAD_MAX { column - 1 - LEAD_MAX } else { 0 };
        let shown: String = source.chars().skip(skipped).take(LINE_MAX).collect();
        let (lead, room) = (column - 1 - skipped, shown.chars().count().saturating_sub(column - 1 - skipped));
        let carets = "^".repeat(marked.chars().count().min(room).max(1));
        write!(f, "\n  --> {}:{line}:{column}\n   |\n{line:>3}| {}", plain(&self.file), plain(&shown))?;
        write!(f, "\n   | {}{carets}", " ".repeat(lead))
    }

    /// The error a command ends with.
    pub fn to_error(&self) -> Error {
        let id = self.list.first().map_or("NKE-CFG-002", |c| c.id);
        let count = self.list.len();
        Error::new(id, format!("{}: {count} mistake{}", self.file, if count == 1 { "" } else { "s" }))
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        let mistake = |c: &Complaint| {
            let place = c.span.as_ref().map(|s| self.place(s.start));
            let entry = entry(c.id);
            json!({
                "id": c.id,
                "message": c.message,
                "file": self.file,
                "line": place.map(|p| p.0),
                "column": place.map(|p| p.1),
                "cause": entry.map(|e| e.cause),
                "cure": entry.map(|e| e.cure),
            })
        };
        json!({ "ok": self.list.is_empty(), "mistakes": self.list.iter().map(mistake).collect::<Vec<_>>() })
    }
}

/// Fit for a terminal: nothing in a file gets to move the cursor.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, complaint) in self.list.iter().take(SHOWN_MAX).enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.show(complaint, f)?;
        }
        match self.list.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more"),
        }
    }
}

impl std::error::Error for Complaints {}
