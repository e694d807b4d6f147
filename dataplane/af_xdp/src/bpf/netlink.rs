//! Which XDP program is on a device. Links tell it only to who holds them; rtnetlink tells it to everyone.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};

const HEADER: usize = 16;
const IFINFO: usize = 16;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
/// Flags that mark a nested attribute or its byte order are not part of its number.
const TYPE_MASK: u16 = 0x3fff;

/// Number of the XDP program on device number `ifindex` of this thread's network namespace, if there is one.
pub(crate) fn xdp_on(ifindex: u32) -> io::Result<Option<u32>> {
    // SAFETY: no memory is passed.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let mut socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    socket.write_all(&question(ifindex))?;
    // The kernel answers in the write. The answer for one device, without its virtual functions, is about 2 KiB.
    let mut answer = vec![0u8; 64 * 1024];
    let len = socket.read(&mut answer)?;
    answered(&answer[..len])
}

/// RTM_GETLINK for one device: a message header, then `struct ifinfomsg`.
fn question(ifindex: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + IFINFO);
    message.extend(((HEADER + IFINFO) as u32).to_ne_bytes());
    message.extend(libc::RTM_GETLINK.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend([0; 8]); // sequence, sender
    message.extend([0; 4]); // family, padding, kind of hardware
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]); // flags
    message
}

fn answered(message: &[u8]) -> io::Result<Option<u32>> {
    let short = || io::Error::other("a short answer of rtnetlink");
    let kind = message.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]])).ok_or_else(short)?;
    if kind == libc::NLMSG_ERROR as u16 {
        let error = message.get(HEADER..).and_then(number).ok_or_else(short)?;
        return Err(io::Error::from_raw_os_error((error as i32).wrapping_neg()));
    }
    let attributes = message.get(HEADER + IFINFO..).ok_or_else(short)?;
    let Some((_, xdp)) = Attributes(attributes).find(|(kind, _)| *kind == IFLA_XDP) else { return Ok(None) };
    // With programs in several modes at once there is no PROG_ID, only one for each mode.
    let ids = [IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID];
    Ok(Attributes(xdp).filter(|(kind, _)| ids.contains(kind)).find_map(|(_, value)| number(value)))
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// Number and value of each attribute; ends at the first that does not fit.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.first_chunk::<4>()?;
        let (len, kind) = (u16::from_ne_bytes([head[0], head[1]]), u16::from_ne_bytes([head[2], head[3]]));
        let value = self.0.get(4..usize::from(len))?;
        let next = usize::from(len).next_multiple_of(4).min(self.0.len());
        self.0 = &self.0[next..];
        Some((kind & TYPE_MASK, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(attributes: &[u8]) -> Vec<u8> {
        let mut message = question(1);
        message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        message.extend(attributes);
        message
    }

    #[test]
    fn the_program_is_found_among_the_attributes() {
        let name = attribute(3, b"a0\0");
        assert_eq!(answered(&answer(&name)).unwrap(), None);
        let none = attribute(IFLA_XDP, &attribute(2, &[0]));
        assert_eq!(answered(&answer(&[name.clone(), none].concat())).unwrap(), None);
        let ids = [attribute(2, &[1]), attribute(IFLA_XDP_PROG_ID, &77u32.to_ne_bytes())].concat();
        let xdp = attribute(IFLA_XDP | 0x8000, &ids);
        assert_eq!(answered(&answer(&[name, xdp.clone()].concat())).unwrap(), Some(77));
        for cut in 0..xdp.len() {
            assert_eq!(answered(&answer(&xdp[..cut])).unwrap(), None, "cut at {cut}");
        }
        assert!(answered(&[0; 20]).is_err());
    }
}
