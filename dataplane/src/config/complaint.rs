//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;

use crate::error::Error;

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
    fn place(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    fn show(&self, complaint: &Complaint, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", complaint.id, complaint.message)?;
        let Some(span) = &complaint.span else { return write!(f, "\n  --> {}", self.file) };
        let (line, column) = self.place(span.start);
        let source = self.text.lines().nth(line - 1).unwrap_or_default();
        let width = self
            .text
            .get(span.clone())
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        write!(f, "\n  --> {}:{line}:{column}\n   |\n{line:>3}| {source}", self.file)?;
        write!(f, "\n   | {}{}", " ".repeat(column - 1), "^".repeat(width.max(1)))
    }

    /// The error a command ends with.
    pub fn to_error(&self) -> Error {
        let id = self.list.first().map_or("NKE-CFG-002", |c| c.id);
        let count = self.list.len();
        Error::new(id, format!("{}: {count} mistake{}", self.file, if count == 1 { "" } else { "s" }))
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, complaint) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.show(complaint, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}
