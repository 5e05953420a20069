"""Sends everything that a machine sends, by every way that a program has, over and over: block-traffic.py SECONDS|- UPLINK"""
import os, socket, struct, sys, time

seconds, uplink = sys.argv[1], sys.argv[2]
end = float('inf') if seconds == '-' else time.monotonic() + float(seconds)
V4, V6 = socket.AF_INET, socket.AF_INET6
kept = []
sent = failed = 0


def attempt(act):
    global sent, failed
    try:
        act()
        sent += 1
    except OSError:
        failed += 1


def udp(family, to, bound=None, device=None, ttl=None):
    def act():
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            if device:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            if bound:
                one.bind(bound)
            if ttl and family == V4:
                one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
                one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('11.0.0.2'))
            if ttl and family == V6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(uplink))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            one.sendto(b'stray', to)
    attempt(act)


def tcp(family, to, bound=None, device=None):
    def act():
        one = socket.socket(family, socket.SOCK_STREAM)
        one.setblocking(False)
        if device:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if bound:
            one.bind(bound)
        kept.append(one)
        if len(kept) > 64:
            kept.pop(0).close()
        if one.connect_ex(to) not in (0, 115):
            raise OSError()
    attempt(act)


def ping(family, to, device=None):
    def act():
        protocol = socket.IPPROTO_ICMP if family == V4 else socket.IPPROTO_ICMPV6
        with socket.socket(family, socket.SOCK_RAW, protocol) as one:
            if device:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            body = struct.pack('>BBHHH', 8 if family == V4 else 128, 0, 0, 1, 1)
            if family == V4:
                total = sum(struct.unpack('>4H', body[:8]))
                body = struct.pack('>BBHHH', 8, 0, ~(total + (total >> 16)) & 0xffff, 1, 1)
            one.sendto(body, (to, 0))
    attempt(act)


def other(family, to, protocol):
    def act():
        with socket.socket(family, socket.SOCK_RAW, protocol) as one:
            one.sendto(b'\x00' * 8, (to, 0))
    attempt(act)


def as_nobody(act):
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        act()
        os._exit(0)
    os.waitpid(pid, 0)


print('sending', flush=True)
turn = 0
while time.monotonic() < end:
    for family, server, guard, lan, own in ((V4, '13.0.0.5', '12.0.0.1', '192.168.7.1', '11.0.0.2'), (V6, '2001:dbb::5', '2001:dba::1', 'fd77::1', '2001:db9::2')):
        for device in (None, uplink):
            udp(family, (server, 9999), device=device)
            udp(family, (server, 53), device=device)
            udp(family, (lan, 53), device=device)
            udp(family, (lan, 853), device=device)
            udp(family, (lan, 9999), device=device)
            tcp(family, (server, 80), device=device)
            tcp(family, (lan, 80), device=device)
            tcp(family, (guard, 4461), device=device)
            ping(family, server, device)
            ping(family, lan, device)
        udp(family, (server, 9998), bound=(own, 0))
        tcp(family, (server, 81), bound=(own, 0))
        udp(family, (guard, 4460))
        tcp(family, (guard, 4460))
        ping(family, guard)
        other(family, server, 132)
        other(family, server, 41 if family == V4 else 4)
        group = ('224.0.0.251', 5353) if family == V4 else ('ff02::fb', 5353, 0, socket.if_nametoindex(uplink))
        udp(family, group, ttl=1)
        group = ('224.0.0.252', 5355) if family == V4 else ('ff02::1:3', 5355, 0, socket.if_nametoindex(uplink))
        udp(family, group, ttl=1)
    udp(V4, ('255.255.255.255', 67), device=uplink)
    udp(V4, ('11.0.0.255', 138))
    udp(V4, ('192.168.7.255', 137))
    if turn % 20 == 0:
        as_nobody(lambda: [tcp(V4, ('12.0.0.1', 4460)), tcp(V6, ('2001:dba::1', 4460))])
    turn += 1
    time.sleep(0.02)
print(f'sent {sent} refused {failed} turns {turn}', flush=True)
