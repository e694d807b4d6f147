//! The kernel's addresses, routes and neighbours, mirrored by rtnetlink (RFC 3549).
