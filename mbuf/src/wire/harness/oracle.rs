//! The same facts by the slowest means: a second reading of the RFCs that shares no code with the views.

/// Sum by the definition in RFC 1071: big-endian words, one at a time, every carry brought round at once.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |byte| u32::from(*byte));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

/// What a frame turned out to hold.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) malformed: bool,
    pub(super) tags: usize,
    pub(super) ethertype: u16,
    pub(super) protocol: Option<u8>,
    pub(super) l4_offset: usize,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) later_fragment: bool,
}

pub(super) fn read(frame: &[u8]) -> Reading {
    let mut reading = Reading::default();
    // None anywhere means that the bytes or the rules gave out.
    reading.malformed = reading.frame(frame).is_none();
    reading
}

fn byte(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at).map(|byte| usize::from(*byte))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(byte(bytes, at)? * 256 + byte(bytes, at + 1)?)
}

fn hold(condition: bool) -> Option<()> {
    condition.then_some(())
}

impl Reading {
    fn frame(&mut self, frame: &[u8]) -> Option<()> {
        let mut ethertype = word(frame, 12)?;
        let mut at = 14;
        while ethertype == 0x8100 || ethertype == 0x88a8 {
            hold(self.tags < 2)?;
            ethertype = word(frame, at + 2)?;
            self.tags += 1;
            at += 4;
        }
        self.ethertype = ethertype as u16;
        match ethertype {
            0x0800 => self.ipv4(frame, at),
            0x86dd => self.ipv6(frame, at),
            0x0806 => {
                byte(frame, at + 5)?;
                let plain = frame[at..at + 6] == [0, 1, 8, 0, 6, 4];
                hold(!plain || frame.len() >= at + 28)
            }
            _ => Some(()),
        }
    }

    fn ipv4(&mut self, frame: &[u8], at: usize) -> Option<()> {
        byte(frame, at + 19)?;
        let first = byte(frame, at)?;
        let (header, total) = (first % 16 * 4, word(frame, at + 2)?);
        hold(first / 16 == 4 && header >= 20 && total >= header && at + total <= frame.len())?;
        let fragment = word(frame, at + 6)?;
        self.later_fragment = fragment % 8192 != 0;
        let first_of_many = !self.later_fragment && fragment / 8192 % 2 == 1;
        self.upper(frame, at + header, at + total, byte(frame, at + 9)?, 1, first_of_many)
    }

    fn ipv6(&mut self, frame: &[u8], at: usize) -> Option<()> {
        byte(frame, at + 39)?;
        let end = at + 40 + word(frame, at + 4)?;
        hold(byte(frame, at)? / 16 == 6 && end <= frame.len())?;
        let frame = &frame[..end];
        let start = at + 40;
        let (mut next, mut here, mut seen) = (byte(frame, at + 6)?, start, Vec::new());
        let mut first_of_many = false;
        while [0, 43, 44, 51, 60].contains(&next) && !self.later_fragment {
            hold(seen.len() < super::EXT_HEADERS_MAX)?;
            hold(next != 0 || seen.is_empty())?;
            hold(next != 44 || !seen.contains(&44))?;
            let len = match next {
                44 => 8,
                51 => byte(frame, here + 1)? * 4 + 8,
                _ => byte(frame, here + 1)? * 8 + 8,
            };
            byte(frame, here + len - 1)?;
            if next == 44 {
                let fragment = word(frame, here + 2)?;
                self.later_fragment = fragment / 8 != 0;
                first_of_many = !self.later_fragment && fragment % 2 == 1;
            }
            hold(here + len - start <= super::EXT_BYTES_MAX).or_else(|| {
                self.later_fragment = false; // the finding comes first, the fragment is not reported
                None
            })?;
            seen.push(next);
            next = byte(frame, here)?;
            here += len;
        }
        self.upper(frame, here, end, next, 58, first_of_many)
    }

    fn upper(
        &mut self,
        frame: &[u8],
        at: usize,
        end: usize,
        protocol: usize,
        icmp: usize,
        cut: bool,
    ) -> Option<()> {
        self.protocol = Some(protocol as u8);
        if self.later_fragment {
            return Some(());
        }
        self.l4_offset = at;
        let l4 = &frame[at..end];
        let ports = || Some((word(l4, 0)? as u16, word(l4, 2)? as u16));
        match protocol {
            6 => {
                byte(l4, 19)?;
                let header = byte(l4, 12)? / 16 * 4;
                hold(header >= 20 && header <= l4.len())?;
                self.ports = ports();
            }
            17 => {
                byte(l4, 7)?;
                let len = word(l4, 4)?;
                hold(len >= 8 && (cut || len <= l4.len()))?;
                self.ports = ports();
            }
            _ if protocol == icmp => hold(l4.len() >= 8)?,
            _ => {}
        }
        Some(())
    }
}
