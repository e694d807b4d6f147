//! What is left to say after a filter is gone.

use nke_filters::AttachId;
use serde::Serialize;

/// What an instance counted, by its own account: name and value.
pub type Figures = std::collections::BTreeMap<&'static str, u64>;

/// About one instance that was detached.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DetachReport {
    /// Its number.
    #[serde(serialize_with = "number")]
    pub id: AttachId,
    /// Its kind.
    pub kind: String,
    /// Where it was attached.
    pub interface: String,
    /// Packets it was shown.
    pub packets: u64,
    /// Of these, dropped by it.
    pub dropped: u64,
    /// Of these, taken by it.
    pub consumed: u64,
    /// Calls that panicked.
    pub panics: u64,
    /// From the new chain to the moment no worker could be in the old one, in microseconds.
    pub grace_us: u64,
    /// From the request to after `detached`, in microseconds.
    pub total_us: u64,
    /// Packets its extension still holds.
    pub mbufs_held: usize,
    /// Packets the whole dataplane dropped for other reasons than policy between request and end.
    pub lost_meanwhile: u64,
    /// What it counted itself, after its last call.
    pub figures: Figures,
}

fn number<S: serde::Serializer>(id: &AttachId, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u32(id.0)
}

/// About an extension that was unloaded.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct UnloadReport {
    /// Its name.
    pub name: String,
    /// Instances detached by the unload.
    pub filters_detached: usize,
    /// Packets it held when the unload began, which came back.
    pub mbufs_returned: usize,
    /// Entries left on the ledger: 0, or it would not have been unloaded.
    pub leaked: usize,
    /// Whether code left the process. Kinds built into the binary stay mapped.
    pub code_unmapped: bool,
    /// Packets the whole dataplane dropped for other reasons than policy during the unload.
    pub packets_lost: u64,
    /// From the request to the end, in microseconds.
    pub total_us: u64,
}
