"""What programs of a machine do that would give it away: tries every way past a VPN, twenty times a second, until it is ended.

vpn-noise.py DEVICE ROUTER4 ROUTER6 ELSEWHERE4 ELSEWHERE6

Prints "ready" when all has been tried once. What is refused is no error: that is the point. At the end (SIGTERM) it prints how many sends the
kernel took.
"""
import signal
import socket
import struct
import sys
import time

device, router4, router6, elsewhere4, elsewhere6 = sys.argv[1:]
BIND_TO_DEVICE = 25
V4, V6 = socket.AF_INET, socket.AF_INET6
index = socket.if_nametoindex(device)
taken = 0
refused = {}


def question(n):
    name = b"".join(bytes([len(label)]) + label for label in (b"noise%d" % n, b"example", b"net"))
    return struct.pack(">HHHHHH", n & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"


def attempt(what, act):
    global taken
    try:
        act()
        taken += 1
    except BlockingIOError:
        taken += 1
    except OSError as error:
        refused[what] = error.errno


def udp(family, to, port, data, bound=False, options=()):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        if bound:
            s.setsockopt(socket.SOL_SOCKET, BIND_TO_DEVICE, device.encode())
        for option in options:
            s.setsockopt(*option)
        s.sendto(data, (to, port))


opened = []


def tcp(family, to, port, bound=False):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setblocking(False)
    if bound:
        s.setsockopt(socket.SOL_SOCKET, BIND_TO_DEVICE, device.encode())
    opened.append(s)
    while len(opened) > 200:
        opened.pop(0).close()
    s.connect((to, port))


def echo(family, to, bound):
    protocol, kind = (socket.IPPROTO_ICMP, 8) if family == V4 else (socket.IPPROTO_ICMPV6, 128)
    with socket.socket(family, socket.SOCK_RAW, protocol) as s:
        if bound:
            s.setsockopt(socket.SOL_SOCKET, BIND_TO_DEVICE, device.encode())
        body = struct.pack(">BBHHH", kind, 0, 0, 7, 7) + b"noise"
        total = sum(struct.unpack(">%dH" % (len(body) // 2), body[: len(body) // 2 * 2])) + (body[-1] << 8 if len(body) % 2 else 0)
        total = (total & 0xFFFF) + (total >> 16)
        s.sendto(body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:], (to, 0))


def groups(n):
    """Joins and leaves: the kernel wants to tell the link (IGMP, MLD)."""
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + socket.inet_aton("0.0.0.0") + struct.pack("@i", index))
    with socket.socket(V6, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(V6, "ff02::fb") + struct.pack("@I", index))


def once(n):
    multicast4 = [(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("0.0.0.0") + socket.inet_aton("0.0.0.0") + struct.pack("@i", index))]
    multicast6 = [(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)]
    broadcast = [(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)]
    attempt("groups", lambda: groups(n))
    attempt("mdns4", lambda: udp(V4, "224.0.0.251", 5353, question(n), options=multicast4))
    attempt("mdns6", lambda: udp(V6, "ff02::fb", 5353, question(n), options=multicast6))
    attempt("ssdp", lambda: udp(V4, "239.255.255.250", 1900, b"M-SEARCH * HTTP/1.1\r\n\r\n", options=multicast4))
    attempt("broadcast", lambda: udp(V4, "255.255.255.255", 6667, b"noise", bound=True, options=broadcast))
    for family, router, elsewhere in ((V4, router4, elsewhere4), (V6, router6, elsewhere6)):
        for bound in (False, True):
            name = "%s%s " % ("4" if family == V4 else "6", " bound" if bound else "")
            for to in (router, elsewhere):
                attempt(name + "dns", lambda: udp(family, to, 53, question(n), bound))
                attempt(name + "udp", lambda: udp(family, to, 9999, b"noise", bound))
                attempt(name + "fragments", lambda: udp(family, to, 9998, b"n" * 4000, bound))
                attempt(name + "tcp", lambda: tcp(family, to, 443, bound))
                attempt(name + "dns by tcp", lambda: tcp(family, to, 53, bound))
                attempt(name + "echo", lambda: echo(family, to, bound))


def end(*_):
    print("taken %d refused %s" % (taken, sorted(refused.items())), flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
once(0)
print("ready", flush=True)
for n in range(1, 1_000_000):
    time.sleep(0.05)
    once(n)
