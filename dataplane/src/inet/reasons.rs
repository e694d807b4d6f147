//! Under which of the dataplane's counters the internet layer's reasons stand.

use nke_filters::DropReason;
use nke_inet::fragment::FragError;
use nke_inet::reass;

use crate::drop::*;

/// Why a fragment was dropped as it came.
pub(super) fn of_fragment(reason: reass::DropReason) -> DropReason {
    use reass::DropReason as Reason;
    match reason {
        Reason::BadHeader | Reason::BadLength | Reason::TooLong | Reason::IncompleteChain | Reason::Ecn => {
            FRAG_BAD
        }
        Reason::Overlap | Reason::BadEnd => FRAG_OVERLAP,
        Reason::Duplicate => FRAG_DUPLICATE,
        Reason::Dead => FRAG_DEAD,
        Reason::TooManyFragments => FRAG_TOO_MANY,
        Reason::Memory | Reason::PerSource => FRAG_MEMORY,
    }
}

/// Why a packet could not be cut into fragments.
pub(super) fn of_fragmenting(error: FragError) -> DropReason {
    match error {
        FragError::NeedFrag(_) | FragError::MtuTooSmall | FragError::HeadersTooLong => TOO_BIG,
        FragError::Malformed | FragError::IsFragment => IP_BAD_HEADER,
        FragError::ChecksumPending => CHECKSUM_PENDING,
        FragError::NoFrame => NO_ROOM,
    }
}
