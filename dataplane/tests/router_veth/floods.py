# Sends so many frames of one kind, as fast as a socket takes them; the figures as JSON. Arguments: kind, frames.
import json, random, socket, subprocess, sys, time
from scapy.all import *

kind, count = sys.argv[1], int(sys.argv[2])
conf.verb = 0
device = "l0"
here = get_if_hwaddr(device)
words = subprocess.run(["ip", "neigh", "show", "10.0.1.1", "dev", device], capture_output=True, text=True).stdout.split()
there = words[words.index("lladdr") + 1]
link = Ether(src=here, dst=there)


def somebody():
    return "10.0.1.%d" % random.randrange(3, 254)


def frame(i):
    "One of the frames."
    if kind == "fragments":
        # First fragments whose rest never comes, to the router itself.
        return link / IP(src=somebody(), dst="10.0.1.1", id=random.randrange(65536), proto=17, flags="MF") / Raw(bytes(64))
    if kind == "fragments6":
        source = "2001:db8:1::%x" % random.randrange(3, 65535)
        return link / IPv6(src=source, dst="2001:db8:1::1") / IPv6ExtHdrFragment(nh=17, id=random.getrandbits(32), m=1) / Raw(bytes(64))
    if kind == "arp":
        mac = "02:00:%02x:%02x:%02x:%02x" % tuple(random.randrange(256) for _ in range(4))
        return Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=mac, psrc=somebody(), pdst="10.0.1.1")
    if kind == "nd_sweep":
        # To hosts of a network behind the router that are not there (RFC 6583).
        target = "2001:db8:2::%x:%x" % (random.randrange(1, 65535), random.randrange(65536))
        return link / IPv6(src="2001:db8:1::2", dst=target) / UDP(sport=9, dport=9)
    if kind == "options":
        # Full of options, right and wrong, to the router and through it; some ask for an error.
        # RFC 791 section 3.1 by type: record route, loose source route, timestamp, router alert (RFC 2113), no operation.
        options = [
            b"\x07\x27\x04" + bytes(37),
            b"\x83\x27\x04" + bytes([10, 0, 1, 1] * 9) + b"\0",
            b"\x44\x28\x05\x01" + bytes(36),
            b"\x94\x04\0\0",
            b"\x01" * 40,
            b"\x07\x03\xff" + bytes(37),
            bytes(random.randrange(256) for _ in range(40)),
        ]
        chosen, payload = options[i % len(options)], bytes(24)
        words = 5 + len(chosen) // 4
        head = IP(src=somebody(), dst=random.choice(["10.0.1.1", "10.0.2.2"]), proto=17, ihl=words, len=words * 4 + len(payload))
        head = bytearray(bytes(head)[:20] + chosen)
        head[10:12] = b"\0\0"
        head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
        return bytes(link)[:12] + b"\x08\0" + bytes(head) + payload
    if kind == "headers":
        # Chains of extension headers; options nobody knows, of which some ask for an error (RFC 8200 section 4.2).
        unknown = bytes([random.choice([0x1E, 0x5E, 0x9E, 0xDE]), 4, 0, 0, 0, 0])
        first = [(0, bytes(1006)), (0, unknown), (43, b"\0\x14" + bytes(4 + 20 * 16)), (60, unknown)][i % 4]
        chain = [first] + [(60, b"\x01\x04" + bytes(4))] * random.choice([0, 1, 7, 40])
        # Next header, length in units of 8 bytes beyond the first, the rest.
        following = [kind for kind, _ in chain[1:]] + [17]
        data = b"".join(bytes([n, len(body) // 8]) + body for n, (_, body) in zip(following, chain))
        to = random.choice(["2001:db8:1::1", "2001:db8:2::2"])
        head = IPv6(src="2001:db8:1::%x" % random.randrange(3, 65535), dst=to, nh=chain[0][0], plen=len(data) + 24)
        return bytes(link)[:12] + b"\x86\xdd" + bytes(head) + data + bytes(UDP(sport=9, dport=9)) + bytes(16)
    return link / IP(src=somebody(), dst="10.0.1.1") / ICMP(id=random.randrange(65536)) / Raw(bytes(32))


# Built before they are sent: scapy is slow.
frames = [bytes(frame(i)) for i in range(2000)]
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind((device, 0))
begin = time.monotonic()
sent = 0
while sent < count:
    data = bytearray(frames[sent % len(frames)])
    if kind == "fragments":
        # Another identification each time; the header's checksum follows.
        number = sent & 0xffff
        data[18:20] = number.to_bytes(2, "big")
        data[24:26] = b"\0\0"
        data[24:26] = checksum(bytes(data[14:34])).to_bytes(2, "big")
    elif kind == "fragments6":
        data[58:62] = sent.to_bytes(4, "big")
    elif kind == "nd_sweep":
        # Another host each time; the checksum of UDP is not looked at on the way.
        data[50:54] = sent.to_bytes(4, "big")
    elif kind == "arp":
        data[8:12] = data[24:28] = sent.to_bytes(4, "big")
    try:
        out.send(data)
    except OSError:
        time.sleep(0.0001)
        continue
    sent += 1
took = time.monotonic() - begin
print(json.dumps({"frames": sent, "seconds": round(took, 2), "frames_per_second": int(sent / took)}))
