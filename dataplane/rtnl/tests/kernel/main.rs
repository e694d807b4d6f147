//! The follower against the kernel of this machine, in network namespaces of its own. Needs root.

mod bounds;
mod lab;
mod routes;
mod seen;
mod things;
