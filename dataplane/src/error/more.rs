//! What `nke explain` says beyond the entry: for errors that take more than a line to be understood.

/// The longer text for `id`, lines ready to be printed.
pub fn more(id: &str) -> Option<&'static str> {
    MORE.iter().find(|(known, _)| known.eq_ignore_ascii_case(id)).map(|(_, text)| *text)
}

const MORE: &[(&str, &str)] = &[
    (
        "NKE-CFG-002",
        "\
Keys and sections that NKE does not know are mistakes, not remarks: a key with a letter wrong would otherwise be a
setting that silently does nothing. Sections that may be there several times are written [[port]], [[wire]] and
[[filter]]; those that are there once [runtime] and [pool]. `nke config show FILE` prints a file with every default
filled in.",
    ),
    (
        "NKE-CFG-006",
        "\
Both ends of a wire have the same number of queues, because what comes in by queue 3 goes out by queue 3, on the
worker that owns both: no lock, no reordering. Keys of one kind of port (`device` of af_xdp, `role` of memory, `read`
of pcap) mean nothing to another kind.",
    ),
    (
        "NKE-PRIV-001",
        "\
CAP_NET_ADMIN attaches the XDP program, CAP_BPF loads it, CAP_NET_RAW makes AF_XDP sockets, and CAP_IPC_LOCK (or a
high `ulimit -l`) lets the packet memory be locked. CAP_SYS_ADMIN is needed only to enter another network namespace.
With systemd: AmbientCapabilities=, as in deploy/nke.service. `nke doctor` names those that are missing;
`nke demo` needs none of them.",
    ),
    (
        "NKE-DEV-002",
        "\
A device that NKE takes is lost to the kernel: everything that comes in by it goes to NKE, and an SSH session over it
ends at that moment. Select only the traffic meant for NKE with `match = [{ ... }]`: then the rest goes on to the
kernel, and the device is not guarded; nor is it with host = \"kernel\" in [router], where only what the kernel would
forward is taken. With force = true in the [[port]] section it is taken all the same; have another way into the
machine.",
    ),
    (
        "NKE-CTL-BUSY",
        "\
At the start NKE connects to the socket that is there already. If nobody answers because the process is dead, the
socket is replaced; if a process is there, even one that is stopped (SIGSTOP), it is not. `ss -xlp` shows who it is.",
    ),
    (
        "NKE-CTL-DENIED",
        "\
The kernel tells the dataplane who is at the other end of the socket. Root and the user the dataplane runs as may do
everything; members of the group it runs as, also by a supplementary group, may only look. To let operators look, run
the dataplane with a group of its own (Group= in the unit file) and add them to it.",
    ),
    (
        "NKE-CTL-NO-SOCKET",
        "\
NKE replaces a socket that a dead process left behind, and nothing else: a path with a letter wrong must not cost a
file. A symbolic link is not followed.",
    ),
    (
        "NKE-CTL-NOT-RUNNING",
        "\
Either no process listens on the socket, or it is at another path: `socket` in the [runtime] section says where, and
--socket tells the command. A dataplane that was killed leaves its socket behind, on which nobody answers.",
    ),
    (
        "NKE-CTL-FULL",
        "\
64 clients are served at a time. Eight of these places are kept for root and the user NKE runs as. Clients that have
been silent for some seconds make room for others.",
    ),
    (
        "NKE-EXT-005",
        "\
Nothing of an extension is taken away while something uses it. The message lists each holder with its kind, name and
age; `nke show ledger` shows the same with the place in the code where it was taken.",
    ),
    (
        "NKE-RT-001",
        "\
A frame is somewhere at every moment: in a fill or receive ring, in a transmit or completion ring, in a worker's cache
(up to 512), or in a filter's hands. The pool must have enough for all of these to be full at once; otherwise one
busy port could starve another. Halving rx_ring and tx_ring halves the need.",
    ),
    (
        "NKE-RT-004",
        "\
A change is complete when no worker can still be in the old chain: each worker says so after every burst. A worker that
does not is in a filter that does not return, or was stopped (a debugger, SIGSTOP, a core taken by something else).
`nke show workers` names the worker and the filter. The change goes on; it is complete when the worker comes back.",
    ),
    (
        "AFXDP-ATTACH-BUSY",
        "\
A device has one place for an XDP program in the driver and one in the kernel's generic path. `nke doctor DEVICE` names
the program that is there, and who holds it if that can be known. A program without a holder was attached by `ip link`
and stays until it is taken off: ip link set dev DEVICE xdp off.",
    ),
    (
        "AFXDP-ATTACH-MTU",
        "\
In native mode a packet has to fit one frame behind 256 bytes of headroom, so frames of 2048 bytes take an MTU up to
1778 and frames of 4096 bytes up to 3826. Beyond that packets take several frames, which jumbo = true allows where the
driver can.",
    ),
    (
        "AFXDP-BIND-BUSY",
        "\
One AF_XDP socket can have a queue. After a process that held it was killed the kernel needs some tens of milliseconds
to give the queue back; NKE tries again for that long before it says this.",
    ),
    (
        "AFXDP-UMEM-REGISTER",
        "\
The memory of the packets is locked: it must not be paged out while the kernel or a device writes to it. The limit is
that of the process (ulimit -l), 8 MiB on many systems, and a pool of 16384 frames of 2048 bytes has 32 MiB.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::entry;

    #[test]
    fn longer_texts_belong_to_entries() {
        for (id, text) in MORE {
            assert!(entry(id).is_some_and(|e| e.id == *id), "{id}");
            assert!(text.lines().all(|l| l.len() <= 120), "{id}");
        }
        assert!(more("nke-ctl-busy").is_some() && more("NKE-CFG-001").is_none());
    }
}
