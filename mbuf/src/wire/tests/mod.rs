//! Tests that need more than one view. Those of a single header stand in its file.

mod build;
mod corpus;
mod headers;
mod layers;
mod properties;
