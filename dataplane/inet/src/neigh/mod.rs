//! Neighbours: ARP (RFC 826) and neighbour discovery (RFC 4861).
