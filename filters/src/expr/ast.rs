//! The tree between text and program.

use super::primitive::Primitive;
use core::fmt;

/// One node. Runs of `and` and of `or` are lists, so that a long run is not a deep tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ast {
    Test(Primitive),
    Not(Box<Ast>),
    /// At least two.
    All(Vec<Ast>),
    /// At least two.
    Any(Vec<Ast>),
}

impl fmt::Display for Ast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test(primitive) => primitive.fmt(f),
            Self::Not(inner) => {
                f.write_str("not ")?;
                inner.fmt_operand(f)
            }
            Self::All(parts) => fmt_run(parts, " and ", f),
            Self::Any(parts) => fmt_run(parts, " or ", f),
        }
    }
}

impl Ast {
    fn fmt_operand(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(_) | Self::Any(_) => write!(f, "({self})"),
            Self::Test(_) | Self::Not(_) => write!(f, "{self}"),
        }
    }
}

fn fmt_run(parts: &[Ast], operator: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        part.fmt_operand(f)?;
    }
    Ok(())
}
