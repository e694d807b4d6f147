//! ICMP and ICMPv6: answers and errors.
