# Sends an echo request in fragments for each case; which were answered, as JSON. Argument: destination.
import json, random, subprocess, sys, time
from scapy.all import *

to = sys.argv[1]
conf.verb = 0
v6 = ":" in to
device = "l0"
router = "2001:db8:1::1" if v6 else "10.0.1.1"
words = subprocess.run(["ip", "neigh", "show", router, "dev", device], capture_output=True, text=True).stdout.split()
mac = words[words.index("lladdr") + 1]
link = Ether(src=get_if_hwaddr(device), dst=mac)
source = "2001:db8:1::2" if v6 else "10.0.1.2"
payload = bytes(i & 0xff for i in range(392))


def datagram(number):
    "The 400 bytes behind the IP header of an echo request with this identifier."
    if v6:
        whole = IPv6(bytes(IPv6(src=source, dst=to) / ICMPv6EchoRequest(id=number, data=payload)))
        return bytes(whole.payload)
    return bytes(ICMP(id=number) / payload)


def fragment(data, number, start, end, more=None):
    "Bytes start..end of the datagram."
    more = (end < len(data)) if more is None else more
    body = data[start:end] if end <= len(data) else bytes(end - start)
    if v6:
        return link / IPv6(src=source, dst=to) / IPv6ExtHdrFragment(nh=58, id=number, offset=start // 8, m=int(more)) / Raw(body)
    return link / IP(src=source, dst=to, id=number, proto=1, flags="MF" if more else 0, frag=start // 8) / Raw(body)


CASES = {
    "in_order": [(0, 200), (200, 400)],
    "out_of_order": [(320, 400), (0, 80), (160, 240), (80, 160), (240, 320)],
    "tiny": [(i, i + 8) for i in range(0, 400, 8)],
    "duplicate": [(0, 200), (0, 200), (200, 400)],
    "overlap_tail": [(0, 208), (200, 400)],
    "overlap_head": [(200, 400), (0, 208)],
    "overlap_inside": [(0, 200), (80, 88), (200, 400)],
    "hole": [(0, 160), (240, 400)],
    "beyond_65535": [(0, 200), (65528, 65560, False)],
}
first = random.randrange(1, 60000)
numbers = {name: first + i for i, name in enumerate(CASES)}
answered = set()


def heard(frame):
    kind = ICMPv6EchoReply if v6 else ICMP
    if kind in frame and (v6 or frame[ICMP].type == 0):
        answered.add(frame[kind].id)


sniffer = AsyncSniffer(iface=device, prn=heard, store=False, started_callback=lambda: None)
sniffer.start()
time.sleep(0.3)
for name, pieces in CASES.items():
    data = datagram(numbers[name])
    sendp([fragment(data, numbers[name], *piece) for piece in pieces], iface=device)
time.sleep(0.7)
sniffer.stop()
print(json.dumps({name: number in answered for name, number in numbers.items()}))
