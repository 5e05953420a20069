"""A plain hole puncher that knows nothing of Shallot: it shows what the NATs of the lab let through.

puncher.py reflect PORT                  tells whoever comes by TCP or UDP where it comes from, and keeps its connections
puncher.py PROTOCOL PORT IP REFLECTOR    asks the reflector from PORT, prints "IP PORT" as seen there, then reads one line:
    "meet IP PORT"   begins and takes in, both from PORT: TCP's simultaneous open
    "dial IP PORT"   only begins
    "wait"           only takes in whoever comes
and prints "linked" when 4000 bytes went each way, or "failed".
"""
import select
import socket
import sys
import time

PAYLOAD = b"x" * 4000
PIECE = 1000
LIMIT_S = 3.5
TRIES = 3


def stream(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("0.0.0.0", port))
    return sock


def datagram(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", port))
    return sock


def reflect(port):
    tcp, udp = stream(port), datagram(port)
    tcp.listen(512)
    print("ready", flush=True)
    kept = []
    while True:
        for sock in select.select([tcp, udp], [], [])[0]:
            if sock is tcp:
                connection, (ip, from_port) = tcp.accept()
                connection.sendall(b"%s %d\n" % (ip.encode(), from_port))
                kept.append(connection)
            else:
                _, (ip, from_port) = udp.recvfrom(64)
                udp.sendto(b"%s %d\n" % (ip.encode(), from_port), (ip, from_port))


def exchange(sock):
    """The payload each way over a connected TCP socket."""
    sock.settimeout(LIMIT_S)
    sock.sendall(PAYLOAD)
    left = len(PAYLOAD)
    while left > 0:
        piece = sock.recv(left)
        if not piece:
            return False
        left -= len(piece)
    return True


def tcp_link(listener, port, words, deadline):
    """Takes in, dials, or both from one port, as a node does; the first connection counts."""
    dialer = None
    if words[0] != "wait":
        dialer = stream(port)
        dialer.setblocking(False)
        try:
            dialer.connect((words[1], int(words[2])))
        except BlockingIOError:
            pass
        except OSError:
            dialer = None  # The other side's connection has the pair of ports already: the listener has it.
    while time.monotonic() < deadline:
        reading = [listener] if words[0] != "dial" else []
        writing = [dialer] if dialer else []
        readable, writable, _ = select.select(reading, writing, [], max(0.0, deadline - time.monotonic()))
        if readable:
            return exchange(listener.accept()[0])
        if writable:
            if dialer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                return exchange(dialer)
            dialer.close()
            dialer = None
    return False


def udp_link(sock, words, deadline):
    target = (words[1], int(words[2])) if words[0] != "wait" else None
    got, heard = 0, False
    while time.monotonic() < deadline:
        if target is not None:
            # The first byte says whether the other was heard.
            sock.sendto((b"y" if heard else b"n") + b"x" * (PIECE - 1), target)
        sock.settimeout(0.05)
        try:
            data, source = sock.recvfrom(2 * PIECE)
        except OSError:
            continue
        if len(data) < PIECE:
            continue
        target, heard = source, True
        got += len(data)
        if got >= len(PAYLOAD) and data[:1] == b"y":
            for _ in range(TRIES):
                sock.sendto(b"y" + b"x" * (PIECE - 1), target)
            return True
    return False


def main():
    if sys.argv[1] == "reflect":
        reflect(int(sys.argv[2]))
    protocol, port, reflector = sys.argv[1], int(sys.argv[2]), (sys.argv[3], int(sys.argv[4]))
    if protocol == "tcp":
        # Before anybody knows of the port: a port that refuses would end the other's attempt.
        listener = stream(port)
        listener.listen(8)
        sock = stream(port)
        sock.settimeout(LIMIT_S)
        sock.connect(reflector)
        print(sock.recv(64).decode().strip(), flush=True)
    else:
        sock = datagram(port)
        sock.settimeout(LIMIT_S)
        sock.sendto(b"?", reflector)
        print(sock.recv(64).decode().strip(), flush=True)
    words = sys.stdin.readline().split()
    deadline = time.monotonic() + LIMIT_S
    try:
        linked = tcp_link(listener, port, words, deadline) if protocol == "tcp" else udp_link(sock, words, deadline)
    except OSError:
        linked = False
    print("linked" if linked else "failed", flush=True)
    sys.stdin.readline()


main()
