"""A flood of DNS questions, as a broken or a hostile program makes one: vpn-flood.py COUNT SERVER...

Asks COUNT different names, at any server in turn, by UDP without waiting, then some by TCP; prints how many answers came within five seconds.
"""
import socket
import struct
import sys
import time

count, servers = int(sys.argv[1]), sys.argv[2:]


def question(n):
    name = b"".join(bytes([len(label)]) + label for label in (b"flood%d" % n, b"example", b"net"))
    return struct.pack(">HHHHHH", n & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"


sockets = {socket.AF_INET: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.AF_INET6: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)}
for s in sockets.values():
    s.setblocking(False)
failed = 0
for n in range(count):
    to = servers[n % len(servers)]
    try:
        sockets[socket.AF_INET6 if ":" in to else socket.AF_INET].sendto(question(n), (to, 53))
    except OSError:
        failed += 1
for n in range(50):
    to = servers[n % len(servers)]
    s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_STREAM)
    s.setblocking(False)
    s.connect_ex((to, 53))
answers = 0
deadline = time.monotonic() + 5
while time.monotonic() < deadline:
    got = False
    for s in sockets.values():
        try:
            s.recv(4096)
            answers += 1
            got = True
        except OSError:
            pass
    if not got:
        time.sleep(0.01)
print("answers %d failed %d" % (answers, failed))
