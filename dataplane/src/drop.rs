//! Every reason a packet is dropped for, the dataplane's own and those extensions add.

use std::sync::{PoisonError, RwLock};

use nke_filters::{DropClass, DropReason, HostError, REASONS_MAX};

macro_rules! reasons {
    ($($(#[$doc:meta])* $constant:ident = $index:literal, $name:literal, $class:ident;)*) => {
        $($(#[$doc])* pub const $constant: DropReason = DropReason::from_index($index);)*
        const CORE: &[(DropReason, &str, DropClass)] = &[$(($constant, $name, DropClass::$class)),*];
    };
}

reasons! {
    /// Nothing is plumbed or wired to the interface the packet came in by.
    NO_PROTOCOL = 0, "no_protocol", Packet;
    /// The transmit ring or queue had no room.
    TX_FULL = 1, "tx_full", Resource;
    /// The device is gone or down.
    IF_DOWN = 2, "if_down", Resource;
    /// A filter panicked, and its attachment says to drop what it was shown.
    FILTER_PANIC = 3, "filter_panic", Policy;
    /// Longer than the port can send.
    TOO_LONG = 4, "too_long", Packet;
    /// The device refused the descriptor: empty, or outside its frame.
    TX_INVALID = 5, "tx_invalid", Packet;
    /// A packet in several frames came in with frames missing, or of more frames than a chain takes.
    RX_CHAIN = 6, "rx_chain", Packet;
}

/// Names and classes of all reasons. Reasons are never removed, so that a counter keeps its meaning.
pub struct Reasons(RwLock<Vec<(String, DropClass)>>);

impl Default for Reasons {
    fn default() -> Self {
        debug_assert!(CORE.iter().enumerate().all(|(i, (reason, ..))| reason.index() == i));
        Reasons(RwLock::new(CORE.iter().map(|(_, name, class)| ((*name).to_owned(), *class)).collect()))
    }
}

impl Reasons {
    /// The reason called `name`, made now if need be.
    pub fn find_or_add(&self, name: &str, class: DropClass) -> Result<DropReason, HostError> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = table.iter().position(|(known, _)| known == name) {
            return Ok(DropReason::from_index(i as u8));
        }
        if table.len() == REASONS_MAX {
            return Err(HostError::Full("drop reasons", REASONS_MAX));
        }
        table.push((name.to_owned(), class));
        Ok(DropReason::from_index((table.len() - 1) as u8))
    }

    /// All reasons in the order of their index.
    pub fn all(&self) -> Vec<(String, DropClass)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
