//! A set of IPv4 addresses, as it is written in the arguments: prefixes, ranges and single addresses, with commas.

use std::net::Ipv4Addr;

use crate::kind::CreateError;

/// Items of a set at most: a packet is compared with each.
const ITEMS_MAX: usize = 64;

/// Inclusive ranges, sorted, that do not overlap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ranges(Box<[(u32, u32)]>);

impl Ranges {
    /// Reads `10.0.0.0/8, 192.0.2.1, 192.0.2.8-192.0.2.15`; `name` is the argument's.
    pub(super) fn parse(name: &str, text: &str) -> Result<Ranges, CreateError> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let ranges = items.map(|item| range(item).ok_or(item)).collect::<Result<Vec<_>, _>>();
        let ranges = ranges.map_err(|item| {
            CreateError::new(
                format!("`{name}`: `{item}` is not a set of IPv4 addresses"),
                "write prefixes (10.0.0.0/8, no bits behind the length), ranges (192.0.2.8-192.0.2.15) or addresses",
            )
        })?;
        if ranges.is_empty() || ranges.len() > ITEMS_MAX {
            return Err(CreateError::new(
                format!("`{name}` has {} items", ranges.len()),
                format!("give 1 to {ITEMS_MAX}, with commas"),
            ));
        }
        Ranges::of(ranges).map_err(|twice| {
            CreateError::new(format!("`{name}` has {twice} twice"), "remove one of the two items")
        })
    }

    /// The set of these ranges; an address that is in two of them is an error.
    pub(super) fn of(mut ranges: Vec<(u32, u32)>) -> Result<Ranges, Ipv4Addr> {
        ranges.sort_unstable();
        match ranges.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
            Some(pair) => Err(Ipv4Addr::from_bits(pair[1].0)),
            None => Ok(Ranges(ranges.into())),
        }
    }

    /// Both sets as one; addresses may be in both.
    pub(super) fn with(&self, others: impl IntoIterator<Item = u32>) -> Ranges {
        let mut all = self.0.to_vec();
        for addr in others {
            if !all.iter().any(|(first, last)| (*first..=*last).contains(&addr)) {
                all.push((addr, addr));
            }
        }
        all.sort_unstable();
        Ranges(all.into())
    }

    #[inline(always)]
    pub(super) fn contains(&self, addr: u32) -> bool {
        self.0.iter().any(|(first, last)| *first <= addr && addr <= *last)
    }

    /// An address that is in both sets.
    pub(super) fn shared(&self, other: &Ranges) -> Option<Ipv4Addr> {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        pairs.into_iter().find(|(first, last)| first <= last).map(|(first, _)| Ipv4Addr::from_bits(first))
    }

    /// Number of addresses.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// The address with number `index`, which is below [`Ranges::len`].
    pub(super) fn get(&self, mut index: u32) -> u32 {
        for (first, last) in &self.0 {
            match index.checked_sub(last - first + 1) {
                Some(rest) => index = rest,
                None => return first + index,
            }
        }
        0
    }
}

fn range(item: &str) -> Option<(u32, u32)> {
    let addr = |text: &str| text.trim().parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits);
    if let Some((first, len)) = item.split_once('/') {
        let (first, len) = (addr(first)?, len.trim().parse::<u32>().ok().filter(|len| *len <= 32)?);
        let host = u32::MAX.checked_shr(len).unwrap_or(0);
        return (first & host == 0).then_some((first, first | host));
    }
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last) = (addr(first)?, addr(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_counted() {
        let set = Ranges::parse("x", "192.0.2.8-192.0.2.11, 10.0.0.0/30,198.51.100.7").unwrap();
        assert_eq!(set.len(), 9);
        let all: Vec<u32> = (0..9).map(|i| set.get(i)).collect();
        assert!(all.windows(2).all(|w| w[0] < w[1]) && all.iter().all(|a| set.contains(*a)));
        assert!(!set.contains(0xc000_020c) && !set.contains(0xc000_0207));
        assert_eq!(Ranges::parse("x", "0.0.0.0/0").unwrap().len(), 1 << 32);
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, cause) in [
            ("10.0.0.1/8", "is not a set"),
            ("10.0.0.0/33", "is not a set"),
            ("ten", "is not a set"),
            ("10.0.0.9-10.0.0.1", "is not a set"),
            ("", "0 items"),
            ("10.0.0.0/8, 10.1.0.0/16", "has 10.1.0.0 twice"),
        ] {
            let error = Ranges::parse("inside", text).unwrap_err();
            assert!(error.cause.contains(cause) && error.cause.contains("inside"), "{text}: {error}");
        }
    }
}
