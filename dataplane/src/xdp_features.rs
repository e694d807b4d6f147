//! What a driver says it can do for XDP: the kernel's `netdev` family of generic netlink (Linux 6.3).
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};

use crate::netdev;

/// `linux/netdev.h`: enum netdev_xdp_act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Features(u64);

impl Features {
    pub(crate) const BASIC: Features = Features(1);
    pub(crate) const REDIRECT: Features = Features(2);
    /// Sends what programs redirect to it.
    pub(crate) const NDO_XMIT: Features = Features(4);
    const ZEROCOPY: Features = Features(8);
    const RX_SG: Features = Features(32);

    pub(crate) fn has(self, feature: Features) -> bool {
        self.0 & feature.0 != 0
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.has(Features::BASIC) {
            return f.write_str("generic mode only");
        }
        f.write_str("native mode")?;
        f.write_str(if self.has(Features::ZEROCOPY) { ", zero-copy" } else { ", no zero-copy" })?;
        f.write_str(if self.has(Features::RX_SG) { ", packets in several frames" } else { "" })
    }
}

/// `linux/genetlink.h`: the family that knows the others.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `linux/netdev.h`.
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `linux/netlink.h`.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// struct nlmsghdr and struct genlmsghdr.
const HEADER_LEN: usize = 16 + 4;

/// Asks about `device` in the calling thread's namespace.
pub(crate) fn of(device: &str) -> io::Result<Features> {
    let (ifindex, _) = netdev::state(device).ok_or(ErrorKind::NotFound)?;
    // SAFETY: no memory is passed; the result is checked and owned.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_GENERIC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let mut kernel = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let attributes =
        ask(&mut kernel, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, (CTRL_ATTR_FAMILY_NAME, b"netdev\0"))?;
    let family = find(&attributes, CTRL_ATTR_FAMILY_ID).and_then(|v| v.first_chunk().copied());
    let family = u16::from_ne_bytes(family.ok_or(ErrorKind::InvalidData)?);
    let ask_for = (NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes()[..]);
    let attributes = ask(&mut kernel, family, NETDEV_CMD_DEV_GET, ask_for)?;
    let features = find(&attributes, NETDEV_A_DEV_XDP_FEATURES).and_then(|v| v.first_chunk().copied());
    Ok(Features(u64::from_ne_bytes(features.ok_or(ErrorKind::InvalidData)?)))
}

/// A request with one attribute; the attributes of the answer.
fn ask(kernel: &mut File, family: u16, command: u8, (kind, value): (u16, &[u8])) -> io::Result<Vec<u8>> {
    let padded = value.len().next_multiple_of(4);
    let mut message = Vec::new();
    message.extend(((HEADER_LEN + 4 + padded) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Number and sender: one request is under way, and the kernel fills in the other.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(((4 + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(HEADER_LEN + 4 + padded, 0);
    kernel.write_all(&message)?;
    let mut reply = vec![0; 8192];
    let len = kernel.read(&mut reply)?;
    reply.truncate(len);
    parse(&reply).map(<[u8]>::to_vec)
}

/// The attributes of a message, or the error it is.
fn parse(reply: &[u8]) -> io::Result<&[u8]> {
    let bad = || io::Error::from(ErrorKind::InvalidData);
    let len = u32::from_ne_bytes(*reply.first_chunk().ok_or_else(bad)?) as usize;
    let kind = u16::from_ne_bytes(reply.get(4..6).and_then(|b| b.first_chunk().copied()).ok_or_else(bad)?);
    if kind == NLMSG_ERROR {
        let code = reply.get(16..20).and_then(|b| b.first_chunk().copied()).ok_or_else(bad)?;
        return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code).saturating_neg()));
    }
    reply.get(HEADER_LEN..len).ok_or_else(bad)
}

/// The value of an attribute.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(head) = attributes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let value = attributes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_cut_ones_are_not() {
        let mut attributes = Vec::new();
        for (kind, value) in [(1u16, &[7u8, 0, 0, 0][..]), (2, &[9]), (3, &[1, 2, 3, 4, 5, 6, 7, 8])] {
            attributes.extend(((4 + value.len()) as u16).to_ne_bytes());
            attributes.extend(kind.to_ne_bytes());
            attributes.extend(value);
            attributes.resize(attributes.len().next_multiple_of(4), 0);
        }
        assert_eq!(find(&attributes, 3), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert_eq!((find(&attributes, 2), find(&attributes, 4)), (Some(&[9][..]), None));
        for len in 0..attributes.len() {
            assert!(find(&attributes[..len], 3).is_none());
        }
        // A length below its own header gets nowhere, and ends.
        assert_eq!(find(&[0, 0, 1, 0, 0, 0], 2), None);
        assert!(parse(&[]).is_err() && parse(&[20, 0, 0, 0, 2, 0]).is_err());
    }

    #[test]
    fn the_kernel_is_asked() {
        // A kernel before 6.3 has no such family, and a device that is none has no features.
        match of("lo") {
            Ok(features) => assert!(!features.has(Features::ZEROCOPY)),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOENT), "{e}"),
        }
        assert_eq!(of("nowhere0").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
