//! Fragmentation (RFC 791, RFC 8200 section 4.5).
