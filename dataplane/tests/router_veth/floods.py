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
