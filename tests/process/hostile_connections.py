"""Very many connections that never become anything, held open and made anew when they are cut.

    python tests/process/hostile_connections.py HOST PORT COUNT SECONDS

A part of them is silent, a part sends what nobody understands, a part begins to shake hands and stops, a part sends a
byte now and then. It prints a line once all are open, and at the end how many there were.
"""

import json
import os
import random
import resource
import selectors
import socket
import sys
import time

#: New connections in a second at most, so that the machine has processors left for those that it is about.
OPENED_PER_S = 2_500
#: Seconds between two bytes of those that dribble.
DRIBBLE_S = 1.0
#: What a peer of ZMTP 3.1 that would use CURVE says first.
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)


def first_words(kind, dice):
    if kind == 1:
        return dice.randbytes(64)
    if kind == 2:
        return GREETING
    return GREETING[:1] if kind == 3 else b""


def hold(host, port, count, seconds):
    dice = random.Random(1)
    with selectors.DefaultSelector() as selector:
        ends, since, opened, most, cut = time.monotonic() + 1e9, time.monotonic(), 0, 0, 0
        dribblers, dribbled_s = {}, time.monotonic()
        while time.monotonic() < ends:
            budget = int((time.monotonic() - since) * OPENED_PER_S) - opened
            for _ in range(min(budget, count - len(selector.get_map()), 200)):
                peer = socket.socket()
                peer.setblocking(False)
                peer.connect_ex((host, port))
                kind = opened % 4
                selector.register(peer, selectors.EVENT_WRITE, kind)
                opened += 1
            for key, events in selector.select(0.02):
                peer, kind = key.fileobj, key.data
                try:
                    if events & selectors.EVENT_WRITE:
                        peer.send(first_words(kind, dice))
                        selector.modify(peer, selectors.EVENT_READ, kind)
                        if kind == 3:
                            dribblers[peer] = 1
                        continue
                    if peer.recv(4096):
                        continue
                except OSError:
                    pass
                cut += 1
                dribblers.pop(peer, None)
                selector.unregister(peer)
                peer.close()
            if time.monotonic() - dribbled_s > DRIBBLE_S:
                dribbled_s = time.monotonic()
                for peer, sent in list(dribblers.items()):
                    try:
                        peer.send(GREETING[sent : sent + 1])
                        dribblers[peer] = sent + 1
                    except OSError:
                        dribblers.pop(peer)
            if len(selector.get_map()) > most:
                most = len(selector.get_map())
                if most == count:
                    print("all are open", flush=True)
                    ends = time.monotonic() + seconds
        print(json.dumps({"most": most, "opened": opened, "cut": cut}), flush=True)
    os._exit(0)  # the sockets go at once


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    hold(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
