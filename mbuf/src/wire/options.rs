//! The kind/length/value options shared by IPv4 (RFC 791 section 3.1) and TCP (RFC 9293 section 3.2).

use super::WireError;

/// One option that has a length byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Kind byte.
    pub kind: u8,
    /// Where the kind byte is, from the start of the option area (for rewriting in place).
    pub offset: usize,
    /// Bytes behind the length byte.
    pub data: &'a [u8],
}

impl Opt<'_> {
    /// End of the list; pads the area.
    pub const END: u8 = 0;
    /// Filler of one byte.
    pub const NOP: u8 = 1;
}

/// Walks an option area; padding is skipped.
///
/// The walk is bounded by the area (40 bytes at most in both protocols): each turn consumes a byte or ends.
/// A length below 2 or past the area yields [`WireError::Option`] once, and the walk is over.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    area: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    /// `area` is everything between the fixed header and the payload.
    pub const fn new(area: &'a [u8]) -> Self {
        Self { area, at: 0 }
    }

    /// The first option of this kind; an error in front of it wins.
    pub fn find(self, kind: u8) -> Result<Option<Opt<'a>>, WireError> {
        for option in self {
            let option = option?;
            if option.kind == kind {
                return Ok(Some(option));
            }
        }
        Ok(None)
    }

    /// Walks to the end: `Ok` if the whole area is well-formed.
    pub fn validate(self) -> Result<(), WireError> {
        for option in self {
            option?;
        }
        Ok(())
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Opt<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.area.get(self.at) == Some(&Opt::NOP) {
            self.at += 1;
        }
        let offset = self.at;
        let kind = *self.area.get(offset)?;
        if kind == Opt::END {
            self.at = self.area.len();
            return None;
        }
        let len = self.area.get(offset + 1).map_or(0, |len| usize::from(*len));
        let Some(whole) = self.area.get(offset..offset + len).filter(|whole| whole.len() >= 2) else {
            self.at = self.area.len();
            return Some(Err(WireError::Option));
        };
        self.at += len;
        Some(Ok(Opt { kind, offset, data: &whole[2..] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_a_syn_and_stops_at_end() {
        // MSS 1460, NOP, window scale 7, end; what is behind the end is not an option.
        let area = [2, 4, 0x05, 0xb4, 1, 3, 3, 7, 0, 99, 99, 99];
        let got: Vec<_> = Options::new(&area).map(Result::unwrap).collect();
        assert_eq!(got[0], Opt { kind: 2, offset: 0, data: &[0x05, 0xb4] });
        assert_eq!(got[1], Opt { kind: 3, offset: 5, data: &[7] });
        assert_eq!(got.len(), 2);
        assert_eq!(Options::new(&area).find(3).unwrap().unwrap().data, [7]);
        assert_eq!(Options::new(&area).find(8), Ok(None));
    }

    #[test]
    fn bad_lengths_are_one_error_then_the_end() {
        for area in [&[2, 0][..], &[2, 1, 0, 0], &[2, 5, 0, 0], &[2], &[1, 1, 2], &[2, 255, 0]] {
            let mut options = Options::new(area);
            assert_eq!(options.next(), Some(Err(WireError::Option)), "{area:?}");
            assert_eq!(options.next(), None);
        }
        assert_eq!(Options::new(&[]).validate(), Ok(()));
        assert_eq!(Options::new(&[1, 1, 1, 1]).validate(), Ok(()));
    }
}
