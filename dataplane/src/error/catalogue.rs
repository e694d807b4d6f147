//! All errors there are. Ids are never reused, and never change their meaning.

/// Exit codes of commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it; the numbers are the contract")]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Config = 3,
    Privilege = 4,
    Device = 5,
    Busy = 6,
    NotRunning = 7,
}

/// One kind of error.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Stable identifier.
    pub id: &'static str,
    /// Exit code of a command that ends with it.
    pub exit: Exit,
    /// What it means.
    pub title: &'static str,
    /// The usual cause.
    pub cause: &'static str,
    /// The usual cure.
    pub cure: &'static str,
}

/// The entry of `id`.
pub fn entry(id: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|e| e.id.eq_ignore_ascii_case(id))
}

macro_rules! catalogue {
    ($($id:literal $exit:ident $title:literal, $cause:literal, $cure:literal;)*) => {
        /// Every entry, in groups.
        pub const CATALOGUE: &[Entry] = &[
            $(Entry { id: $id, exit: Exit::$exit, title: $title, cause: $cause, cure: $cure }),*
        ];
    };
}

catalogue! {
    "NKE-CFG-001" Config "the configuration file cannot be read", "it does not exist, or may not be read", "check the path given with -c";
    "NKE-CFG-002" Config "the configuration is not valid TOML, or has a key or type NKE does not know", "a typing mistake at the place named", "compare with deploy/nke.toml, where every key is explained";
    "NKE-CFG-003" Config "a value is out of its bounds", "the bounds are in the message", "choose a value inside";
    "NKE-CFG-004" Config "a name is used that nothing has", "a port or filter is misspelt, or its section is missing", "name one of those in the message";
    "NKE-CFG-005" Config "a name or port is used twice", "two sections claim the same thing", "rename or remove one of them";
    "NKE-CFG-006" Config "settings do not fit together", "the message names both", "change one of them";
    "NKE-CFG-007" Config "a key is missing", "each section, and each kind of port, has keys it cannot do without", "add the key named";
    "NKE-CFG-008" Busy "a setting cannot be changed while NKE runs", "workers, memory, ports, wires and the sizes of [router] are fixed at the start", "restart with the new file, or leave these settings as they are";
    "NKE-CFG-009" Failed "a configuration was applied in part", "the message names the step that failed and what was done before it", "mend the file and apply it again: what is done already is left alone";
    "NKE-PRIV-001" Privilege "a privilege is missing", "AF_XDP needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, and CAP_IPC_LOCK for a large pool", "run as root, or grant the capabilities";
    "NKE-DEV-001" Device "a device cannot be used", "it does not exist in this network namespace, or refuses a setting", "see `ip link`, and `nke doctor DEVICE`";
    "NKE-DEV-002" Device "a device is guarded", "the default route or this SSH session goes through it: taking it would cut the machine off", "use another device, select the traffic with `match`, leave the host to the kernel with host = \"kernel\" in [router], or set force = true";
    "NKE-DEV-003" Device "a network namespace cannot be entered", "there is none of that name under /run/netns", "see `ip netns list`";
    "NKE-CTL-BUSY" Busy "another NKE answers on the control socket", "a dataplane is running with the same socket", "end it, or give this one another `socket`";
    "NKE-CTL-DENIED" Privilege "the control socket refused the request", "changes are for root and the user NKE runs as; reading is also for its group", "run the command as one of them";
    "NKE-CTL-FULL" Busy "too many clients are connected to the control socket", "64 at a time are served", "close some, and try again";
    "NKE-CTL-NOT-RUNNING" NotRunning "no dataplane answers", "NKE is not running, or uses another socket", "start it: nke run -c FILE; or name its socket with --socket";
    "NKE-CTL-BAD-REQUEST" Failed "the control socket got a request it does not understand", "client and dataplane are of different versions, or the client is not `nke`", "use the `nke` of the same version";
    "NKE-CTL-TIMEOUT" Failed "the control socket did not answer in time", "the dataplane is stopped (SIGSTOP), or the machine overloaded", "look at it with `ps`, and try again";
    "NKE-CTL-NO-SOCKET" Failed "something else is in the place of the control socket", "`socket` names a file or directory that NKE did not make, and which it leaves alone", "give another `socket`, or remove what is there";
    "NKE-CTL-TOO-LONG" Failed "a message for the control socket is too long", "requests have at most 64 KiB, answers 4 MiB", "ask for less at a time";
    "NKE-CTL-PANIC" Failed "the dataplane made a mistake carrying out a request", "a defect in NKE; what the request had done by then stays done", "look at its standard error, and report what it says there";
    "NKE-CTL-SYSTEM" Failed "the control socket cannot be used", "its directory cannot be made or written", "give another `socket`";
    "NKE-PCAP-001" Failed "a capture file cannot be read", "it does not exist, or may not be read", "check the file's path and mode";
    "NKE-PCAP-002" Failed "a file is not a capture", "neither pcap nor pcapng", "convert it: editcap -F pcapng FROM TO";
    "NKE-PCAP-003" Failed "a capture is not of Ethernet frames", "it was made on a tunnel, or with `-i any`", "capture on an Ethernet device";
    "NKE-PCAP-004" Failed "a record of a capture file cannot be used", "it is cut off, damaged or too long: the message says where", "keep the records before it: tcpdump -r FROM -c N -w TO";
    "NKE-EXT-001" Failed "no filter kind of this name", "it is misspelt, or not registered", "built-in kinds are count, drop and mirror";
    "NKE-EXT-002" Failed "no filter is attached under this number", "it was detached already, or never attached", "see `nke show filters`";
    "NKE-EXT-003" Failed "a filter kind refused its arguments", "the message says which", "the cure is in the message";
    "NKE-EXT-004" Failed "a filter kind panicked while making an instance", "a mistake in the filter", "report it to the filter's author";
    "NKE-EXT-005" Busy "an extension is still in use", "it holds what the message lists", "end what holds it, and try again";
    "NKE-EXT-006" Busy "a filter kind of this name is registered already", "two extensions use one name", "unregister the other first";
    "NKE-EXT-007" Failed "no interface of this name", "it is misspelt", "see `nke show interfaces`";
    "NKE-EXT-008" Busy "too many filters are attached", "1024 at a time", "detach some";
    "NKE-EXT-009" Failed "a filter cannot be attached there", "interface filters go to interfaces, IP filters to `ip` or `ip6`, probes to `path`", "name another place";
    "NKE-IF-001" Busy "an interface, protocol, plumber or address is there already", "another one has this name or number", "use another one, or take that away first";
    "NKE-IF-002" Busy "too many interfaces, protocols, plumbers, addresses or groups", "the message says of what, and how many there may be", "take some away";
    "NKE-IF-003" Failed "an interface is not attached, or does not have that", "it is being detached, or was never attached; or no plumber fits it", "see `nke show interfaces`";
    "NKE-IF-004" Failed "an interface cannot be like that", "the message says what is not valid", "see the message";
    "NKE-IF-005" Failed "an interface refused a request", "its driver, a protocol or a filter said no", "the message says why";
    "NKE-NET-001" Busy "a table of the IP layer is full", "the message says for what", "raise `v4_blocks` or `neighbors` of [router], or summarise routes";
    "NKE-NET-002" Failed "a route leads nowhere", "its next router is on no network of ours, or it has none", "give the interface an address on the router's network, or name `port` in the route";
    "NKE-NET-003" Failed "there is no such route", "it was removed already, or is another source's", "see `nke show routes`";
    "NKE-NET-004" Failed "the kernel's tables cannot be followed", "the message says why", "see that the network namespace is there, and that netlink is allowed";
    "NKE-RT-001" Config "the pool does not fit", "rings and caches need more frames than `pool.frames`, or the size is not possible", "raise `pool.frames`, or make rings smaller";
    "NKE-RT-002" Busy "too many requests are waiting", "the control thread has 1024 to carry out", "try again";
    "NKE-RT-003" NotRunning "the dataplane has ended", "it was stopped meanwhile", "start it again";
    "NKE-RT-004" Busy "a change was not finished in time", "a worker does not come back from a filter", "see `nke show workers`; the change goes on";
    "NKE-RT-005" Failed "a thread or file could not be made", "the system is out of something", "the message says of what";
    "NKE-LAB-001" Failed "the demo's network namespaces could not be made", "it needs root, `ip` of iproute2, and veth in the kernel", "run as root with iproute2 installed, or without --veth";
    "AFXDP-PRIVILEGE" Privilege "a capability is missing for AF_XDP", "the message names it", "run as root, or grant it";
    "AFXDP-NO-DEVICE" Device "no such device", "it is not in this network namespace", "see `ip link`";
    "AFXDP-SOCKET" Device "no AF_XDP socket can be made", "the kernel was built without CONFIG_XDP_SOCKETS", "use a kernel with it";
    "AFXDP-RINGS" Failed "the rings of a socket cannot be mapped", "they are too large for the memory there is", "use smaller rings";
    "AFXDP-RING-SIZE" Config "a ring size is not possible", "sizes are powers of two", "use a power of two";
    "AFXDP-UMEM-FRAME-SIZE" Config "a frame size is not possible", "the kernel takes 2048 and 4096", "use one of them";
    "AFXDP-UMEM-SHAPE" Config "a UMEM of this shape is not possible", "no frames, or too much headroom", "see the message";
    "AFXDP-UMEM-MEMORY" Failed "memory of the caller does not fit", "too small, or not page aligned", "see the message";
    "AFXDP-UMEM-HUGEPAGES" Failed "too few huge pages", "hugepages = \"require\", and fewer are reserved", "sysctl vm.nr_hugepages=N, or hugepages = \"auto\"";
    "AFXDP-UMEM-MAP" Failed "memory cannot be mapped", "there is not enough", "use fewer frames";
    "AFXDP-UMEM-REGISTER" Privilege "the kernel does not take the memory", "it may not be locked", "grant CAP_IPC_LOCK, or raise `ulimit -l`";
    "AFXDP-BUSY-POLL" Privilege "busy polling cannot be switched on", "it needs CAP_NET_ADMIN, and a device with NAPI ids", "leave busy_poll_us at 0";
    "AFXDP-BIND" Device "a socket cannot be bound", "the message says why", "see the message";
    "AFXDP-BIND-BUSY" Busy "the queue is in use", "another AF_XDP socket holds it", "end its owner, or use another queue";
    "AFXDP-BIND-INVALID" Device "the queue does not exist", "the device has fewer queues", "see `ethtool -l`; lower `queues`";
    "AFXDP-BIND-NO-ZEROCOPY" Device "no zero-copy", "the driver cannot", "bind = \"copy\" or \"auto\"";
    "AFXDP-BIND-UNSUPPORTED" Device "the device cannot do what was asked", "multi-buffer or busy polling", "leave them off";
    "AFXDP-BIND-DOWN" Device "the device is down", "nobody brought it up", "ip link set DEVICE up";
    "AFXDP-BIND-MEMORY" Failed "the kernel has no memory for the socket", "rings are large", "use smaller ones";
    "AFXDP-STATISTICS" Failed "statistics cannot be read", "the socket is closed", "open it again";
    "AFXDP-PROGRAM-LOAD" Device "the XDP program cannot be loaded", "the kernel refused it", "see the message; it carries the verifier's last words";
    "AFXDP-PROGRAM-MATCHES" Config "a selection is empty or too long", "1 to 64 matches", "leave `match` out to take everything";
    "AFXDP-PROGRAM-QUEUE" Config "a queue is beyond what the program was loaded for", "queues changed", "restart";
    "AFXDP-PROGRAM-INSERT" Device "a socket cannot be entered in the program's map", "see the message", "see the message";
    "AFXDP-PROGRAM-REMOVE" Device "a socket cannot be taken out of the program's map", "see the message", "see the message";
    "AFXDP-PROGRAM-COUNTERS" Failed "a program's counters cannot be read", "see the message", "see the message";
    "AFXDP-PROGRAM-RUN" Failed "a program cannot be run", "see the message", "see the message";
    "AFXDP-PROGRAM-VERIFIER" Device "the kernel's verifier refused the XDP program", "a kernel older than those it was tried on", "report it with the message, which ends with the verifier's last words";
    "AFXDP-PROGRAM-LOCALS" Failed "too many addresses for a router's program", "it knows 4096", "remove addresses";
    "AFXDP-PROGRAM-LOCAL" Privilege "addresses cannot be told to the program", "CAP_BPF was given up", "keep CAP_BPF";
    "AFXDP-PROGRAM-VLAN" Config "a VLAN id is not possible", "ids are 0 to 4095", "use one of them";
    "AFXDP-PROGRAM-SOCKET" Failed "what was entered in the program's map is no AF_XDP socket", "it is not bound, or another kind of file", "bind it first";
    "AFXDP-PROGRAM-ID" Failed "a program's number cannot be read", "see the message", "see the message";
    "AFXDP-SHORTCUT-SIZES" Config "the shortcut's tables are too small or too large", "v4_blocks from 524288 on, or neighbors above 1048576", "fewer, or shortcut = false";
    "AFXDP-SHORTCUT-DEVICE" Device "a device is not one that packets can be redirected to", "see the message", "see the message; without it packets go through workers";
    "AFXDP-SHORTCUT-WAIT" Failed "the kernel does not say when programs have ended", "see the message", "nothing: they are given a tenth of a second instead";
    "AFXDP-ATTACHED" Failed "what is attached to a device cannot be found out", "see the message", "see the message";
    "AFXDP-SOURCE-FRAME" Failed "a frame cannot be generated from", "it is too short or too long", "see the message";
    "AFXDP-SOURCE-RUN" Failed "frames cannot be generated", "see the message", "see the message";
    "AFXDP-ATTACH" Device "the XDP program cannot be attached", "see the message", "see the message";
    "AFXDP-ATTACH-BUSY" Busy "another XDP program is on the device", "another program, or another NKE", "ip link set dev DEVICE xdp off, or end its owner";
    "AFXDP-ATTACH-MTU" Device "the MTU is too large", "packets would not fit one buffer", "jumbo = true, or a lower MTU";
    "AFXDP-ATTACH-QUEUES" Device "the other end of the veth pair has more transmit queues", "native mode needs as many receive queues here", "make both ends alike";
    "AFXDP-ATTACH-UNSUPPORTED" Device "the driver cannot run XDP programs this way", "native mode on a driver without it", "xdp = \"auto\" or \"generic\"";
    "AFXDP-ATTACH-GONE" Device "the device of a link is gone", "it was deleted", "attach to the device again when it is back";
    "AFXDP-ATTACH-INVALID" Device "the program does not fit the device or the link", "see the message", "see the message";
    "AFXDP-ATTACH-DOWN" Device "the device is down", "nobody brought it up", "ip link set DEVICE up";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_everything_has_cause_and_cure() {
        let mut seen = HashSet::new();
        for e in CATALOGUE {
            assert!(seen.insert(e.id), "{} twice", e.id);
            assert!(!e.title.is_empty() && !e.cause.is_empty() && !e.cure.is_empty(), "{}", e.id);
        }
        assert!(entry("nke-cfg-001").is_some());
        assert!(entry("NKE-CFG-000").is_none());
    }

    /// Every id that the crate `af_xdp` gives out has an entry.
    #[test]
    fn ids_of_af_xdp_are_known() {
        fn ids(directory: &std::path::Path, found: &mut Vec<String>) {
            for path in std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()) {
                if path.is_dir() {
                    ids(&path, found);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let quoted = text.split('"').filter(|word| word.starts_with("AFXDP-"));
                    found.extend(quoted.map(str::to_owned));
                }
            }
        }
        let mut found = Vec::new();
        ids(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("af_xdp/src"), &mut found);
        assert!(found.len() > 20);
        for id in found {
            assert!(entry(&id).is_some(), "{id} has no entry");
        }
    }
}
