//! Reassembly (RFC 815, RFC 5722).
