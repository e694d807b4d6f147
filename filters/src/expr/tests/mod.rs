//! Tests of the language as a whole.

mod examples;
mod oracle;
mod properties;
