"""Asks the name server of a container: `nsenter -t PID -n python dnsclient.py ADDRESS NAME COUNT AT_ONCE`.

Prints a JSON list of milliseconds, one per question, from the call that sends it to the return of the one that receives
the answer. AT_ONCE questions are under way, each from a socket of its own.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time

PATIENCE = 5.0


def query(name: str, id_: int) -> bytes:
    """Return a question for an A record."""
    labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split("."))
    return struct.pack("!6H", id_, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def ask(address: str, name: str, count: int, at_once: int) -> list[float]:
    """Return how long each of `count` questions took, in milliseconds."""
    selector = selectors.EpollSelector()
    sent: dict[socket.socket, float] = {}
    took: list[float] = []
    left = count
    for _ in range(min(at_once, count)):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect((address, 53))
        selector.register(sock, selectors.EVENT_READ)
        sent[sock] = 0.0
    for sock in sent:
        sent[sock] = time.perf_counter()
        sock.send(query(name, left & 0xFFFF))
        left -= 1
    while len(took) < count:
        ready = selector.select(PATIENCE)
        if not ready:
            raise SystemExit(f"{count - len(took)} questions for {name} were not answered")
        for key, _ in ready:
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            answer = sock.recv(4096)
            took.append((time.perf_counter() - sent[sock]) * 1e3)
            if answer[3] & 0xF or not answer[7]:
                raise SystemExit(f"no address for {name}: code {answer[3] & 0xF}")
            if left:
                sent[sock] = time.perf_counter()
                sock.send(query(name, left & 0xFFFF))
                left -= 1
    for sock in sent:
        sock.close()
    return took


def serve(address: str) -> None:
    """Answer every question at an address with 192.0.2.53, until killed: the server that others are forwarded to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        print("ready", flush=True)
        while True:
            data, client = sock.recvfrom(4096)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((192, 0, 2, 53))
            end = data.index(b"\0", 12) + 5
            sock.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:end] + record, client)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    print(json.dumps(ask(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
