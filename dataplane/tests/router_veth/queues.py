# Sends 20 echo requests in three fragments each, from the cores in turn. Argument: destination.
import os, random, subprocess, sys, time
from scapy.all import *

to = sys.argv[1]
conf.verb = 0
v6 = ":" in to
router = "2001:db8:1::1" if v6 else "10.0.1.1"
words = subprocess.run(["ip", "neigh", "show", router, "dev", "l0"], capture_output=True, text=True).stdout.split()
link = Ether(src=get_if_hwaddr("l0"), dst=words[words.index("lladdr") + 1])
source = "2001:db8:1::2" if v6 else "10.0.1.2"
payload = bytes(392)
first = random.randrange(1, 60000)
answered = set()


def fragments(number):
    "An echo request in three."
    if v6:
        whole = bytes(IPv6(bytes(IPv6(src=source, dst=to) / ICMPv6EchoRequest(id=number, data=payload))).payload)
    else:
        whole = bytes(ICMP(id=number) / payload)
    for start in range(0, len(whole), 136):
        body, more = whole[start : start + 136], start + 136 < len(whole)
        if v6:
            yield link / IPv6(src=source, dst=to) / IPv6ExtHdrFragment(nh=58, id=number, offset=start // 8, m=int(more)) / body
        else:
            yield link / IP(src=source, dst=to, id=number, proto=1, flags=int(more), frag=start // 8) / body


def heard(frame):
    kind = ICMPv6EchoReply if v6 else ICMP
    if kind in frame and (v6 or frame[ICMP].type == 0):
        answered.add(frame[kind].id)


sniffer = AsyncSniffer(iface="l0", prn=heard, store=False)
sniffer.start()
time.sleep(0.3)
socket = conf.L2socket(iface="l0")
numbers = range(first, first + 20)
for number in numbers:
    for turn, frame in enumerate(fragments(number)):
        os.sched_setaffinity(0, [turn % 2])
        socket.send(frame)
time.sleep(0.7)
sniffer.stop()
print(len(answered & set(numbers)), "of", len(numbers))
