//! `acl`: permits and denies packets by a list of rules, first match wins.

pub mod classify;
pub mod list;
