//! What a follower follows, and how much of it.

/// The table of routes that people and routing daemons set.
pub const MAIN_TABLE: u32 = 254;
/// The table in which the kernel keeps this host's own addresses.
pub const LOCAL_TABLE: u32 = 255;

/// What a follower follows, and how much of it. What is past a maximum is not known and not told, and counted.
#[derive(Clone, Debug)]
pub struct Config {
    /// Room for notifications not yet read, in bytes of kernel memory; each takes about a kilobyte of it.
    pub receive_buffer_bytes: usize,
    /// Routing tables whose routes are followed.
    pub tables: Vec<u32>,
    /// Links at most.
    pub links_max: usize,
    /// Addresses at most.
    pub addresses_max: usize,
    /// Routes of each family at most, those that are not the best of their prefix included.
    pub routes_max: usize,
    /// Neighbours at most.
    pub neighbors_max: usize,
    /// Datagrams read in one call at most; one holds up to 32 KiB of messages.
    pub datagrams_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            receive_buffer_bytes: 4 << 20,
            tables: vec![MAIN_TABLE, LOCAL_TABLE],
            links_max: 4096,
            addresses_max: 65_536,
            routes_max: 1 << 20,
            neighbors_max: 65_536,
            datagrams_max: 64,
        }
    }
}
